"""Percentile bootstrap over test records: intervals of metrics, and a paired test between runs on the same records."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .metrics import auroc, macro


class Interval(NamedTuple):
    """A value with a percentile interval around it."""

    value: float
    low: float
    high: float


class PairedTest(NamedTuple):
    """Difference of two runs (first minus second), its interval, and the two-sided bootstrap p value of no difference."""

    difference: Interval
    p_value: float


def resample_counts(num_records: int, num_resamples: int, seed: int = 0) -> np.ndarray:
    """Return how often each record is in each resample, (resamples, records) int32; every row sums to `num_records`."""
    sampled = np.random.default_rng(seed).integers(0, num_records, (num_resamples, num_records))
    sampled += np.arange(num_resamples)[:, None] * num_records
    counts = np.bincount(sampled.ravel(), minlength=num_resamples * num_records)
    return counts.reshape(num_resamples, num_records).astype(np.int32)


def interval(value: float, resampled: np.ndarray, level: float = 0.95, centred: bool = False) -> Interval:
    """
    Return the percentile interval of `resampled` values, of which NaN are left out, around the `value` of all records.

    Average precision, F1 of rare classes and calibration error rise or fall by repeating records alone, so that their interval
    need not even hold the value: `centred` moves the resampled values so that their mean is the value, within 0 to 1.
    Raises `ValueError` if half of the resamples or more are NaN.
    """
    with_value = resampled[~np.isnan(resampled)]
    if 2 * len(with_value) <= len(resampled):
        raise ValueError(f"Only {len(with_value)} of {len(resampled)} resamples can be scored: there are too few records.")
    if centred:
        with_value = np.clip(with_value - np.nanmean(resampled) + value, 0.0, 1.0)
    low, high = np.quantile(with_value, [(1 - level) / 2, 1 - (1 - level) / 2])
    return Interval(float(value), float(low), float(high))


@dataclass(frozen=True)
class Measured:
    """
    A metric of all classes: `values` (classes,), NaN where a class has none, and `resampled` (resamples, classes). `centred` as
    for [`interval`]; `out_of` (classes,) is for a share of records: of how many.
    """

    values: np.ndarray
    resampled: np.ndarray
    centred: bool = False
    out_of: np.ndarray | None = None

    def macro(self) -> dict[str, Any]:
        """Return `value` and `interval` of the mean over the classes that have a value; None where there is none."""
        return self._entry(float(macro(self.values)), macro(self.resampled[:, ~np.isnan(self.values)]))

    def of_class(self, column: int, with_interval: bool) -> dict[str, Any]:
        """
        Return `value` and `interval` of a class; the interval is exact (Clopper & Pearson 1934) for a share of none or all
        records, where all resamples are the same.
        """
        value = float(self.values[column])
        if self.out_of is not None and with_interval and value in (0.0, 1.0):
            tail = float(((1 - 0.95) / 2) ** (1 / self.out_of[column]))
            return {"value": value, "interval": [tail, 1.0] if value else [0.0, 1 - tail]}
        return self._entry(value, self.resampled[:, column] if with_interval else np.array([]))

    def _entry(self, value: float, resampled: np.ndarray) -> dict[str, Any]:
        if np.isnan(value):
            return {"value": None, "interval": None}
        try:
            return {"value": value, "interval": list(interval(value, resampled, centred=self.centred)[1:])}
        except ValueError:  # too few resamples can be scored
            return {"value": value, "interval": None}


def as_text(entry: Mapping[str, Any]) -> str:
    """Return a `value` and its `interval`, as in `metrics.json`, as text; a dash if there is no value."""
    if entry["value"] is None:
        return "-"
    bounds = " ({:.3f} to {:.3f})".format(*entry["interval"]) if entry["interval"] else ""
    return f"{entry['value']:.3f}{bounds}"


def macro_auroc(labels: np.ndarray, scores: np.ndarray, num_resamples: int) -> dict[str, Any]:
    """Return `macro_auroc` and `interval` of some records and classes alone; None where they cannot be scored."""
    counts = resample_counts(len(labels), num_resamples)
    entry = Measured(auroc(labels, scores), auroc(labels, scores, counts)).macro()
    return {"macro_auroc": entry["value"], "interval": entry["interval"]}


def bootstrap(
    metric: Callable[[np.ndarray], np.ndarray], num_records: int, num_resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Return the interval of any metric that takes counts (resamples, records) and returns one value per resample."""
    value = metric(np.ones((1, num_records), dtype=np.int32))[0]
    return interval(float(value), metric(resample_counts(num_records, num_resamples)), level)


def paired_test(labels: np.ndarray, first: np.ndarray, second: np.ndarray, num_resamples: int = 1000) -> PairedTest:
    """
    Test whether two runs differ in macro AUROC on the same resamples of the same records.

    The p value is twice the share of resamples on the far side of zero, counting one more on either side, so that it is never
    smaller than the number of resamples allows (Davison & Hinkley 1997, section 4.2). Resamples that cannot be scored are left
    out. Scores are (records, classes), or of several runs, whose AUROC is averaged, (runs, records, classes). Raises `ValueError`
    if they are not of the same records and classes, or most resamples cannot be scored.
    """
    if np.shape(first)[-2:] != np.shape(second)[-2:]:
        raise ValueError(f"Scores of {np.shape(first)} and {np.shape(second)}: a paired test needs the same records and classes.")
    sides = [scores[None] if scores.ndim == 2 else scores for scores in map(np.asarray, (first, second))]

    def difference(counts: np.ndarray) -> np.ndarray:
        ours, theirs = (np.mean([macro(auroc(labels, run, counts)) for run in runs], axis=0) for runs in sides)
        return ours - theirs

    resampled = difference(resample_counts(len(labels), num_resamples))
    observed = difference(np.ones((1, len(labels)), dtype=np.int32))[0]
    far = min((resampled <= 0).sum(), (resampled >= 0).sum())
    p_value = min(1.0, 2 * (far + 1) / ((~np.isnan(resampled)).sum() + 1))
    return PairedTest(interval(float(observed), resampled), float(p_value))
