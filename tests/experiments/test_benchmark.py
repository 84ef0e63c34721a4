"""`experiments.benchmark`: what it measures, whom it believes, and what it does without peers."""

from __future__ import annotations

import importlib.util
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import ESTIMATE

import advfeat
from advfeat import models
from advfeat.models.network import Network, NetworkSpec
from advfeat.runs.config import UsageError, parse
from experiments.benchmark import (
    check,
    flags,
    growth,
    limits,
    measure,
    ours,
    peers,
    plan as plans,
    summary as summaries,
    timing,
    work as works,
)
from experiments.benchmark.plan import Work
from experiments.benchmark.timing import Contender

SHAPE, CLASSES = (6, 6, 3), 4


def config_of(*arguments):
    return parse(flags.Config, ["--workdir=w", *arguments])


def network_of(name, shape=SHAPE, width=4, seed=0, **options):
    spec = NetworkSpec(
        model=name,
        class_names=tuple("abcdefghij"[:CLASSES]),
        input_shape=shape,
        width=width,
        mean=(0.4, 0.5, 0.6)[: shape[-1]],
        std=(0.2, 0.3, 0.25)[: shape[-1]],
        options=options,
    )
    variables = models.init(jax.random.key(seed), spec.build(), shape)
    # Statistics that are no identity, so that a forgotten one shows.
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(lambda a: a + 0.1 * rng.random(a.shape).astype(np.float32), variables)
    return Network(spec, variables, {})


def plan_of(*chosen, network=None, images=8):
    rng = np.random.default_rng(0)
    return plans.Plan(
        works=list(chosen),
        networks={"cnn": network or network_of("cnn")},
        threats={"linf": advfeat.linf(8 / 255), "l2": advfeat.l2(0.5)},
        images=rng.random((images, *SHAPE)).astype(np.float32),
        labels=np.arange(images) % CLASSES,
        growth={},
    )


# --- What is measured. ----------------------------------------------------------------------------


def test_works_have_names_and_the_full_tier_has_all_of_them():
    small = [work.name for work in plans.works_of(config_of())]
    full = [work.name for work in plans.works_of(config_of("--full"))]
    for names in (small, full):
        assert len(set(names)) == len(names)
        assert {"pgd10_l2_resnet9_b128", "pgd10_linf_cnn_b512", "startup10_linf_cnn_b16"} <= set(
            names
        )
    for steps in (10, 100):
        for norm in ("l2", "linf"):
            for network in flags.NETWORKS:
                for batch in (1, 16, 128, 512):
                    assert f"pgd{steps}_{norm}_{network}_b{batch}" in full
    for family in flags.FAMILIES:
        assert family == "growth" or any(name.startswith(family) for name in full), family
    assert "standard_l2_resnet9_n100" in full
    assert not any(name.startswith("standard") for name in small)


def test_a_gpu_gets_larger_works():
    batches = [w.batch for w in plans.works_of(config_of(), "gpu") if w.family == "pgd"]
    assert min(batches) >= 512
    full = plans.works_of(config_of("--full"), "gpu")
    assert max(work.batch for work in full) == 4096
    assert "devices" not in plans.growth_of(config_of(), "gpu")


def test_flags_choose_works():
    config = config_of("--works=pgd", "--networks=resnet18", "--norms=l2", "--batches=3")
    assert [work.name for work in plans.works_of(config)] == ["pgd10_l2_resnet18_b3"]
    assert plans.growth_of(config, "cpu") == {}
    standard = plans.works_of(config_of("--works=standard", "--examples=7"))
    assert [work.name for work in standard] == ["standard_l2_cnn_n7"]
    own = plans.works_of(config_of("--full"), own="wrn_16_4")
    assert {work.network for work in own} == {"wrn_16_4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--works=pdg"], "--works=pdg: must be a list with commas, each one of pgd, apgd"),
        (["--rounds=0"], "--rounds=0: must be a whole number >= 1"),
        (["--eps_l2=inf"], "--eps_l2=inf: must be a finite number > 0"),
        (["--eps_linf=0"], "--eps_linf=0: must be a finite number > 0"),
        (["--classes=cat,dog"], "--classes: the sample images are taken as they are"),
        (["--autoattack=somewhere"], "--autoattack: needs --peers"),
        (["--peers", "--autoattack=nowhere"], "--autoattack=nowhere: must be a clone of"),
        (["--checkpoint=a", "--networks=cnn"], "--networks: must not be given with --checkpoint"),
        (["--precision=float16"], "--precision=float16: must be one of float32, tf32, bfloat16"),
    ],
)
def test_bad_flags_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        config_of(*arguments)


def test_what_the_machine_or_the_data_cannot_do_is_refused():
    with pytest.raises(ValueError, match="--precision=tf32: this machine has no GPU"):
        plans.prepare(config_of("--precision=tf32"))
    with pytest.raises(ValueError, match=r"--checkpoint=zoo:digits_standard: takes images of"):
        plans.prepare(config_of("--checkpoint=zoo:digits_standard"))


def test_a_network_of_the_user_is_measured_on_its_data():
    config = config_of("--checkpoint=zoo:digits_standard", "--dataset=digits", "--works=pgd,growth")
    prepared = plans.prepare(config)
    assert set(prepared.networks) == {"cnn"}
    assert prepared.networks["cnn"].spec.input_shape == prepared.images.shape[1:] == (8, 8, 1)


# --- What the machine can do, and what a network asks of it. --------------------------------------


def test_arithmetic_is_that_of_closed_forms():
    height, width, channels = SHAPE
    linear = limits.forward_flops(network_of("linear"))
    pixels = height * width * channels
    # Multiplications and additions; the rest is what goes over pixels and logits once.
    assert 0 <= linear - 2 * pixels * CLASSES <= 3 * pixels + 2 * CLASSES

    wide, size, shape = 4, 3, (8, 8, 1)
    found = limits.forward_flops(network_of("cnn", shape, wide))

    def taps(length, stride):
        """Of a side: places of the kernel that see a pixel, over all places of the output."""
        out = -(-length // stride)
        low = max((out - 1) * stride + size - length, 0) // 2
        return sum(
            0 <= stride * place - low + k < length for place in range(out) for k in range(size)
        )

    def padded(length, stride):
        return size * -(-length // stride)

    ends = []
    for count in (taps, padded):  # one channel is convolved as a product, its padding with it
        total = 2 * wide * count(8, 1) ** 2
        total += 2 * wide * 2 * wide * taps(8, 2) ** 2
        total += 2 * 2 * wide * 4 * wide * taps(4, 2) ** 2
        total += 2 * (2 * 2 * 4 * wide) * 8 * wide + 2 * 8 * wide * CLASSES
        ends.append(total)
    single = 64 * (2 + 3 * wide) + 16 * 3 * 2 * wide + 4 * 3 * 4 * wide + 3 * 8 * wide + 2 * CLASSES
    assert ends[0] <= found <= ends[1] + single


def test_passes_and_shares():
    machine = {
        "networks": np.array(["cnn"]),
        "forward_flops": np.array([1e6]),
        "jax_flops_per_second": np.array(1e9),
        "torch_flops_per_second": np.array(math.nan),
    }
    pgd = Work("pgd", "cnn", "linf", 10, 16, 16)
    assert pgd.passes == 20
    assert Work("train", "cnn", "linf", 7, 256, 128).passes == 17
    # Two contenders, three rounds; the second always takes twice as long.
    seconds = np.array([[0.5, 0.8, 0.64], [1.0, 1.6, 1.28]])
    found = measure.Measured(
        names=("advfeat", "torch"),
        first=np.array([2.0, 1.0]),
        memory=np.array([math.nan, 1024.0]),
        seconds=seconds,
        passes=16 * 20.0,
        values=np.array([1.0, 1.01]),
        differing=np.full(2, np.nan),
        left_out={"art": "not installed"},
    )
    told = summaries.of_work(pgd, measure.Measured.read(found.arrays()), machine)
    assert told["ratio"]["torch"].mean == 2
    assert told["ratio_with_compilation"] == {"torch": 0.5}
    assert told["share_of_limit"] == pytest.approx(16 * 20 * 1e6 / 0.64 / 1e9)
    assert told["contenders"]["advfeat"]["image_steps_per_second"] == pytest.approx(160 / 0.64)
    assert told["contenders"]["advfeat"]["compile_seconds"] == pytest.approx(2.0 - 0.64)
    assert told["contenders"]["torch"]["peak_memory_bytes"] == 1024
    assert told["left_out"] == {"art": "not installed"}
    config = config_of("--longest=2")
    assert summaries.too_long(pgd, machine, config, share=0.3) == ""
    large = Work("pgd", "cnn", "linf", 100, 16, 16)
    assert "about 11 s (--longest=2)" in summaries.too_long(large, machine, config, share=0.3)


# --- Time. ----------------------------------------------------------------------------------------


def test_contenders_take_turns_in_alternating_order_until_the_budget_ends():
    calls = []
    contenders = [Contender(name, lambda name=name: calls.append(name)) for name in "abc"]
    seconds = timing.in_turns(contenders, [1.0] * 3, rounds=4, budget=1e9)
    assert "".join(calls) == "abccbaabccba"
    assert seconds.shape == (3, 4)
    assert timing.in_turns(contenders, [1.0] * 3, rounds=9, budget=0.0).shape == (3, 3)


def test_short_calls_are_repeated_within_a_turn():
    calls = []
    timing.in_turns([Contender("a", lambda: calls.append(1))], [0.03], rounds=1, budget=1e9)
    assert len(calls) == 4


@pytest.mark.parametrize("rounds", [5, 6, 7, 12, 25])
def test_the_interval_of_a_median_holds_it(rounds):
    rng = np.random.default_rng(0)
    draws = np.exp(rng.normal(size=(2000, rounds)))  # its median is 1
    found = [timing.median(each) for each in draws]
    if rounds < 6:
        assert not any(each.known for each in found)
        return
    covered = np.mean([each.low <= 1 <= each.high for each in found])
    assert covered >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux keeps it")
def test_peak_memory_is_what_a_call_held():
    def call():
        np.ones(2**24).sum()

    found, _ = timing.PeakMemory.of(call)
    assert 0.8 * 8 * 2**24 < found < 1.5 * 8 * 2**24


# --- Results before speed. ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    work = Work("pgd", "cnn", "linf", 3, 8, 8)
    plan = plan_of(work)
    return work, plan, measure.judge_of(work, plan), ours.contender(work, plan, 0)


def contest(case, *others):
    work, _, judge, mine = case
    return measure.contest(work, judge, [mine, *others], {}, rounds=2, budget=1.0)


def returning(name, points):
    return Contender(name, lambda: points, lambda found: check.Outcome(points=found))


def test_a_peer_that_did_not_do_the_work_has_no_time(case):
    _, plan, _, mine = case
    good = mine.found(mine.call()).points
    assert np.isfinite(good).all()

    def raising():
        raise RuntimeError("no kernel\nimage")

    found = contest(
        case,
        returning("honest", good),
        returning("lazy", plan.images),
        returning("far", np.clip(plan.images + 0.2, 0, 1)),
        returning("nothing", None),
        Contender("broken", raising),
    )
    assert found.names == ("advfeat", "honest")
    assert found.seconds.shape == (2, 2)
    assert found.passes == 8 * 6
    assert found.values[1] == pytest.approx(found.values[0])
    assert "not the same result: its added loss" in found.left_out["lazy"]
    assert "not the same result: its points lie 0.2 away" in found.left_out["far"]
    assert found.left_out["broken"] == "failed: RuntimeError: no kernel image"
    assert found.left_out["nothing"].startswith("failed: ValueError: it returned nothing")


def test_our_own_failure_is_no_line_of_a_report(case):
    work, _, judge, _ = case

    def raising():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        measure.contest(work, judge, [Contender("advfeat", raising)], {}, rounds=1, budget=1.0)


@pytest.mark.parametrize(
    ("family", "good", "bad", "message"),
    [
        ("train", {"loss": 1.05}, {"loss": 1.2}, "its mean loss is 1.2, ours 1"),
        ("smoothgrad", {"maps": 0.1}, {"maps": 3.0}, "its maps have a cosine of"),
    ],
)
def test_each_family_has_its_own_comparison(case, family, good, bad, message):
    _, plan, judge, _ = case
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, *plan.images.shape))

    def outcome(loss=None, maps=0.0):
        seen = plan.images + maps * noise[0] if family == "smoothgrad" else None
        again = plan.images + 0.1 * noise[1] if family == "smoothgrad" else None
        return check.Outcome(loss=loss, maps=seen, again=again)

    mine = outcome(**({"loss": 1.0} if family == "train" else {}))
    assert judge.compare(family, mine, outcome(**good)).wrong == ""
    assert message in judge.compare(family, mine, outcome(**bad)).wrong


def test_verdicts_are_compared_image_by_image():
    work = Work("apgd", "cnn", "linf", 3, 8, 8)
    plan = plan_of(work, network=network_of("linear"))
    fn = plan.networks["cnn"].model_fn()
    labels = advfeat.predict(fn, plan.images).argmax(1)
    judge = check.Judge(
        model_fn=fn, images=plan.images, labels=labels, threat=advfeat.linf(jnp.inf)
    )
    order = np.argsort(labels, kind="stable")[::-1]
    turned = plan.images[order]
    differing = int(np.sum(labels[order] != labels))
    assert differing > 2
    clean, moved = check.Outcome(points=plan.images), check.Outcome(points=turned)
    found = judge.compare("apgd", clean, moved)
    assert found.differing == differing
    assert "% of the images stand, with ours 100.0 %" in found.wrong
    assert judge.compare("apgd", moved, moved) == (found.value, 0, "")


def test_logits_that_differ_are_named():
    logits = np.array([[1.0, -2.0]])
    assert check.same_logits(logits, logits + 1e-5) == ""
    assert check.same_logits(logits, logits + 1e-2) == (
        "its logits differ by 5.0e-03 of the largest (allowed: 1e-04)"
    )
    assert check.same_logits(logits, logits + 1e-2, "bfloat16") == ""


# --- Peers that are not there. --------------------------------------------------------------------


def test_a_peer_that_is_missing_is_a_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = config_of("--peers")
    absent = peers.missing(config)
    assert set(absent) == set(peers.TITLES)
    assert set(absent.values()) == {"not installed"}
    for family, names in peers.DOES.items():
        work = Work(family, "cnn", "linf", 2, 2, 2)
        found, left_out = peers.contenders(work, plan_of(work), config, 1)
        assert found == []
        assert left_out == dict.fromkeys(names, "not installed")


def test_every_peer_has_a_title_and_a_work():
    assert set(peers.NEEDS) == set(peers.TITLES)
    assert {name for names in peers.DOES.values() for name in names} == set(peers.TITLES)
    assert set(peers.DOES) == set(flags.FAMILIES) - {"growth"} == set(check.MEANING)


def test_nothing_is_asked_of_peers_without_the_flag(monkeypatch):
    assert set(peers.missing(config_of()).values()) == {"not asked for (--peers)"}


def test_torch_compile_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    assert peers.missing(config_of("--peers")) == {
        "torch_compile": "no C++ compiler on this machine",
        "autoattack": "no clone given (--autoattack)",
    }


# --- Beside PyTorch. ------------------------------------------------------------------------------


def mirrored(network):
    torch = pytest.importorskip("torch", reason="needs the extra `peers`")
    from experiments.benchmark.torch_mirror import Mirror

    return torch, Mirror(network).eval()


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("linear", SHAPE, {}),
        ("mlp", SHAPE, {}),
        ("cnn", SHAPE, {}),
        ("cnn", (8, 8, 1), {}),
        ("resnet9", SHAPE, {}),
        ("resnet9", (9, 7, 3), {}),  # odd sides are padded on both ends
        ("resnet18", (8, 8, 3), {"blocks": (2, 1, 1)}),
    ],
)
def test_both_networks_are_the_same(name, shape, options):
    network = network_of(name, shape, **options)
    torch, mirror = mirrored(network)
    from experiments.benchmark.torch_mirror import to_torch

    images = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    with torch.no_grad():
        theirs = mirror(to_torch(images)).numpy()
    mine = advfeat.predict(network.model_fn(), images)
    assert check.same_logits(mine, theirs) == ""


def test_an_architecture_without_a_mirror_is_named():
    pytest.importorskip("torch", reason="needs the extra `peers`")
    from experiments.benchmark.torch_mirror import Mirror

    for name, options in (("wrn_16_4", {}), ("resnet9", {"norm": "group"})):
        with pytest.raises(ValueError, match=f"no mirror in PyTorch of {name}"):
            Mirror(network_of(name, (8, 8, 3), **options))


@pytest.mark.peers
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hand_written_pgd_reaches_our_points(norm):
    work = Work("pgd", "cnn", norm, 5, 8, 8)
    plan = plan_of(work, network=network_of("resnet9", width=2))
    pytest.importorskip("torch", reason="needs the extra `peers`")
    from experiments.benchmark.torch_peers import Bench

    config = config_of("--peers")
    theirs = Bench(work, plan, config, 1).contender("torch")
    mine = ours.contender(work, plan, 0)
    one, other = (c.found(c.call()) for c in (mine, theirs))
    assert measure.judge_of(work, plan).compare("pgd", one, other).wrong == ""


@pytest.mark.peers
@pytest.mark.parametrize("peer", sorted(set(peers.TITLES) - {"torch_compile", "autoattack"}))
@pytest.mark.parametrize("family", sorted(set(peers.DOES) - {"startup", "quick", "standard"}))
def test_a_peer_does_our_work(family, peer):
    if peer not in peers.DOES[family]:
        pytest.skip("has no such work")
    for module in peers.NEEDS[peer]:
        pytest.importorskip(module, reason="needs the extra `peers`")
    steps = 20 if family == "smoothgrad" else 5
    work = Work(family, "cnn", "" if family == "smoothgrad" else "l2", steps, 8, 4)
    if family in ("pgd", "apgd", "train"):  # the loss of one step depends on no order
        work = Work(family, "cnn", "l2", steps, 8, 8)
    plan = plan_of(work, network=network_of("cnn"))
    found, left_out = peers.contenders(work, plan, config_of("--peers"), 1)
    those = [contender for contender in found if contender.name == peer]
    assert len(those) == 1, left_out
    measured = measure.contest(
        work,
        measure.judge_of(work, plan),
        [ours.contender(work, plan, 0), *those],
        {},
        rounds=1,
        budget=1.0,
    )
    assert measured.names == ("advfeat", peer), measured.left_out


# --- The run. -------------------------------------------------------------------------------------


def pretended(work):
    rng = np.random.default_rng(len(work.name))
    seconds = 1 + 0.1 * rng.random((2, 7))
    seconds[1] *= 1.5
    return measure.Measured(
        names=("advfeat", "torch"),
        first=np.array([3.0, 2.0]),
        memory=np.array([1e6, math.nan]),
        seconds=seconds,
        passes=math.nan,
        values=np.array([0.5, 0.5]),
        differing=np.array([math.nan, 0.0]),
        left_out={"art": "not the same result: its added loss is 0"},
    )


def test_a_killed_benchmark_measures_no_work_again(tmp_path, monkeypatch):
    path, seen = tmp_path / "run", []
    chosen = ["pgd2_linf_cnn_b2", "d_det2_linf_cnn_n2"]

    def measured(work, *_):
        seen.append(work.name)
        if work.name == chosen[1] and len(seen) == 2:
            raise KeyboardInterrupt
        return pretended(work)

    monkeypatch.setattr(works, "measure", measured)
    config = flags.Config(workdir=str(path), dry_run=True, works=("pgd", "d_det"), norms=("linf",))
    with pytest.raises(KeyboardInterrupt):
        works.run(config)
    assert not (path / "summary.json").exists()
    summary = works.run(config)
    assert seen == [chosen[0], chosen[1], chosen[1]]
    assert json.loads((path / "summary.json").read_text()) == summary
    ratio = summary["work"][chosen[0]]["ratio"]["torch"]
    assert set(ratio) == ESTIMATE
    assert 1.3 < ratio["low"] <= ratio["mean"] <= ratio["high"] < 1.7
    assert summary["work"][chosen[0]]["share_of_limit"] > 0
    assert summary["claims"] == []
    page = (path / "report.html").read_text()
    for words in ("How fast?", "not the same result: its added loss is 0", "GFLOP/s"):
        assert words in page
    assert "ratio_pgd2_linf_cnn" in {f.stem for f in (path / "figures").glob("*.png")}


def test_growth_changes_one_size():
    config = config_of("--dry_run").smallest()
    plan = plan_of()
    base = growth.base(plan, config)
    assert (base.batch, base.steps, base.restarts) == (2, 2, 1)
    assert growth.sized(base, "steps", 30).steps == 30
    assert growth.sized(base, "restarts", 4).passes == 4 * base.passes
    assert growth.sized(base, "classes", 1000) == base


@pytest.mark.slow
def test_a_child_process_attacks_on_the_devices_it_is_given(tmp_path):
    work = Work("pgd", "cnn", "linf", 2, 4, 4)
    plan = plan_of(work)
    given = measure.settings(work, plan, repeats=1, threads=1)
    from experiments.benchmark import child

    child.leave(tmp_path, plan.networks["cnn"], *plan.points(4), given)
    told = child.start("child", "first_attack", tmp_path, devices=2)
    assert told["devices"] == 2
    assert len(told["seconds"]) == 1
    mine = ours.contender(work, plan, 0)
    np.testing.assert_allclose(
        np.load(tmp_path / "advfeat.npy"), mine.found(mine.call()).points, atol=1e-5
    )
    with pytest.raises(RuntimeError, match=r"a child process failed: .*nowhere"):
        child.start("child", "first_attack", tmp_path / "nowhere")


@pytest.mark.slow
def test_the_smallest_run(tmp_path):
    config = flags.Config(workdir=str(tmp_path / "run"), dry_run=True)
    summary = works.run(config)
    names = [work.name for work in plans.works_of(config.smallest())]
    assert list(summary["work"]) == names
    assert set(summary["growth"]) == {"images", "devices"}
    assert summary["limit"]["flops_per_second"] > 0
    assert (tmp_path / "run" / "report.html").exists()
