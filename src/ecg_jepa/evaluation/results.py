"""Predictions -> `metrics.json`: every metric on the test records, per class and as a mean, each with its bootstrap interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._utils.files import read_json
from ..data.tasks import Task
from .bootstrap import Measured, bootstrap, macro_auroc, resample_counts
from .calibration import FEWEST_PER_BIN, MOST_BINS, brier, expected_calibration_error, fit_temperature, probabilities
from .metrics import ExclusiveAccuracy, decide, measure, ranking, rarer, ratio
from .thresholds import FEWEST, Thresholds, choose_thresholds

# What a finished run leaves in its folder; the first is written last.
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.npz"

UNKNOWN = "unknown"

_AGE_BANDS = {"< 40": 40.0, "40-64": 65.0, "65-79": 80.0, ">= 80": np.inf}  # name -> years that it ends before
_ORDER = [*_AGE_BANDS, UNKNOWN]


@dataclass
class Predictions:
    """Labels (zeros and ones) and logits of some records, (records, classes) each."""

    labels: np.ndarray
    logits: np.ndarray


def measure_test(
    labels: np.ndarray, logits: np.ndarray, scores: np.ndarray, thresholds: Thresholds, num_resamples: int
) -> dict[str, Measured]:
    """Return all metrics of the test records; labels, logits and probabilities (`scores`) are (records, classes)."""
    counts = resample_counts(len(labels), num_resamples)
    decidable = (rarer(labels) >= FEWEST) & thresholds.reliable

    def decisions(chosen: np.ndarray) -> dict[str, Measured]:
        resampled = {name: ratio(*share) for name, share in decide(labels, scores, chosen, counts).items()}
        shares = decide(labels, scores, chosen)
        f1 = Measured(ratio(*shares.pop("f1")), resampled["f1"], centred=True)
        return {"f1": f1} | {
            name: Measured(np.where(decidable, ratio(part, whole), np.nan), resampled[name], out_of=whole)
            for name, (part, whole) in shares.items()
        }

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
    metrics = {"brier": brier, "expected_calibration_error": expected_calibration_error}
    return {
        name: Measured(
            np.where(rarer(labels) > 0, metric(labels, scores), np.nan),
            metric(labels, scores, counts),
            centred=metric is expected_calibration_error,
        )
        for name, metric in metrics.items()
    }


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
    per_class = {
        name: {metric: values.of_class(column, with_interval=enough) for metric, values in measured.items()}
        for column, (name, enough) in enumerate(zip(class_names, (rarer(labels) >= FEWEST).tolist(), strict=True))
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


def groups_of(sex: np.ndarray, ages: np.ndarray) -> dict[str, np.ndarray]:
    """
    Return `sex` and `age` (in bands) -> the group of each record, (records,), without a kind that is unknown throughout.
    Sex is `None` and age, in years, NaN where unknown, (records,) each.
    """
    ages = np.asarray(ages, dtype=np.float64)
    bands = np.where(np.isnan(ages), len(_AGE_BANDS), np.searchsorted(list(_AGE_BANDS.values()), ages, "right"))
    named = np.array([UNKNOWN if name is None else str(name) for name in sex], dtype=object)
    groups = {"sex": named, "age": np.array(_ORDER, dtype=object)[bands]}
    return {kind: names for kind, names in groups.items() if (names != UNKNOWN).any()}


def score_groups(
    labels: np.ndarray, scores: np.ndarray, class_names: list[str], groups: Mapping[str, np.ndarray], num_resamples: int = 1000
) -> dict[str, dict[str, dict[str, Any]]]:
    """
    Return macro AUROC of each of the groups of [`groups_of`] with its 95% bootstrap interval over the group's records; labels and
    scores are (records, classes).

    Returns:
        Kind -> group, by age or name -> `records`; `positives` of each class; `macro_auroc` with its `interval`, over the classes
        with 10 positives and 10 negatives; `classes_left_out`, the others; `left_out`, why there is no AUROC, if there is none.
    """

    def score(chosen: np.ndarray) -> dict[str, Any]:
        truth = labels[chosen]
        enough = rarer(truth) >= FEWEST
        none: dict[str, Any] = {"macro_auroc": None, "interval": None}
        found = macro_auroc(truth[:, enough], scores[chosen][:, enough], num_resamples) if enough.any() else none
        return {
            "records": len(truth),
            "positives": dict(zip(class_names, truth.sum(axis=0).astype(int).tolist(), strict=True)),
            **found,
            "classes_left_out": [name for name, has in zip(class_names, enough, strict=True) if not has],
            "left_out": None if enough.any() else f"too few records: no class has {FEWEST} with it and {FEWEST} without",
        }

    ordered = {
        kind: sorted(set(names), key=lambda n: (_ORDER.index(n) if n in _ORDER else 0, n)) for kind, names in groups.items()
    }
    return {kind: {name: score(groups[kind] == name) for name in names} for kind, names in ordered.items()}


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

    Temperature (if `calibrate`) and thresholds are chosen on validation records. Intervals are 95% percentile bootstrap intervals
    over test records, `None` where there are too few. Classes that the test records do not allow to score are left out of the
    means. `groups` of the test records are those of [`groups_of`].
    """
    names = task.class_names
    temperature = fit_temperature(validation.labels, validation.logits, task.single_label) if calibrate else None
    divisor = temperature.value if temperature else None
    thresholds = choose_thresholds(validation.labels, probabilities(validation.logits, task.single_label, divisor))
    scores = probabilities(test.logits, task.single_label, divisor)
    measured = measure_test(test.labels, test.logits, scores, thresholds, num_resamples)
    bins = f"equal mass, at most {MOST_BINS}, of at least {FEWEST_PER_BIN} records"
    metrics: dict[str, Any] = {
        "test_metrics": as_metrics(measured, test.labels, names, thresholds.reliable),
        "test_support": dict(zip(names, test.labels.sum(axis=0).astype(int).tolist(), strict=True)),
        "classes_left_out": [name for name, value in zip(names, measured["auroc"].values, strict=True) if np.isnan(value)],
        **thresholds.by_name(names),
        "calibration": {"bins": bins, "temperature": divisor},
    }
    if temperature:
        plain = probabilities(test.logits, task.single_label)
        before = measure_calibration(test.labels, plain, resample_counts(len(plain), num_resamples))
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
        correct = test.labels.argmax(axis=1) == test.logits.argmax(axis=1)
        accuracy = bootstrap(lambda counts: (counts * correct).sum(axis=1) / counts.sum(axis=1), len(correct), num_resamples)
        exclusive = measure(ExclusiveAccuracy, test.labels, test.logits)
        metrics |= {
            "test_accuracy": exclusive["accuracy"],
            "test_accuracy_interval": [accuracy.low, accuracy.high],
            "test_exclusive_macro_f1": exclusive["exclusive_macro_f1"],
        }
    return metrics


def read_metrics(run: Path) -> dict[str, Any]:
    """Return a run's `metrics.json`, with the names of today also where an earlier version has written it."""
    metrics = read_json(run / METRICS_FILE)
    if "test_figures" in metrics:
        metrics["test_metrics"] = metrics.pop("test_figures")
    metrics["settings"].setdefault("calibrate", False)
    return metrics
