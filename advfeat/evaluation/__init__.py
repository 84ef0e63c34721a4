"""Evaluation: robust accuracy under suites of attacks, and diagnostics of its reliability."""

from advfeat.evaluation.prediction import (
    accuracy,
    correct,
    evaluate_epsilons,
    loss_by_step,
    numpy_predict,
    predict,
)
from advfeat.evaluation.result import SuiteResult
from advfeat.evaluation.robust_accuracy import evaluate

__all__ = [
    "SuiteResult",
    "accuracy",
    "correct",
    "evaluate",
    "evaluate_epsilons",
    "loss_by_step",
    "numpy_predict",
    "predict",
]
