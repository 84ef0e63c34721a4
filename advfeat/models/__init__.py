"""Networks by name, and their view for attacks: a function of one image.

    model = create("resnet9", num_classes=10, mean=(0.5,), std=(0.25,))
    variables = init(jax.random.key(0), model, (32, 32, 3))
    logits_fn = model_fn(model, variables)                         # [H, W, C] -> [K]
    representation_fn = model_fn(model, variables, layer="representation")

Adapt networks from other libraries with `from_linen`, `from_nnx`, `from_function`,
`from_equinox` and `from_haiku`.

To add a network, write its module (a subclass of `Architecture`) and one line of `NETWORKS`.
"""

from __future__ import annotations

from advfeat.models.adapters import (
    from_equinox,
    from_function,
    from_haiku,
    from_linen,
    from_nnx,
)
from advfeat.models.base import Architecture
from advfeat.models.functions import init, layer_names, model_fn, module_names
from advfeat.models.layers import Conv, conv
from advfeat.models.registry import NETWORKS, create, names
from advfeat.models.split import guided, split_fn, with_fake_relu, with_relu

__all__ = [
    "NETWORKS",
    "Architecture",
    "Conv",
    "conv",
    "create",
    "from_equinox",
    "from_function",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "guided",
    "init",
    "layer_names",
    "model_fn",
    "module_names",
    "names",
    "split_fn",
    "with_fake_relu",
    "with_relu",
]
