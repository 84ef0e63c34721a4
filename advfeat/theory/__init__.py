"""Closed-form theory: data models with explicit errors and bounds.

Each model has one module, which states what it computes exactly and what it only bounds;
`simulation` draws from two of them.
"""

from advfeat.theory import bernoulli, gaussian, simulation

__all__ = ["bernoulli", "gaussian", "simulation"]
