"""Reads and checks an experiment's command line before any slow import.

A wrong flag and `--help` are answered in a fraction of the time needed to import JAX
(`experiments.shared.start` checks first and imports the rest afterwards).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TypeVar

from advfeat.runs.config import Config, HelpRequested, UsageError, parse

C = TypeVar("C", bound=Config)

USAGE = 2


def check(config_class: type[C], doc: str | None, arguments: Sequence[str] | None = None) -> C:
    """Reads a command line; on an error, prints it and exits.

    Args:
      config_class: the experiment's config.
      doc: its module docstring, shown by `--help`.
      arguments: the command line without the program; by default that of this process.

    Returns:
      The validated config.

    Raises:
      SystemExit: with code 2 after one line on stderr; with code 0 after the help text.
    """
    try:
        return parse(config_class, sys.argv[1:] if arguments is None else arguments, doc)
    except HelpRequested as help_text:
        try:
            print(help_text, flush=True)
        except BrokenPipeError:  # a pager quit early; Python would flush again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except UsageError as error:
        tell(error)
        sys.exit(USAGE)


def tell(error: Exception) -> None:
    """Prints a one-line error message, prefixed by the program's name, to stderr."""
    print(f"{program()}: {one_line(error)}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """Returns an error's message as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def program() -> str:
    """Returns the program's name as typed after `python -m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else os.path.basename(sys.argv[0])
