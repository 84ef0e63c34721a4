"""Does robust generalisation need more data? Accuracy against the size of the training set.

    python -m experiments.sample_complexity --workdir=runs/sample_complexity --norm=linf

Trains standard and adversarial networks on nested training sets of doubling size, all with the same
number of updates (Schmidt et al. 2018, https://arxiv.org/abs/1804.11285, section 5). Also computes
the paper's Gaussian and Bernoulli models, whose errors are exact and whose bounds are known.
"""
