"""Percentile bootstrap over test records: intervals of metrics, and a paired test between runs on the same records."""

from collections.abc import Callable
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


def resample_counts(num_records: int, num_resamples: int, seed: int) -> np.ndarray:
    """Return how often each record is in each resample, (resamples, records) int32; every row sums to `num_records`."""
    sampled = np.random.default_rng(seed).integers(0, num_records, (num_resamples, num_records))
    sampled += np.arange(num_resamples)[:, None] * num_records
    counts = np.bincount(sampled.ravel(), minlength=num_resamples * num_records)
    return counts.reshape(num_resamples, num_records).astype(np.int32)


def interval(value: float, resampled: np.ndarray, level: float = 0.95) -> Interval:
    """
    Return the percentile interval of `resampled` values, of which NaN are left out, around the `value` of all records.

    Raises:
        ValueError: if half of the resamples or more are NaN: there are too few records.
    """
    with_value = resampled[~np.isnan(resampled)]
    if 2 * len(with_value) <= len(resampled):
        raise ValueError(f"Only {len(with_value)} of {len(resampled)} resamples can be scored: there are too few records.")
    tail = (1 - level) / 2
    low, high = np.quantile(with_value, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def centred(value: float, resampled: np.ndarray) -> np.ndarray:
    """
    Return resampled values (resamples,) moved so that their mean is the `value` of all records, within 0 to 1.

    Average precision, F1 of rare classes and calibration error rise or fall by repeating records alone: their percentile interval
    need not even hold the value.
    """
    return np.clip(resampled - np.nanmean(resampled) + value, 0.0, 1.0)


def exact_bounds(hits: int, out_of: int, level: float = 0.95) -> tuple[float, float]:
    """
    Return the interval of a share of none or all of `out_of` records (Clopper & Pearson 1934), where all resamples are the same.
    Raises `ValueError` for other shares.
    """
    tail = ((1 - level) / 2) ** (1 / out_of)
    if hits not in (0, out_of):
        raise ValueError(f"{hits} of {out_of} is neither none nor all: take the bootstrap's interval.")
    return (tail, 1.0) if hits else (0.0, 1 - tail)


@dataclass(frozen=True)
class Measured:
    """
    A metric of all classes, with its resamples.

    Args:
        values: of all test records, (classes,); NaN where a class has none.
        resampled: (resamples, classes).
        centred: whether repeating records alone moves it (see [`centred`]).
        out_of: for a share of records: of how many, (classes,).
    """

    values: np.ndarray
    resampled: np.ndarray
    centred: bool = False
    out_of: np.ndarray | None = None

    def macro(self) -> dict[str, Any]:
        """Return `value` and `interval` of the mean over the classes that have a value; None where there is none."""
        return self._entry(float(macro(self.values)), macro(self.resampled[:, ~np.isnan(self.values)]))

    def of_class(self, column: int, with_interval: bool) -> dict[str, Any]:
        """Return `value` and `interval` of a class; the interval is exact for a share of none or all records."""
        value = float(self.values[column])
        if not with_interval or np.isnan(value):
            return {"value": None if np.isnan(value) else value, "interval": None}
        if self.out_of is not None and value in (0.0, 1.0):
            total = int(self.out_of[column])
            return {"value": value, "interval": list(exact_bounds(total if value else 0, total))}
        return self._entry(value, self.resampled[:, column])

    def _entry(self, value: float, resampled: np.ndarray) -> dict[str, Any]:
        if np.isnan(value) or np.isnan(resampled).all():
            return {"value": None if np.isnan(value) else value, "interval": None}
        try:
            found = interval(value, centred(value, resampled) if self.centred else resampled)
        except ValueError:  # too few resamples can be scored
            return {"value": value, "interval": None}
        return {"value": value, "interval": [found.low, found.high]}


def macro_auroc(labels: np.ndarray, scores: np.ndarray, num_resamples: int) -> dict[str, Any]:
    """Return `macro_auroc` and `interval` of some records and classes alone; None where they cannot be scored."""
    counts = resample_counts(len(labels), num_resamples, seed=0)
    entry = Measured(auroc(labels, scores), auroc(labels, scores, counts)).macro()
    return {"macro_auroc": entry["value"], "interval": entry["interval"]}


def bootstrap(
    metric: Callable[[np.ndarray], np.ndarray], num_records: int, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the interval of any metric that takes counts (resamples, records) and returns one value per resample."""
    value = metric(np.ones((1, num_records), dtype=np.int32))[0]
    return interval(float(value), metric(resample_counts(num_records, num_resamples, seed)), level)


def macro_auroc_interval(
    labels: np.ndarray, scores: np.ndarray, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return macro AUROC with its bootstrap interval, without classes that cannot be scored."""
    return bootstrap(lambda counts: macro(auroc(labels, scores, counts)), len(labels), num_resamples, seed, level)


def paired_test(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedTest:
    """
    Test whether two runs differ in macro AUROC on the same resamples of the same records.

    The p value is twice the share of resamples on the far side of zero, counting one more on either side, so that it is never
    smaller than the number of resamples allows (Davison & Hinkley 1997, section 4.2). Resamples that cannot be scored are left
    out.

    Args:
        labels: zeros and ones, (records, classes).
        first, second: scores, (records, classes), or of several runs, whose AUROC is averaged, (runs, records, classes).
        num_resamples, seed: of the resamples.
        level: of the interval.

    Raises:
        ValueError: if the runs are not of the same records and classes, or most resamples cannot be scored.
    """
    if np.shape(first)[-2:] != np.shape(second)[-2:]:
        raise ValueError(f"Scores of {np.shape(first)} and {np.shape(second)}: a paired test needs the same records and classes.")
    sides = [scores[None] if scores.ndim == 2 else scores for scores in map(np.asarray, (first, second))]

    def difference(counts: np.ndarray) -> np.ndarray:
        ours, theirs = (np.mean([macro(auroc(labels, run, counts)) for run in runs], axis=0) for runs in sides)
        return ours - theirs

    observed = float(difference(np.ones((1, len(labels)), dtype=np.int32))[0])
    resampled = difference(resample_counts(len(labels), num_resamples, seed))
    with_value = resampled[~np.isnan(resampled)]
    far = min((with_value <= 0).sum(), (with_value >= 0).sum())
    return PairedTest(interval(observed, resampled, level), float(min(1.0, 2 * (far + 1) / (len(with_value) + 1))))
