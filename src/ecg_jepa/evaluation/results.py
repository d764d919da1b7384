"""What a run reports: every metric on the test records, with intervals, and thresholds chosen on validation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.ptb_xl_tasks import Task
from .bootstrap import Interval, bootstrap, macro_auroc_interval
from .metrics import ExclusiveAccuracy, PerClass, auroc, average_precision, f1, f1_thresholds


@dataclass
class Predictions:
    """Labels (zeros and ones) and logits of some records, (records, classes) each."""

    labels: np.ndarray
    logits: np.ndarray


def probabilities(logits: np.ndarray, single_label: bool) -> np.ndarray:
    """Softmax for exclusive classes, sigmoid otherwise."""
    tensor = torch.from_numpy(logits)
    return (tensor.softmax(dim=1) if single_label else tensor.sigmoid()).numpy()


def summarize(task: Task, validation: Predictions, test: Predictions, num_resamples: int = 1000) -> dict[str, Any]:
    """
    The metrics of a run, as they go into `metrics.json`.

    Classes that the test records do not allow to score are left out of the means and named. F1 is at the thresholds (on
    probabilities) that are best on validation. Intervals are 95% percentile bootstrap intervals over test records, `None` where
    there are too few.

    Args:
        task: of the run.
        validation, test: predictions of the best checkpoint.
        num_resamples: for the intervals.
    """
    names = task.class_names
    scores = probabilities(test.logits, task.single_label)
    thresholds = f1_thresholds(validation.labels, probabilities(validation.logits, task.single_label))
    ranked = auroc(test.labels, test.logits, names)
    metrics: dict[str, Any] = {
        "test_macro_auroc": ranked.macro,
        "test_macro_auroc_interval": _auroc_bounds(test, num_resamples),
        "test_auroc": ranked.per_class,
        "classes_left_out": ranked.left_out,
        "test_support": ranked.support,
        **_named("average_precision", average_precision(test.labels, test.logits, names)),
        **_named("f1", f1(test.labels, scores, names, thresholds)),
        # A class without positives in validation has no threshold.
        "f1_thresholds": {n: float(t) for n, t in zip(names, thresholds, strict=True) if np.isfinite(t)},
    }
    if task.single_label:
        metrics |= _exclusive(test, num_resamples)
    return metrics


def _auroc_bounds(test: Predictions, num_resamples: int) -> list[float] | None:
    """`None` where there are too few records for an interval."""
    try:
        return _bounds(macro_auroc_interval(test.labels, test.logits, num_resamples))
    except ValueError:
        return None


def _bounds(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _named(name: str, result: PerClass) -> dict[str, Any]:
    return {f"test_macro_{name}": result.macro, f"test_{name}": result.per_class}


def _exclusive(test: Predictions, num_resamples: int) -> dict[str, Any]:
    correct = test.labels.argmax(axis=1) == test.logits.argmax(axis=1)
    interval = bootstrap(lambda counts: (counts * correct).sum(axis=1) / counts.sum(axis=1), len(correct), num_resamples)
    figures = ExclusiveAccuracy().compute(predictions=test.logits, references=test.labels)
    return {
        "test_accuracy": figures["accuracy"],
        "test_accuracy_interval": _bounds(interval),
        "test_exclusive_macro_f1": figures["exclusive_macro_f1"],
    }
