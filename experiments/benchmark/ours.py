"""Every work as a user of advfeat does it, by public functions alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import saliency, training
from advfeat.attacks.keeping import by_success
from advfeat.features import mislabeled
from advfeat.models.network import Network
from advfeat.threats import ThreatModel

from .check import Outcome
from .plan import COPIES_AT_A_TIME, SIGMA, Plan, Work
from .timing import Contender

NAME = "advfeat"
RATE = 0.01
"""Learning rate of the training: small, so that the order of the images matters little."""


def step_size(work: Work, threat: ThreatModel) -> float:
    """Returns the step size that all contenders use."""
    eps = float(threat.eps)
    return eps / 5 if work.family == "d_det" else 2.5 * eps / work.steps


def contender(work: Work, plan: Plan, seed: int) -> Contender:
    """Returns advfeat as a contender for a work."""
    key, network = jax.random.key(seed), plan.networks[work.network]
    images, labels = plan.points(work.count)
    threat = plan.threats.get(work.norm)
    if work.family in ("pgd", "apgd"):
        assert threat is not None
        return Contender(NAME, *_attack(work, key, network, threat, images, labels))
    if work.family in ("quick", "standard"):
        assert threat is not None
        return Contender(NAME, *_suite(work, key, network, threat, images, labels))
    if work.family == "train":
        assert threat is not None
        return Contender(NAME, *_train(work, key, network, threat, images, labels))
    if work.family == "d_det":
        assert threat is not None
        return Contender(NAME, *_d_det(work, key, network, threat, images, labels))
    assert work.family == "smoothgrad", work.family
    method = saliency.smoothgrad(samples=work.steps, sigma=SIGMA, chunk=COPIES_AT_A_TIME)
    fn = network.model_fn()

    def call(key: Any = key) -> Any:
        return advfeat.attack_dataset(key, method, fn, images, labels, batch_size=work.batch)

    return Contender(
        NAME, call, lambda maps: Outcome(maps=maps, again=call(jax.random.key(seed + 1)))
    )


def _attack(
    work: Work, key: Any, network: Network, threat: ThreatModel, x: np.ndarray, y: np.ndarray
) -> tuple[Any, Any]:
    fn, ids = network.model_fn(), jnp.arange(len(x))
    images, labels = jnp.asarray(x), jnp.asarray(y, jnp.int32)
    random = work.restarts > 1
    attack: Any = advfeat.apgd(threat, steps=work.steps)
    if work.family == "pgd":
        # Peers return the last iterate; restarts have to be compared.
        keep = by_success if random else None
        attack = advfeat.pgd(
            threat,
            steps=work.steps,
            step_size=step_size(work, threat),
            random_start=random,
            restarts=work.restarts,
            keep=keep,
        )

    def found(result: Any) -> Outcome:
        passes = float(np.sum(result.queries) + np.sum(result.gradients))
        return Outcome(points=np.asarray(result.best.x), passes=passes)

    return (
        lambda: jax.block_until_ready(
            advfeat.attack_batch(key, attack, fn, images, labels, ids=ids)
        ),
        found,
    )


def _suite(
    work: Work, key: Any, network: Network, threat: ThreatModel, x: np.ndarray, y: np.ndarray
) -> tuple[Any, Any]:
    fn = network.model_fn()

    def call() -> Any:
        return advfeat.evaluate(
            key,
            fn,
            x,
            y,
            threat=threat,
            suite=work.family,
            batch_size=work.batch,
            checks=False,
        )

    def found(result: Any) -> Outcome:
        passes = sum(part.forward_passes + part.gradients for part in result.attacks)
        return Outcome(points=result.adversarial, passes=float(passes + len(x)))

    return call, found


def _train(
    work: Work, key: Any, network: Network, threat: ThreatModel, x: np.ndarray, y: np.ndarray
) -> tuple[Any, Any]:
    attack = advfeat.pgd(
        threat,
        steps=work.steps,
        step_size=step_size(work, threat),
        random_start=False,
        keep=None,
    )
    loss_fn = training.adversarial(network.spec.build(), advfeat.cross_entropy, attack)
    config = training.TrainConfig(
        epochs=1, batch_size=work.batch, learning_rate=RATE, schedule="constant"
    )

    def call() -> Any:
        means: list[float] = []
        state = training.fit(
            key,
            loss_fn,
            network.variables,
            x,
            y,
            config,
            num_classes=len(network.spec.class_names),
            hooks=training.Hooks(
                on_epoch=lambda epoch, state, metrics: means.append(metrics["loss"])
            ),
        )
        jax.block_until_ready(state.params)
        return means[0]

    return call, lambda loss: Outcome(loss=loss)


def _d_det(
    work: Work, key: Any, network: Network, threat: ThreatModel, x: np.ndarray, y: np.ndarray
) -> tuple[Any, Any]:
    fn = network.model_fn()
    attack = mislabeled.targeted_pgd(threat, steps=work.steps)
    targets = mislabeled.deterministic_targets(y, num_classes=len(network.spec.class_names))
    return (
        lambda: mislabeled.construct(key, attack, fn, x, y, targets, batch_size=work.batch),
        lambda made: Outcome(points=made.image),
    )
