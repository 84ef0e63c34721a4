"""Code shared by the experiments that compare a standard and a robust network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from advfeat import data, models
from advfeat.data.sample_set import PREFIX as SAMPLES
from advfeat.edges import output_of
from advfeat.models.network import Network
from advfeat.runs.checkpoints import check_fits, load_network
from advfeat.runs.config import Config as BaseConfig

from .flags.pairs import JudgedConfig, PairConfig
from .words import network_words

PAIR = ("standard", "robust")
CIFAR10 = ("samples:cifar10", "cifar10")  # data sets of the zoo's CIFAR-10 networks
JUDGES = (
    ("zoo:cifar10_cnn_standard", "zoo:cifar10_cnn_l2_robust"),
    ("zoo:cifar10_standard", "zoo:cifar10_l2_robust"),
)


def load_fitting(reference: str, dataset: data.Dataset) -> Network:
    """Loads a network that fits the data set's images and classes.

    Raises:
      ValueError: if it is unreadable or does not fit.
    """
    network = load_network(reference)
    check_fits(
        network,
        reference=reference,
        class_names=tuple(dataset.class_names),
        input_shape=dataset.input_shape,
    )
    return network


def load_pair(config: PairConfig, dataset: data.Dataset) -> dict[str, Network]:
    """Loads both networks, by name.

    Raises:
      ValueError: as for `load_fitting`; if a default network does not fit, the message asks for
        one.
    """
    usual = {field.name: field.default for field in dataclasses.fields(PairConfig)}
    found = {}
    for name in PAIR:
        reference = getattr(config, name)
        try:
            found[name] = load_fitting(reference, dataset)
        except ValueError as error:
            if reference != usual[name] or is_cifar10(config):
                raise
            raise ValueError(
                f"flag --{name}: give a network for --dataset={config.dataset}; without it the "
                f"network is {reference}, which is for CIFAR-10 ({error})"
            ) from error
    return found


def is_cifar10(config: BaseConfig) -> bool:
    """Returns whether the zoo's CIFAR-10 networks, defaults of many flags, fit the data set."""
    return config.dataset in CIFAR10 and config.classes is None


def load_judges(config: JudgedConfig, dataset: data.Dataset) -> dict[str, Network]:
    """Loads the independent networks, by name."""
    references = config.judges
    if references is None:
        free = [pair for pair in JUDGES if not {config.standard, config.robust} & set(pair)]
        references = free[0] if is_cifar10(config) and free else ("none",)
    return {
        name: load_fitting(reference, dataset)
        for name, reference in further(references, "judges").items()
    }


def check_layer(layer: str, network: Network) -> int:
    """Checks that the requested layer exists; returns its number of units, or channels.

    Raises:
      ValueError: for a layer that the network lacks.
    """
    known = models.layer_names(network.spec.build(), network.spec.input_shape)
    if layer not in known:
        raise ValueError(f"flag --layer={layer}: must be one of {', '.join(known)}")
    return int(output_of(network.model_fn(layer), network.spec.input_shape).shape[-1])


def further(references: tuple[str, ...], flag_name: str) -> dict[str, str]:
    """Maps the names used in figures and files to references; `none` alone means no network.

    Raises:
      ValueError: for two references with the same name.

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


def networks_words(
    config: BaseConfig, networks: Mapping[str, Network], dataset: data.Dataset
) -> dict[str, str]:
    """Describes networks and data for a report's recipe.

    Args:
      config: its flags named like the networks hold their references; others are named by them.
      networks: by name.
      dataset: as loaded.
    """
    words = {
        f"{name.replace('_', ' ')} network": network_words(getattr(config, name, name), network)
        for name, network in networks.items()
    }
    return {**words, "data": data_words(dataset).removeprefix("Data: ")}


def data_words(dataset: data.Dataset, *uses: str) -> str:
    """Describes the images of a report in one sentence.

    Args:
      dataset: as loaded.
      uses: purposes for which training images were used.

    >>> data_words(data.load("samples:cifar10"), "baselines")
    'Data: samples:cifar10, the 70 test images that come with the package and, for baselines, 30
    others in place of training images.'
    >>> data_words(data.load("digits"))
    'Data: digits, 445 test images.'
    """
    count, there = len(dataset.test), f"Data: {dataset.name}, "
    if dataset.name.startswith(SAMPLES):
        there += f"the {count} test images that come with the package"
        words = f"{len(dataset.train)} others in place of training images"
    else:
        there += f"{count} test images"
        words = "training images"
    return there + (f" and, for {' and '.join(uses)}, {words}." if uses else ".")
