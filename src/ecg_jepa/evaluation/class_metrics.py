"""Every figure of the test records, per class and as a mean over classes, each with its bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bootstrap import Interval, centred, exact_bounds, interval, macro, resample_counts, resampled_ranking
from .calibration import brier, expected_calibration_error, resampled_calibration
from .decisions import Decisions, decide

FIXED_SENSITIVITIES = (0.90, 0.95)  # of which thresholds are chosen, on validation records

# Positives, and as many negatives, that a class must have for decisions to be judged and for intervals; for the former among
# the validation records, too, where thresholds are chosen.
FEWEST = 10


@dataclass(frozen=True)
class Measured:
    """
    A figure.

    Args:
        values: of all test records, (classes,); NaN where a class has none.
        resampled: (resamples, classes).
        centred: whether repeating records alone moves it (see [`bootstrap.centred`]).
        out_of: of a share: how many records it is a share of, (classes,).
    """

    values: np.ndarray
    resampled: np.ndarray
    centred: bool = False
    out_of: np.ndarray | None = None

    def of_class(self, column: int) -> Interval | None:
        """Value and interval; `None` if the class has no such figure, or resamples allow no interval."""
        value, resampled = float(self.values[column]), self.resampled[:, column]
        if self.out_of is not None and value in (0.0, 1.0):
            total = int(self.out_of[column])
            return Interval(value, *exact_bounds(total if value else 0, total), 0.95)
        return _interval(value, resampled, self.centred)

    def mean_value(self) -> float:
        """Over the classes that have the figure; NaN if none has."""
        return float(macro(self.values[None])[0])

    def mean(self) -> Interval | None:
        """The same with its interval, `None` where resamples allow none."""
        return _interval(self.mean_value(), macro(self.resampled[:, ~np.isnan(self.values)]), self.centred)


def _interval(value: float, resampled: np.ndarray, move: bool) -> Interval | None:
    if np.isnan(value) or np.isnan(resampled).all():
        return None
    try:
        return interval(value, centred(value, resampled) if move else resampled)
    except ValueError:  # too few resamples can be scored
        return None


@dataclass(frozen=True)
class Thresholds:
    """
    Chosen on validation records, (classes,) each; infinite where a class has no positives there.

    Args:
        decision: at which F1 is highest.
        at_sensitivity: sensitivity -> at which so many positives are found.
        reliable: which classes have enough positives and negatives there.
    """

    decision: np.ndarray
    at_sensitivity: dict[float, np.ndarray]
    reliable: np.ndarray

    def by_name(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As they go into `metrics.json`: classes without one are left out, and of those to decide by, classes that are rare."""
        return {
            "f1_thresholds": _finite(class_names, self.decision),
            "decision_thresholds": _finite(class_names, np.where(self.reliable, self.decision, np.inf)),
            "sensitivity_thresholds": {f"{key:.2f}": _finite(class_names, t) for key, t in self.at_sensitivity.items()},
        }


def _finite(class_names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(class_names, values, strict=True) if np.isfinite(value)}


class FigureTable:
    """
    All figures of the test records.

    Args:
        labels: zeros and ones, (records, classes).
        logits, probabilities: of the same shape.
        class_names: of the columns.
        thresholds: on probabilities.
        num_resamples: of the test records, for the intervals.
    """

    def __init__(
        self,
        labels: np.ndarray,
        logits: np.ndarray,
        probabilities: np.ndarray,
        class_names: list[str],
        thresholds: Thresholds,
        num_resamples: int = 1000,
    ):
        self.labels, self.probabilities, self.class_names = labels, probabilities, class_names
        positives = labels.sum(axis=0)
        self._positives, self._negatives = positives, len(labels) - positives
        self._scorable = (positives > 0) & (self._negatives > 0)
        self._enough = np.minimum(positives, self._negatives) >= FEWEST
        self._reliable = thresholds.reliable
        self._everything = np.ones((1, len(labels)), dtype=np.int32)
        self._counts = resample_counts(len(labels), num_resamples, seed=0)
        self.measured = {
            **self._ranking(logits),
            **self._calibration(),
            **self._decisions(thresholds.decision, with_f1=True),
        }
        for sensitivity, chosen in thresholds.at_sensitivity.items():
            at = self._decisions(chosen)
            self.measured |= {f"{name}_at_{sensitivity:.2f}": at[name] for name in ("sensitivity", "specificity", "ppv")}

    def as_metrics(self) -> dict[str, Any]:
        """
        As they go into `metrics.json`: `macro` and `per_class`, figure -> `value` and `interval`, `null` where there is none;
        `left_out`, class -> why its decisions are not judged, and `undefined`, figure -> further classes that have none.
        """
        left_out = self._left_out()
        per_class = {
            name: {
                figure: _entry(measured.values[column], measured.of_class(column) if self._enough[column] else None)
                for figure, measured in self.measured.items()
            }
            for column, name in enumerate(self.class_names)
        }
        undefined = {
            figure: [name for name in self.class_names if name not in left_out and per_class[name][figure]["value"] is None]
            for figure in self.measured
        }
        return {
            "macro": macro_entries(self.measured),
            "per_class": per_class,
            "left_out": left_out,
            "undefined": {figure: names for figure, names in undefined.items() if names},
        }

    def _left_out(self) -> dict[str, str]:
        reasons = {}
        for column, name in enumerate(self.class_names):
            for count, kind in ((self._positives[column], "positives"), (self._negatives[column], "negatives")):
                if count < FEWEST:
                    reasons[name] = f"{int(count)} {kind} among the test records, fewer than {FEWEST}"
            if name not in reasons and not self._reliable[column]:
                reasons[name] = f"fewer than {FEWEST} positives or negatives among the validation records"
        return reasons

    def _ranking(self, logits: np.ndarray) -> dict[str, Measured]:
        observed, resampled = (resampled_ranking(self.labels, logits, counts) for counts in (self._everything, self._counts))
        return {
            "auroc": Measured(observed[0][0], resampled[0]),
            "average_precision": Measured(observed[1][0], resampled[1], centred=True),
        }

    def _calibration(self) -> dict[str, Measured]:
        return measure_calibration(self.labels, self.probabilities, self._scorable, self._counts)

    def _decisions(self, thresholds: np.ndarray, with_f1: bool = False) -> dict[str, Measured]:
        observed, resampled = (
            decide(self.labels, self.probabilities, thresholds, counts) for counts in (self._everything, self._counts)
        )
        judged = self._enough & self._reliable
        figures = {
            name: Measured(np.where(judged, values[0], np.nan), resampled.figures()[name], out_of=observed.out_of[name][0])
            for name, values in observed.figures().items()
        }
        return {"f1": _f1(observed, resampled), **figures} if with_f1 else figures


def _f1(observed: Decisions, resampled: Decisions) -> Measured:
    return Measured(observed.f1()[0], resampled.f1(), centred=True)


def measure_calibration(
    labels: np.ndarray, probabilities: np.ndarray, scorable: np.ndarray, counts: np.ndarray
) -> dict[str, Measured]:
    """Brier score and expected calibration error of the `scorable` classes (classes,) bool, and of each resample."""
    squares, errors = resampled_calibration(labels, probabilities, counts)
    return {
        "brier": Measured(np.where(scorable, brier(labels, probabilities), np.nan), squares),
        "expected_calibration_error": Measured(
            np.where(scorable, expected_calibration_error(labels, probabilities), np.nan), errors, centred=True
        ),
    }


def macro_entries(measured: dict[str, Measured]) -> dict[str, dict[str, Any]]:
    """Figure -> `value` and `interval` of the mean over the classes that have it."""
    return {name: _entry(figure.mean_value(), figure.mean()) for name, figure in measured.items()}


def _entry(value: float, found: Interval | None) -> dict[str, Any]:
    bounds = None if found is None else [found.low, found.high]
    return {"value": None if np.isnan(value) else float(value), "interval": bounds}
