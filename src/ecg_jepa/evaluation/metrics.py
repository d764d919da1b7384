"""
Definitions of the metrics: AUROC, average precision, and what follows from decisions at thresholds.

Labels are zeros and ones, scores any increasing function of the probability, both (records, classes). A bootstrap resample is a
row of `counts` (resamples, records), how often each record is in it; with those as weights, all resamples of a class are computed
at once. Without counts each record counts once, and the result is (classes,) instead of (resamples, classes).

The `evaluate.Metric` classes at the end work without the Hub: scores are `predictions`, labels `references`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score


def check_shapes(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return arrays. Raises `ValueError` unless they are (records, classes), labels are zeros and ones, and no score is NaN."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be (records, classes).")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("Labels must be zeros and ones.")
    if np.isnan(scores).any():
        raise ValueError("Scores contain NaN: the classifier diverged.")
    return labels, scores


def rarer(labels: np.ndarray) -> np.ndarray:
    """Return the number of positives or of negatives of each class, whichever is smaller, (classes,)."""
    positives = labels.sum(axis=0)
    return np.minimum(positives, len(labels) - positives)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where there is no whole."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def macro(values: np.ndarray) -> np.ndarray:
    """Return the mean over the classes that have a value, of (classes,) or (resamples, classes); NaN where none has."""
    if values.ndim == 1:
        return macro(values[None, ~np.isnan(values)])[0]
    has_value = ~np.isnan(values)
    return ratio(np.where(has_value, values, 0.0).sum(axis=1), has_value.sum(axis=1))


def auroc(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the area under the ROC curve, NaN without positives or negatives."""
    return ranking(labels, scores, counts)[0]


def ranking(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return AUROC and average precision, which share most of their work; NaN without positives or negatives."""
    labels, scores = check_shapes(labels, scores)
    weights = np.ones((1, len(labels)), dtype=np.int32) if counts is None else counts
    by_record = np.ascontiguousarray(weights.T)  # records are sorted and summed over: whole rows are moved and added at once
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        columns = list(threads.map(lambda c: _rank(labels[:, c] > 0, scores[:, c], by_record), range(labels.shape[1])))
    areas, precisions = (np.stack(values, axis=1) for values in zip(*columns, strict=True))
    return (areas[0], precisions[0]) if counts is None else (areas, precisions)


def _rank(is_positive: np.ndarray, scores: np.ndarray, by_record: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return AUROC (Mann & Whitney 1947; ties count half) and average precision of a class, (resamples,) each."""
    order = np.argsort(scores, kind="stable")
    positives, others = order[is_positive[order]], order[~is_positive[order]]
    hits, levels = by_record[positives], scores[positives]  # by rising score
    all_hits = hits.sum(axis=0)
    lower = np.zeros((len(others) + 1, by_record.shape[1]), dtype=np.int32)  # negatives among so many of the lowest
    np.cumsum(by_record[others], axis=0, out=lower[1:])
    below, not_above = (lower[np.searchsorted(scores[others], levels, side)] for side in ("left", "right"))
    wins = np.einsum("pr,pr->r", hits.astype(np.float64), below + not_above) / 2
    area = ratio(wins, all_hits * lower[-1].astype(np.float64))

    lower_hits = np.zeros((len(positives) + 1, len(all_hits)), dtype=np.int32)
    np.cumsum(hits, axis=0, out=lower_hits[1:])
    true = all_hits - lower_hits[np.searchsorted(levels, levels, "left")]  # positives with the score of each or a higher one
    predicted = true + (lower[-1] - below)
    total = np.einsum("pr,pr->r", true / np.maximum(predicted, 1), hits)
    return area, ratio(total, np.where(lower[-1] > 0, all_hits, 0))


def decide(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, counts: np.ndarray | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """
    Predict each class whose score reaches its threshold, (classes,), and count. Returns F1, sensitivity, specificity, `ppv` and
    `npv` as a number and what it is a share of (see [`ratio`]); F1 has no value without positives.
    """
    labels, scores = check_shapes(labels, scores)
    if np.shape(thresholds) != (labels.shape[1],):
        raise ValueError(f"thresholds {np.shape(thresholds)} must hold one for each of {labels.shape[1]} classes.")
    weights = np.ones(len(labels), np.float32) if counts is None else counts.astype(np.float32)  # exact to 16 million
    positive, chosen = (labels > 0).astype(np.float32), (scores >= thresholds).astype(np.float32)
    positives, predicted, hits = ((weights @ part).astype(np.float64) for part in (positive, chosen, positive * chosen))
    negatives = weights.sum(axis=-1, keepdims=True, dtype=np.float64) - positives
    correct_negatives = negatives - predicted + hits
    return {
        "f1": (2 * hits, np.where(positives > 0, predicted + positives, 0)),
        "sensitivity": (hits, positives),
        "specificity": (correct_negatives, negatives),
        "ppv": (hits, predicted),
        "npv": (correct_negatives, negatives + positives - predicted),
    }


class _RecordMetric(evaluate.Metric):
    """Base: scores and labels of one record per row."""

    def _info(self) -> evaluate.MetricInfo:
        values = datasets.List(datasets.Value("float64"))
        features = datasets.Features({"predictions": values, "references": values})
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=features)


class MacroAuroc(_RecordMetric):
    """Macro AUROC over classes with both positives and negatives, of which there must be one, and that of each class."""

    def _compute(self, predictions: Any, references: Any, class_names: Sequence[str] | None = None) -> dict[str, Any]:
        values = auroc(references, predictions)
        if np.isnan(values).all():
            raise ValueError(f"No class has both positives and negatives among the {len(references)} records.")
        names = list(class_names) if class_names is not None else [str(column) for column in range(len(values))]
        by_name = dict(zip(names, values.tolist(), strict=True))
        return {
            "macro_auroc": float(macro(values)),
            "auroc_per_class": {label: value for label, value in by_name.items() if not np.isnan(value)},
            "auroc_left_out": [label for label, value in by_name.items() if np.isnan(value)],
            "auroc_support": dict(zip(names, np.sum(references, axis=0).astype(int).tolist(), strict=True)),
        }


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
    """Compute an `evaluate` metric of labels and scores, (records, classes) each, in memory. `options` as for its class."""
    check_shapes(labels, scores)
    return metric(keep_in_memory=True).compute(predictions=scores, references=labels, **options)
