"""A prepared database as a classification task: splits, normalisation, crops."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data.ptb_xl_tasks import TEST_FOLD, TRAIN_FOLDS, VALIDATION_FOLD, Task, make_task
from ..data.records import MICROVOLTS_PER_MILLIVOLT, PreparedDatabase, find_database
from ..signal_processing_ecg_jepa import crop_starts, normalize


@dataclass
class TaskData:
    """
    Records of a task in their splits.

    Args:
        database: prepared, with SCP statements and folds.
        task: labels of all its records.
        splits: `train` (folds 1 to 8), `validation` (9) and `test` (10) -> record indices.
        mean, std: per lead in mV, of the training records alone.
    """

    database: PreparedDatabase
    task: Task
    splits: dict[str, np.ndarray]
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def load(cls, data_dir: str | Path, task_name: str, database: str | None = None) -> "TaskData":
        """
        Raises:
            FileNotFoundError: if there is no such prepared database.
            ValueError: if it has no statement table, or a split of the task is empty.
        """
        prepared = find_database(data_dir, database)
        table = prepared.statement_table()
        if table is None:
            raise ValueError(f"{prepared.name} has no SCP statements: the tasks of PTB-XL need them.")
        task = make_task(task_name, prepared.statements(), table)
        fold = prepared.column("fold")
        folds = {"train": TRAIN_FOLDS, "validation": (VALIDATION_FOLD,), "test": (TEST_FOLD,)}
        splits = {name: np.flatnonzero(task.included & np.isin(fold, numbers)) for name, numbers in folds.items()}
        empty = [name for name, indices in splits.items() if not len(indices)]
        if empty:
            raise ValueError(f"Task {task_name} has no record for {' and '.join(empty)} in {prepared.directory}.")
        return cls(prepared, task, splits, *prepared.lead_statistics(splits["train"]))

    def labels(self, indices: np.ndarray) -> torch.Tensor:
        """Class indices (records,) for a single-label task, zeros and ones (records, classes) otherwise."""
        labels = torch.from_numpy(self.task.labels[indices])
        return labels.argmax(dim=1) if self.task.single_label else labels

    def normalized(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """A record or crop as the model takes it, float32 (leads, samples)."""
        signal = self.database.signal(index, start, length).astype(np.float32) / np.float32(MICROVOLTS_PER_MILLIVOLT)
        return normalize(signal, self.mean, self.std)

    def training_batches(self, batch_size: int, crop_length: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of random crops (batch, leads, crop_length) and labels without end, every record once per epoch."""
        rng = np.random.default_rng(seed)
        train = self._long_enough(self.splits["train"], crop_length)
        queue = np.empty(0, dtype=np.int64)
        while True:
            while len(queue) < batch_size:
                queue = np.concatenate([queue, rng.permutation(train)])
            chosen, queue = queue[:batch_size], queue[batch_size:]
            starts = rng.integers(0, self.database.num_samples[chosen] - crop_length + 1)
            crops = [self.normalized(r, s, crop_length) for r, s in zip(chosen, starts, strict=True)]
            yield torch.from_numpy(np.stack(crops)), self.labels(chosen)

    def strided_crops(
        self, indices: np.ndarray, crop_length: int, crop_stride: int, max_crops: int = 512
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Crops that cover the records, in batches of whole records: (crops, leads, crop_length) and each crop's record."""
        indices = self._long_enough(indices, crop_length)
        crops: list[np.ndarray] = []
        owners: list[int] = []
        for position, index in enumerate(indices):
            signal = self.normalized(index)
            starts = crop_starts(signal.shape[1], crop_length, crop_stride)
            if crops and len(crops) + len(starts) > max_crops:
                yield torch.from_numpy(np.stack(crops)), torch.tensor(owners)
                crops, owners = [], []
            crops += [signal[:, start : start + crop_length] for start in starts]
            owners += [position] * len(starts)
        yield torch.from_numpy(np.stack(crops)), torch.tensor(owners)

    def _long_enough(self, indices: np.ndarray, crop_length: int) -> np.ndarray:
        short = indices[self.database.num_samples[indices] < crop_length]
        if len(short):
            rate = self.database.info.sampling_rate
            raise ValueError(
                f"{len(short)} records of {self.database.name} are shorter than the crop of {crop_length / rate:g} s, the "
                f"first is {self.database.column('record_id')[short[0]]}: shorten it with --crop_duration."
            )
        return indices
