"""Decisions at thresholds: how many of the ill are found, how many of the healthy are spared, and what a finding means."""

from dataclasses import dataclass

import numpy as np

from .metrics import check_shapes


def sensitivity_thresholds(labels: np.ndarray, scores: np.ndarray, sensitivity: float) -> np.ndarray:
    """
    Per class, the highest threshold at which at least the share `sensitivity` of the positives of these (validation) records
    reaches it, (classes,); infinite for classes without positives.

    Args:
        labels: zeros and ones, (records, classes).
        scores: (records, classes).
        sensitivity: more than 0, at most 1.
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


@dataclass(frozen=True)
class Decisions:
    """Records of each class in each resample, (resamples, classes) each: all drawn, with the label, predicted, and both."""

    records: np.ndarray
    positives: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray

    @property
    def out_of(self) -> dict[str, np.ndarray]:
        """What each figure is a share of."""
        return {
            "sensitivity": self.positives,
            "specificity": self.records - self.positives,
            "ppv": self.predicted,
            "npv": self.records - self.predicted,
        }

    def figures(self) -> dict[str, np.ndarray]:
        """Sensitivity, specificity, positive and negative predictive value (`ppv`, `npv`); NaN where nothing can be judged."""
        spared = self.records - self.positives - self.predicted + self.hits
        right = {"sensitivity": self.hits, "specificity": spared, "ppv": self.hits, "npv": spared}
        return {name: _ratio(right[name], total) for name, total in self.out_of.items()}

    def f1(self) -> np.ndarray:
        """Harmonic mean of sensitivity and positive predictive value, NaN without positives."""
        scores = _ratio(2 * self.hits, self.predicted + self.positives)
        return np.where(self.positives > 0, scores, np.nan)


def decide(labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, counts: np.ndarray) -> Decisions:
    """
    What comes of predicting whatever reaches its threshold.

    Args:
        labels: zeros and ones, (records, classes).
        scores: (records, classes).
        thresholds: chosen on other records, (classes,).
        counts: how often each record was drawn, (resamples, records); see [`bootstrap.resample_counts`].
    """
    labels, scores = check_shapes(labels, scores)
    drawn = counts.astype(np.float32)  # exact up to 16 million records
    positive, predicted = (labels > 0).astype(np.float32), (scores >= thresholds).astype(np.float32)
    records = np.broadcast_to(counts.sum(axis=1, keepdims=True).astype(np.float64), (len(counts), labels.shape[1]))
    return Decisions(records, *((drawn @ part).astype(np.float64) for part in (positive, predicted, positive * predicted)))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
