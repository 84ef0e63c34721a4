"""Steps 2 and 4 of the mislabelled-data experiment: the sets, their controls, who reads what."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import constructed
from advfeat.constructed import ConstructedSet
from advfeat.results import RunDirectory
from advfeat.types import ModelFn
from experiments.networks import stream

if TYPE_CHECKING:
    from experiments.mislabeled import Config, Plan
    from experiments.mislabeled_networks import Sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sets:
    """Every training set of the experiment.

    Attributes:
      training: (variant, control or "") -> the set a fresh network is trained on.
      read: variant -> what networks predict on its images: "standard" and "robust" -> `[N]`, and
        "robust_clean" for the robust network's predictions on the unperturbed images.
    """

    training: dict[tuple[str, str], ConstructedSet]
    read: dict[str, dict[str, np.ndarray]]


def build(config: Config, plan: Plan, run: RunDirectory, networks: Sources) -> Sets:
    """Builds D_rand, D_other and D_det, their controls, and what the networks read off them."""
    training: dict[tuple[str, str], ConstructedSet] = {}
    read = {}
    logits = advfeat.predict(networks.standard, plan.train.image)
    for variant in config.variants:
        made = _perturbed(config, plan, run, variant, "standard", networks.attacked)
        training[variant, ""] = made
        rows = _rows(plan, made)
        for control in config.controls or ():
            if control == "robust_source":
                other = _perturbed(config, plan, run, variant, "robust", networks.robust)
            else:
                other = _control(config, plan, control, variant, made, rows, logits)
            training[variant, control] = other
        read[variant] = {
            "standard": _says(networks.standard, made.image),
            "robust": _says(networks.robust, made.image),
            "robust_clean": _says(networks.robust, plan.train.image[rows]),
        }
    return Sets(training=training, read=read)


def _says(fn: ModelFn, images: np.ndarray) -> np.ndarray:
    return np.argmax(advfeat.predict(fn, images), axis=1)


def _rows(plan: Plan, made: ConstructedSet) -> np.ndarray:
    """Where the set's examples stand in the training images."""
    place = {int(example): row for row, example in enumerate(plan.train.id)}
    return np.array([place[int(example)] for example in made.id])


def _targets(config: Config, plan: Plan, rule: str) -> np.ndarray:
    classes = plan.dataset.num_classes
    if rule == "det":
        return constructed.deterministic_targets(plan.train.label, num_classes=classes)
    key = stream(jax.random.key(config.seed), "targets")
    return constructed.random_targets(key, plan.train.label, num_classes=classes)


def _perturbed(
    config: Config, plan: Plan, run: RunDirectory, variant: str, source: str, fn: ModelFn
) -> ConstructedSet:
    """One constructed set, saved in the run; D_other is D_rand's part with t != y."""
    if variant == "other":
        whole = _perturbed(config, plan, run, "rand", source, fn)
        made = whole.take(whole.label != whole.original_label)
    else:
        made = _attacked(config, plan, run, variant, source, fn)
    if variant == "other" and not run.arrays_path(_file(variant, source)).exists():
        _save(config, plan, run, variant, source, made)
    return made


def _file(variant: str, source: str) -> str:
    return f"d_{variant}" if source == "standard" else f"{source}_source/d_{variant}"


def _attacked(
    config: Config, plan: Plan, run: RunDirectory, variant: str, source: str, fn: ModelFn
) -> ConstructedSet:
    path = run.arrays_path(_file(variant, source))
    if path.exists():
        with np.load(path) as saved:
            return ConstructedSet(*(saved[field] for field in ConstructedSet._fields))
    what = f"D_{variant} from the {source} network"
    with tqdm(total=len(plan.train), desc=what, unit="image") as bar:
        made = constructed.construct(
            stream(jax.random.key(config.seed), f"construct/{variant}/{source}"),
            plan.attack,
            fn,
            plan.train.image,
            plan.train.label,
            _targets(config, plan, variant),
            ids=plan.train.id,
            batch_size=config.attack_batch_size,
            advance=bar.update,
        )
    _save(config, plan, run, variant, source, made)
    return made


def _save(
    config: Config, plan: Plan, run: RunDirectory, variant: str, source: str, made: ConstructedSet
) -> None:
    rule = "t = (y + 1) mod C" if variant == "det" else "t uniform over all classes"
    recipe = plan.robust if source == "robust" else plan.source
    provenance: dict[str, Any] = {
        "dataset": config.dataset,
        "classes": list(config.classes) if config.classes else None,
        "class_names": list(plan.dataset.class_names),
        "set": f"d_{variant}",
        "targets": rule + (", those with t = y left out" if variant == "other" else ""),
        "source_network": {
            "name": config.checkpoint if config.checkpoint and source == "standard" else source,
            "networks": plan.sources if source == "standard" else 1,
            "spec": dataclasses.asdict(recipe.spec),
            **recipe.record(),
        },
        "seed": config.seed,
        "threat": {"norm": plan.threat.norm.name, "eps": plan.eps},
        "attack": plan.attack_words,
        "source_fooled": float(made.fooled.mean()),
    }
    run.save_arrays(_file(variant, source), made._asdict(), provenance)


def _control(
    config: Config,
    plan: Plan,
    control: str,
    variant: str,
    made: ConstructedSet,
    rows: np.ndarray,
    logits: np.ndarray,
) -> ConstructedSet:
    """The same labels on images without the source network's features."""
    images = plan.train.image[rows]
    key = stream(jax.random.key(config.seed), f"control/{control}/{variant}")
    if control == "unperturbed":
        return constructed.unperturbed_control(made, images)
    if control == "noise":
        return constructed.noise_control(key, plan.threat, made, images)
    margins = constructed.target_margin(logits[rows], made.label)
    classes = plan.dataset.num_classes
    return constructed.feature_free_control(
        key, plan.threat, made, images, margins, num_classes=classes
    )
