"""Beside PyTorch: the same weights, the same points, example by example.

    pip install -e ".[test,peers]"
    TFDS_DATA_DIR=... pytest -m peers -n 0 -s tests/evaluation/test_peers.py

Trains two networks on MNIST and two on CIFAR-10 at first (minutes; kept in pytest's cache), then
compares attack by attack, for hours on a laptop: choose with `-k`. Each comparison prints a line.
"""

import json
import zlib

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `peers`")
foolbox = pytest.importorskip("foolbox", reason="needs the extra `peers`")
torchattacks = pytest.importorskip("torchattacks", reason="needs the extra `peers`")

import advfeat  # noqa: E402
from advfeat import data  # noqa: E402
from advfeat.runs.checkpoints import load_network  # noqa: E402
from experiments.benchmark.torch_mirror import (  # noqa: E402
    Mirror,
    from_torch,
    to_torch,
)
from experiments.benchmark.torch_suites import torchattacks_suite  # noqa: E402
from experiments.train import (  # noqa: E402
    flags as train_flags,
    work as train_work,
)

pytestmark = [pytest.mark.peers, pytest.mark.slow]

MNIST = {"dataset": "mnist", "model": "cnn", "width": 16, "norm": "linf"}
CIFAR = {
    "dataset": "cifar10",
    "model": "resnet9",
    "width": 16,
    "norm": "linf",
    "train_examples": 20_000,
}
ROBUST = {"objective": "adversarial"}
# How to train; then the eps of the comparison and its number of points.
NETWORKS = {
    "mnist_standard": ({**MNIST, "epochs": 2, "eps": 0.1}, 0.05, 1000),
    "mnist_adversarial": (
        {**MNIST, **ROBUST, "epochs": 3, "eps": 0.1, "attack_steps": 5, "train_examples": 30_000},
        0.1,
        1000,
    ),
    "cifar_standard": ({**CIFAR, "epochs": 5, "eps": 1 / 255}, 1 / 255, 100),
    "cifar_adversarial": (
        {**CIFAR, **ROBUST, "epochs": 8, "eps": 4 / 255, "attack_steps": 2},
        4 / 255,
        100,
    ),
}
BATCH = 250
KEY = jax.random.key(0)


class Case:
    """A network in both worlds, with the points that it gets right without an attack."""

    def __init__(self, name, folder, points=None):
        how, self.eps, count = NETWORKS[name]
        place = str(folder / f"{name}_{zlib.crc32(json.dumps(how).encode()):08x}")
        train_work.run(train_flags.Config(workdir=place, eval_examples=200, **how))
        self.name, self.network = name, load_network(place)
        self.fn, self.mirror = self.network.model_fn(), Mirror(self.network).eval()
        test = data.subset(data.load(how["dataset"]).test, count, seed=0)
        self.all = data.unit(test.image), test.label.astype(np.int64)
        clean = advfeat.correct(self.fn, *self.all)
        self.x, self.y = self.all[0][clean][:points], self.all[1][clean][:points]
        self.count = count

    def threat(self, norm="linf", eps=None):
        return advfeat.threat_model(norm, self.eps if eps is None else eps)

    def ours(self, attack):
        result = advfeat.attack_dataset(KEY, attack, self.fn, self.x, self.y, batch_size=BATCH)
        return np.asarray(result.best.x)

    def theirs(self, attack):
        torch.manual_seed(0)
        parts = [
            from_torch(
                attack(to_torch(self.x[i : i + BATCH]), torch.from_numpy(self.y[i : i + BATCH]))
            )
            for i in range(0, len(self.x), BATCH)
        ]
        return np.concatenate(parts)

    def fooled(self, images):
        """Judged by one network for both, on points of the box."""
        images = np.clip(images, 0, 1).astype(np.float32)
        return ~advfeat.correct(self.fn, images, self.y)

    def norms(self, images, norm):
        far = np.asarray(jax.vmap(self.threat(norm, 1.0).distance)(self.x, images))
        return np.where(self.fooled(images), far, np.inf)

    def print(self, what, **values):
        attacked = {"points": self.count, "attacked": len(self.x)}
        print(json.dumps({"network": self.name, **attacked, "what": what, **values}))


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    try:
        data.load(NETWORKS[request.param][0]["dataset"])
    except data.DataError as error:
        pytest.skip(str(error))
    return Case(request.param, request.config.cache.mkdir("peers"))


@pytest.fixture(scope="module")
def small_case(case, request):
    """Of fewer points, for attacks of hundreds of steps each of which counts for the median."""
    return Case(case.name, request.config.cache.mkdir("peers"), points=250)


def test_both_networks_are_the_same(case):
    with torch.no_grad():
        theirs = case.mirror(to_torch(case.x)).numpy()
    mine = advfeat.predict(case.fn, case.x)
    np.testing.assert_allclose(mine, theirs, atol=1e-3 * np.abs(theirs).max())
    assert np.abs(mine - theirs).max() < 1e-3


def apgd(loss):
    return lambda threat: advfeat.apgd(threat, loss=loss), lambda net, eps: torchattacks.APGD(
        net, eps=eps, steps=100, loss=loss
    )


WITHIN = {
    "pgd": (
        lambda threat: advfeat.pgd(threat, steps=40, step_size=threat.eps / 10),
        lambda net, eps: torchattacks.PGD(net, eps=eps, alpha=eps / 10, steps=40),
    ),
    "apgd_ce": apgd("ce"),
    "apgd_dlr": apgd("dlr"),
    "fab_targeted": (
        lambda threat: advfeat.fab_targeted(threat, steps=20),
        lambda net, eps: torchattacks.FAB(
            net, eps=eps, steps=20, multi_targeted=True, n_classes=10
        ),
    ),
    "square": (
        lambda threat: advfeat.square(threat, steps=500, rescale_schedule=True),  # their default
        lambda net, eps: torchattacks.Square(net, eps=eps, n_queries=500),
    ),
}


@pytest.mark.parametrize("attack", WITHIN)
def test_within_a_threat_model_no_more_images_stand_than_by_torchattacks(case, attack):
    mine, theirs = WITHIN[attack]
    threat = case.threat()
    x_mine, x_theirs = case.ours(mine(threat)), case.theirs(theirs(case.mirror, case.eps))
    assert jax.vmap(threat.contains)(case.x, x_mine).all()
    fooled, peer = case.fooled(x_mine), case.fooled(x_theirs)
    only_peer, only_mine = int((peer & ~fooled).sum()), int((fooled & ~peer).sum())
    case.print(
        attack,
        eps=case.eps,
        robust=round(100 * (~fooled).sum() / case.count, 2),
        torchattacks=round(100 * (~peer).sum() / case.count, 2),
        only_ours_fools=only_mine,
        only_theirs_fools=only_peer,
    )
    # Random starts differ: twice the deviation of a coin that decides each disputed image.
    noise = 2 * np.sqrt(only_mine + only_peer)
    assert only_peer - only_mine <= 0.003 * case.count + noise


def foolbox_(make):
    def run(case):
        model = foolbox.PyTorchModel(case.mirror, bounds=(0, 1), device="cpu")

        def attack(x, y):
            found = make()(model, x, foolbox.criteria.Misclassification(y), epsilons=None)[0]
            # Where Carlini-Wagner finds nothing it returns a black image, and calls it a success.
            nothing = (found == 0).flatten(1).all(1)
            return torch.where(nothing[:, None, None, None], x, found)

        return case.theirs(attack)

    return run


NEAREST = {
    "ddn": (
        "l2",
        lambda threat: advfeat.ddn(threat, steps=100),
        foolbox_(lambda: foolbox.attacks.DDNAttack(steps=100)),
    ),
    "fmn_l2": (
        "l2",
        lambda threat: advfeat.fmn(threat, steps=100),
        foolbox_(lambda: foolbox.attacks.L2FMNAttack(steps=100)),
    ),
    "fmn_linf": (
        "linf",
        lambda threat: advfeat.fmn(threat, steps=100),
        foolbox_(lambda: foolbox.attacks.LInfFMNAttack(steps=100)),
    ),
    "carlini_wagner": (
        "l2",
        lambda threat: advfeat.carlini_wagner(
            threat, steps=200, binary_search_steps=5, initial_const=0.1
        ),
        foolbox_(
            lambda: foolbox.attacks.L2CarliniWagnerAttack(
                steps=200, binary_search_steps=5, initial_const=0.1, abort_early=False
            )
        ),
    ),
    "carlini_wagner_fixed": (
        "l2",
        lambda threat: advfeat.carlini_wagner(
            threat, steps=200, search="fixed", initial_const=10.0
        ),
        lambda case: case.theirs(torchattacks.CW(case.mirror, c=10, steps=200)),
    ),
    "deepfool_l2": (
        "l2",
        lambda threat: advfeat.deepfool(threat, steps=50),
        foolbox_(lambda: foolbox.attacks.L2DeepFoolAttack(steps=50)),
    ),
    "deepfool_linf": (
        "linf",
        lambda threat: advfeat.deepfool(threat, steps=50),
        foolbox_(lambda: foolbox.attacks.LinfDeepFoolAttack(steps=50)),
    ),
}


@pytest.mark.parametrize("attack", NEAREST)
def test_minimal_norms_are_within_three_per_cent_or_smaller(case, small_case, attack):
    case = small_case if attack.startswith("carlini") else case
    norm, mine, theirs = NEAREST[attack]
    found = case.norms(case.ours(mine(case.threat(norm, np.inf))), norm)
    peer = case.norms(theirs(case), norm)
    case.print(
        attack,
        median=float(np.median(found)),
        peer=float(np.median(peer)),
        success=float(np.isfinite(found).mean()),
        peer_success=float(np.isfinite(peer).mean()),
        nearer=float((found < peer).mean()),
    )
    assert np.median(found) <= 1.03 * np.median(peer)


def test_autoattack_leaves_what_torchattacks_leaves(case):
    threat, (x, y) = case.threat(), case.all
    clean = advfeat.correct(case.fn, x, y)
    found = advfeat.evaluate(KEY, case.fn, x, y, threat=threat, batch_size=BATCH, checks=False)
    robust = found.robust
    peer_x = torchattacks_suite(
        case.mirror, 10, threat, to_torch(x), torch.from_numpy(y), batch_size=BATCH, seed=0
    )
    peer = advfeat.correct(case.fn, np.clip(from_torch(peer_x), 0, 1), y) & clean
    case.print(
        "autoattack",
        eps=case.eps,
        robust=float(robust.mean()),
        seconds={part.name: round(part.seconds, 1) for part in found.attacks},
        torchattacks=float(peer.mean()),
        differ=int((robust != peer).sum()),
    )
    assert jax.vmap(threat.contains)(x, found.adversarial).all()
    assert abs(int(robust.sum()) - int(peer.sum())) <= max(1, 0.003 * case.count)
