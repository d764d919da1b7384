"""Statistics of prepared records, beside those that the reference states: per lead, of labels, and for `quality.json`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
import numpy as np

from .splits import FOLDS_OF_SPLIT, in_training_folds
from .tasks import multi_hot

if TYPE_CHECKING:
    from .records import DatabaseInfo

# When a record is outlying. The largest of 1,732 records of PTB-XL has 15 times the standard deviation of the typical one.
_FEWEST_FOR_OUTLIERS = 20
_OUTLYING_RATIO = 25.0
_OUTLYING_SHARE = 0.1


class Published(NamedTuple):
    """What the reference states of a database: records that it trains on, mean and std in mV per lead of `STANDARD_LEADS`."""

    records: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_ZEROS = (0.0,) * 12

# MIMIC-IV-ECG's are stated in the order of its files; here aVL and aVF have changed places.
PUBLISHED = {
    "mimic-iv-ecg": Published(
        records=800_035,
        mean=(0.023, 0.015, -0.007, -0.019, 0.014, 0.004, -0.018, -0.004, 0.002, 0.017, 0.022, 0.022),
        std=(0.155, 0.158, 0.166, 0.133, 0.141, 0.143, 0.207, 0.282, 0.284, 0.253, 0.222, 0.197),
    ),
    "ptb-xl": Published(
        records=17_418,
        mean=(-0.002, -0.002, 0.0, 0.002, -0.001, -0.001, 0.0, -0.001, -0.002, -0.001, -0.001, -0.001),
        std=(0.191, 0.166, 0.173, 0.142, 0.149, 0.147, 0.235, 0.338, 0.335, 0.299, 0.294, 0.242),
    ),
    "chapman-shaoxing": Published(
        records=10_247,
        mean=(0.002, 0.005, 0.003, -0.002, -0.002, 0.003, 0.0, 0.003, 0.004, 0.004, 0.003, -0.001),
        std=(0.140, 0.171, 0.145, 0.138, 0.114, 0.143, 0.218, 0.355, 0.366, 0.365, 0.332, 0.299),
    ),
    "ningbo": Published(
        records=34_905,
        mean=(0.002, 0.004, 0.002, -0.001, -0.001, 0.002, 0.0, 0.003, 0.003, 0.004, 0.003, 0.0),
        std=(0.145, 0.179, 0.159, 0.142, 0.123, 0.153, 0.228, 0.368, 0.377, 0.394, 0.405, 0.444),
    ),
    "georgia": Published(
        records=10_292,
        mean=(-0.003, -0.002, 0.001, 0.003, -0.002, -0.001, -0.004, -0.004, -0.003, -0.003, -0.003, -0.003),
        std=(0.157, 0.178, 0.164, 0.147, 0.134, 0.153, 0.213, 0.285, 0.272, 0.245, 0.224, 0.209),
    ),
    "code-15": Published(128_033, _ZEROS, (0.488, 0.450, 0.437, 0.416, 0.405, 0.370, 0.548, 0.639, 0.719, 0.695, 0.676, 0.639)),
    "cpsc": Published(6_867, _ZEROS, (0.214, 0.236, 0.221, 0.209, 0.196, 0.214, 0.336, 0.417, 0.449, 0.483, 0.523, 0.561)),
    "cpsc-extra": Published(3_441, _ZEROS, (0.182, 0.183, 0.184, 0.163, 0.164, 0.165, 0.288, 0.370, 0.371, 0.380, 0.375, 0.392)),
    "ptb": Published(516, _ZEROS, (0.642, 0.975, 0.953, 0.674, 0.651, 0.909, 0.643, 0.658, 0.668, 0.688, 0.648, 0.622)),
    "st-petersburg": Published(74, _ZEROS, (0.132, 0.370, 0.353, 0.215, 0.191, 0.356, 0.234, 0.320, 0.328, 0.290, 0.317, 0.337)),
}


def lead_statistics(dataset: datasets.Dataset, indices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    Return mean and standard deviation per lead in mV over all samples of the rows `indices` (default: all) of prepared records.

    An outlying lead of a record does not count, so that no loose electrode moves a database's normalisation: see [`outlying`].
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
    more than 25 times the power of the typical record. In databases of fewer than 20 records, none is typical.

    `means`, `stds` (mV) and the result, bool, are (records, leads); `weights`, the samples of each record, (records,).
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
    """Count the records and the positives per label, of `all` records and, if they have folds, of each split."""
    fold = dataset.data.column("fold").to_pandas().to_numpy()
    labels = multi_hot(dataset.data.column("statements").to_pylist(), label_names)
    splits = {"all": np.ones(len(fold), dtype=bool)}
    if not np.isnan(fold).all():
        splits |= {split: np.isin(fold, folds) for split, folds in FOLDS_OF_SPLIT.items()}
    counts = []
    for split, chosen in splits.items():
        positives = dict(zip(label_names, np.count_nonzero(labels[chosen], axis=0).tolist(), strict=True))
        counts.append({"split": split, "records": int(chosen.sum()), "positives": positives})
    return counts


def measure_quality(
    info: "DatabaseInfo", dataset: datasets.Dataset, samples_read: int, published: Published | None
) -> dict[str, Any]:
    """Return the content of `quality.json`; `samples_read` is over all leads, at the rate of the files."""
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
        names = ("published_training_records", "published_mean_mv", "published_std_mv")
        quality |= dict(zip(names, published, strict=True))
    return quality


def _lead_values(dataset: datasets.Dataset, name: str) -> np.ndarray:
    """Return a column with one value per lead as (records, leads)."""
    column = dataset.data.column(name)
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(len(column), -1)
