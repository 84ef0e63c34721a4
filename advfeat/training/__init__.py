"""Learning: robust objectives, train steps and the loop that a run resumes exactly."""

from advfeat.training.loop import Fit, NotFinite, fit, initial_state
from advfeat.training.objectives import OBJECTIVES, adversarial, standard
from advfeat.training.optimisers import SCHEDULES, schedule, sgd
from advfeat.training.steps import TrainState, initial, train_step, train_update

__all__ = [
    "OBJECTIVES",
    "SCHEDULES",
    "Fit",
    "NotFinite",
    "TrainState",
    "adversarial",
    "fit",
    "initial",
    "initial_state",
    "schedule",
    "sgd",
    "standard",
    "train_step",
    "train_update",
]
