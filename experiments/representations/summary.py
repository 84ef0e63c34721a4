"""Measures representations and summarises `experiments.representations`."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import models, stats
from advfeat.features import representations
from advfeat.images import distortions, quality
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.stats import Claim

from . import pictures
from .flags import Config
from .measures import NEAR, as_pixels, distances, rank_agreements
from .plan import PIXELS, Plan


def measured(
    config: Config, plan: Plan, network: Network, inverted: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Measures one network's distances, orders and inversions, with an entry per image."""
    fn = network.model_fn(config.layer)
    images = plan.images[plan.measured]
    root = jax.random.key(config.seed)
    layers = models.layer_names(network.spec.build(), network.spec.input_shape)
    sensitivity = {}
    for layer in tqdm(layers, desc="layers", unit="layer"):
        sensitivity[layer] = representations.layer_sensitivity(
            stream(root, layer),
            network.model_fn(layer),
            images,
            plan.threat,
            steps=2 if config.dry_run else 20,  # no flag holds them
        )._asdict()
    originals = plan.images[plan.inverted]
    read = {judge: pictures.classes(reader, originals) for judge, reader in plan.judges.items()}
    return {
        "ordered": {
            name: rank_agreements(fn, images, name, seed=config.seed)
            for name in distortions.DISTORTIONS
        },
        "sensitivity": sensitivity,
        "inverted": {
            start: {
                "distance": distances(fn, originals, found),
                "ssim": np.array(
                    [quality.ssim(a, b) for a, b in zip(found, originals, strict=True)]
                ),
                "other": {
                    judge: pictures.classes(plan.judges[judge], found) != seen
                    for judge, seen in read.items()
                },
            }
            for start, found in inverted.items()
        },
    }


def of_pixels(config: Config, plan: Plan) -> dict[str, np.ndarray]:
    """Measures how often the pixels themselves order each distortion, the control, `[N]`."""
    images = plan.images[plan.measured]
    return {
        name: rank_agreements(as_pixels, images, name, seed=config.seed)
        for name in distortions.DISTORTIONS
    }


def summarise(
    config: Config, plan: Plan, numbers: dict[str, Any], pixels: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Returns the summary: numbers (of `measured` and `of_pixels`) with intervals, and claims."""
    orders = {name: part["ordered"] for name, part in numbers.items()}
    orders[PIXELS] = pixels
    means = {name: np.mean(list(found.values()), axis=0) for name, found in orders.items()}
    likeness = {name: part["inverted"]["from_noise"]["ssim"] for name, part in numbers.items()}
    claims = [
        stats.claim(
            "The robust network's representation orders distortions by their strength more often "
            "than the standard one's.",
            stats.mean(means["robust"], limits=stats.SHARE),
            stats.mean(means["standard"], limits=stats.SHARE),
            paired=stats.mean(means["robust"] - means["standard"]),
            margin=stats.MARGIN,  # the frequency is a rate, too
        ),
        stats.claim(
            "An image made from its representation alone is more like the original (SSIM) for the "
            "robust network.",
            stats.mean(likeness["robust"], limits=stats.CORRELATION),
            stats.mean(likeness["standard"], limits=stats.CORRELATION),
            paired=stats.mean(likeness["robust"] - likeness["standard"]),
            margin=stats.SMALL,
        ),
        *metamer_claims(numbers),
    ]
    return {
        "dataset": config.dataset,
        "layer": config.layer,
        "judges": list(plan.judges),
        "images": len(plan.measured),
        "inverted": len(plan.inverted),
        "eps": config.eps,
        "units": {name: list(units) for name, units in plan.units.items()},
        "ordered": {
            name: {
                which: stats.mean(values, limits=stats.SHARE)
                for which, values in {"all": means[name], **found}.items()
            }
            for name, found in orders.items()
        },
        "sensitivity": {
            name: {
                layer: stats.computed(
                    lambda both: float(both[:, 0].mean() / max(both[:, 1].mean(), 1e-12)),
                    np.stack([found["moved"], found["apart"]])[None],
                    limits=(0.0, np.inf),
                )
                for layer, found in part["sensitivity"].items()
            }
            for name, part in numbers.items()
        },
        "inversion": {
            name: {
                start: {
                    "distance": stats.mean(found["distance"], limits=(0.0, np.inf)),
                    "ssim": stats.mean(found["ssim"], limits=stats.CORRELATION),
                    "arrived": stats.rate(found["distance"] < NEAR),
                    "metamers": {
                        judge: stats.rate(other, among=found["distance"] < NEAR)
                        if (found["distance"] < NEAR).any()
                        else None
                        for judge, other in found["other"].items()
                    },
                }
                for start, found in part["inverted"].items()
            }
            for name, part in numbers.items()
        },
        "claims": runner.judged(claims, config),
    }


def metamer_claims(numbers: dict[str, Any]) -> list[Claim]:
    """Compares networks on the images whose ascent arrived in both, for a fair comparison."""
    found = {name: part["inverted"]["from_another"] for name, part in numbers.items()}
    both = np.all([part["distance"] < NEAR for part in found.values()], axis=0)
    if not both.any():
        return []
    return [
        stats.claim(
            f"Of images made from another to one representation, {judge.replace('_', ' ')} reads "
            "another class in the standard network's more often than in the robust network's.",
            stats.rate(standard[both]),
            stats.rate(found["robust"]["other"][judge][both]),
            paired=stats.difference(standard[both], found["robust"]["other"][judge][both]),
        )
        for judge, standard in found["standard"]["other"].items()
    ]
