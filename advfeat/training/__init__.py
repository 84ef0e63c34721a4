"""Robust training: objectives, procedures, train steps and an exactly resumable loop."""

from advfeat.training.hooks import Hooks, Saved
from advfeat.training.loop import NotFinite, TrainConfig, fit, initial_state
from advfeat.training.losses import (
    OBJECTIVES,
    Entry,
    TrainingObjective,
    adversarial,
    fast,
    fast_attack,
    mart,
    mixed,
    standard,
    trades,
)
from advfeat.training.optimisers import SCHEDULES, schedule, sgd
from advfeat.training.procedures import PROCEDURES, Procedure, awp, ema, free, plain, swa
from advfeat.training.state import TrainState
from advfeat.training.steps import initial, train_step, train_update
from advfeat.training.streamed import fit_stream

__all__ = [
    "OBJECTIVES",
    "PROCEDURES",
    "SCHEDULES",
    "Entry",
    "Hooks",
    "NotFinite",
    "Procedure",
    "Saved",
    "TrainConfig",
    "TrainState",
    "TrainingObjective",
    "adversarial",
    "awp",
    "ema",
    "fast",
    "fast_attack",
    "fit",
    "fit_stream",
    "free",
    "initial",
    "initial_state",
    "mart",
    "mixed",
    "plain",
    "schedule",
    "sgd",
    "standard",
    "swa",
    "trades",
    "train_step",
    "train_update",
]
