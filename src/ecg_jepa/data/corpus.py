"""The mixture of prepared databases that pre-training draws its crops from."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .ptb_xl_tasks import in_training_folds
from .records import MICROVOLTS_PER_MILLIVOLT, PreparedDatabase, find_database


@dataclass
class CorpusBatch:
    """`signal`: int16 in uV, (batch, leads, samples); `database`: index of each record's database, (batch,)."""

    signal: torch.Tensor
    database: torch.Tensor

    def to(self, device: torch.device) -> "CorpusBatch":
        """The same batch on `device`."""
        return CorpusBatch(self.signal.to(device, non_blocking=True), self.database.to(device, non_blocking=True))


class BatchNormalizer(torch.nn.Module):
    """
    int16 in uV -> normalised float32 with the mean and standard deviation of each record's database, clipped.

    Works on the device of the batch, so that only two bytes per sample travel there.

    Args:
        mean, std: per database and lead in mV, (databases, leads).
        clip: in standard deviations.
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray, clip: float = 5.0):
        super().__init__()
        self.clip = clip
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.as_tensor(mean * MICROVOLTS_PER_MILLIVOLT, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std * MICROVOLTS_PER_MILLIVOLT, dtype=torch.float32))

    def forward(self, batch: CorpusBatch) -> torch.Tensor:
        """(batch, leads, samples), float32."""
        mean, std = self.mean[batch.database, :, None], self.std[batch.database, :, None]
        return batch.signal.to(torch.float32).sub_(mean).div_(std).clamp_(-self.clip, self.clip)


class Corpus:
    """
    Crops of fixed length, drawn as the paper does: a database by weight, a record uniformly, a crop uniformly.

    The batch of an index is a pure function of (seed, index): training resumes exactly, and any number of processes read
    disjoint parts of the same batch. Records shorter than a crop, and those of validation and test folds, are left out.

    Args:
        databases: prepared, with the same leads and sampling rate.
        weights: of the databases; they must sum to 1 within rounding.
        batch_size: records per batch over all processes.
        crop_length: samples per crop.
        seed: of all draws.

    Raises:
        ValueError: if databases do not fit together, a database has no usable record, or weights do not sum to 1.
    """

    def __init__(
        self,
        databases: Sequence[PreparedDatabase],
        weights: Sequence[float],
        batch_size: int,
        crop_length: int,
        seed: int = 0,
    ):
        if not databases or len(databases) != len(weights):
            raise ValueError(f"{len(databases)} databases and {len(weights)} weights: give one weight per database.")
        if min(weights) <= 0 or abs(sum(weights) - 1.0) > 1e-6:
            raise ValueError(f"Weights of databases must be positive and sum to 1, but {list(weights)} sum to {sum(weights)}.")
        first = databases[0].info
        for database in databases[1:]:
            if (database.info.sampling_rate, database.info.lead_names) != (first.sampling_rate, first.lead_names):
                raise ValueError(f"{database.name} and {first.name} differ in sampling rate or leads: prepare them alike.")
        self.databases = list(databases)
        self.weights = np.asarray(weights, dtype=np.float64)
        self.batch_size = batch_size
        self.crop_length = crop_length
        self.seed = seed
        self.records = [self._usable_records(database) for database in databases]

    @classmethod
    def from_weights(cls, data_dir: str | Path, weights: dict[str, float], **options: int) -> "Corpus":
        """Open the databases named in `weights` below `data_dir`; `options` as for the class."""
        return cls([find_database(data_dir, name) for name in weights], list(weights.values()), **options)

    def _usable_records(self, database: PreparedDatabase) -> np.ndarray:
        usable = (database.num_samples >= self.crop_length) & in_training_folds(database.column("fold"))
        if not usable.any():
            raise ValueError(
                f"{database.name} has no record of at least {self.crop_length} samples "
                f"({self.crop_length / database.info.sampling_rate:g} s) outside validation and test folds."
            )
        return np.flatnonzero(usable)

    def lead_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in mV of the records that may be drawn, (databases, leads) each."""
        statistics = [d.lead_statistics(r) for d, r in zip(self.databases, self.records, strict=True)]
        mean, std = (np.stack(values) for values in zip(*statistics, strict=True))
        return mean, std

    def mixture_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation per lead in mV of the mixture as a whole, (leads,) each."""
        mean, std = self.lead_statistics()
        total = self.weights @ mean
        return total, np.sqrt(self.weights @ (std**2 + (mean - total) ** 2))

    def batch(self, index: int, rank: int = 0, num_processes: int = 1) -> CorpusBatch:
        """Part `rank` of batch `index`: `batch_size / num_processes` crops."""
        if self.batch_size % num_processes:
            raise ValueError(f"batch_size={self.batch_size} cannot be shared by {num_processes} processes: use a multiple.")
        share = self.batch_size // num_processes
        mine = slice(rank * share, (rank + 1) * share)
        draws = np.random.Generator(np.random.Philox(key=[self.seed, index])).random((3, self.batch_size))[:, mine]
        cumulative = np.cumsum(self.weights)
        which = np.searchsorted(cumulative / cumulative[-1], draws[0], side="right")
        signal = np.empty((share, len(self.databases[0].info.lead_names), self.crop_length), dtype=np.int16)
        for row, (database_index, record_draw, crop_draw) in enumerate(zip(which, draws[1], draws[2], strict=True)):
            database, records = self.databases[database_index], self.records[database_index]
            record = records[int(record_draw * len(records))]
            start = int(crop_draw * (database.num_samples[record] - self.crop_length + 1))
            signal[row] = database.signal(record, start, self.crop_length)
        return CorpusBatch(torch.from_numpy(signal), torch.from_numpy(which))

    def batches(self, start: int = 0, rank: int = 0, num_processes: int = 1) -> Iterator[CorpusBatch]:
        """Batches `start`, `start + 1`, ... without end; the next one is read while the last one is in use."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            upcoming = reader.submit(self.batch, start, rank, num_processes)
            index = start
            while True:
                index += 1
                batch, upcoming = upcoming, reader.submit(self.batch, index, rank, num_processes)
                yield batch.result()
