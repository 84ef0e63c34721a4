"""Prepares the mislabelled-data experiment: loads data and fills in presets."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from advfeat import data
from advfeat.features.mislabeled import targeted_pgd
from advfeat.images.augmentation import TRANSFORMS
from advfeat.images.filters import chroma420, natural_spectrum
from advfeat.models.network import Network, NetworkSpec
from advfeat.runs.checkpoints import check_fits, load_network
from advfeat.threats.balls import ThreatModel, threat_model
from advfeat.training import TrainConfig
from advfeat.types import AttackFn

from ..shared.flag_checks import check_eps
from ..shared.images import load_in_memory
from ..shared.networks import spec_for
from ..shared.presets import Preset, chosen, preset_for
from ..shared.recipes import Recipe
from .flags import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      train: training images, [0, 1] float32, without the held-out ones.
      held_out: images in [0, 1] and labels, for model selection.
      evaluation: evaluation images of fresh networks: the test set, or the held-out images.
      norm: of the threat model of the perturbations.
      eps: its eps as it was asked for, which a float32 rounds.
      attack_steps: PGD steps to construct a set.
      step_size: step size of that PGD.
      attack: the attack that constructs a set.
      attack_words: the attack's parameters, as stored in a set's provenance.
      sources: number of standard networks that construct the sets together.
      eps_grid: eps at which accuracy under attack is measured, ascending, including eps.
      source: recipe of the standard network.
      robust: recipe of the robust network.
      fresh: recipe of the fresh networks.
      given_source: a source network from another run.
      given_robust: a robust network from another run.
    """

    dataset: data.Dataset
    train: data.Split
    held_out: tuple[np.ndarray, np.ndarray]
    evaluation: tuple[np.ndarray, np.ndarray]
    norm: str
    eps: float
    attack_steps: int
    step_size: float
    attack: AttackFn
    attack_words: dict[str, Any]
    sources: int
    eps_grid: tuple[float, ...]
    source: Recipe
    robust: Recipe
    fresh: Recipe
    given_source: Network | None
    given_robust: Network | None

    @property
    def threat(self) -> ThreatModel:
        """The threat model of the perturbations."""
        return threat_model(self.norm, self.eps)


def _filter(config: Config, name: str, train: data.Split) -> Any:
    if name == "natural":
        return natural_spectrum(data.subset(train, 2000, seed=config.seed).image)
    return chroma420 if name == "chroma420" else None


def _as_unit(split: data.Split) -> data.Split:
    return data.Split(data.unit(split.image), split.label, split.id)


def _recipes(
    config: Config, dataset: data.Dataset, preset: Preset
) -> tuple[Recipe, Recipe, Recipe]:
    """Returns the recipes of source, robust and fresh networks."""

    def fit(prefix: str) -> TrainConfig:
        return TrainConfig(
            epochs=chosen(config, preset, f"{prefix}epochs"),
            batch_size=chosen(config, preset, "batch_size"),
            learning_rate=chosen(config, preset, f"{prefix}learning_rate"),
            schedule=config.fresh_schedule if prefix == "fresh_" else "onecycle",
            weight_decay=(
                5e-4 if prefix == "robust_" else chosen(config, preset, f"{prefix}weight_decay")
            ),
            augment=chosen(config, preset, f"{prefix}augment"),
        )

    def spec(model: str | None, width: int | None, usual: int) -> NetworkSpec:
        """Uses the width flag, or the preset's width if the architecture is the preset's."""
        model = model or config.model or preset.model
        if width is None and model == preset.model:
            width = config.width or usual
        return spec_for(dataset, model, width=width, bfloat16=config.bfloat16)

    steps = chosen(config, preset, "robust_steps")
    return (
        Recipe(
            spec=spec(None, config.width, preset.width),
            config=fit(""),
            norm=config.norm,
            eps=config.source_eps or None,
            attack_steps=steps,
        ),
        Recipe(
            spec=spec(None, config.robust_width, preset.robust_width),
            config=fit("robust_"),
            norm=config.norm,
            eps=chosen(config, preset, "robust_eps"),
            attack_steps=steps,
        ),
        Recipe(
            spec=spec(config.fresh_model, config.fresh_width, preset.fresh_width or preset.width),
            config=fit("fresh_"),
        ),
    )


def _given(config: Config, dataset: data.Dataset, reference: str | None) -> Network | None:
    """Loads a network of another run, if it fits the data set and the flags."""
    if reference is None:
        return None
    network = load_network(reference)
    check_fits(
        network,
        class_names=tuple(dataset.class_names),
        input_shape=dataset.input_shape,
        reference=reference,
    )
    if config.model not in (None, network.spec.model):
        raise ValueError(
            f"checkpoint {reference} is a {network.spec.model}, not a {config.model} (--model)"
        )
    return network


def prepare(config: Config) -> Plan:
    """Loads what the flags name and fills in presets; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    most = chosen(config, preset, "train_examples")
    train = data.subset(dataset.train, most, seed=config.seed)
    fraction = chosen(config, preset, "held_out")
    kept, held = data.held_out(train, fraction=fraction, seed=config.seed)
    if len(held) < 1 or len(kept) < dataset.num_classes:
        raise ValueError(
            f"flag --train_examples={len(train)}: too few to hold out {fraction:g} of them"
        )
    kept, held = _as_unit(kept), _as_unit(held)
    measured = held if config.evaluate_on == "held_out" else _as_unit(dataset.test)
    source, robust, fresh = _recipes(config, dataset, preset)
    eps = float(chosen(config, preset, "eps"))
    check_eps(
        config.norm,
        dataset.input_shape,
        eps=eps,
        source_eps=config.source_eps,
        robust_eps=chosen(config, preset, "robust_eps"),
        eps_grid=config.eps_grid,
    )
    grid = {*chosen(config, preset, "eps_grid"), eps, 0.0}
    if config.norm != "l2" and config.eps_grid is None:  # the preset's grid is in L2
        grid = {0.0, *(eps * share for share in (0.25, 0.5, 1.0, 1.5))}
    threat = threat_model(config.norm, eps)
    steps = chosen(config, preset, "attack_steps")
    step_size = config.step_size or eps * preset.relative_step
    look = chosen(config, preset, "attack_transform")
    attack = targeted_pgd(
        threat,
        steps=steps,
        step_size=step_size,
        transform=None if look == "none" else TRANSFORMS[look],
        gradient_filter=_filter(config, chosen(config, preset, "gradient_filter"), kept),
    )
    return Plan(
        dataset=dataset,
        train=kept,
        held_out=(held.image, held.label),
        evaluation=(measured.image, measured.label),
        norm=config.norm,
        eps=eps,
        attack_steps=steps,
        step_size=step_size,
        attack=attack,
        attack_words={
            "steps": steps,
            "step_size": step_size,
            "transform": look,
            "gradient_filter": chosen(config, preset, "gradient_filter"),
        },
        sources=1 if config.source_checkpoint else chosen(config, preset, "sources"),
        eps_grid=tuple(sorted(grid)),
        source=source,
        robust=robust,
        fresh=fresh,
        given_source=_given(config, dataset, config.source_checkpoint),
        given_robust=_given(config, dataset, config.robust_checkpoint),
    )
