"""What does a representation contain? Standard and robust network, in pictures and numbers.

    python -m experiments.representations --workdir=runs/representations

Pictures: the images that activate a unit most and least, images that maximise it, and the direction
of a class; inversions (images made from a representation alone); interpolations between two images
in representation space and in pixel space; a feature added, and painted within a mask. Numbers: how
often the representation orders distortions by their strength, how many metamers there are (images
with the same representation in which an independent network sees something else), and how far an
attack moves each layer (Engstrom et al. 2019, https://arxiv.org/abs/1906.00945;
https://distill.pub/2019/advex-bugs-discussion/response-4).

By default on the samples that come with the package; `--dataset=cifar10`, once prepared, uses the
whole test set (two CPU cores: 2 minutes 44). Numbers: docs/results/pictures.md.
"""
