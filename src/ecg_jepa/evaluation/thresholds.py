"""Thresholds on probabilities, chosen on validation records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from .metrics import check_shapes

FIXED_SENSITIVITIES = (0.90, 0.95)

# Positives, and as many negatives, that a class needs for decisions and intervals.
FEWEST = 10


@dataclass(frozen=True)
class Thresholds:
    """
    Thresholds of each class, (classes,); infinite for a class without positives among the validation records.

    Args:
        decision: at which F1 is highest.
        at_sensitivity: sensitivity -> at which so many positives are found.
        reliable: which classes have enough positives and negatives.
    """

    decision: np.ndarray
    at_sensitivity: dict[float, np.ndarray]
    reliable: np.ndarray

    def by_name(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the entries of `metrics.json`: finite thresholds; `decision_thresholds` only of classes with enough records."""
        return {
            "f1_thresholds": _finite(class_names, self.decision),
            "decision_thresholds": _finite(class_names, np.where(self.reliable, self.decision, np.inf)),
            "sensitivity_thresholds": {f"{key:.2f}": _finite(class_names, t) for key, t in self.at_sensitivity.items()},
        }


def _finite(class_names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(class_names, values, strict=True) if np.isfinite(value)}


def choose_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> Thresholds:
    """Choose thresholds on validation records: labels and probabilities are (records, classes)."""
    positives = labels.sum(axis=0)
    return Thresholds(
        f1_thresholds(labels, probabilities),
        {sensitivity: sensitivity_thresholds(labels, probabilities, sensitivity) for sensitivity in FIXED_SENSITIVITIES},
        np.minimum(positives, len(labels) - positives) >= FEWEST,
    )


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
        falling = np.sort(scores[labels[:, column] > 0, column])[::-1]
        needed = int(np.ceil(sensitivity * len(falling) - 1e-9))  # 0.95 * 60 is a little more than 57
        thresholds[column] = falling[needed - 1]
    return thresholds
