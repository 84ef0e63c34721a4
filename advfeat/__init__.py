"""advfeat: attack a network, train a robust one, and see what it has learned, in JAX.

The flat API (listed in `__init__.pyi`) and the subpackages (`advfeat.models`, `advfeat.data`,
`advfeat.zoo` …) are imported lazily on first use. `import advfeat` itself imports nothing, not even
JAX, and attacking a network requires neither flax nor disk access.
"""

from pkgutil import iter_modules
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_attribute, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
# `from advfeat import *` exports the flat API, not the subpackages.
__all__ = sorted(set(_names) - {part.name for part in iter_modules(__path__)})


def __getattr__(name: str) -> Any:
    """Imports a subpackage or a name of the flat API on first use."""
    if name not in _names:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # JAX is imported first and completely: concurrent partial imports of JAX by threads fail.
    import jax  # noqa: F401

    return _attribute(name)
