"""Mean and standard deviation per lead of prepared records, robust against single records."""

import datasets
import numpy as np
import pyarrow as pa

# What makes a record outlying in the statistics of its database. The largest of 1,732 records of PTB-XL has 15 times the standard
# deviation of the typical one, and no electrode problem makes up a tenth of the variance of a database of more than 2,000.
_FEWEST_FOR_OUTLIERS = 20
_OUTLYING_RATIO = 25.0
_OUTLYING_SHARE = 0.1


def lead_statistics(dataset: datasets.Dataset, indices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    Mean and standard deviation per lead in mV over all samples of the rows `indices` (default: all) of prepared records.

    A lead of a record that would by itself make up more than a tenth of the lead's variance does not count, so that no single
    record, with a loose electrode say, moves the normalisation of a database: see [`outlying`].
    """
    means, stds = (as_matrix(dataset.data.column(name)) for name in ("lead_mean", "lead_std"))
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
    Which leads of which records move a database's statistics by themselves: more than a tenth of the lead's variance, and more
    than 25 times that of the typical record.

    Args:
        means, stds: of each lead of each record in mV, (records, leads).
        weights: samples of each record, (records,).

    Returns:
        (records, leads), nothing in databases of fewer than 20 records, of which none is typical.
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


def as_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of one length as (rows, values)."""
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(len(column), -1)
