"""Closed-form theory: models of data in which errors and bounds can be written down.

One module per model; what it proves and what it only bounds stands there.
"""

from advfeat.theory import bernoulli, gaussian

__all__ = ["bernoulli", "gaussian"]
