"""Runs `python -m experiments.benchmark`."""

import os

from ..shared.start import start
from . import __doc__ as text
from .flags import Config

if __name__ == "__main__":
    # JAX would reserve most of a GPU's memory, which PyTorch needs a part of.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    start(__package__, Config, text)
