"""Statistics of prepared records: mean and standard deviation per lead, label counts, and the content of `quality.json`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np

from .splits import FOLDS_OF_SPLIT, in_training_folds
from .tasks import multi_hot

if TYPE_CHECKING:
    from .records import DatabaseInfo

# When a record is outlying in the statistics of its database. The largest of 1,732 records of PTB-XL has 15 times the standard
# deviation of the typical one, and no electrode problem makes up a tenth of the variance of a database of more than 2,000.
_FEWEST_FOR_OUTLIERS = 20
_OUTLYING_RATIO = 25.0
_OUTLYING_SHARE = 0.1


@dataclass(frozen=True)
class PublishedStatistics:
    """
    What the reference implementation states about a database.

    Args:
        records: number that it trains on.
        mean, std: per lead in mV, in the order of `STANDARD_LEADS`.
    """

    records: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def lead_statistics(dataset: datasets.Dataset, indices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    Return mean and standard deviation per lead in mV over all samples of the rows `indices` (default: all) of prepared records.

    An outlying lead of a record does not count, so that no single record, with a loose electrode say, moves the normalisation
    of a database: see [`outlying`].
    """
    means, stds = (_lead_values(dataset, name) for name in ("lead_mean", "lead_std"))
    weights = dataset.data.column("num_samples").to_numpy().astype(np.float64)
    if indices is not None:
        means, stds, weights = means[indices], stds[indices], weights[indices]
    shares = np.where(outlying(means, stds, weights), 0.0, weights[:, None])
    shares = shares / shares.sum(axis=0)
    mean = (shares * means).sum(axis=0)
    # Law of total variance: within records plus between their means.
    variance = (shares * (stds**2 + (means - mean) ** 2)).sum(axis=0)
    return mean, np.sqrt(variance)


def outlying(means: np.ndarray, stds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """
    Find leads of records that move a database's statistics by themselves: with more than a tenth of the lead's variance, and
    more than 25 times the power of the typical record.

    Args:
        means, stds: of each lead of each record in mV, (records, leads).
        weights: samples of each record, (records,).

    Returns:
        (records, leads) bool; all False in databases of fewer than 20 records, of which none is typical.
    """
    power = stds**2 + (means - np.median(means, axis=0)) ** 2
    left_out = np.zeros(power.shape, dtype=bool)
    if len(power) < _FEWEST_FOR_OUTLIERS:
        return left_out
    far = power > _OUTLYING_RATIO * np.median(power, axis=0)
    while True:
        variance = np.where(left_out, 0.0, weights[:, None] * power)
        found = far & (variance > _OUTLYING_SHARE * variance.sum(axis=0))
        if not found.any():
            return left_out
        left_out |= found


def count_labels(dataset: datasets.Dataset, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """
    Count the prepared records that have each label.

    Returns:
        For `all` records and, if they have folds, for each split: its name as `split`, how many `records` it has, and the
        `positives` per label.
    """
    fold = dataset.data.column("fold").to_pandas().to_numpy()
    labels = multi_hot(dataset.data.column("statements").to_pylist(), label_names)
    splits = {"all": np.ones(len(fold), dtype=bool)}
    if not np.isnan(fold).all():
        splits |= {split: np.isin(fold, folds) for split, folds in FOLDS_OF_SPLIT.items()}
    return [
        {
            "split": split,
            "records": int(chosen.sum()),
            "positives": dict(zip(label_names, np.count_nonzero(labels[chosen], axis=0).tolist(), strict=True)),
        }
        for split, chosen in splits.items()
    ]


def measure_quality(
    info: "DatabaseInfo", dataset: datasets.Dataset, samples_read: int, published: PublishedStatistics | None
) -> dict[str, Any]:
    """
    Return the content of `quality.json`.

    Args:
        info: the content of `database.json`.
        dataset: the prepared records.
        samples_read: over all leads, at the rate of the files.
        published: statistics to set beside the measured ones.
    """
    flat = _lead_values(dataset, "lead_std") == 0
    training = np.flatnonzero(in_training_folds(dataset.data.column("fold").to_pandas().to_numpy()))
    durations = dataset.data.column("num_samples").to_numpy() / info.sampling_rate
    quality: dict[str, Any] = {
        "database": info.name,
        "records": info.records,
        "rejected": info.rejected,
        "hours": info.hours,
        "shortest_seconds": float(durations.min()),
        "longest_seconds": float(durations.max()),
        "nan_share": info.interpolated_samples / samples_read,
        "clipped_samples": info.clipped_samples,
        "records_with_flat_leads": int(flat.any(axis=1).sum()),
        "dead_leads": [name for name, is_dead in zip(info.lead_names, flat.all(axis=0), strict=True) if is_dead],
        "records_with_bad_checksums": info.bad_checksums,
        "lead_names": info.lead_names,
        "training_records": len(training),
    }
    if len(training):
        mean, std = lead_statistics(dataset, training)
        quality |= {"training_mean_mv": mean.round(6).tolist(), "training_std_mv": std.round(6).tolist()}
    if published is not None:
        quality |= {
            "published_training_records": published.records,
            "published_mean_mv": list(published.mean),
            "published_std_mv": list(published.std),
        }
    return quality


def _lead_values(dataset: datasets.Dataset, name: str) -> np.ndarray:
    """Return a column with one value per lead as (records, leads)."""
    column = dataset.data.column(name)
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(len(column), -1)
