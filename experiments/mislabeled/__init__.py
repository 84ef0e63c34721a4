"""The mislabelled-data experiment: networks learn from images whose labels all look wrong.

    python -m experiments.mislabeled --workdir=runs/mislabeled

A standard network's training images are perturbed towards another class and labelled as that class.
A fresh network trained on them is tested on the ORIGINAL test set (Ilyas et al. 2019, section 3.2,
https://arxiv.org/abs/1905.02175). Each result comes with its controls, and with the predictions of
an independently trained robust network on the same images.

Digits, 2 CPU cores: 3 minutes; D_rand 91 %, D_det 50 % where unperturbed images give 10 and 0 %.
All measurements, including CIFAR-10 cats against dogs: docs/results/mislabeled.md.
"""
