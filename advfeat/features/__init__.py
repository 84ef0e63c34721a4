"""Learned features: mislabelled sets, synthesis, representations, counterfactuals, ground truth."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={"counterfactuals", "generation", "mislabeled", "planted", "representations"},
)
