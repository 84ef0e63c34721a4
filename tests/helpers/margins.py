"""A small random network, points that it gets right but for a few, and the suite on them."""

import jax
import jax.numpy as jnp
import numpy as np

import advfeat

KEY = jax.random.key(0)


def tanh_net(weights, x):
    return weights[1] @ jnp.tanh(weights[0] @ x.ravel())


def network(seed=0, classes=5, size=12):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(16, size)), rng.normal(size=(classes, 16))
    return jax.tree_util.Partial(tanh_net, jax.tree.map(jnp.float32, weights))


def problem(count=60, classes=5, wrong=6):
    x = np.random.default_rng(0).uniform(size=(count, 2, 2, 3)).astype(np.float32)
    y = advfeat.predict(network(classes=classes), x).argmax(1)
    y[:wrong] = (y[:wrong] + 1) % classes  # misclassified from the beginning
    return x, y


def evaluate(x, y, *, classes=5, eps=0.2, **options):
    options = {"suite": ["fgsm", "pgd"], "checks": False, "batch_size": 16, **options}
    fn, key = options.pop("model_fn", network(classes=classes)), options.pop("key", KEY)
    threat = options.pop("threat", advfeat.l2(eps))
    return advfeat.evaluate(key, fn, x, y, threat=threat, **options)
