"""Threat models: norms, their balls inside the box [0, 1], and projections onto hyperplanes."""

from advfeat.threats.balls import ThreatModel, l1, l2, linf, threat_model
from advfeat.threats.norms import L1, L2, LINF, NORMS, Norm

__all__ = ["L1", "L2", "LINF", "NORMS", "Norm", "ThreatModel", "l1", "l2", "linf", "threat_model"]
