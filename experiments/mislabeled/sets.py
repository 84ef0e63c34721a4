"""Steps 2 and 4 of the mislabelled-data experiment: builds the sets and predicts their images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat.evaluation import triage
from advfeat.features import mislabeled
from advfeat.features.mislabeled import ConstructedSet
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory
from advfeat.types import ModelFn

from .plan import Config, Plan
from .sources import Sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """The robust network's predictions on one set's images, without examples with t = y.

    Attributes:
      keeps: `[N]` bool, predicts the original label.
      says_new: `[N]` bool, predicts the new label.
      known: `[N]` bool, was correct on the unperturbed image.
    """

    keeps: np.ndarray
    says_new: np.ndarray
    known: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sets:
    """Every training set of the experiment.

    Attributes:
      training: (variant, control or "") -> builds the training set of a fresh network; sets are
        built one at a time, since together they may not fit in memory.
      read: variant -> the robust network's predictions on its images.
      read_held_out: the same for held-out images perturbed in the same way, on which no network was
        trained.
    """

    training: dict[tuple[str, str], Callable[[], ConstructedSet]]
    read: dict[str, Reading]
    read_held_out: dict[str, Reading]


def build(config: Config, plan: Plan, run: RunDirectory, networks: Sources) -> Sets:
    """Builds D_rand, D_other and D_det with their controls, and the predictions on them."""
    training: dict[tuple[str, str], Callable[[], ConstructedSet]] = {}
    read, held_out = {}, {}
    logits = run.cached(
        "measured/logits",
        lambda: ({"standard": advfeat.predict(networks.standard, plan.train.image)}, {}),
    )["standard"]
    for variant in config.variants:
        made = _perturbed(config, plan, run, variant, "standard", networks.attacked)
        training[variant, ""] = partial(
            _perturbed, config, plan, run, variant, "standard", networks.attacked
        )
        for control in config.controls or ():
            if control == "robust_source":
                _perturbed(config, plan, run, variant, "robust", networks.robust)
                training[variant, control] = partial(
                    _perturbed, config, plan, run, variant, "robust", networks.robust
                )
            else:
                training[variant, control] = partial(
                    _control, config, plan, control, variant, training[variant, ""], logits
                )
        reading = partial(_read, plan, networks.robust, made)
        read[variant] = Reading(**run.cached(f"measured/read_{variant}", reading))
        # Readings exclude t = y, so D_other's equals that of D_rand.
        rule = "det" if variant == "det" else "rand"
        held_out[variant] = _held_out(config, plan, run, rule, networks)
    return Sets(training=training, read=read, read_held_out=held_out)


def _read(
    plan: Plan, robust: ModelFn, made: ConstructedSet
) -> tuple[dict[str, Any], dict[str, Any]]:
    reading = _reading(robust, made, plan.train.image[_rows(plan, made)])
    return dataclasses.asdict(reading), {"what": "the robust network on the set's images"}


def _reading(robust: ModelFn, made: ConstructedSet, before: np.ndarray) -> Reading:
    moved = made.label != made.original_label
    said = _says(robust, made.image)[moved]
    return Reading(
        keeps=said == made.original_label[moved],
        says_new=said == made.label[moved],
        known=_says(robust, before)[moved] == made.original_label[moved],
    )


def _held_out(
    config: Config, plan: Plan, run: RunDirectory, rule: str, networks: Sources
) -> Reading:
    """Predicts held-out images with the robust network, perturbed by D_det's or D_rand's rule."""

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        images, labels = plan.held_out
        made = mislabeled.construct(
            stream(jax.random.key(config.seed), f"held_out/{rule}"),
            plan.attack,
            networks.attacked,
            images,
            labels,
            _targets(config, plan, rule, labels, "targets/held_out"),
            batch_size=config.attack_batch_size,
        )
        about = {"what": "the robust network on held-out images perturbed like the set's"}
        return dataclasses.asdict(_reading(networks.robust, made, images)), about

    return Reading(**run.cached(f"measured/held_out_{rule}", measure))


def _says(fn: ModelFn, images: np.ndarray) -> np.ndarray:
    return np.argmax(advfeat.predict(fn, images), axis=1)


def _rows(plan: Plan, made: ConstructedSet) -> np.ndarray:
    """Returns the rows of the set's examples in the training images."""
    place = {int(example): row for row, example in enumerate(plan.train.id)}
    return np.array([place[int(example)] for example in made.id])


def _targets(config: Config, plan: Plan, rule: str, labels: np.ndarray, draws: str) -> np.ndarray:
    """Returns D_det's or D_rand's targets; `draws` names the random ones."""
    classes = plan.dataset.num_classes
    if rule == "det":
        return mislabeled.deterministic_targets(labels, num_classes=classes)
    key = stream(jax.random.key(config.seed), draws)
    return mislabeled.random_targets(key, labels, num_classes=classes)


def _perturbed(
    config: Config, plan: Plan, run: RunDirectory, variant: str, source: str, fn: ModelFn
) -> ConstructedSet:
    """Returns a constructed set, saved in the run; D_other is D_rand's part with t != y."""

    def compute() -> tuple[dict[str, Any], dict[str, Any]]:
        if variant == "other":
            whole = _perturbed(config, plan, run, "rand", source, fn)
            made = whole.take(whole.label != whole.original_label)
        else:
            made = _attacked(config, plan, variant, source, fn)
        return made._asdict(), _provenance(config, plan, variant, source, made)

    saved = run.cached(_file(variant, source), compute)
    return ConstructedSet(*(saved[field] for field in ConstructedSet._fields))


def _file(variant: str, source: str) -> str:
    return f"d_{variant}" if source == "standard" else f"{source}_source/d_{variant}"


def _attacked(config: Config, plan: Plan, variant: str, source: str, fn: ModelFn) -> ConstructedSet:
    what = f"D_{variant} from the {source} network"
    with tqdm(total=len(plan.train), desc=what, unit="image") as bar:
        return mislabeled.construct(
            stream(jax.random.key(config.seed), f"construct/{variant}/{source}"),
            plan.attack,
            fn,
            plan.train.image,
            plan.train.label,
            _targets(config, plan, variant, plan.train.label, "targets"),
            ids=plan.train.id,
            batch_size=config.attack_batch_size,
            advance=bar.update,
        )


def _provenance(
    config: Config, plan: Plan, variant: str, source: str, made: ConstructedSet
) -> dict[str, Any]:
    rule = "t = (y + 1) mod C" if variant == "det" else "t uniform over all classes"
    given = plan.given_robust if source == "robust" else plan.given_source
    reference = config.robust_checkpoint if source == "robust" else config.source_checkpoint
    recipe = plan.robust if source == "robust" else plan.source
    spec = recipe.spec if given is None else given.spec
    return {
        "dataset": config.dataset,
        "classes": list(config.classes) if config.classes else None,
        "data_dir": config.data_dir,
        "class_names": list(plan.dataset.class_names),
        "set": f"d_{variant}",
        "targets": rule + (", those with t = y left out" if variant == "other" else ""),
        "source_network": {
            "name": reference or source,
            "networks": plan.sources if source == "standard" else 1,
            "spec": dataclasses.asdict(spec),
            **(recipe.record() if given is None else given.record),
        },
        "seed": config.seed,
        "threat": {"norm": plan.threat.norm.name, "eps": plan.eps},
        "attack": plan.attack_words,
        "source_fooled": float(made.fooled.mean()),
    }


def _control(
    config: Config,
    plan: Plan,
    control: str,
    variant: str,
    itself: Callable[[], ConstructedSet],
    logits: np.ndarray,
) -> ConstructedSet:
    """Returns the control set: the same labels on images without the source network's features."""
    made = itself()
    rows = _rows(plan, made)
    images = plan.train.image[rows]
    key = stream(jax.random.key(config.seed), f"control/{control}/{variant}")
    if control == "unperturbed":
        return mislabeled.unperturbed_control(made, images)
    if control == "noise":
        return mislabeled.noise_control(key, plan.threat, made, images)
    margins = triage.margins(logits[rows], made.label)
    classes = plan.dataset.num_classes
    return mislabeled.feature_free_control(
        key, plan.threat, made, images, margins, num_classes=classes
    )
