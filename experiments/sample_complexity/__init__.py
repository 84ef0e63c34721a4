"""Robust generalisation needs more data: accuracy over the size of the training set.

    python -m experiments.sample_complexity --workdir=runs/sample_complexity

Standard and adversarially trained networks on nested training sets that double in size, each with
as many updates (Schmidt et al. 2018, https://arxiv.org/abs/1804.11285, section 5); beside them the
paper's Gaussian and Bernoulli models, where errors are exact and bounds are known.
"""
