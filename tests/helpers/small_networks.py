"""Small networks that were never trained, saved as runs save them."""

import jax

from advfeat import models
from advfeat.models.network import Network, NetworkSpec
from advfeat.runs import checkpoints


def saved(place, dataset, model="cnn", width=4, seed=0, **options):
    """Saves a network for a data set below a folder, whose path is what flags take."""
    spec = NetworkSpec(
        model=model,
        class_names=dataset.class_names,
        input_shape=dataset.input_shape,
        width=width,
        options=options,
    )
    variables = models.init(jax.random.key(seed), spec.build(), spec.input_shape)
    checkpoints.save_network(place / "networks" / "model", Network(spec, variables, {}))
    return str(place)


def pair(tmp_path_factory, dataset):
    """Paths of a "standard", a "robust" and an "other" network, and of a "perceptron"."""
    place = tmp_path_factory.mktemp("networks")
    return {
        "standard": saved(place / "one", dataset),
        "robust": saved(place / "two", dataset, seed=1),
        "other": saved(place / "other", dataset, seed=2),
        "perceptron": saved(place / "three", dataset, model="mlp"),
    }
