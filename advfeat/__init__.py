"""advfeat: attack a network, train a robust one, and see what it has learned, in JAX.

The flat face (`__init__.pyi` lists it) and the parts of the library (`advfeat.models`,
`advfeat.data`, `advfeat.zoo` …), each imported on its first use: `import advfeat` itself imports
nothing, not even JAX, and what attacks a network brings neither flax nor the disk.
"""

from pkgutil import iter_modules
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_attribute, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
# `from advfeat import *` gives the face, not the parts.
__all__ = sorted(set(_names) - {part.name for part in iter_modules(__path__)})


def __getattr__(name: str) -> Any:
    """A part of the library or a name of its face, imported on its first use."""
    if name not in _names:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # First and whole: threads that import parts of JAX side by side break its import.
    import jax  # noqa: F401

    return _attribute(name)
