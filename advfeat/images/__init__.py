"""Image operations: augmentation, parametrisations, filters, distortions, quality metrics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={"augmentation", "distortions", "filters", "parametrisations", "quality"},
)
