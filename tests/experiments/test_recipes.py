"""What the flags of `experiments.train` come to, and which of them are refused."""

import dataclasses

import jax
import numpy as np
import pytest

import advfeat
from advfeat import models, training
from advfeat.data import Split
from advfeat.models.network import Network, NetworkSpec
from advfeat.runs import checkpoints, runner
from advfeat.runs.directory import RunDirectory
from advfeat.training.procedures.averaging import Ema, Swa
from advfeat.training.procedures.free import Free
from advfeat.training.procedures.weight_perturbation import WeightPerturbation
from experiments.shared import networks, presets, recipes
from experiments.shared.flags import choices
from experiments.train import flags as train_flags, plan as train_plan, work as train_work

KEY = jax.random.key(0)


def plan(tmp_path, **options):
    config = train_flags.Config(workdir=str(tmp_path / "run"), train_examples=300, **options)
    config.validate()
    return train_plan.prepare(config)


@pytest.mark.parametrize("objective", choices.OBJECTIVES)
def test_every_objective_has_a_recipe(tmp_path, objective):
    eps = None if objective == "standard" else 0.5
    recipe = plan(tmp_path, objective=objective, eps=eps, model="linear").recipe
    loss_fn, procedure = recipe.loss_fn(), recipe.procedure()
    procedure.check(loss_fn)
    kinds = {"standard": "Standard", "free": "Standard", "fast": "Adversarial"}
    assert type(loss_fn).__name__ == kinds.get(objective, objective.capitalize())
    if objective == "standard":
        assert recipe.threat is None
        assert recipe.selection is None
        return
    threat = getattr(loss_fn, "attack", procedure).threat
    assert (threat.norm.name, float(threat.eps)) == ("l2", 0.5)
    steps, size = {
        "adversarial": (7, 0.1),
        "trades": (7, 0.1),
        "mart": (7, 0.1),
        "mixed": (1, 0.5),
        "fast": (1, 0.625),
        "free": (None, 0.5),
    }[objective]
    found = getattr(loss_fn, "attack", procedure)
    assert getattr(found, "steps", None) == steps
    assert float(found.step_size) == pytest.approx(size)
    one_step = objective in ("mixed", "fast", "free")
    assert recipe.selection.max_drop == (0.2 if one_step else None)
    if objective == "mixed":
        assert not found.random_start
    assert recipe.record()["objective"] == objective


def test_a_record_holds_the_eps_that_was_asked_for(tmp_path):
    recipe = plan(tmp_path, objective="adversarial", eps=0.1, model="linear").recipe
    assert recipe.record()["threat"] == {"norm": "l2", "eps": 0.1}  # not 0.10000000149


def test_numbers_reach_their_objective(tmp_path):
    common = {"eps": 0.5, "model": "linear"}

    def loss_fn(**options):
        return plan(tmp_path, **common, **options).recipe.loss_fn()

    assert float(loss_fn(objective="mixed", alpha=0.25).alpha) == 0.25
    assert float(loss_fn(objective="trades", beta=3.0).beta) == 3.0
    assert float(loss_fn(objective="mart").beta) == 6.0
    assert float(loss_fn(objective="fast", grad_align=0.5).grad_align) == 0.5
    assert loss_fn(objective="trades", label_smoothing=0.1).loss == advfeat.label_smoothing(0.1)
    assert loss_fn(objective="adversarial", attack_steps=3, attack_step_size=0.4).attack.steps == 3


def test_options_of_the_step(tmp_path):
    common = {"objective": "adversarial", "eps": 0.5, "model": "linear", "batch_size": 64}
    recipe = plan(tmp_path, **common, awp=0.01, ema=0.9, accumulate=4, eps_warmup=0.25).recipe
    procedure = recipe.procedure()
    assert isinstance(procedure, Ema)
    assert isinstance(procedure.inner, WeightPerturbation)
    assert procedure.inner.accumulate == 4
    assert float(procedure.inner.warmup) == pytest.approx(recipes.AWP_WARMUP)
    assert recipe.config.eps_warmup == 0.25
    swa = plan(tmp_path, **common, swa=0.5).recipe.procedure()
    assert isinstance(swa, Swa)
    assert float(swa.start) == 0.5
    kept = recipe.record()
    assert (kept["awp"], kept["ema"], kept["training"]["eps_warmup"]) == (0.01, 0.9, 0.25)
    chosen = plan(tmp_path, **common, select="best", patience=3, max_drop=0.3).recipe.selection
    assert (chosen.select, chosen.patience, chosen.max_drop) == ("best", 3, 0.3)


def test_the_presets_warm_up_is_for_networks_that_have_learned_nothing(
    given, tmp_path, monkeypatch
):
    preset = dataclasses.replace(presets.DIGITS, robust_warmup=0.4)
    monkeypatch.setattr(train_plan, "preset_for", lambda _: preset)
    common = {"objective": "adversarial", "eps": 0.5}

    def warmup(**options):
        return plan(tmp_path, **common, **options).recipe.config.eps_warmup

    assert warmup() == 0.4
    assert warmup(eps_warmup=0.0) == 0.0
    assert warmup(eps_warmup=0.1) == 0.1
    assert warmup(start=given[0]) == 0.0
    assert plan(tmp_path).recipe.config.eps_warmup == 0.0  # standard training
    assert presets.MNIST.robust_warmup > 0


def test_the_epochs_of_free_training_are_divided_by_its_replays(tmp_path):
    found = plan(tmp_path, objective="free", eps=0.5, model="linear", epochs=24, replays=6)
    assert found.recipe.config.epochs == 4
    assert isinstance(found.recipe.procedure(), Free)
    assert found.recipe.procedure().replays == 6
    assert found.notes == ("24 epochs in 4 passes over the data of 6 replays",)


@pytest.mark.parametrize("objective", ["adversarial", "free", "mart"])
def test_eps_zero_is_standard_training_and_says_so(tmp_path, objective):
    found = plan(tmp_path, objective=objective, eps=0.0, model="linear", select="best")
    standard = plan(tmp_path, model="linear", eps=0.0)
    assert found.notes == (
        f"eps 0 leaves nothing to attack: {objective} is standard training here",
    )
    assert found.recipe == standard.recipe


def test_a_standard_network_is_measured_over_a_grid_without_eps(tmp_path):
    found = plan(tmp_path, norm="linf", eps_grid=(0.1, 0.3), model="linear")
    assert (found.eps, found.recipe.threat) == (0.3, None)
    assert 0.1 in found.eps_grid


REFUSED = {
    "--replays=4": "has no meaning for --objective=trades, only for free",
    "--alpha=0.5": "has no meaning for --objective=trades, only for mixed",
    "--grad_align=0.5": "has no meaning for --objective=trades, only for fast",
    "--objective=free --awp=0.01": "has no meaning for --objective=free",
    "--objective=free --attack_steps=2": "has no meaning for --objective=free",
    "--objective=free --replays=0": "flag --replays=0: must be a whole number >= 1",
    "--objective=fast --attack_steps=2": "has no meaning for --objective=fast",
    "--objective=mart --label_smoothing=0.1": "has no meaning for --objective=mart",
    "--objective=standard --beta=1": "has no meaning for --objective=standard",
    "--objective=standard --select=best": "has no meaning for --objective=standard",
    "--objective=standard --eps_warmup=0.5": "has no meaning for --objective=standard",
    "--objective=mixed --alpha=1.5": "flag --alpha=1.5: must be a number from 0 to 1",
    "--beta=-1": "flag --beta=-1: must be a finite number >= 0",
    "--ema=1": "flag --ema=1.0: must be below 1",
    "--swa=0.5 --ema=0.9": "the weights are averaged once",
    "--label_smoothing=1": "flag --label_smoothing=1.0: must be below 1",
    "--patience=3": "flag --patience=3: needs --select=best",
    "--accumulate=0": "flag --accumulate=0: must be a whole number >= 1",
    "--accumulate=7": "flag --accumulate=7: does not divide the batch of 64",
    "--eps=inf": "must be finite for adversarial training",
    "--norm=linf": "flag --norm=linf: give --eps with it",
    "--objective=standard --norm=linf": "give --eps or --eps_grid with it",
    "--start=/nowhere": "there is no directory /nowhere",
    "--start=/nowhere --width=3": "flag --width=3: --start brings its own",
    "--schedule=warm": "must be one of constant, cosine, onecycle, multistep",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_flags_without_a_meaning_are_refused_in_one_line(tmp_path, capsys, flags):
    words = flags.split()
    if not flags.startswith("--objective"):
        words.insert(0, "--objective=trades")
    with pytest.raises(SystemExit) as end:
        runner.main(
            train_work.run, train_flags.Config, None, [f"--workdir={tmp_path / 'run'}", *words]
        )
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert REFUSED[flags] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


# --- Fine-tuning. ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A network of ten digits, as a run would have left it."""
    path = tmp_path_factory.mktemp("given")
    spec = NetworkSpec(
        model="mlp",
        class_names=tuple("0123456789"),
        input_shape=(8, 8, 1),
        mean=(0.3,),
        std=(0.4,),
        width=6,
        options={"depth": 1},
    )
    network = Network(spec, models.init(KEY, spec.build(), spec.input_shape), {"was": "here"})
    checkpoints.save_network(path / "networks" / "model", network)
    return str(path), network


@pytest.mark.slow
def test_fine_tuning_begins_with_the_given_weights(given, tmp_path):
    path, network = given
    found = plan(tmp_path, start=path, learning_rate=1e-9, epochs=1)
    assert found.recipe.spec == network.spec
    assert found.notes == (f"training begins with the weights of {path}",)
    with RunDirectory.open(tmp_path / "run", {}, name="test", overwrite=False) as run:
        some = Split(found.train.image[:64], found.train.label[:64], found.train.id[:64])
        tuned = networks.train(run, "model", KEY, found.recipe, some, advance=lambda count: None)
    for a, b in zip(
        jax.tree.leaves(tuned.variables), jax.tree.leaves(network.variables), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert tuned.record["start"] == {"checkpoint": path, "was": "here"}


def test_other_classes_make_the_classifier_anew(given, tmp_path):
    path, network = given
    found = plan(tmp_path, start=path, classes=("3", "5"))
    assert "its classifier is replaced: it knows 10 classes, the data set has 2" in found.notes
    params = found.recipe.variables(jax.random.key(5))["params"]
    assert params["classifier"]["kernel"].shape == (6, 2)
    np.testing.assert_array_equal(
        params["dense1"]["kernel"], network.variables["params"]["dense1"]["kernel"]
    )
    assert found.recipe.spec.class_names == ("3", "5")
    assert found.recipe.spec.mean == (0.3,)  # the pixel statistics that the weights know


def test_other_images_are_refused(tmp_path):
    spec = NetworkSpec(model="linear", class_names=("a", "b"), input_shape=(4, 4, 1))
    network = Network(spec, models.init(KEY, spec.build(), spec.input_shape), {})
    checkpoints.save_network(tmp_path / "networks" / "model", network)
    with pytest.raises(ValueError, match=r"takes images of \(4, 4, 1\), the data set's are \(8, "):
        plan(tmp_path, start=str(tmp_path))


def test_the_face_has_the_robust_objective():
    assert advfeat.adversarial is training.adversarial
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = advfeat.nothing
