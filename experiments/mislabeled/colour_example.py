"""Turns photographs into another class without a visible change.

It only uses what comes with the package: CIFAR-10 samples and the zoo's standard and robust
network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

import advfeat
from advfeat import data, figures, zoo
from advfeat.features import mislabeled
from advfeat.keys import stream
from advfeat.types import ModelFn

EPS, STEPS = 0.5, 10  # L2, the eps of Ilyas et al.; more steps do not turn more images
SURE = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turned:
    """The outcome for the samples.

    Attributes:
      examples: rows of a strip, drawn by the seed from the turned images, or from all if none was
        turned.
      samples: number of images considered.
      tried: number of these that the network classifies correctly; they were perturbed.
      turned: number of these then predicted as the target class.
      sure: number of these with a confidence of at least `SURE`.
    """

    examples: tuple[figures.Example, ...]
    samples: int
    tried: int
    turned: int
    sure: int

    def words(self) -> str:
        """Describes the outcome for a caption."""
        return (
            f"{len(self.examples)} of CIFAR-10's test images under targeted PGD on the zoo's "
            f"standard network (L2 eps {EPS:g}, towards its second most likely class): of "
            f"{self.samples} samples it classifies {self.tried} correctly; {self.turned} of these "
            f"are then predicted as the target class, {self.sure} with a confidence of "
            f"{100 * SURE:.0f} % or more. Those shown were drawn by the seed from the "
            f"{self.turned}."
        )


def turn(*, seed: int, shown: int = 2, steps: int = STEPS, most: int | None = None) -> Turned:
    """Measures by `measure`, with its arguments, and describes what was found."""
    return described(measure(seed=seed, shown=shown, steps=steps, most=most))


def measure(
    *, seed: int, shown: int = 2, steps: int = STEPS, most: int | None = None
) -> dict[str, np.ndarray]:
    """Perturbs every correctly classified sample towards the network's second most likely class.

    Args:
      seed: determines which images are shown.
      shown: number of images shown.
      steps: of PGD.
      most: maximum number of samples considered, spread over the classes; all by default.

    Returns:
      Of the S shown images: "original" and "perturbed" `[S, H, W, C]`, "label" and "aim" `[S]`,
      and probabilities `[2, S, K]`, before and after, of the network "standard" and "robust"; and
      the counts of `Turned`.
    """
    samples = data.samples("cifar10")
    picked = data.draw_rows(samples.label, most or 0, seed=seed)
    images, labels = data.unit(samples.image[picked]), samples.label[picked]
    network, robust = (zoo.load(f"cifar10_{name}").model_fn() for name in ("standard", "l2_robust"))
    before = probabilities(network, images)
    right = np.flatnonzero(before.argmax(axis=1) == labels)
    images, labels, before = images[right], labels[right], before[right]
    aims = np.argsort(before, axis=1)[:, -2]
    attack = mislabeled.targeted_pgd(advfeat.l2(EPS), steps=steps)
    key = stream(jax.random.key(seed), "photographs")
    found = advfeat.attack_dataset(key, attack, network, images, aims, batch_size=50)
    perturbed = np.asarray(found.best.x)
    after = probabilities(network, perturbed)
    there = after.argmax(axis=1) == aims
    among = np.flatnonzero(there) if there.any() else np.arange(len(labels))
    drawn = among[data.draw_rows(labels[among], shown, seed=seed)]
    robust_says = [probabilities(robust, x[drawn]) for x in (images, perturbed)]
    return {
        "original": images[drawn],
        "perturbed": perturbed[drawn],
        "label": labels[drawn],
        "aim": aims[drawn],
        "standard": np.stack([before[drawn], after[drawn]]),
        "robust": np.stack(robust_says),
        "samples": np.array(len(picked)),
        "tried": np.array(len(labels)),
        "turned": np.array(there.sum()),
        "sure": np.array((there & (after.max(axis=1) >= SURE)).sum()),
    }


def described(found: Mapping[str, np.ndarray]) -> Turned:
    """Describes what `measure` found, also as read back from a run."""
    names = data.samples("cifar10").class_names

    def spoken(network: str, row: int) -> tuple[tuple[str, float], tuple[str, float]]:
        first, second = (
            (names[shares[row].argmax()], float(shares[row].max())) for shares in found[network]
        )
        return first, second

    return Turned(
        examples=tuple(
            figures.Example(
                original=found["original"][row],
                perturbed=found["perturbed"][row],
                label=names[label],
                new_label=names[found["aim"][row]],
                networks={network: spoken(network, row) for network in ("standard", "robust")},
                smooth=True,
            )
            for row, label in enumerate(found["label"])
        ),
        **{count: int(found[count]) for count in ("samples", "tried", "turned", "sure")},
    )


def probabilities(fn: ModelFn, images: np.ndarray) -> np.ndarray:
    """Returns the softmax `[N, K]` of the logits of `[N, H, W, C]`, in double precision."""
    logits = advfeat.predict(fn, images).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
