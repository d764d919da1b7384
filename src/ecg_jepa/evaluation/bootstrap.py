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
    labels, scores = check_shapes(labels, scores)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        columns = threads.map(lambda c: _resampled_auroc_of_class(labels[:, c] > 0, scores[:, c], counts), range(labels.shape[1]))
        return np.stack(list(columns), axis=1)


def _resampled_auroc_of_class(is_positive: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    order = np.argsort(scores, kind="stable")
    scores, is_positive = scores[order], is_positive[order]
    weights = counts[:, order]
    negatives = np.zeros((len(counts), len(order) + 1), dtype=np.int32)  # drawn among the lowest scores, by how many of these
    np.cumsum(weights * ~is_positive, axis=1, out=negatives[:, 1:])
    positive_scores = scores[is_positive]
    below = negatives[:, np.searchsorted(scores, positive_scores, "left")]
    not_above = negatives[:, np.searchsorted(scores, positive_scores, "right")]
    positive_weights = weights[:, is_positive].astype(np.float64)
    wins = (positive_weights * (below + not_above)).sum(axis=1) / 2  # a tie is half a win
    pairs = positive_weights.sum(axis=1) * negatives[:, -1]
    return np.divide(wins, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


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
    smaller than the number of resamples can tell (Davison & Hinkley 1997, section 4.2).

    Args:
        labels: zeros and ones, (records, classes).
        first, second: scores, (records, classes) or (runs, records, classes).
        num_resamples, seed: of the draws.
        level: of the interval.

    Raises:
        ValueError: if the runs are not of the same records and classes.
    """
    if np.shape(first)[-2:] != np.shape(second)[-2:]:
        raise ValueError(f"Scores of {np.shape(first)} and {np.shape(second)}: a paired test needs the same records and classes.")

    sides = [scores[None] if scores.ndim == 2 else scores for scores in map(np.asarray, (first, second))]

    def difference(counts: np.ndarray) -> np.ndarray:
        ours, theirs = (np.mean([macro(resampled_auroc(labels, run, counts)) for run in runs], axis=0) for runs in sides)
        return ours - theirs

    observed = float(difference(np.ones((1, len(labels)), dtype=np.int32))[0])
    resampled = difference(resample_counts(len(labels), num_resamples, seed))
    far = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return PairedTest(interval(observed, resampled, level), float(min(1.0, 2 * (far + 1) / (num_resamples + 1))))


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
