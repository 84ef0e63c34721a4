"""What a representation holds: standard network beside robust network, in pictures and numbers.

    python -m experiments.representations --workdir=runs/representations

Images that activate a unit most and least beside what the unit looks for, and the direction of a
class; images made from a representation alone (inversion); the way from one image to another
through representation space beside pixel space; a feature added, and painted within a mask. Then
numbers: how often does the representation order distortions by their strength, are there metamers
(images with one representation in which an independent network sees something else), how far does
an attack move each layer (Engstrom et al. 2019, https://arxiv.org/abs/1906.00945;
https://distill.pub/2019/advex-bugs-discussion/response-4).

By default on the samples that come with the package; `--dataset=cifar10`, once prepared, is the
whole test set (two CPU cores: 2 minutes 44). Numbers: docs/results/pictures.md.
"""
