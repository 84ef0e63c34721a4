"""The types of the functional layers are checked in this run, shapes included."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import advfeat
from advfeat import saliency, stats
from advfeat.evaluation.prediction import correct
from advfeat.threats.hyperplane import to_hyperplane


@pytest.mark.parametrize(
    "call",
    [
        lambda: advfeat.cross_entropy(jnp.zeros((1, 3)), jnp.array([1])),  # a batch
        lambda: advfeat.linf(0.1).distance(jnp.zeros((2, 1)), jnp.zeros((2, 2))),
        lambda: advfeat.linf(0.1).project(jnp.zeros(2, int), jnp.zeros(2, int)),
        lambda: to_hyperplane(advfeat.threats.LINF, jnp.zeros(2), jnp.ones(2), jnp.ones(1)),
        lambda: saliency.total(np.zeros((2, 3))),
        lambda: stats.chosen_by_others({"in a mapping": np.zeros((2, 3, 1))}),
    ],
)
def test_another_shape_or_kind_is_seen(call):
    with jax.numpy_rank_promotion("allow"), pytest.raises(jaxtyping.TypeCheckError):
        call()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_every_precision_and_transformation_passes(dtype):
    logits, labels = jnp.zeros((2, 3), dtype), jnp.array([0, 1])
    slope = jax.vmap(jax.jit(jax.grad(advfeat.cross_entropy)))(logits, labels)
    assert slope.dtype == dtype


def test_numpy_arrays_and_lists_pass():
    assert advfeat.cross_entropy(np.zeros(2, np.float32), np.int64(1)) > 0
    assert correct(jnp.ravel, jnp.eye(2).reshape(2, 2, 1, 1), [0, 1]).all()


def test_bad_input_meets_the_functions_own_error():
    with pytest.raises(ValueError, match="dlr needs logits of at least 3 classes"):
        advfeat.dlr(jnp.zeros(2), 1)
    with pytest.raises(ValueError, match="norm must be one of"):
        advfeat.threat_model("l3", 0.1)
