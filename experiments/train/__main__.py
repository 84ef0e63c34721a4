"""Runs `python -m experiments.train`: checks the flags before any slow import."""

from advfeat.runs import command

from . import __doc__ as text
from .flags import Config

if __name__ == "__main__":
    command.check(Config, text)

    from advfeat.runs import runner

    from .work import run

    runner.main(run, Config, text, distributed=True)
