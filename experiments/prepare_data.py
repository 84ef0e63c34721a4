"""Prepares CIFAR-10 or MNIST for TensorFlow Datasets from the published archives.

    python -m experiments.prepare_data --dataset=cifar10 --archive_dir=archives
    python -m experiments.prepare_data --dataset=mnist --archive_dir=archives --download

No TensorFlow is needed; with the archives at hand, no network either. The archives are
`cifar-10-binary.tar.gz` (https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz), and MNIST's
`train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`, `t10k-images-idx3-ubyte.gz` and
`t10k-labels-idx1-ubyte.gz` (https://storage.googleapis.com/cvdf-datasets/mnist/). What comes out is
TFDS's standard set, in its standard order, which every experiment reads with `--data_dir`.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.prepare_data import PrepareConfig

if __name__ == "__main__":
    command.check(PrepareConfig, __doc__)  # type: ignore[type-var]

import sys

from advfeat.data import DataError, prepare
from experiments import runner
from experiments.config import UsageError


def run(config: PrepareConfig) -> prepare.PrepareResult:
    """Prepares the set and says where it lies and what it holds.

    Args:
      config: the flags.

    Returns:
      What was prepared.

    Raises:
      UsageError: one line that says what is unknown, absent or damaged.
    """
    try:
        result = prepare.prepare(
            config.dataset,
            config.archive_dir,
            config.data_dir,
            download=config.download,
            overwrite=config.overwrite,
        )
    except DataError as error:
        raise UsageError(str(error)) from error
    for name in result.unofficial:
        print(f"note: {name} is not the published file (its sha256 differs)", file=sys.stderr)
    counts = ", ".join(f"{count} {split}" for split, count in result.examples.items())
    print(f"{config.dataset} ({counts}) is prepared in {result.path}")
    return result


if __name__ == "__main__":
    runner.main(run, PrepareConfig, __doc__)  # type: ignore[type-var]
