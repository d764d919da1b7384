"""Predictions -> `metrics.json`: every metric on the test records, per class and as a mean, each with its bootstrap interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._utils.files import read_json
from ..data.tasks import Task
from .bootstrap import Measured, bootstrap, macro_auroc, resample_counts
from .calibration import (
    FEWEST_PER_BIN,
    MOST_BINS,
    brier,
    expected_calibration_error,
    fit_temperature,
    probabilities,
)
from .metrics import ExclusiveAccuracy, decide, measure, ranking
from .subgroups import score_groups
from .thresholds import FEWEST, Thresholds, choose_thresholds

# What a finished run leaves in its folder; the first is written last.
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.npz"


@dataclass
class Predictions:
    """Labels (zeros and ones) and logits of some records, (records, classes) each."""

    labels: np.ndarray
    logits: np.ndarray


def measure_test(
    labels: np.ndarray, logits: np.ndarray, scores: np.ndarray, thresholds: Thresholds, num_resamples: int
) -> dict[str, Measured]:
    """Return all metrics of the test records; labels, logits and probabilities (`scores`) are (records, classes)."""
    counts = resample_counts(len(labels), num_resamples, seed=0)
    decidable = (_fewer(labels) >= FEWEST) & thresholds.reliable

    def decisions(chosen: np.ndarray) -> dict[str, Measured]:
        observed, resampled = decide(labels, scores, chosen), decide(labels, scores, chosen, counts).metrics()
        values = {name: rows[0] for name, rows in observed.metrics().items()}
        shares = {
            name: Measured(np.where(decidable, values[name], np.nan), resampled[name], out_of=out_of[0])
            for name, (_, out_of) in observed.shares().items()
        }
        return {"f1": Measured(values["f1"], resampled["f1"], centred=True), **shares}

    observed, resampled = ranking(labels, logits), ranking(labels, logits, counts)
    measured = {
        "auroc": Measured(observed[0], resampled[0]),
        "average_precision": Measured(observed[1], resampled[1], centred=True),
        **measure_calibration(labels, scores, counts),
        **decisions(thresholds.decision),
    }
    for sensitivity, chosen in thresholds.at_sensitivity.items():
        at = decisions(chosen)
        measured |= {f"{name}_at_{sensitivity:.2f}": at[name] for name in ("sensitivity", "specificity", "ppv")}
    return measured


def measure_calibration(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> dict[str, Measured]:
    """Return Brier score and expected calibration error of probabilities (records, classes)."""
    scorable = _fewer(labels) > 0
    errors = np.where(scorable, expected_calibration_error(labels, scores), np.nan)
    return {
        "brier": Measured(np.where(scorable, brier(labels, scores), np.nan), brier(labels, scores, counts)),
        "expected_calibration_error": Measured(errors, expected_calibration_error(labels, scores, counts), centred=True),
    }


def _fewer(labels: np.ndarray) -> np.ndarray:
    """Return the number of positives or of negatives of each class, whichever is smaller."""
    positives = labels.sum(axis=0)
    return np.minimum(positives, len(labels) - positives)


def as_metrics(
    measured: Mapping[str, Measured], labels: np.ndarray, class_names: list[str], reliable: np.ndarray
) -> dict[str, Any]:
    """
    Return the entries of `metrics.json`: `macro` and `per_class`, metric -> `value` and `interval`, None where there is none;
    `left_out`, class -> why it has no decisions, and `undefined`, metric -> further classes without it.
    """
    left_out = {}
    for name, positives, trusted in zip(class_names, labels.sum(axis=0), reliable, strict=True):
        if not trusted:
            left_out[name] = f"fewer than {FEWEST} positives or negatives among the validation records"
        for count, kind in ((positives, "positives"), (len(labels) - positives, "negatives")):
            if count < FEWEST:
                left_out[name] = f"{int(count)} {kind} among the test records, fewer than {FEWEST}"
    enough = _fewer(labels) >= FEWEST
    per_class = {
        name: {metric: values.of_class(column, with_interval=bool(enough[column])) for metric, values in measured.items()}
        for column, name in enumerate(class_names)
    }
    undefined = {
        metric: [name for name in class_names if name not in left_out and per_class[name][metric]["value"] is None]
        for metric in measured
    }
    return {
        "macro": {metric: values.macro() for metric, values in measured.items()},
        "per_class": per_class,
        "left_out": left_out,
        "undefined": {metric: names for metric, names in undefined.items() if names},
    }


def summarize(
    task: Task,
    validation: Predictions,
    test: Predictions,
    num_resamples: int = 1000,
    calibrate: bool = False,
    groups: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """
    Return the metrics of a run, as they go into `metrics.json`.

    Temperature and thresholds are chosen on validation records. Intervals are 95% percentile bootstrap intervals over test
    records, `None` where there are too few. Classes that the test records do not allow to score are left out of the means.

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
    thresholds = choose_thresholds(validation.labels, probabilities(validation.logits, task.single_label, divisor))
    scores = probabilities(test.logits, task.single_label, divisor)
    measured = measure_test(test.labels, test.logits, scores, thresholds, num_resamples)
    support = test.labels.sum(axis=0).astype(int).tolist()
    metrics: dict[str, Any] = {
        "test_metrics": as_metrics(measured, test.labels, names, thresholds.reliable),
        "test_support": dict(zip(names, support, strict=True)),
        "classes_left_out": [name for name, value in zip(names, measured["auroc"].values, strict=True) if np.isnan(value)],
        **thresholds.by_name(names),
        "calibration": {
            "bins": f"equal mass, at most {MOST_BINS}, of at least {FEWEST_PER_BIN} records",
            "temperature": divisor,
        },
    }
    if temperature:
        plain = probabilities(test.logits, task.single_label)
        before = measure_calibration(test.labels, plain, resample_counts(len(plain), num_resamples, seed=0))
        metrics["calibration"] |= {
            "validation_loss": {"before": temperature.before, "after": temperature.after},
            "before": {name: values.macro() for name, values in before.items()},
        }
    if groups:
        metrics["subgroups"] = score_groups(test.labels, test.logits, names, groups, num_resamples)
    if task.parts:
        columns = {part: [names.index(name) for name in classes] for part, classes in task.parts.items()}
        metrics["test_parts"] = {
            part: macro_auroc(test.labels[:, chosen], test.logits[:, chosen], num_resamples) for part, chosen in columns.items()
        }
    if task.single_label:
        metrics |= _exclusive(test, num_resamples)
    return metrics


def _exclusive(test: Predictions, num_resamples: int) -> dict[str, Any]:
    correct = test.labels.argmax(axis=1) == test.logits.argmax(axis=1)
    found = bootstrap(lambda counts: (counts * correct).sum(axis=1) / counts.sum(axis=1), len(correct), num_resamples)
    metrics = measure(ExclusiveAccuracy, test.labels, test.logits)
    return {
        "test_accuracy": metrics["accuracy"],
        "test_accuracy_interval": [found.low, found.high],
        "test_exclusive_macro_f1": metrics["exclusive_macro_f1"],
    }


def read_metrics(run: Path) -> dict[str, Any]:
    """Return a run's `metrics.json`, with the names of today also where an earlier version has written it."""
    metrics = read_json(run / METRICS_FILE)
    if "test_figures" in metrics:
        metrics["test_metrics"] = metrics.pop("test_figures")
    metrics["settings"].setdefault("calibrate", False)
    return metrics
