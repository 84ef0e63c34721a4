"""Small networks for the checks to look at: honest ones, and defences that must not be believed."""

from __future__ import annotations

import jax
import numpy as np

import advfeat
from advfeat import data, models, training
from advfeat.evaluation import broken_defences

COUNT = 60  # test images
LEVELS = 16  # scikit-learn's digits have 17 grey levels

EXPECTED = {
    "scaled_logits": {"saturated", "zero_gradients"},
    "probabilities": {"probabilities"},
    "clipped_log": {"zero_gradients", "black_box"},
    "hard_labels": {"zero_gradients", "black_box"},
    "stopped_gradient": {"zero_gradients", "black_box"},
    "quantised": {"zero_gradients", "black_box"},
    "thermometer": {"zero_gradients", "black_box"},
    "jpeg": {"zero_gradients", "black_box"},
    "shattered": {"misleading_gradients", "black_box"},
    "noisy_gradient": {"misleading_gradients", "black_box"},
    "switching": {"misleading_gradients"},
    "k_winners": {"misleading_gradients", "black_box"},
    "lookup": {"zero_gradients"},
    "plausible_lookup": {"misleading_gradients"},
    "masked_off_grid": {"zero_gradients", "one_step", "black_box"},
    "gamma_corrected": {"nan_gradients"},
    "random_view": {"randomised"},
    "dropout_left_on": {"randomised"},
}
"""By defence, the codes that say what is wrong with it. More may be raised."""
BY_ATTACKS = {"black_box", "one_step", "not_converged"}
"""Codes that another attack has to be run for."""
BY_WEAK_SUITES = {"one_step"}
"""Codes that are not raised where a suite without gradients leaves nothing standing."""


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many test images and their labels."""
    test = data.subset(data.load("digits").test, count, seed=0)
    return data.unit(test.image), test.label


def _affine(weights, x):
    return x @ weights["kernel"] + weights["bias"]


def trained(
    model: str = "mlp",
    *,
    width: int = 64,
    seed: int = 0,
    threat: advfeat.ThreatModel | None = None,
    epochs: int = 10,
) -> broken_defences.Halves:
    """A network for digits, adversarially trained where there is a threat model."""
    digits = data.load("digits")
    network = models.create(model, num_classes=10, width=width, mean=digits.mean, std=digits.std)
    variables = models.init(jax.random.key(seed), network, digits.input_shape)
    loss = training.standard(network)
    if threat is not None:
        size = 1.4 * threat.eps / 5
        attack = advfeat.pgd(threat, steps=5, step_size=size, keep=None)
        loss = training.adversarial(network, advfeat.cross_entropy, attack)
    config = training.TrainConfig(
        epochs=epochs, batch_size=64, learning_rate=0.05, weight_decay=0.0
    )
    images, labels = data.unit(digits.train.image), digits.train.label
    key = jax.random.key(seed + 100)
    state = training.fit(key, loss, variables, images, labels, config, num_classes=10)
    variables = {"params": state.params, **state.model_state}
    head = jax.tree_util.Partial(_affine, variables["params"]["classifier"])
    return broken_defences.Halves(models.model_fn(network, variables, layer="representation"), head)
