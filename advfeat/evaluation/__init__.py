"""Evaluation: robust accuracy under suites of attacks, and diagnostics of its reliability."""

from advfeat.evaluation.prediction import (
    accuracy,
    best_score_curve,
    correct,
    evaluate_epsilons,
    numpy_predict,
    predict,
)
from advfeat.evaluation.result import SuiteResult
from advfeat.evaluation.robust_accuracy import evaluate

__all__ = [
    "SuiteResult",
    "accuracy",
    "best_score_curve",
    "correct",
    "evaluate",
    "evaluate_epsilons",
    "numpy_predict",
    "predict",
]
