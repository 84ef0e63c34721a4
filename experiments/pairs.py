"""What experiments share that show a standard network beside a robust one."""

from __future__ import annotations

import dataclasses

from advfeat import data, models
from advfeat.attacks.batch import output_of
from advfeat.checkpoints import Network, check_fits, load_network
from experiments.config import Config as BaseConfig
from experiments.config import flag

PAIR = ("standard", "robust")
JUDGES = (
    ("zoo:cifar10_cnn_standard", "zoo:cifar10_cnn_l2_robust"),
    ("zoo:cifar10_standard", "zoo:cifar10_l2_robust"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairConfig(BaseConfig):
    """A data set and two networks."""

    dataset: str = flag("cifar10", "What the images are of.")
    standard: str = flag("zoo:cifar10_standard", "Standard network: DIR, DIR:NAME or zoo:NAME.")
    robust: str = flag("zoo:cifar10_l2_robust", "Robust network, likewise.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedConfig(PairConfig):
    """Two networks, and others that had no part in what those make."""

    judges: tuple[str, ...] | None = flag(
        None,
        "Independent networks that read what was made, or the word none. Default: for cifar10 two "
        "of the zoo, of another architecture than the networks looked at; else none.",
    )

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        for judge in self.judges or ():
            if judge in (self.standard, self.robust):
                raise ValueError(
                    f"flag --judges={judge}: is one of the two networks, not independent of them"
                )


def load_fitting(reference: str, dataset: data.Dataset) -> Network:
    """A network for the data set's images and classes.

    Raises:
      ValueError: for one that cannot be read, or was made for others.
    """
    network = load_network(reference)
    check_fits(
        network, reference=reference, class_names=tuple(dataset.class_names),
        input_shape=dataset.input_shape,
    )  # fmt: skip
    return network


def load_pair(config: PairConfig, dataset: data.Dataset) -> dict[str, Network]:
    """Both networks, by name.

    Raises:
      ValueError: as `load_fitting`; where a network was not given, the message asks for it.
    """
    usual = {field.name: field.default for field in dataclasses.fields(PairConfig)}
    found = {}
    for name in PAIR:
        reference = getattr(config, name)
        try:
            found[name] = load_fitting(reference, dataset)
        except ValueError as error:
            if reference != usual[name] or is_whole_cifar10(config):
                raise
            raise ValueError(
                f"flag --{name}: give a network for --dataset={config.dataset}; without it the "
                f"network is {reference}, which is for cifar10 ({error})"
            ) from error
    return found


def is_whole_cifar10(config: BaseConfig) -> bool:
    """Whether the zoo's CIFAR-10 networks, the usual ones of many flags, fit the data set."""
    return (config.dataset, config.classes) == ("cifar10", None)


def load_judges(config: JudgedConfig, dataset: data.Dataset) -> dict[str, Network]:
    """The independent networks, by name."""
    references = config.judges
    if references is None:
        free = [pair for pair in JUDGES if not {config.standard, config.robust} & set(pair)]
        references = free[0] if is_whole_cifar10(config) and free else ("none",)
    return {
        name: load_fitting(reference, dataset)
        for name, reference in further(references, "judges").items()
    }


def check_layer(layer: str, network: Network) -> int:
    """How many units, or channels, the layer that was asked for has.

    Raises:
      ValueError: for a layer that the network lacks.
    """
    known = models.layer_names(network.spec.build(), network.spec.input_shape)
    if layer not in known:
        raise ValueError(f"flag --layer={layer}: must be one of {', '.join(known)}")
    return int(output_of(network.model_fn(layer), network.spec.input_shape).shape[-1])


def further(references: tuple[str, ...], flag_name: str) -> dict[str, str]:
    """References by the names that figures and files give them; `none` alone is none.

    Raises:
      ValueError: for two of one name.

    >>> further(("zoo:mnist_standard", "runs/a:model"), "others")
    {'mnist_standard': 'zoo:mnist_standard', 'runs_a_model': 'runs/a:model'}
    """
    if references == ("none",):
        return {}
    found: dict[str, str] = {}
    for reference in references:
        name = "".join(c if c.isalnum() else "_" for c in reference.removeprefix("zoo:")).strip("_")
        if name in found or name in PAIR:
            raise ValueError(f"flag --{flag_name}={reference}: there is a network {name} already")
        found[name] = reference
    return found
