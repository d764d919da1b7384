"""
Metrics as packaged `evaluate.Metric` classes: they work without the Hub, alone and in `evaluate.combine`.

All take scores (records, classes) as `predictions` and zeros and ones (records, classes) as `references`; for tasks with
exclusive classes, each row of `references` has a single one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_recall_curve


@dataclass
class PerClass:
    """`macro`: mean over `per_class`; `left_out`: classes that have no such figure; `support`: positives of every class."""

    macro: float
    per_class: dict[str, float]
    left_out: list[str]
    support: dict[str, int]


def check_shapes(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays. Raises `ValueError` unless both are (records, classes), labels are zeros and ones and no score is NaN."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be (records, classes).")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("Labels must be zeros and ones.")
    if np.isnan(scores).any():
        raise ValueError("Scores contain NaN: the classifier diverged.")
    return labels, scores


def _per_class(values: np.ndarray, labels: np.ndarray, class_names: list[str], scorable: np.ndarray, missing: str) -> PerClass:
    if not scorable.any():
        raise ValueError(f"No class has {missing} among the {len(labels)} records.")
    support = dict(zip(class_names, labels.sum(axis=0).astype(int).tolist(), strict=True))
    per_class = {class_names[column]: float(values[column]) for column in np.flatnonzero(scorable)}
    left_out = [class_names[column] for column in np.flatnonzero(~scorable)]
    return PerClass(float(np.mean(list(per_class.values()))), per_class, left_out, support)


def auroc(labels: np.ndarray, scores: np.ndarray, class_names: list[str]) -> PerClass:
    """
    Area under the ROC curve per class, from ranks (Mann & Whitney 1947; ties count half).

    Args:
        labels: zeros and ones, (records, classes).
        scores: any increasing function of the probability, (records, classes).
        class_names: of the columns.

    Raises:
        ValueError: if shapes do not fit, a score is NaN, or no class has both positives and negatives.
    """
    labels, scores = check_shapes(labels, scores)
    positives = labels.sum(axis=0, dtype=np.float64)
    negatives = len(labels) - positives
    scorable = (positives > 0) & (negatives > 0)
    rank_sums = (rankdata(scores, axis=0) * labels).sum(axis=0)
    pairs = np.where(scorable, positives * negatives, 1.0)
    values = (rank_sums - positives * (positives + 1) / 2) / pairs
    return _per_class(values, labels, class_names, scorable, "both positives and negatives")


def average_precision(labels: np.ndarray, scores: np.ndarray, class_names: list[str]) -> PerClass:
    """Average precision per class with positives and negatives. Arguments and errors as for [`auroc`]."""
    labels, scores = check_shapes(labels, scores)
    positives = labels.sum(axis=0)
    scorable = (positives > 0) & (positives < len(labels))
    values = np.zeros(labels.shape[1])
    for column in np.flatnonzero(scorable):
        values[column] = average_precision_score(labels[:, column], scores[:, column])
    return _per_class(values, labels, class_names, scorable, "both positives and negatives")


def f1_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """
    Per class, the lowest of the scores at which F1 is highest on these (validation) records: predict what reaches it.

    Infinite, so that nothing is predicted, for classes without positives here.
    """
    labels, scores = check_shapes(labels, scores)
    thresholds = np.full(labels.shape[1], np.inf)
    for column in np.flatnonzero(labels.any(axis=0)):
        precision, recall, levels = precision_recall_curve(labels[:, column], scores[:, column])
        total = precision + recall
        f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
        thresholds[column] = levels[f1.argmax()]
    return thresholds


def f1(labels: np.ndarray, scores: np.ndarray, class_names: list[str], thresholds: np.ndarray) -> PerClass:
    """F1 per class with positives, at `thresholds` (classes,) chosen elsewhere. Arguments and errors as for [`auroc`]."""
    labels, scores = check_shapes(labels, scores)
    if np.shape(thresholds) != (labels.shape[1],):
        raise ValueError(f"thresholds {np.shape(thresholds)} must hold one for each of {labels.shape[1]} classes.")
    predicted = scores >= thresholds
    # Class by class: of a single one scikit-learn would give the F1 of the negatives as well, and first.
    columns = range(labels.shape[1])
    values = np.array([f1_score(labels[:, c] > 0, predicted[:, c], zero_division=0.0) for c in columns])
    return _per_class(values, labels, class_names, np.any(labels, axis=0), "positives")


class _RecordMetric(evaluate.Metric):
    """Base: scores and labels of one record per row."""

    def _info(self) -> evaluate.MetricInfo:
        values = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            features=datasets.Features({"predictions": values, "references": values}),
        )


def _names(labels: Any, class_names: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    labels = np.asarray(labels)
    return labels, list(class_names) if class_names is not None else [str(column) for column in range(labels.shape[1])]


def _report(name: str, result: PerClass) -> dict[str, Any]:
    return {
        f"macro_{name}": result.macro,
        f"{name}_per_class": result.per_class,
        f"{name}_left_out": result.left_out,
        f"{name}_support": result.support,
    }


class MacroAuroc(_RecordMetric):
    """Macro AUROC over classes with both positives and negatives, and that of each class (`class_names` to name them)."""

    def _compute(self, predictions: Any, references: Any, class_names: Sequence[str] | None = None) -> dict[str, Any]:
        labels, names = _names(references, class_names)
        return _report("auroc", auroc(labels, predictions, names))


class MacroAveragePrecision(_RecordMetric):
    """Macro average precision over classes with both positives and negatives, and that of each class."""

    def _compute(self, predictions: Any, references: Any, class_names: Sequence[str] | None = None) -> dict[str, Any]:
        labels, names = _names(references, class_names)
        return _report("average_precision", average_precision(labels, predictions, names))


class MacroF1(_RecordMetric):
    """Macro F1 over classes with positives at `thresholds` (one per class; default 0.5), and that of each class."""

    def _compute(
        self,
        predictions: Any,
        references: Any,
        class_names: Sequence[str] | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        labels, names = _names(references, class_names)
        chosen = np.full(labels.shape[1], 0.5) if thresholds is None else np.asarray(thresholds)
        return _report("f1", f1(labels, predictions, names, chosen))


class ExclusiveAccuracy(_RecordMetric):
    """For exclusive classes, of which the highest score is predicted: accuracy, and macro F1 over the classes that occur."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        labels, scores = check_shapes(references, predictions)
        if not (labels.sum(axis=1) == 1).all():
            raise ValueError("Classes are not exclusive: every record must have exactly one.")
        truth, predicted = labels.argmax(axis=1), scores.argmax(axis=1)
        return {
            "accuracy": float(accuracy_score(truth, predicted)),
            "exclusive_macro_f1": float(f1_score(truth, predicted, average="macro", labels=np.unique(truth), zero_division=0.0)),
        }


def measure(metric: type[_RecordMetric], labels: np.ndarray, scores: np.ndarray, **options: Any) -> dict[str, Any]:
    """A metric of labels and scores, (records, classes) each, without a trace on the disk. `options` as for its class."""
    check_shapes(labels, scores)
    return metric(keep_in_memory=True).compute(predictions=scores, references=labels, **options)


def macro_auroc(labels: np.ndarray, scores: np.ndarray, class_names: list[str]) -> float:
    """[`MacroAuroc`] as one number, by which training chooses its best validation."""
    return measure(MacroAuroc, labels, scores, class_names=class_names)["macro_auroc"]
