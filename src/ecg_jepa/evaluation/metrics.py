"""Metrics as packaged `evaluate.Metric` classes: they work without the Hub."""

from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import roc_auc_score


@dataclass
class Auroc:
    """`macro`: mean over `per_class`; `left_out`: classes without positives or without negatives, which have no AUROC."""

    macro: float
    per_class: dict[str, float]
    left_out: list[str]


def auroc(labels: np.ndarray, scores: np.ndarray, class_names: list[str]) -> Auroc:
    """
    Area under the ROC curve per class.

    Args:
        labels: zeros and ones, (records, classes).
        scores: any increasing function of the probability, (records, classes).

    Raises:
        ValueError: if shapes differ, a score is NaN, or no class can be scored.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape or labels.shape[1:] != (len(class_names),):
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be (records, {len(class_names)} classes).")
    if np.isnan(scores).any():
        raise ValueError("Scores contain NaN: the classifier diverged.")
    positives = labels.sum(axis=0)
    scorable = (positives > 0) & (positives < len(labels))
    if not scorable.any():
        raise ValueError(f"No class has both positives and negatives among the {len(labels)} records.")
    per_class = {
        class_names[column]: float(roc_auc_score(labels[:, column], scores[:, column])) for column in np.flatnonzero(scorable)
    }
    left_out = [class_names[column] for column in np.flatnonzero(~scorable)]
    return Auroc(float(np.mean(list(per_class.values()))), per_class, left_out)


class MacroAuroc(evaluate.Metric):
    """Macro AUROC over classes with both positives and negatives: `MacroAuroc().compute(predictions=, references=)`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float32")),
                    "references": datasets.List(datasets.Value("float32")),
                }
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        labels, scores = np.asarray(references), np.asarray(predictions)
        result = auroc(labels, scores, [str(column) for column in range(labels.shape[1])])
        return {"macro_auroc": result.macro, "left_out": [int(column) for column in result.left_out]}
