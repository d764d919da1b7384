"""What a run reports: every metric on the test records, with intervals, and thresholds chosen on validation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.tasks import Task
from .bootstrap import Interval, bootstrap, macro_auroc_interval, resample_counts
from .calibration import FEWEST_PER_BIN, MOST_BINS, Temperature, fit_temperature
from .class_metrics import FEWEST, FIXED_SENSITIVITIES, FigureTable, Thresholds, macro_entries, measure_calibration
from .decisions import sensitivity_thresholds
from .metrics import ExclusiveAccuracy, MacroAuroc, MacroAveragePrecision, MacroF1, f1_thresholds, measure
from .subgroups import score_groups

# What a finished run leaves in its folder; the first is written last.
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.npz"


@dataclass
class Predictions:
    """Labels (zeros and ones) and logits of some records, (records, classes) each."""

    labels: np.ndarray
    logits: np.ndarray


def probabilities(logits: np.ndarray, single_label: bool, temperature: float | None = None) -> np.ndarray:
    """
    Softmax for exclusive classes, sigmoid otherwise, of logits (records, classes) divided by the temperature, if there is one.
    Logits are averaged over crops before.
    """
    tensor = torch.from_numpy(logits)
    if temperature is not None:
        tensor = tensor / temperature
    return (tensor.softmax(dim=1) if single_label else tensor.sigmoid()).numpy()


def summarize(
    task: Task,
    validation: Predictions,
    test: Predictions,
    num_resamples: int = 1000,
    calibrate: bool = False,
    groups: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """
    The metrics of a run, as they go into `metrics.json`.

    Classes that the test records do not allow to score are left out of the means and named. Whatever is chosen (temperature,
    thresholds on probabilities) is chosen on validation records. Intervals are 95% percentile bootstrap intervals over test
    records, `None` where there are too few.

    Args:
        task: of the run.
        validation, test: predictions of the best checkpoint.
        num_resamples: for the intervals.
        calibrate: fit a temperature.
        groups: kind of group -> name of each test record's, (records,); see [`subgroups.groups_of`].
    """
    names = task.class_names
    temperature = fit_temperature(validation.labels, validation.logits, task.single_label) if calibrate else None
    divisor = temperature.value if temperature else None
    scores = probabilities(test.logits, task.single_label, divisor)
    thresholds = _choose(validation.labels, probabilities(validation.logits, task.single_label, divisor))
    figures = FigureTable(test.labels, test.logits, scores, names, thresholds, num_resamples)
    ranked = measure(MacroAuroc, test.labels, test.logits, class_names=names)
    precision = measure(MacroAveragePrecision, test.labels, test.logits, class_names=names)
    f1 = measure(MacroF1, test.labels, scores, class_names=names, thresholds=thresholds.decision)
    means = macro_entries(figures.measured)
    chosen = thresholds.by_name(names)
    metrics: dict[str, Any] = {
        "test_macro_auroc": ranked["macro_auroc"],
        "test_macro_auroc_interval": means["auroc"]["interval"],
        "test_auroc": ranked["auroc_per_class"],
        "classes_left_out": ranked["auroc_left_out"],
        "test_support": ranked["auroc_support"],
        "test_macro_average_precision": precision["macro_average_precision"],
        "test_macro_average_precision_interval": means["average_precision"]["interval"],
        "test_average_precision": precision["average_precision_per_class"],
        "test_macro_f1": f1["macro_f1"],
        "test_macro_f1_interval": means["f1"]["interval"],
        "test_f1": f1["f1_per_class"],
        **chosen,
        "test_figures": figures.as_metrics(),
        "calibration": _calibration(task, test, temperature, num_resamples),
    }
    if groups:
        metrics["subgroups"] = score_groups(test.labels, test.logits, names, groups, num_resamples)
    if task.parts:
        metrics["test_parts"] = {name: _of_part(task, test, classes, num_resamples) for name, classes in task.parts.items()}
    if task.single_label:
        metrics |= _exclusive(test, num_resamples)
    return metrics


def _choose(labels: np.ndarray, scores: np.ndarray) -> Thresholds:
    """On validation records: labels and probabilities (records, classes)."""
    positives = labels.sum(axis=0)
    return Thresholds(
        f1_thresholds(labels, scores),
        {sensitivity: sensitivity_thresholds(labels, scores, sensitivity) for sensitivity in FIXED_SENSITIVITIES},
        np.minimum(positives, len(labels) - positives) >= FEWEST,
    )


def _calibration(task: Task, test: Predictions, temperature: Temperature | None, num_resamples: int) -> dict[str, Any]:
    """The temperature, and macro Brier score and calibration error without and with it; the latter is `test_figures`', too."""
    result: dict[str, Any] = {
        "bins": f"equal mass, at most {MOST_BINS}, of at least {FEWEST_PER_BIN} records",
        "temperature": None if temperature is None else temperature.value,
    }
    if temperature is None:
        return result
    positives = test.labels.sum(axis=0)
    scorable = (positives > 0) & (positives < len(test.labels))
    counts = resample_counts(len(test.labels), num_resamples, seed=0)
    result["validation_loss"] = {"before": temperature.before, "after": temperature.after}
    for name, divisor in (("before", None), ("after", temperature.value)):
        scores = probabilities(test.logits, task.single_label, divisor)
        result[name] = macro_entries(measure_calibration(test.labels, scores, scorable, counts))
    return result


def _of_part(task: Task, test: Predictions, class_names: list[str], num_resamples: int) -> dict[str, Any]:
    """Macro AUROC of some classes alone, and its interval; `None` if none of them has positives and negatives."""
    columns = [task.class_names.index(name) for name in class_names]
    part = Predictions(test.labels[:, columns], test.logits[:, columns])
    if not (part.labels.any(axis=0) & (part.labels == 0).any(axis=0)).any():
        return {"macro_auroc": None, "interval": None}
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
