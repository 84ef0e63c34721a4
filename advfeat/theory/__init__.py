"""Closed-form theory: data models with explicit errors and bounds.

Each model has one module, which states what it computes exactly and what it only bounds.
"""

from advfeat.theory import bernoulli, gaussian

__all__ = ["bernoulli", "gaussian"]
