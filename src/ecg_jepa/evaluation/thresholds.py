"""Thresholds on probabilities, chosen on validation records."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import precision_recall_curve

from .metrics import check_shapes, rarer

FIXED_SENSITIVITIES = (0.90, 0.95)

# Positives, and as many negatives, that a class needs for decisions and intervals.
FEWEST = 10


class Thresholds(NamedTuple):
    """Thresholds of each class, (classes,); infinite for a class without positives among the validation records."""

    decision: np.ndarray  # at which F1 is highest
    at_sensitivity: dict[float, np.ndarray]  # sensitivity -> at which so many positives are found
    reliable: np.ndarray  # which classes have enough positives and negatives

    def by_name(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the entries of `metrics.json`: finite thresholds; `decision_thresholds` only of classes with enough records."""

        def finite(values: np.ndarray) -> dict[str, float]:
            return {name: float(value) for name, value in zip(class_names, values, strict=True) if np.isfinite(value)}

        return {
            "f1_thresholds": finite(self.decision),
            "decision_thresholds": finite(np.where(self.reliable, self.decision, np.inf)),
            "sensitivity_thresholds": {f"{key:.2f}": finite(values) for key, values in self.at_sensitivity.items()},
        }


def choose_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> Thresholds:
    """Choose thresholds on validation records: labels and probabilities are (records, classes)."""
    at_sensitivity = {target: sensitivity_thresholds(labels, probabilities, target) for target in FIXED_SENSITIVITIES}
    return Thresholds(f1_thresholds(labels, probabilities), at_sensitivity, rarer(labels) >= FEWEST)


def f1_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return per class the lowest score at which F1 is highest, (classes,); infinite for classes without positives."""
    labels, scores = check_shapes(labels, scores)
    thresholds = np.full(labels.shape[1], np.inf)
    for column in np.flatnonzero(labels.any(axis=0)):
        precision, recall, levels = precision_recall_curve(labels[:, column], scores[:, column])
        total = precision + recall
        f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
        thresholds[column] = levels[f1.argmax()]
    return thresholds


def sensitivity_thresholds(labels: np.ndarray, scores: np.ndarray, sensitivity: float) -> np.ndarray:
    """
    Return per class the highest threshold that at least the share `sensitivity` (above 0, at most 1) of the positives reaches,
    (classes,); infinite for classes without positives.
    """
    labels, scores = check_shapes(labels, scores)
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity={sensitivity} must be more than 0 and at most 1.")
    thresholds = np.full(labels.shape[1], np.inf)
    for column in np.flatnonzero(labels.any(axis=0)):
        rising = np.sort(scores[labels[:, column] > 0, column])
        needed = int(np.ceil(sensitivity * len(rising) - 1e-9))  # 0.95 * 60 is a little more than 57
        thresholds[column] = rising[-needed]
    return thresholds
