"""Crops of records in batches."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch


def batch_crops(records: Iterable[np.ndarray], max_crops: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """
    Crops of records, (crops, leads, samples) each, in batches of whole records.

    Yields:
        (crops, leads, samples), of one length, at most `max_crops` unless a record has more; and each crop's record, counted
        from 0.
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
