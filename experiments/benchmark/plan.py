"""Prepares `experiments.benchmark`: chooses the works, loads networks and images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import data, models, zoo
from advfeat.models.network import Network, NetworkSpec
from advfeat.runs.checkpoints import load_network
from advfeat.threats import ThreatModel

from ..shared.images import load_in_memory
from .flags import AXES, FAMILIES, NETWORKS, SAMPLES, Config

TRAINED = {"cnn": "cifar10_cnn_l2_robust", "resnet9": "cifar10_l2_robust"}
"""Zoo networks of the sample images. Robust ones: their loss is smooth enough for the points that
two implementations reach to be compared."""
TRAIN_STEPS, TRAIN_BATCH = 7, 128
DET_STEPS = 100
COPIES, COPIES_AT_A_TIME, SIGMA = 50, 5, 0.1
APGD_BATCH = 128
RESTARTS, CLASSES = (1, 2, 4), (10, 100, 1000)


@dataclasses.dataclass(frozen=True)
class Work:
    """One piece of work, which every contender does.

    Attributes:
      family: one of `FAMILIES`, without "growth".
      network: name of its network in the plan.
      norm: of the attack; "" if there is none.
      steps: of the attack, or copies of SmoothGrad.
      count: images of one call.
      batch: images at a time.
      restarts: of the attack.
    """

    family: str
    network: str
    norm: str = ""
    steps: int = 0
    count: int = 1
    batch: int = 1
    restarts: int = 1

    @property
    def name(self) -> str:
        """Name in the summary.

        >>> Work("pgd", "resnet9", "l2", 10, 128, 128).name
        'pgd10_l2_resnet9_b128'
        >>> Work("standard", "cnn", "l2", 0, 100, 100).name
        'standard_l2_cnn_n100'
        """
        if self.family == "train":
            head = f"train_pgd{self.steps}"
        else:
            head = f"{self.family}{self.steps or ''}"
        size = f"b{self.batch}" if self.family in ("pgd", "apgd", "startup") else f"n{self.count}"
        return "_".join(word for word in (head, self.norm, self.network, size) if word)

    @property
    def passes(self) -> float | None:
        """Forward passes that the arithmetic of one image is worth; None if only a run can tell.

        A gradient of the pixels takes as much as a forward pass, one of the weights twice as much.
        """
        if self.family == "train":
            return 2.0 * self.steps + 3.0
        if self.family in ("pgd", "d_det", "smoothgrad"):
            return 2.0 * self.steps * self.restarts
        if self.family == "apgd":  # also scores the image and the last iterate
            return 2.0 * self.steps + 2.0
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tier:
    """What is measured unless the flags say otherwise.

    Attributes:
      networks: by name.
      norms: of PGD.
      batches: of PGD, by network.
      steps: of PGD.
      one: network of each other family.
      examples: images of each of the families that go through a data set.
    """

    networks: tuple[str, ...]
    norms: dict[str, tuple[str, ...]]
    batches: dict[str, tuple[int, ...]]
    steps: tuple[int, ...]
    one: dict[str, tuple[str, ...]]
    examples: dict[str, int]


def tier_of(config: Config, platform: str) -> Tier:
    """Returns what the flags and the machine ask for."""
    large = platform != "cpu"
    both, all_batches = ("linf", "l2"), (1, 16, 128, 512, *((1024, 4096) if large else ()))
    if config.full:
        return Tier(
            networks=NETWORKS,
            norms=dict.fromkeys(NETWORKS, both),
            batches=dict.fromkeys(NETWORKS, all_batches),
            steps=(10, 100),
            one=dict.fromkeys(FAMILIES, ("cnn", "resnet9", *(("resnet18",) if large else ()))),
            examples={
                "quick": 100,
                "standard": 100,
                "train": 50_000 if large else 1280,
                "d_det": 10_000 if large else 250,
                "smoothgrad": 512 if large else 64,
            },
        )
    return Tier(
        networks=("cnn", "resnet9"),
        norms={"cnn": ("linf",), "resnet9": both, "resnet18": both},
        batches={
            "cnn": (1, 16, 128, 512) if not large else (512, 4096),
            "resnet9": (1, 16, 128) if not large else (512, 1024),
            "resnet18": (16,) if not large else (512,),
        },
        steps=(10,),
        one={**dict.fromkeys(FAMILIES, ("cnn",)), "smoothgrad": ("resnet9",), "standard": ()},
        examples={
            "quick": 40 if not large else 1000,
            "standard": 40 if not large else 1000,
            "train": 512 if not large else 12_800,
            "d_det": 100 if not large else 2000,
            "smoothgrad": 16 if not large else 256,
        },
    )


def works_of(config: Config, platform: str = "cpu", own: str | None = None) -> list[Work]:
    """Returns the works in the order of their measurement, growth apart.

    Args:
      config: the flags.
      platform: "cpu", "gpu" or "tpu".
      own: name of the user's network, instead of all others.
    """
    tier = tier_of(config, platform)
    chosen = config.works or FAMILIES
    found = list(_pgd(config, tier, own)) if "pgd" in chosen else []
    for family in ("apgd", "quick", "standard", "train", "d_det", "smoothgrad", "startup"):
        if family in chosen:
            networks = (own,) if own else config.networks or tier.one[family]
            if not networks and config.works is not None:  # asked for by name
                networks = ("cnn",)
            for network in networks:
                found += _one(config, tier, family, network)
    return list(dict.fromkeys(found))


def _pgd(config: Config, tier: Tier, own: str | None) -> Iterator[Work]:
    for network in (own,) if own else config.networks or tier.networks:
        kind = network if network in NETWORKS else "cnn"
        for steps in config.attack_steps or tier.steps:
            for norm in config.norms or tier.norms[kind]:
                for batch in config.batches or tier.batches[kind]:
                    yield Work("pgd", network, norm, steps, batch, batch)


def _one(config: Config, tier: Tier, family: str, network: str) -> list[Work]:
    """Returns a family's works on one network."""
    linf = (config.norms or ("linf",))[0]
    both = config.norms or (("linf", "l2") if config.full else ("linf",))
    l2 = config.norms or ("l2",)
    smallest = config.attack_steps or ()
    count = config.examples or tier.examples.get(family, 1)
    if family == "apgd":
        batch = (config.batches or (APGD_BATCH,))[-1]
        steps = smallest or ((10, 100) if config.full else (10,))
        return [Work(family, network, norm, k, batch, batch) for norm in both for k in steps]
    if family in ("quick", "standard"):
        return [Work(family, network, norm, 0, count, min(count, 250)) for norm in l2]
    if family == "train":
        return [Work(family, network, linf, TRAIN_STEPS, count, min(count, TRAIN_BATCH))]
    if family == "d_det":
        return [Work(family, network, l2[-1], (*smallest, DET_STEPS)[0], count, min(count, 250))]
    if family == "smoothgrad":
        return [Work(family, network, "", (*smallest, COPIES)[0], count, min(count, 16))]
    batch = (config.batches or (16,))[0]
    return [Work("startup", network, linf, (*smallest, 10)[0], batch, batch)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
      works: in order.
      networks: by name.
      threats: by norm.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      growth: axis to the sizes along it.
      references: network to what `load_network` takes, for child processes; None if untrained.
    """

    works: list[Work]
    networks: dict[str, Network]
    threats: dict[str, ThreatModel]
    images: np.ndarray
    labels: np.ndarray
    growth: dict[str, tuple[int, ...]]

    def points(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels, repeated where there are fewer: as much work."""
        rows = np.arange(count) % len(self.images)
        return self.images[rows], self.labels[rows]


def prepare(config: Config) -> Plan:
    """Loads what the flags name; writes nothing."""
    platform = jax.default_backend()
    if config.precision == "tf32" and platform == "cpu":
        raise ValueError("flag --precision=tf32: this machine has no GPU; use float32 or bfloat16")
    images, labels, names = _images(config)
    own = None
    if config.checkpoint is not None:
        network = load_network(config.checkpoint)
        own = network.spec.model
        if network.spec.input_shape != images.shape[1:] or len(network.spec.class_names) != len(
            names
        ):
            raise ValueError(
                f"flag --checkpoint={config.checkpoint}: takes images of "
                f"{network.spec.input_shape} and {len(network.spec.class_names)} classes, but "
                f"--dataset={config.dataset} has {images.shape[1:]} and {len(names)}"
            )
    works = works_of(config, platform, own)
    growth = growth_of(config, platform)
    needed = {work.network for work in works} | ({own or "cnn"} if growth else set())
    networks = {
        name: in_precision(
            network if own else network_of(name, config, images, names), config.precision
        )
        for name in sorted(needed)
    }
    return Plan(
        works=works,
        networks=networks,
        threats={"linf": advfeat.linf(config.eps_linf), "l2": advfeat.l2(config.eps_l2)},
        images=images,
        labels=labels,
        growth=growth,
    )


def growth_of(config: Config, platform: str) -> dict[str, tuple[int, ...]]:
    """Returns the sizes along each axis of the growth; nothing if it was not asked for."""
    if config.works is not None and "growth" not in config.works:
        return {}
    batches = config.batches or ((1, 16, 128, 512) if platform == "cpu" else (16, 128, 512, 4096))
    steps = config.attack_steps or (1, 3, 10, 30, *((100,) if config.full else ()))
    restarts, classes = (RESTARTS, CLASSES)
    sizes = dict(zip(AXES, (batches, steps, restarts, classes, config.devices), strict=True))
    if platform != "cpu":  # simulated devices are the CPU's
        del sizes["devices"]
    return {axis: sizes[axis] for axis in config.growth or sizes if axis in sizes}


def _images(config: Config) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    if config.dataset == SAMPLES:
        found = data.samples("cifar10")
        rows = data.draw_rows(found.label, 0, seed=config.seed)
        return data.unit(found.image[rows]), found.label[rows], found.class_names
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    test = data.subset(dataset.test, 5000, seed=config.seed)
    return data.unit(test.image), test.label.astype(np.int64), dataset.class_names


def network_of(
    name: str, config: Config, images: np.ndarray, class_names: tuple[str, ...]
) -> Network:
    """Returns a zoo network of the sample images, or one with random weights."""
    if config.dataset == SAMPLES and name in TRAINED:
        return zoo.load(TRAINED[name])
    return untrained(name, images.shape[1:], class_names, seed=config.seed)


def untrained(
    name: str, shape: tuple[int, ...], class_names: tuple[str, ...], *, seed: int
) -> Network:
    """Returns a network with random weights of the architecture's default width."""
    height, width, channels = shape
    spec = NetworkSpec(model=name, class_names=class_names, input_shape=(height, width, channels))
    return Network(spec, models.init(jax.random.key(seed), spec.build(), spec.input_shape), {})


def in_precision(network: Network, precision: str) -> Network:
    """Returns the network, computing in a precision; TF32 is a mode of JAX, not of the network."""
    spec = dataclasses.replace(network.spec, bfloat16=precision == "bfloat16")
    return dataclasses.replace(
        network, spec=spec, variables=jax.tree.map(jnp.asarray, network.variables)
    )
