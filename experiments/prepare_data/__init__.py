"""Prepares CIFAR-10 or MNIST for TensorFlow Datasets from the published archives.

    python -m experiments.prepare_data --dataset=cifar10 --archive_dir=archives
    python -m experiments.prepare_data --dataset=mnist --archive_dir=archives --download

No TensorFlow is needed and, if the archives are present, no network either. The archives are
`cifar-10-binary.tar.gz` (https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz), and MNIST's
`train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`, `t10k-images-idx3-ubyte.gz` and
`t10k-labels-idx1-ubyte.gz` (https://storage.googleapis.com/cvdf-datasets/mnist/). The result is
TFDS's standard set, in its standard order, which every experiment reads with `--data_dir`.
"""
