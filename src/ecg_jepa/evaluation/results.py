"""What a run reports: every metric on the test records, with intervals, and thresholds chosen on validation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.tasks import Task
from .bootstrap import Interval, bootstrap, macro_auroc_interval
from .metrics import ExclusiveAccuracy, MacroAuroc, MacroAveragePrecision, MacroF1, f1_thresholds, measure

# What a finished run leaves in its folder; the first is written last.
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.npz"


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
    ranked = measure(MacroAuroc, test.labels, test.logits, class_names=names)
    precision = measure(MacroAveragePrecision, test.labels, test.logits, class_names=names)
    f1 = measure(MacroF1, test.labels, scores, class_names=names, thresholds=thresholds)
    metrics: dict[str, Any] = {
        "test_macro_auroc": ranked["macro_auroc"],
        "test_macro_auroc_interval": _auroc_bounds(test, num_resamples),
        "test_auroc": ranked["auroc_per_class"],
        "classes_left_out": ranked["auroc_left_out"],
        "test_support": ranked["auroc_support"],
        "test_macro_average_precision": precision["macro_average_precision"],
        "test_average_precision": precision["average_precision_per_class"],
        "test_macro_f1": f1["macro_f1"],
        "test_f1": f1["f1_per_class"],
        # A class without positives in validation has no threshold.
        "f1_thresholds": {n: float(t) for n, t in zip(names, thresholds, strict=True) if np.isfinite(t)},
    }
    if task.parts:
        metrics["test_parts"] = {name: _of_part(task, test, classes, num_resamples) for name, classes in task.parts.items()}
    if task.single_label:
        metrics |= _exclusive(test, num_resamples)
    return metrics


def _of_part(task: Task, test: Predictions, class_names: list[str], num_resamples: int) -> dict[str, Any]:
    """Macro AUROC of some classes alone, and its interval."""
    columns = [task.class_names.index(name) for name in class_names]
    part = Predictions(test.labels[:, columns], test.logits[:, columns])
    value = measure(MacroAuroc, part.labels, part.logits, class_names=class_names)["macro_auroc"]
    return {"macro_auroc": value, "interval": _auroc_bounds(part, num_resamples)}


def _auroc_bounds(test: Predictions, num_resamples: int) -> list[float] | None:
    """`None` where there are too few records for an interval."""
    try:
        return _bounds(macro_auroc_interval(test.labels, test.logits, num_resamples))
    except ValueError:
        return None


def _bounds(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _exclusive(test: Predictions, num_resamples: int) -> dict[str, Any]:
    correct = test.labels.argmax(axis=1) == test.logits.argmax(axis=1)
    interval = bootstrap(lambda counts: (counts * correct).sum(axis=1) / counts.sum(axis=1), len(correct), num_resamples)
    figures = measure(ExclusiveAccuracy, test.labels, test.logits)
    return {
        "test_accuracy": figures["accuracy"],
        "test_accuracy_interval": _bounds(interval),
        "test_exclusive_macro_f1": figures["exclusive_macro_f1"],
    }
