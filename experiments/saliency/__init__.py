"""Which pixels a network uses, by ten methods: standard beside robust, and another architecture.

    python -m experiments.saliency --workdir=runs/saliency

Maps of test images by every method and network; then numbers: is the robust network's gradient
better aligned with the image, does SmoothGrad change the ranking of pixels or only the look, how
much of a map belongs to the architecture, which methods pass the sanity checks of Adebayo et al.
(2018, https://arxiv.org/abs/1810.03292), how soon the class is lost and found along deletion and
insertion curves, how far a map moves when the image hardly does.

`experiments.sanity` adds the test of permuted labels, `experiments.roar` retrains without the
pixels that a map ranks first, `experiments.ground_truth` knows which feature is used.

By default on the samples that come with the package; `--dataset=cifar10`, once prepared, is the
whole test set (two CPU cores: 2 minutes 12). Numbers: docs/results/maps.md.
"""
