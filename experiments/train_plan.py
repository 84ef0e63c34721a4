"""What `experiments.train` reads off its flags before any work."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import advfeat
from advfeat import data, models
from advfeat.checkpoints import load_network
from advfeat.training import SCHEDULES, Fit
from advfeat.transforms import TRANSFORMS
from experiments.config import Config as BaseConfig
from experiments.config import flag
from experiments.limits import check_linf_eps
from experiments.networks import check_shared, spec_for
from experiments.presets import Preset, chosen, preset_for
from experiments.recipes import (
    ATTACK_STEPS,
    DEFAULTS,
    MEANT_FOR,
    OBJECTIVES,
    ONE_STEP,
    USUAL_STEPS,
    Recipe,
    check_meaning,
    fine_tuned,
)
from experiments.selection import MAX_DROP, Selection

_PRESET = "Default: the data set's preset."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """The flags of this experiment."""

    objective: str = flag("standard", "What to descend.", choices=OBJECTIVES)
    norm: str = flag("l2", "Norm of the threat model.", choices=("l2", "linf", "l1"))
    eps: float | None = flag(None, "Its eps. Default: the preset's robust_eps.", kind="eps")
    attack_steps: int | None = flag(
        None, "PGD steps of the training. Default: 7; mixed: 1, which is FGSM.", kind="count"
    )
    attack_step_size: float | None = flag(
        None, "Their size. Default: 1.4 eps / steps; FGSM, free: eps; fast: 1.25 eps.",
        kind="positive",
    )
    alpha: float | None = flag(None, "mixed: weight of the clean loss [0.5].", kind="fraction")
    beta: float | None = flag(
        None, "trades, mart: weight of the divergence [6].", kind="nonnegative"
    )
    replays: int | None = flag(
        None, "free: updates per minibatch [8]; passes over the data are epochs / replays.",
        kind="count",
    )
    grad_align: float | None = flag(
        None, "fast: weight of the gradient alignment [0].", kind="nonnegative"
    )
    awp: float | None = flag(
        None, "Adversarial weight perturbation, as a share of each layer's norm.", kind="positive"
    )
    ema: float | None = flag(
        None, "Decay of an exponential average of the weights, which is kept.", kind="fraction"
    )
    swa: float | None = flag(
        None, "Share of the training after which the kept weights are a mean.", kind="fraction"
    )
    label_smoothing: float | None = flag(
        None, "Share of the label that all classes have evenly.", kind="fraction"
    )
    accumulate: int = flag(1, "Parts in which a batch is worked through.", kind="count")
    eps_warmup: float | None = flag(
        None, "Share of the training over which eps rises from 0. " + _PRESET, kind="fraction"
    )
    select: str | None = flag(
        None, "Keep the last epoch's weights, or those best on held-out images under PGD [last].",
        choices=("last", "best"),
    )
    patience: int | None = flag(
        None, "With --select=best: end after so many epochs without a new best.", kind="count"
    )
    max_drop: float | None = flag(
        None, "End and go back to the best epoch when held-out accuracy under PGD is lower by "
        "more; 1: never [0.2 for mixed, fast, free].", kind="fraction",
    )
    checkpoint: str | None = flag(
        None, "Begin with the weights of a run, DIR or DIR:NAME; its architecture is kept."
    )
    model: str | None = flag(
        None, f"Architecture. {_PRESET} One of {', '.join(models.names())}."
    )
    width: int | None = flag(None, "Its width. " + _PRESET, kind="count")
    bfloat16: bool = flag(False, "Compute in bfloat16 (weights and attack stay float32).")
    epochs: int | None = flag(None, "Passes over the training set. " + _PRESET, kind="count")
    batch_size: int | None = flag(None, "Examples per step. " + _PRESET, kind="count")
    learning_rate: float | None = flag(None, "The schedule's largest. " + _PRESET, kind="positive")
    schedule: str = flag("onecycle", "Of the learning rate.", choices=SCHEDULES)
    momentum: float = flag(0.9, "Of SGD (Nesterov).", kind="fraction")
    weight_decay: float = flag(5e-4, "L2 regularisation of all weights.", kind="nonnegative")
    augment: str | None = flag(
        None, "Augmentation. " + _PRESET, choices=tuple(TRANSFORMS)
    )
    train_examples: int = flag(0, "Use at most so many training images; 0: all.", kind="natural")
    held_out: float = flag(0.1, "Share of the training images held out and watched.")
    eps_grid: tuple[float, ...] | None = flag(
        None, "Where accuracy under PGD is measured. " + _PRESET, kind="eps_list"
    )
    eval_steps: int = flag(20, "PGD steps of that measurement.", kind="count")
    eval_examples: int = flag(1000, "Test images of that measurement; 0: all.", kind="natural")
    attack_batch_size: int = flag(250, "Examples attacked at a time.", kind="count")

    distributed: bool = flag(
        False, "Have JAX look for the other processes (a TPU slice, Kubernetes): docs/launch.md."
    )

    def identity(self) -> dict[str, Any]:
        """Where a training runs does not decide its result."""
        return {k: v for k, v in super().identity().items() if k != "distributed"}

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        if not 0 < self.held_out < 1:
            raise ValueError(f"flag --held_out={self.held_out}: must lie between 0 and 1")
        if np.isinf(self.eps or 0.0) and self.objective != "standard":
            raise ValueError("flag --eps=inf: must be finite for adversarial training")
        standard = self.objective == "standard"
        if self.norm != "l2" and self.eps is None and not (standard and self.eps_grid):
            other = " or --eps_grid" if standard else ""
            raise ValueError(f"flag --norm={self.norm}: give --eps{other} with it")
        for name in ("momentum", "ema", "swa", "label_smoothing"):
            if not (getattr(self, name) or 0.0) < 1:
                raise ValueError(f"flag --{name}={getattr(self, name)}: must be below 1")
        check_meaning(self.objective, {name: getattr(self, name) for name in MEANT_FOR})
        if self.ema is not None and self.swa is not None:
            raise ValueError(f"flag --swa={self.swa}: the weights are averaged once, by --ema")
        if self.patience is not None and self.select != "best":
            raise ValueError(f"flag --patience={self.patience}: needs --select=best")
        if self.checkpoint is not None:
            for name in ("model", "width"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"flag --{name}={getattr(self, name)}: --checkpoint brings its own"
                    )
        check_linf_eps(self.norm, eps=self.eps or 0.0, eps_grid=self.eps_grid or ())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      train: training images without the held-out ones.
      held_out: images in [0, 1] and labels that are watched.
      recipe: architecture and training.
      eps: of the threat model.
      eps_grid: where accuracy under PGD is measured, ascending, 0 and eps among them.
      notes: what the user should know, a line each.
    """

    dataset: data.Dataset
    train: data.Split
    held_out: tuple[np.ndarray, np.ndarray]
    recipe: Recipe
    eps: float
    eps_grid: tuple[float, ...]
    notes: tuple[str, ...] = ()


def prepare(config: Config) -> Plan:
    """Reads what the flags name and fills in the presets; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    most = 200 if config.dry_run else config.train_examples
    split = data.subset(dataset.train, most, seed=config.seed)
    kept, held = data.held_out(split, fraction=config.held_out, seed=config.seed)
    if len(held) < 1 or len(kept) < dataset.num_classes:
        raise ValueError(
            f"flag --train_examples={len(split)}: too few to hold out {config.held_out:g} of them"
        )
    watched = data.subset(held, 1000, seed=config.seed)
    eps = _eps(config, preset)
    check_linf_eps(config.norm, eps=eps)
    recipe, notes = _recipe(config, dataset, preset, eps, len(kept))
    check_shared(recipe.how, len(kept))
    grid = {*chosen(config, preset, "eps_grid"), eps, 0.0}
    if config.norm == "linf" and config.eps_grid is None:
        grid = {0.0, *(eps * share for share in (0.25, 0.5, 0.75, 1.0, 1.5) if eps * share <= 1)}
    grid = {0.0, eps} if config.dry_run else grid
    return Plan(
        dataset=dataset,
        train=kept,
        held_out=(data.unit(watched.image), watched.label),
        recipe=recipe,
        eps=float(eps),
        eps_grid=tuple(sorted(grid)),
        notes=notes,
    )


def _eps(config: Config, preset: Preset) -> float:
    if config.eps is not None:
        return config.eps
    # A standard network is only measured: where nobody says at which eps, at the grid's largest.
    return preset.robust_eps if config.norm == "l2" else max(config.eps_grid or (0.0,))


def _warmup(config: Config, preset: Preset) -> float:
    if config.eps_warmup is not None:
        return config.eps_warmup
    # It is for networks that have learned nothing yet.
    return 0.0 if config.checkpoint is not None else preset.robust_warmup


def _recipe(
    config: Config, dataset: data.Dataset, preset: Preset, eps: float, examples: int
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe that flags and preset come to, and what is to be said about it."""
    notes: list[str] = []
    objective, robust = config.objective, config.objective != "standard" and eps > 0
    if objective != "standard" and not robust:
        notes.append(f"eps 0 leaves nothing to attack: {objective} is standard training here")
    prefix = "robust_" if robust else ""

    def option(name: str) -> Any:
        given = getattr(config, name)
        return getattr(preset, prefix + name) if given is None else given

    numbers = {
        name: usual if getattr(config, name) is None else getattr(config, name)
        for name, usual in DEFAULTS.items()
        if robust and objective in MEANT_FOR[name]
    }
    if config.dry_run and "replays" in numbers:
        numbers["replays"] = min(numbers["replays"], 2)
    epochs = 1 if config.dry_run else option("epochs")
    if "replays" in numbers:
        replays, whole = int(numbers["replays"]), epochs
        epochs = max(1, round(whole / replays))
        notes.append(f"{whole} epochs in {epochs} passes over the data of {replays} replays")
    how = Fit(
        epochs=epochs,
        batch_size=chosen(config, preset, "batch_size"),
        learning_rate=option("learning_rate"),
        schedule=config.schedule,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        augment=option("augment"),
        eps_warmup=_warmup(config, preset) if robust else 0.0,
    )
    batch = min(how.batch_size, examples)
    if batch % config.accumulate:
        raise ValueError(
            f"flag --accumulate={config.accumulate}: does not divide the batch of {batch}"
        )
    start = None if config.checkpoint is None else load_network(config.checkpoint)
    if start is not None:
        reference = str(config.checkpoint)
        spec, said = fine_tuned(start, dataset, reference, bfloat16=config.bfloat16)
        notes += said
    else:
        model = chosen(config, preset, "model")
        usual = getattr(preset, prefix + "width") if model == preset.model else None
        spec = spec_for(dataset, model, width=config.width or usual, bfloat16=config.bfloat16)
    steps = config.attack_steps or ATTACK_STEPS.get(objective, USUAL_STEPS)
    drop = MAX_DROP if config.max_drop is None and objective in ONE_STEP else config.max_drop
    recipe = Recipe(
        spec=spec,
        how=how,
        threat=advfeat.threat_model(config.norm, eps) if robust else None,
        objective=objective if robust else "adversarial",
        attack_steps=1 if config.dry_run else steps,
        attack_step_size=config.attack_step_size,
        numbers=numbers,
        label_smoothing=config.label_smoothing or 0.0,
        accumulate=config.accumulate,
        awp=config.awp,
        ema=config.ema,
        swa=config.swa,
        start=start,
        start_name=config.checkpoint or "",
        selection=Selection(
            select=config.select or "last",
            patience=config.patience,
            max_drop=drop,
            steps=1 if config.dry_run else 10,
        ) if robust else None,
    )
    return recipe, tuple(notes)
