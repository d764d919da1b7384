"""Crops of records in batches, and the mean over the crops of each record."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch


def batch_crops(records: Iterable[np.ndarray], max_crops: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """
    Yield batches of the crops of whole records, (crops, leads, samples) each, and each crop's record, counted from 0.

    The crops of a batch have one length, and are at most `max_crops` unless a single record has more.
    """
    parts: list[np.ndarray] = []
    owners: list[int] = []
    for position, crops in enumerate(records):
        if parts and (len(owners) + len(crops) > max_crops or crops.shape[1:] != parts[0].shape[1:]):
            yield torch.from_numpy(np.concatenate(parts)), torch.tensor(owners)
            parts, owners = [], []
        parts.append(crops)
        owners += [position] * len(crops)
    if parts:
        yield torch.from_numpy(np.concatenate(parts)), torch.tensor(owners)


def mean_over_crops(values: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """Return the mean over each record's crops, (records, width), of the values of a batch of [`batch_crops`], (crops, width)."""
    crops = torch.bincount(owners - owners[0])
    return values.new_zeros(len(crops), values.shape[1]).index_add_(0, owners - owners[0], values) / crops[:, None]
