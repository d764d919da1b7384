"""
How sure a figure is: percentile bootstrap over test records, and a paired test between two runs on the same records.

Records are drawn with replacement; a resample is the vector of how often each record was drawn. With those as weights, the
area under the ROC curve is a sum over sorted scores, so that all resamples of a class are computed at once.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .metrics import check_shapes


@dataclass(frozen=True)
class Interval:
    """A value with a percentile interval around it."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PairedTest:
    """Difference of two runs (first minus second), its interval, and the two-sided bootstrap p value of no difference."""

    difference: Interval
    p_value: float


def resample_counts(num_records: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each record was drawn in each resample, (resamples, records) int32; every row sums to `num_records`."""
    drawn = np.random.default_rng(seed).integers(0, num_records, (num_resamples, num_records))
    drawn += np.arange(num_resamples)[:, None] * num_records
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_records)
    return counts.reshape(num_resamples, num_records).astype(np.int32)


def resampled_auroc(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """
    AUROC of each class in each resample.

    Args:
        labels: zeros and ones, (records, classes).
        scores: (records, classes).
        counts: of [`resample_counts`], (resamples, records).

    Returns:
        (resamples, classes), NaN where a resample has no positives or no negatives of a class.
    """
    (values,) = _over_classes(lambda ranks: (ranks.auroc(),), labels, scores, counts)
    return values


def resampled_ranking(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of each class in each resample, as for [`resampled_auroc`]; both cost little more than one."""
    auroc, precision = _over_classes(lambda ranks: (ranks.auroc(), ranks.average_precision()), labels, scores, counts)
    return auroc, precision


def _over_classes(
    measure: Callable[["_Ranks"], tuple[np.ndarray, ...]], labels: np.ndarray, scores: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, ...]:
    """What `measure` makes of the ranks of each class, (resamples, classes) each."""
    labels, scores = check_shapes(labels, scores)
    by_record = np.ascontiguousarray(counts.T)  # records are sorted and summed over: whole rows are moved and added at once

    def of_class(column: int) -> tuple[np.ndarray, ...]:
        return measure(_Ranks.of(labels[:, column] > 0, scores[:, column], by_record))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        columns = list(threads.map(of_class, range(labels.shape[1])))
    return tuple(np.stack(values, axis=1) for values in zip(*columns, strict=True))


@dataclass(frozen=True)
class _Ranks:
    """
    How the positives of a class stand among all drawn records.

    Args:
        weights: how often each positive was drawn, by rising score, (positives, resamples).
        below, not_above: negatives drawn with a lower score, and with none higher, (positives, resamples).
        negatives: drawn, (resamples,).
        first: of each positive, the first one with the same score, (positives,).
    """

    weights: np.ndarray
    below: np.ndarray
    not_above: np.ndarray
    negatives: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, is_positive: np.ndarray, scores: np.ndarray, by_record: np.ndarray) -> "_Ranks":
        """Of labels and scores (records,), and how often each record was drawn, (records, resamples)."""
        order = np.argsort(scores, kind="stable")
        positives, others = order[is_positive[order]], order[~is_positive[order]]
        negatives = np.zeros((len(others) + 1, by_record.shape[1]), dtype=np.int32)  # drawn, by how many of the lowest
        np.cumsum(by_record[others], axis=0, out=negatives[1:])
        return cls(
            weights=by_record[positives],
            below=negatives[np.searchsorted(scores[others], scores[positives], "left")],
            not_above=negatives[np.searchsorted(scores[others], scores[positives], "right")],
            negatives=negatives[-1],
            first=np.searchsorted(scores[positives], scores[positives], "left"),
        )

    def auroc(self) -> np.ndarray:
        """(resamples,), NaN without positives or negatives."""
        wins = np.einsum("pr,pr->r", self.weights.astype(np.float64), self.below + self.not_above) / 2  # a tie is half a win
        pairs = self.weights.sum(axis=0) * self.negatives.astype(np.float64)
        return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    def average_precision(self) -> np.ndarray:
        """(resamples,), NaN without positives or negatives: the mean over positives of the precision at their scores."""
        positives = self.weights.sum(axis=0)
        lower = np.zeros((len(self.weights) + 1, len(positives)), dtype=np.int32)  # positives drawn with lower scores
        np.cumsum(self.weights, axis=0, out=lower[1:])
        true = positives - lower[self.first]
        predicted = true + (self.negatives - self.below)
        precision = true / np.maximum(predicted, 1)
        total = np.einsum("pr,pr->r", precision, self.weights)
        scorable = (positives > 0) & (self.negatives > 0)
        return np.divide(total, positives, out=np.full(len(total), np.nan), where=scorable)


def macro(values: np.ndarray) -> np.ndarray:
    """Mean over the classes that a resample can score, (resamples,); NaN where it can score none."""
    scorable = ~np.isnan(values)
    totals, counts = np.where(scorable, values, 0.0).sum(axis=1), scorable.sum(axis=1)
    return np.divide(totals, counts, out=np.full(len(values), np.nan), where=counts > 0)


def interval(value: float, resampled: np.ndarray, level: float = 0.95) -> Interval:
    """
    The percentile interval of `resampled` values around the `value` of all records. Resamples without a value are left out.

    Raises:
        ValueError: if half of them or more have none; there are too few records for an interval.
    """
    with_value = resampled[~np.isnan(resampled)]
    if 2 * len(with_value) <= len(resampled):
        raise ValueError(f"Only {len(with_value)} of {len(resampled)} resamples can be scored: there are too few records.")
    tail = (1 - level) / 2
    low, high = np.quantile(with_value, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), level)


def centred(value: float, resampled: np.ndarray) -> np.ndarray:
    """
    Resampled values (resamples,) moved so that their mean is the `value` of all records, within 0 to 1. For figures that rise or
    fall by repeating records alone (average precision, F1 of rare classes, calibration error): the interval of what they are
    when records are repeated need not even hold them.
    """
    return np.clip(resampled - np.nanmean(resampled) + value, 0.0, 1.0)


def exact_bounds(hits: int, out_of: int, level: float = 0.95) -> tuple[float, float]:
    """
    Interval of a share of none or all of `out_of` records (Clopper & Pearson 1934), of which resamples know nothing: every one of
    them is the same. Raises `ValueError` for other shares.
    """
    tail = ((1 - level) / 2) ** (1 / out_of)
    if hits not in (0, out_of):
        raise ValueError(f"{hits} of {out_of} is neither none nor all: take the bootstrap's interval.")
    return (tail, 1.0) if hits else (0.0, 1 - tail)


def bootstrap(
    measure: Callable[[np.ndarray], np.ndarray], num_records: int, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """
    Interval of any measure that takes counts (resamples, records) and returns one value per resample.

    Args:
        measure: called with ones for the value itself, and with the resamples.
        num_records: of the test set.
        num_resamples, seed: of the draws.
        level: share of the resamples that the interval holds.
    """
    value = measure(np.ones((1, num_records), dtype=np.int32))[0]
    return interval(float(value), measure(resample_counts(num_records, num_resamples, seed)), level)


def macro_auroc_interval(
    labels: np.ndarray, scores: np.ndarray, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Macro AUROC with its bootstrap interval; as [`metrics.auroc`], without classes that cannot be scored."""
    return bootstrap(lambda counts: macro(resampled_auroc(labels, scores, counts)), len(labels), num_resamples, seed, level)


def paired_test(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedTest:
    """
    Whether two runs differ in macro AUROC on the same records: both are scored on the same resamples. A side may also be several
    runs, whose AUROC is averaged.

    The p value is twice the share of resamples on the far side of zero, counting one more on either side, so that it is never
    smaller than the number of resamples can tell (Davison & Hinkley 1997, section 4.2). Resamples that cannot be scored are left
    out.

    Args:
        labels: zeros and ones, (records, classes).
        first, second: scores, (records, classes) or (runs, records, classes).
        num_resamples, seed: of the draws.
        level: of the interval.

    Raises:
        ValueError: if the runs are not of the same records and classes, or most resamples cannot be scored.
    """
    if np.shape(first)[-2:] != np.shape(second)[-2:]:
        raise ValueError(f"Scores of {np.shape(first)} and {np.shape(second)}: a paired test needs the same records and classes.")

    sides = [scores[None] if scores.ndim == 2 else scores for scores in map(np.asarray, (first, second))]

    def difference(counts: np.ndarray) -> np.ndarray:
        ours, theirs = (np.mean([macro(resampled_auroc(labels, run, counts)) for run in runs], axis=0) for runs in sides)
        return ours - theirs

    observed = float(difference(np.ones((1, len(labels)), dtype=np.int32))[0])
    resampled = difference(resample_counts(len(labels), num_resamples, seed))
    with_value = resampled[~np.isnan(resampled)]
    far = min((with_value <= 0).sum(), (with_value >= 0).sum())
    return PairedTest(interval(observed, resampled, level), float(min(1.0, 2 * (far + 1) / (len(with_value) + 1))))


def holm(p_values: np.ndarray) -> np.ndarray:
    """
    P values (tests,) corrected for there being several (Holm 1979): rejecting what stays below a level makes any false rejection
    among all of them no likelier than that level, however they depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    raised = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(raised)) if len(p_values) else raised
    return corrected
