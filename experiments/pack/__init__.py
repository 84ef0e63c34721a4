"""Adds a trained network to the zoo: arrays in half precision and a card.

    python -m experiments.pack --run=runs/robust --name=mnist_linf_robust \\
        [--evaluation=runs/evaluated]

The card contains the command that trained the network (from the run's own record) and its
measurements: the run's summary, the accuracy on all test images after rounding to half precision
and, if `--evaluation` names a run of `experiments.evaluate` on it, the suite's verdict.
"""
