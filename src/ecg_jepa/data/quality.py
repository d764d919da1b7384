"""What was measured on a prepared database, beside what was published of it: `quality.json`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from .folds import FOLDS_OF_SPLIT, in_training_folds
from .lead_statistics import as_matrix, lead_statistics
from .records import DatabaseInfo


@dataclass(frozen=True)
class PublishedFigures:
    """
    What the reference implementation says of a database.

    Args:
        records: how many it trains on.
        mean, std: per lead in mV, in the order of `STANDARD_LEADS`.
    """

    records: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def column_sum(dataset: datasets.Dataset, name: str) -> int:
    """Sum of a column of whole numbers."""
    return int(np.sum(dataset.data.column(name).to_numpy(), dtype=np.int64))


def count_labels(dataset: datasets.Dataset, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """
    How many of the prepared records have each label: a dictionary with the name of a `split`, its `records` and the `positives`
    per label, for `all` records and, if they have folds, for each split.
    """
    fold = dataset.data.column("fold").to_pandas().to_numpy()
    of_records = map(set, dataset.data.column("statements").to_pylist())
    given = np.array([[name in statements for name in label_names] for statements in of_records], dtype=bool)
    splits = {"all": np.ones(len(fold), dtype=bool)}
    if not np.isnan(fold.astype(float)).all():
        splits |= {split: np.isin(fold, folds) for split, folds in FOLDS_OF_SPLIT.items()}
    return [
        {
            "split": split,
            "records": int(chosen.sum()),
            "positives": dict(zip(label_names, given[chosen].sum(axis=0).tolist(), strict=True)),
        }
        for split, chosen in splits.items()
    ]


def measure_quality(
    info: DatabaseInfo, dataset: datasets.Dataset, samples_read: int, published: PublishedFigures | None
) -> dict[str, Any]:
    """
    The content of `quality.json`.

    Args:
        info: the content of `database.json`.
        dataset: the prepared records.
        samples_read: over all leads, at the rate of the files.
        published: figures to set beside the measured ones.
    """
    flat = as_matrix(dataset.data.column("lead_std")) == 0
    fold = dataset.data.column("fold").to_pandas().to_numpy()
    training = np.flatnonzero(in_training_folds(fold))
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
