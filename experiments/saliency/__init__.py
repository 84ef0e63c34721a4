"""Which pixels does a network use? Ten methods, for standard, robust and other networks.

    python -m experiments.saliency --workdir=runs/saliency

Computes maps of test images by every method and network, and measures: is the robust network's
gradient better aligned with the image, does SmoothGrad change the ranking of pixels or only the
look, how much of a map depends on the architecture, which methods pass the sanity checks of Adebayo
et al. (2018, https://arxiv.org/abs/1810.03292), how fast the class is lost and recovered along
deletion and insertion curves, how far a map moves under a tiny change of the image.

`experiments.sanity` adds the test of permuted labels, `experiments.roar` retrains without the
highest-ranked pixels, and `experiments.ground_truth` knows which feature is used.

By default on the samples that come with the package; `--dataset=cifar10`, once prepared, uses the
whole test set (two CPU cores: 2 minutes 12). Numbers: docs/results/maps.md.
"""
