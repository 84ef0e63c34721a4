"""Networks of the zoo: packed, read back, and what their cards say is so."""

import json

import jax
import numpy as np
import pytest

import advfeat
from advfeat import data, zoo
from advfeat.runs.checkpoints import load_network
from advfeat.runs.config import UsageError
from experiments.pack import flags as pack_flags, work as pack_work
from experiments.train import flags as train_flags, work as train_work


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("zoo") / "run"
    config = train_flags.Config(
        workdir=str(workdir),
        model="resnet9",
        width=4,
        epochs=1,
        eval_examples=20,
        eval_steps=1,
        eps_grid=(0.0,),
    )
    train_work.run(config)
    return workdir


@pytest.mark.slow
def test_a_packed_network_is_the_trained_one_in_half_precision(trained, tmp_path):
    config = pack_flags.Config(run=str(trained), name="tiny", folder=str(tmp_path))
    about = pack_work.run(config)
    original = load_network(str(trained))
    with np.load(tmp_path / "tiny.npz", allow_pickle=False) as arrays:
        kinds = {key.split("/")[0]: arrays[key].dtype for key in arrays.files}
    assert kinds == {"params": np.float16, "batch_stats": np.float32}
    saved = json.loads((tmp_path / "tiny.json").read_text())
    assert saved["spec"]["model"] == "resnet9"
    assert saved["command"] == about["command"]
    assert "--workdir=runs/tiny" in saved["command"]
    assert "--model=resnet9" in saved["command"]
    test = data.load("digits").test
    accuracy = advfeat.correct(original.model_fn(), data.unit(test.image), test.label).mean()
    assert saved["numbers"]["packed_accuracy"]["mean"] == pytest.approx(accuracy, abs=0.01)


@pytest.mark.slow
def test_what_was_packed_is_read_back(trained, tmp_path, monkeypatch):
    pack_work.run(pack_flags.Config(run=str(trained), name="tiny", folder=str(tmp_path)))
    monkeypatch.setattr(zoo, "_shelf", lambda: tmp_path)
    assert zoo.names() == ("tiny",)
    found, original = load_network("zoo:tiny"), load_network(str(trained))
    assert found.spec == original.spec
    assert found.record["command"].startswith("python -m experiments.train")
    x = data.unit(data.load("digits").test.image[:50])
    mine, theirs = (advfeat.predict(each.model_fn(), x) for each in (found, original))
    np.testing.assert_allclose(mine, theirs, atol=0.02 * np.abs(theirs).max())
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found.variables))
    with pytest.raises(ValueError, match="the zoo holds tiny; not 'huge'"):
        zoo.load("huge")


def test_a_damaged_network_of_the_zoo_is_refused(tmp_path, monkeypatch):
    shelf, name = zoo._shelf(), "digits_standard"
    whole, card = ((shelf / f"{name}.{end}").read_bytes() for end in ("npz", "json"))
    arrays, about = tmp_path / f"{name}.npz", tmp_path / f"{name}.json"
    monkeypatch.setattr(zoo, "_shelf", lambda: tmp_path)
    arrays.write_bytes(whole)
    about.write_bytes(card)
    original = jax.tree.leaves(zoo.load(name).variables)
    refusals = []
    for place in np.random.default_rng(0).integers(len(whole), size=12):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        arrays.write_bytes(damaged)
        try:
            found = zoo.load(name)
        except ValueError as error:
            refusals.append(str(error))
        else:  # a byte of the archive that carries nothing
            assert all(map(np.array_equal, original, jax.tree.leaves(found.variables)))
    assert all(text.startswith("checkpoint zoo:digits_standard") for text in refusals)
    # An archive that is whole, of other weights: what no format notices.
    with np.load(shelf / f"{name}.npz") as packed:
        others = {key: packed[key] for key in packed.files}
    key = next(iter(others))
    others[key] = others[key] + np.asarray(1, others[key].dtype)
    np.savez_compressed(arrays, **others)
    with pytest.raises(ValueError, match="checkpoint zoo:digits_standard is damaged"):
        zoo.load(name)
    arrays.write_bytes(whole)
    for text in (
        card.replace(b'"model": "cnn"', b'"model": "mlp"'),
        b"{",
        b"[]",
        card.replace(b'"sha256"', b'"sha255"'),
    ):
        about.write_bytes(text)
        with pytest.raises(ValueError, match="checkpoint zoo:digits_standard"):
            zoo.load(name)


@pytest.mark.slow_for("cifar10_l2_robust", "digits_l2_robust", "mnist_linf_robust")
@pytest.mark.parametrize("name", zoo.names())
def test_every_card_is_whole(name):
    about = zoo.card(name)
    assert about["command"].startswith("python -m experiments.train --workdir=runs/")
    assert 0 < about["numbers"]["packed_accuracy"]["mean"] <= 1
    network = zoo.load(name)
    x = np.zeros(network.spec.input_shape, np.float32)
    logits = network.model_fn()(x)
    assert logits.shape == (len(network.spec.class_names),)
    assert np.isfinite(np.asarray(logits)).all()


def test_the_zoo_is_small():
    sizes = [len((zoo._shelf() / f"{name}.npz").read_bytes()) for name in zoo.names()]
    assert sum(sizes) < 12e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": ""}, "flag --run is missing"),
        ({"name": ""}, "flag --name is missing"),
        ({"run": "nowhere"}, "cannot be read: is the run finished"),
        ({"name": "a b"}, "name must be letters, digits and underscores"),
    ],
)
def test_what_cannot_be_packed_is_one_line(trained, tmp_path, change, message):
    options = {"run": str(trained), "name": "tiny", "folder": str(tmp_path), **change}
    with pytest.raises(UsageError, match=message):
        pack_work.run(pack_flags.Config(**options))
    assert not list(tmp_path.iterdir())
