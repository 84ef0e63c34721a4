"""Prepares `experiments.train`: loads the data, and builds the recipe from flags and preset."""

from __future__ import annotations

import dataclasses
from typing import Any

from advfeat import data, models
from advfeat.runs.checkpoints import load_network
from advfeat.training import TrainConfig
from advfeat.training.losses.entries import USUAL_STEPS
from advfeat.training.selection import MAX_DROP, Selection

from ..shared.flag_checks import check_eps
from ..shared.flags.choices import RESIZED_CROP
from ..shared.images import AnyDataset, Images, load, streamed
from ..shared.networks import check_shared, spec_for
from ..shared.presets import Preset, chosen, preset_for
from ..shared.recipes import Recipe, fine_tuned
from .flags import Config, fact

WATCHED = 500  # held-out images of a stream: as many as select an epoch (`runs.selection`)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded or opened.
      train: training images without the held-out ones, in memory or as a stream.
      held_out: some of the others, for monitoring.
      recipe: architecture and training.
      eps: at which robustness is measured; the recipe's, unless that is of a standard network.
      eps_grid: eps at which accuracy under PGD is measured, ascending, including 0 and eps.
      notes: notes for the user, one line each.
    """

    dataset: AnyDataset
    train: data.Split | data.Stream
    held_out: Images
    recipe: Recipe
    eps: float
    eps_grid: tuple[float, ...]
    notes: tuple[str, ...] = ()


def prepare(config: Config) -> Plan:
    """Loads what the flags name and fills in presets; writes nothing."""
    dataset = load(config, config.image_size)
    preset = preset_for(dataset)
    split: Any = data.subset(dataset.train, config.train_examples, seed=config.seed)
    kept, held = data.held_out(split, fraction=_share(config, len(split)), seed=config.seed)
    if len(held) < 1 or len(kept) < dataset.num_classes:
        raise ValueError(
            f"flag --train_examples={len(split)}: too few to hold out {config.held_out:g} of them"
        )
    watched = data.subset(held, WATCHED if config.stream else 1000, seed=config.seed)
    eps = _eps(config, preset)
    check_eps(config.norm, dataset.input_shape, eps=eps, eps_grid=config.eps_grid)
    recipe, notes = _recipe(config, dataset, preset, eps, len(kept))
    check_shared(recipe.config, len(kept))
    train: data.Split | data.Stream = kept
    if config.stream:
        crops = _augment(config, dataset, preset, recipe.threat is not None) == RESIZED_CROP
        train = streamed(kept, recipe.config.batch_size, seed=config.seed, random_crops=crops)
    grid = {*chosen(config, preset, "eps_grid"), eps, 0.0}
    if config.norm == "linf" and config.eps_grid is None:
        grid = {0.0, *(eps * share for share in (0.25, 0.5, 0.75, 1.0, 1.5) if eps * share < 1)}
    return Plan(
        dataset=dataset,
        train=train,
        held_out=watched,
        recipe=recipe,
        eps=float(eps),
        eps_grid=tuple(sorted(grid)),
        notes=notes,
    )


def _share(config: Config, examples: int) -> float:
    """Returns the share to hold out: of a stream only what is watched, the rest is trained on."""
    return min(config.held_out, WATCHED / examples) if config.stream else config.held_out


def _augment(config: Config, dataset: AnyDataset, preset: Preset, robust: bool) -> str:
    """Returns the augmentation; by default images of many sizes are cropped at random."""
    if config.augment is not None:
        return config.augment
    if isinstance(dataset, data.DiskDataset) and not dataset.one_size:
        return RESIZED_CROP
    return preset.robust_augment if robust else preset.augment


def _reading(dataset: AnyDataset, augment: str) -> str:
    """Describes how a stream reads its training images."""
    size = " x ".join(map(str, dataset.input_shape[:2]))
    if augment == RESIZED_CROP:
        return f"random crops, resized to {size}, half of them mirrored"
    return f"{size}, cropped at the centre where they have another size"


def _eps(config: Config, preset: Preset) -> float:
    if config.eps is not None:
        return config.eps
    # A standard network is only measured: unless an eps is given, at the grid's largest.
    return preset.robust_eps if config.norm == "l2" else max(config.eps_grid or (0.0,))


def _warmup(config: Config, preset: Preset) -> float:
    if config.eps_warmup is not None:
        return config.eps_warmup
    # A warm-up helps only networks that have learned nothing yet.
    return 0.0 if config.start is not None else preset.robust_warmup


def _recipe(
    config: Config, dataset: AnyDataset, preset: Preset, eps: float, examples: int
) -> tuple[Recipe, tuple[str, ...]]:
    """Returns the recipe of flags and preset, and notes about it."""
    notes: list[str] = []
    objective, robust = config.objective, config.objective != "standard" and eps > 0
    if objective != "standard" and not robust:
        notes.append(f"eps 0 leaves nothing to attack: {objective} is standard training here")
    prefix = "robust_" if robust else ""

    def option(name: str) -> Any:
        given = getattr(config, name)
        return getattr(preset, prefix + name) if given is None else given

    numbers = {**fact(objective, "numbers"), **config.own_numbers()} if robust else {}
    epochs = option("epochs")
    if "replays" in numbers:
        replays, whole = int(numbers["replays"]), epochs
        epochs = max(1, round(whole / replays))
        notes.append(f"{whole} epochs in {epochs} passes over the data of {replays} replays")
    augment = _augment(config, dataset, preset, robust)
    train_config = TrainConfig(
        epochs=epochs,
        batch_size=chosen(config, preset, "batch_size"),
        learning_rate=option("learning_rate"),
        schedule=config.schedule,
        momentum=config.momentum,
        weight_decay=(
            preset.train_weight_decay if config.weight_decay is None else config.weight_decay
        ),
        augment="none" if augment == RESIZED_CROP else augment,
        eps_warmup=_warmup(config, preset) if robust else 0.0,
    )
    batch = min(train_config.batch_size, examples)
    if batch % config.accumulate:
        raise ValueError(
            f"flag --accumulate={config.accumulate}: does not divide the batch of {batch}"
        )
    start = None if config.start is None else load_network(config.start)
    if start is not None:
        reference = str(config.start)
        spec, said = fine_tuned(start, dataset, reference, bfloat16=config.bfloat16)
        notes += said
    else:
        model = chosen(config, preset, "model")
        usual = getattr(preset, prefix + "width") if model == preset.model else None
        options: dict[str, Any] = {"width": config.width or usual, "bfloat16": config.bfloat16}
        if preset.stem and hasattr(models.create(model, num_classes=2), "stem"):
            options["stem"] = preset.stem
        spec = spec_for(dataset, model, **options)
    steps = config.attack_steps or fact(objective, "attack_steps") or USUAL_STEPS
    drop = MAX_DROP if config.max_drop is None and fact(objective, "one_step") else config.max_drop
    recipe = Recipe(
        spec=spec,
        config=train_config,
        norm=config.norm,
        eps=float(eps) if robust else None,
        objective=objective if robust else "adversarial",
        attack_steps=steps,
        attack_step_size=config.attack_step_size,
        numbers=numbers,
        label_smoothing=config.label_smoothing or 0.0,
        accumulate=config.accumulate,
        awp=config.awp,
        ema=config.ema,
        swa=config.swa,
        reading=_reading(dataset, augment) if config.stream else None,
        start=start,
        start_name=config.start or "",
        selection=Selection(
            select=config.select or "last",
            patience=config.patience,
            max_drop=drop,
            steps=10,
        )
        if robust
        else None,
    )
    return recipe, tuple(notes)
