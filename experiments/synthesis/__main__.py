"""Runs `python -m experiments.synthesis`."""

from ..shared.start import start
from . import __doc__ as text
from .flags import Config

if __name__ == "__main__":
    start(__package__, Config, text)
