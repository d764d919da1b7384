"""The mixture of prepared databases from which pre-training takes its crops."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._utils.processes import share_of_batch
from ..model.signal_processing_ecg_jepa import normalize
from .records import MICROVOLTS_PER_MILLIVOLT, PreparedDatabase, find_database
from .splits import in_training_folds, in_validation_fold


@dataclass
class CorpusBatch:
    """`signal`: int16 in uV, (batch, leads, samples); `database`: index of each record's database, (batch,)."""

    signal: torch.Tensor
    database: torch.Tensor

    def to(self, device: torch.device) -> "CorpusBatch":
        """Copy the batch to `device`."""
        return CorpusBatch(self.signal.to(device, non_blocking=True), self.database.to(device, non_blocking=True))

    def first(self, count: int) -> "CorpusBatch":
        """Return the first `count` records, or all if there are fewer."""
        return CorpusBatch(self.signal[:count], self.database[:count])


class BatchNormalizer(torch.nn.Module):
    """
    int16 in uV -> normalised float32, clipped at `CLIP` standard deviations, on the batch's device: two bytes per sample travel.

    `mean` and `std` are per database and lead in mV, (databases, leads).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(values * MICROVOLTS_PER_MILLIVOLT, dtype=torch.float32))

    def forward(self, batch: CorpusBatch) -> torch.Tensor:
        """Return (batch, leads, samples), float32."""
        return normalize(batch.signal.float(), self.mean[batch.database], self.std[batch.database])


def mix_statistics(weights: np.ndarray, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation per lead of a mixture: `weights` (databases,), the others (databases, leads)."""
    total = weights @ mean
    return total, np.sqrt(weights @ (std**2 + (mean - total) ** 2))


def common_cutoff(cutoffs: Iterable[float | None]) -> float | None:
    """Return the cutoff of a high-pass that several databases share; `None` if they differ or had none."""
    different = set(cutoffs)
    return different.pop() if len(different) == 1 else None


@dataclass(eq=False)
class Corpus:
    """
    Random crops of fixed length, as in the paper: a database by weight, a record uniformly, a crop uniformly.

    The batch of an index is a pure function of (seed, index): training resumes exactly, and any number of processes read
    disjoint parts of the same batch. Records shorter than a crop, and those of other folds, are left out. Raises `ValueError` if
    databases do not fit together, a database has no usable record, or weights do not sum to 1.
    """

    databases: Sequence[PreparedDatabase]  # with the same leads and sampling rate
    weights: np.ndarray  # of the databases, (databases,); they must sum to 1 within rounding
    batch_size: int  # records per batch over all processes
    crop_length: int  # samples
    seed: int = 0
    num_threads: int = min(4, len(os.sched_getaffinity(0)))  # that read a batch together
    held_out: bool = False  # take records of the validation fold instead of those that may be trained on

    def __post_init__(self) -> None:
        if not self.databases or len(self.databases) != len(self.weights):
            raise ValueError(f"{len(self.databases)} databases and {len(self.weights)} weights: give one weight per database.")
        self.weights = np.asarray(self.weights, dtype=np.float64)
        if min(self.weights) <= 0 or abs(sum(self.weights) - 1.0) > 1e-6:
            raise ValueError(f"Weights must be positive and sum to 1, but {self.weights.tolist()} sum to {sum(self.weights)}.")
        first = self.databases[0].info
        for info in (database.info for database in self.databases):
            if not info.for_pretraining:
                raise ValueError(f"{info.name} holds records of test folds of another database: it is not for pre-training.")
            if (info.sampling_rate, info.lead_names) != (first.sampling_rate, first.lead_names):
                raise ValueError(f"{info.name} and {first.name} differ in sampling rate or leads: prepare them alike.")
            if info.amplitude_free != first.amplitude_free:
                raise ValueError(f"Of {info.name} and {first.name}, one is amplitude-free and one in mV: prepare them alike.")
        self.records = [self._usable_records(database) for database in self.databases]

    @classmethod
    def from_weights(cls, data_dir: str | Path, weights: dict[str, float], **options: Any) -> "Corpus":
        """Open the databases named in `weights` below `data_dir`; `options` as for the class."""
        return cls([find_database(data_dir, name) for name in weights], np.array(list(weights.values())), **options)

    def _usable_records(self, database: PreparedDatabase) -> np.ndarray:
        in_folds = in_validation_fold if self.held_out else in_training_folds
        usable = (database.num_samples >= self.crop_length) & in_folds(database.column("fold"))
        if not usable.any():
            place = "in the validation fold" if self.held_out else "outside validation and test folds"
            seconds = self.crop_length / database.info.sampling_rate
            raise ValueError(f"{database.name} has no record of at least {self.crop_length} samples ({seconds:g} s) {place}.")
        return np.flatnonzero(usable)

    def validation_batches(self, num_batches: int, rank: int = 0, num_processes: int = 1) -> list[CorpusBatch]:
        """
        Read part `rank` of the first `num_batches` batches of the same mixture from the validation folds of the databases that
        have one; always the same ones for a seed. Raises `ValueError` if none of the databases has a validation fold.
        """
        chosen = [i for i, d in enumerate(self.databases) if in_validation_fold(d.column("fold")).any()]
        if not chosen:
            names = ", ".join(database.name for database in self.databases)
            raise ValueError(f"eval_steps needs a validation fold, which none of the databases has ({names}): set it to 0.")
        weights = self.weights[chosen] / self.weights[chosen].sum()
        databases = [self.databases[i] for i in chosen]
        held_out = Corpus(databases, weights, self.batch_size, self.crop_length, self.seed, held_out=True)
        batches = [held_out.batch(index, rank, num_processes) for index in range(num_batches)]
        # Batches are normalised by the index of each database in this corpus.
        return [CorpusBatch(batch.signal, torch.tensor(chosen)[batch.database]) for batch in batches]

    @cached_property  # for a million records it takes seconds
    def lead_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in mV of the records that may be used, (databases, leads) each."""
        statistics = [d.lead_statistics(r) for d, r in zip(self.databases, self.records, strict=True)]
        mean, std = np.array(statistics).swapaxes(0, 1)
        return mean, std

    def mixture_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation per lead in mV of the mixture as a whole, (leads,) each."""
        return mix_statistics(self.weights, *self.lead_statistics)

    def highpass_cutoff(self) -> float | None:
        """Return the cutoff in Hz of the high-pass at preparation if all databases had the same; otherwise `None`."""
        return common_cutoff(database.info.highpass_cutoff for database in self.databases)

    def batch(self, index: int, rank: int = 0, num_processes: int = 1) -> CorpusBatch:
        """Read part `rank` of batch `index`: `batch_size / num_processes` crops."""
        share = share_of_batch(self.batch_size, num_processes)
        crops = self._crops(index)[rank * share : (rank + 1) * share]
        shape = (share, len(self.databases[0].info.lead_names), self.crop_length)
        signal = torch.empty(shape, dtype=torch.int16, pin_memory=torch.cuda.is_available())
        rows = signal.numpy()

        def read(part: slice) -> None:  # copying lets other threads run
            for row, (database, record, number) in zip(rows[part], crops[part], strict=True):
                start = int(number * (int(self.databases[database].num_samples[record]) - self.crop_length + 1))
                row[...] = self.databases[database].signal(record, start, self.crop_length)

        per_thread = -(-share // self.num_threads)
        with ThreadPoolExecutor(self.num_threads) as threads:
            list(threads.map(read, [slice(begin, begin + per_thread) for begin in range(0, share, per_thread)]))
        return CorpusBatch(signal, torch.tensor([database for database, _, _ in crops]))

    def record_ids(self, index: int) -> list[str]:
        """Return the records that batch `index` is made of, `database/record_id` each."""
        crops = self._crops(index)
        return [f"{self.databases[d].name}/{self.databases[d].column('record_id')[record]}" for d, record, _ in crops]

    def _crops(self, index: int) -> list[tuple[int, int, float]]:
        """Return the database and record of each crop of a batch, and a number in [0, 1) for its place in the record."""
        numbers = np.random.Generator(np.random.Philox(key=[self.seed, index])).random((3, self.batch_size))
        cumulative = np.cumsum(self.weights)
        which = np.searchsorted(cumulative / cumulative[-1], numbers[0], side="right").tolist()
        chosen = zip(which, *numbers[1:].tolist(), strict=True)
        return [(d, int(self.records[d][int(number * len(self.records[d]))]), place) for d, number, place in chosen]

    def batches(self, start: int = 0, rank: int = 0, num_processes: int = 1) -> Iterator[CorpusBatch]:
        """Yield batches `start`, `start + 1`, ... without end; the next one is read while the last one is in use."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            upcoming = reader.submit(self.batch, start, rank, num_processes)
            for index in count(start + 1):
                batch = upcoming.result()
                upcoming = reader.submit(self.batch, index, rank, num_processes)
                yield batch
                del batch  # its memory may be used for the next one
