"""The mislabelled-data experiment's flags, and what they come to before any work."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from advfeat import data
from advfeat.checkpoints import Network, NetworkSpec, check_fits, load_network
from advfeat.constructed import towards
from advfeat.filters import chroma420, natural_spectrum
from advfeat.threat import ThreatModel, threat_model
from advfeat.training import Fit
from advfeat.transforms import TRANSFORMS
from advfeat.types import AttackFn
from experiments.config import Config as BaseConfig
from experiments.config import flag
from experiments.limits import check_linf_eps
from experiments.networks import spec_for
from experiments.presets import Preset, chosen, preset_for
from experiments.recipes import Recipe

VARIANTS = ("rand", "other", "det")
CONTROLS = ("unperturbed", "noise", "feature_free", "robust_source")
_TRANSFORMS = tuple(TRANSFORMS)
FILTERS = ("none", "chroma420", "natural")
_PRESET = "Default: the data set's preset."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """The flags of this experiment."""

    variants: tuple[str, ...] = flag(
        VARIANTS, "Which sets: D_rand, D_other (D_rand without t = y), D_det.", choices=VARIANTS
    )
    controls: tuple[str, ...] | None = flag(
        CONTROLS, "Which controls; none for no control.", choices=CONTROLS
    )
    seeds: int = flag(3, "Fresh networks per set.", kind="count")
    evaluate_on: str = flag(
        "test",
        "What fresh networks are measured on. held_out: training images kept apart, for choosing "
        "eps, steps and schedules without opening the test set.",
        choices=("test", "held_out"),
    )
    held_out: float | None = flag(
        None, "Share of the training images held out for choices. " + _PRESET
    )
    train_examples: int | None = flag(
        None, "Use at most so many training images; 0: all. " + _PRESET, kind="natural"
    )
    norm: str = flag("l2", "Norm of the perturbations.", choices=("l2", "linf", "l1"))
    eps: float | None = flag(None, "Size of the perturbations. " + _PRESET, kind="eps")
    steps: int | None = flag(None, "PGD steps that build a set. " + _PRESET, kind="count")
    step_size: float | None = flag(None, "Their size. " + _PRESET, kind="positive")
    attack_transform: str | None = flag(
        None, "The attack looks through this random transform at every step. " + _PRESET,
        choices=_TRANSFORMS,
    )
    gradient_filter: str | None = flag(
        None,
        "Keeps perturbations where images vary: in what a JPEG copy can hold (chroma420), or "
        "weighted by the training images' own spectrum (natural). " + _PRESET,
        choices=FILTERS,
    )
    eps_grid: tuple[float, ...] | None = flag(
        None, "Where accuracy under attack is measured. " + _PRESET, kind="eps_list"
    )
    eval_steps: int = flag(20, "PGD steps of that measurement.", kind="count")
    eval_examples: int = flag(
        1000, "Images of that measurement, drawn by the seed; 0: all.", kind="natural"
    )
    sources: int | None = flag(
        None,
        "Standard networks that build the sets together, as an ensemble. " + _PRESET,
        kind="count",
    )
    source_eps: float = flag(
        0.0, "Train the source adversarially at this eps; 0: standard training.", kind="eps"
    )
    checkpoint: str | None = flag(
        None, "Take the source network from this run (DIR or DIR:NAME) instead of training it."
    )
    robust_checkpoint: str | None = flag(None, "Take the robust network from this run.")
    model: str | None = flag(None, "Architecture of all networks. " + _PRESET)
    width: int | None = flag(None, "Its width. " + _PRESET, kind="count")
    fresh_model: str | None = flag(None, "Architecture of fresh networks. Default: --model.")
    fresh_width: int | None = flag(None, "Width of fresh networks. Default: --width.", kind="count")
    bfloat16: bool = flag(False, "Compute in bfloat16 (weights and attack stay float32).")
    batch_size: int | None = flag(None, "Examples per training step. " + _PRESET, kind="count")
    attack_batch_size: int = flag(250, "Examples attacked at a time.", kind="count")
    epochs: int | None = flag(None, "Of the standard network. " + _PRESET, kind="count")
    learning_rate: float | None = flag(None, "Its learning rate. " + _PRESET, kind="positive")
    augment: str | None = flag(None, "Its augmentation. " + _PRESET, choices=_TRANSFORMS)
    weight_decay: float | None = flag(
        None, "Its weight decay (the robust network's: 5e-4). " + _PRESET, kind="nonnegative"
    )
    robust_eps: float | None = flag(None, "Eps of adversarial training. " + _PRESET, kind="eps")
    robust_steps: int | None = flag(
        None, "PGD steps of adversarial training. " + _PRESET, kind="count"
    )
    robust_width: int | None = flag(None, "Of the robust network. " + _PRESET, kind="count")
    robust_epochs: int | None = flag(None, "Of the robust network. " + _PRESET, kind="count")
    robust_learning_rate: float | None = flag(None, "Its rate. " + _PRESET, kind="positive")
    robust_augment: str | None = flag(None, "Its augmentation. " + _PRESET, choices=_TRANSFORMS)
    fresh_epochs: int | None = flag(None, "Of the fresh networks. " + _PRESET, kind="count")
    fresh_learning_rate: float | None = flag(None, "Their rate. " + _PRESET, kind="positive")
    fresh_weight_decay: float | None = flag(
        None, "Their weight decay. " + _PRESET, kind="nonnegative"
    )
    fresh_schedule: str = flag("onecycle", "Their schedule.", choices=("onecycle", "constant"))
    fresh_augment: str | None = flag(None, "Their augmentation. " + _PRESET, choices=_TRANSFORMS)

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise ValueError(f"flag --held_out={self.held_out}: must lie between 0 and 1")
        if self.eps == 0:
            raise ValueError("flag --eps=0: must be above 0")
        for name in ("eps", "source_eps", "robust_eps"):
            if np.isinf(getattr(self, name) or 0.0):
                raise ValueError(f"flag --{name}=inf: must be finite")
        if self.norm != "l2" and (self.eps is None or self.robust_eps is None):
            raise ValueError(f"flag --norm={self.norm}: give --eps and --robust_eps with it")
        if self.checkpoint is not None and ((self.sources or 1) > 1 or self.source_eps > 0):
            raise ValueError("flag --checkpoint: cannot be combined with --sources, --source_eps")
        grid = tuple(e for e in self.eps_grid or () if np.isfinite(e))
        check_linf_eps(
            self.norm, eps=self.eps or 0.0, robust_eps=self.robust_eps or 0.0, eps_grid=grid
        )
        for name, values in (("variants", self.variants), ("controls", self.controls or ())):
            if len(set(values)) != len(values):
                raise ValueError(f"flag --{name}={','.join(values)}: names one twice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole: data loaded, presets filled in. Nothing has been written yet.

    Attributes:
      dataset: as loaded.
      train: training images, [0, 1] float32, without the held-out ones.
      held_out: images in [0, 1] and labels kept apart for choices.
      evaluation: what fresh networks are measured on: the test set, or the held-out images.
      threat: of the perturbations.
      eps: theirs, as given (the threat model's is float32).
      steps: PGD steps that build a set.
      step_size: their size.
      attack: what builds a set.
      attack_words: its numbers, as a set's provenance keeps them.
      sources: standard networks that build the sets together.
      eps_grid: where accuracy under attack is measured, ascending, eps among them.
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
    threat: ThreatModel
    eps: float
    steps: int
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


def _filter(config: Config, name: str, train: data.Split) -> Any:
    if name == "natural":
        return natural_spectrum(data.subset(train, 2000, seed=config.seed).image)
    return chroma420 if name == "chroma420" else None


def _as_unit(split: data.Split) -> data.Split:
    return data.Split(data.unit(split.image), split.label, split.id)


def _recipes(
    config: Config, dataset: data.Dataset, preset: Preset
) -> tuple[Recipe, Recipe, Recipe]:
    """Source, robust and fresh."""
    short = 1 if config.dry_run else None

    def fit(prefix: str) -> Fit:
        return Fit(
            epochs=short or chosen(config, preset, f"{prefix}epochs"),
            batch_size=chosen(config, preset, "batch_size"),
            learning_rate=chosen(config, preset, f"{prefix}learning_rate"),
            schedule=config.fresh_schedule if prefix == "fresh_" else "onecycle",
            weight_decay=(
                5e-4 if prefix == "robust_" else chosen(config, preset, f"{prefix}weight_decay")
            ),
            augment=chosen(config, preset, f"{prefix}augment"),
        )

    def spec(model: str | None, width: int | None, usual: int) -> NetworkSpec:
        """The width flag; else the preset's, which belongs to the preset's architecture."""
        model = model or config.model or preset.model
        if width is None and model == preset.model:
            width = config.width or usual
        return spec_for(dataset, model, width=width, bfloat16=config.bfloat16)

    robust_threat = threat_model(config.norm, chosen(config, preset, "robust_eps"))
    source_threat = threat_model(config.norm, config.source_eps) if config.source_eps > 0 else None
    steps = 1 if config.dry_run else chosen(config, preset, "robust_steps")
    return (
        Recipe(
            spec=spec(None, config.width, preset.width),
            how=fit(""),
            threat=source_threat,
            attack_steps=steps,
        ),
        Recipe(
            spec=spec(None, config.robust_width, preset.robust_width),
            how=fit("robust_"),
            threat=robust_threat,
            attack_steps=steps,
        ),
        Recipe(
            spec=spec(
                config.fresh_model, config.fresh_width, preset.fresh_width or preset.width
            ),
            how=fit("fresh_"),
        ),
    )


def _given(config: Config, dataset: data.Dataset, reference: str | None) -> Network | None:
    """A network of another run, if it fits the data set and the flags."""
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
    """Reads what the flags name and fills in the presets; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    most = 200 if config.dry_run else chosen(config, preset, "train_examples")
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
    grid = {*chosen(config, preset, "eps_grid"), eps, 0.0}
    if config.norm != "l2" and config.eps_grid is None:  # the preset's is in L2
        grid = {0.0, *(eps * share for share in (0.25, 0.5, 1.0, 1.5))}
    grid = {0.0, eps} if config.dry_run else grid
    threat = threat_model(config.norm, eps)
    steps = 2 if config.dry_run else chosen(config, preset, "steps")
    step_size = config.step_size or eps * preset.relative_step
    look = chosen(config, preset, "attack_transform")
    attack = towards(
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
        threat=threat,
        eps=eps,
        steps=steps,
        step_size=step_size,
        attack=attack,
        attack_words={
            "steps": steps,
            "step_size": step_size,
            "transform": look,
            "gradient_filter": chosen(config, preset, "gradient_filter"),
        },
        sources=1 if config.checkpoint else chosen(config, preset, "sources"),
        eps_grid=tuple(sorted(grid)),
        source=source,
        robust=robust,
        fresh=fresh,
        given_source=_given(config, dataset, config.checkpoint),
        given_robust=_given(config, dataset, config.robust_checkpoint),
    )
