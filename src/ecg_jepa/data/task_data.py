"""A prepared database as a classification task: splits, normalisation, crops."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .._utils.files import digest_of
from ..model.signal_processing_ecg_jepa import cut_crops, normalize
from .builders.ptb_xl import describe_classes, make_task
from .crops import batch_crops
from .records import MICROVOLTS_PER_MILLIVOLT, PreparedDatabase, find_database
from .splits import FOLDS_OF_SPLIT, draw_per_class, draw_share, patient_numbers, split_by_patient
from .tasks import Task, make_statement_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelBudget:
    """
    How many of the training labels are used, chosen by patient and class: a `fraction` of the records of each class, at least
    one, or so many records `per_class`. Validation and test stay whole.
    """

    fraction: float = 1.0
    per_class: int | None = None
    seed: int = 0

    def choose(self, labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
        """Return which training records to use, (records,) bool."""
        rng = np.random.default_rng(self.seed)
        if self.per_class is not None:
            return draw_per_class(labels, patients, self.per_class, rng)
        return draw_share(labels, patients, self.fraction, rng, at_least=1)


@dataclass
class TaskData:
    """Records of a task in splits `train` (folds 1 to 8), `validation` (9) and `test` (10); by patient if there are no folds."""

    database: PreparedDatabase
    task: Task  # of all records
    splits: dict[str, np.ndarray]  # indices of records
    mean: np.ndarray  # per lead in mV, of the training records alone
    std: np.ndarray

    @classmethod
    def load(
        cls,
        data_dir: str | Path,
        task_name: str,
        database: str | None = None,
        labels: LabelBudget | None = None,
        min_class_records: int = 10,
        split_seed: int = 0,
    ) -> "TaskData":
        """
        Open a prepared database, as [`find_database`] does, for a task: PTB-XL's, or, for others, `all` of their own statements.

        Args:
            labels: how many of the training labels to use; default: all.
            min_class_records: statements with fewer records are no classes. Not for PTB-XL, whose tasks are given.
            split_seed: of the split by patient, for databases without folds.

        Raises:
            ValueError: if the database does not have the task, a split of it is empty, or a patient is in two splits.
        """
        prepared = find_database(data_dir, database)
        table = prepared.statement_table()
        if table is not None:
            task = make_task(task_name, prepared.statements(), table)
        elif task_name == "all":
            task = make_statement_task(prepared.statements(), prepared.info.label_names, min_class_records)
        else:
            raise ValueError(f"{prepared.name} has no SCP statements, which task {task_name} needs: choose task 'all'.")
        if task.too_rare:
            more = f" and {len(task.too_rare) - 10} more" if len(task.too_rare) > 10 else ""
            logger.warning(
                f"{prepared.name}: fewer than {min_class_records} records have {', '.join(task.too_rare[:10])}{more}, which "
                "are no classes then (--min_class_records)."
            )
        patients = patient_numbers(prepared.column("patient_id"))
        splits = _splits(prepared, task, patients, split_seed)
        if labels is not None:
            splits["train"] = splits["train"][labels.choose(task.labels[splits["train"]], patients[splits["train"]])]
        if empty := [name for name, indices in splits.items() if not len(indices)]:
            raise ValueError(f"Task {task_name} has no record for {' and '.join(empty)} in {prepared.directory}.")
        return cls(prepared, task, splits, *prepared.lead_statistics(splits["train"]))

    def describe_classes(self) -> dict[str, str]:
        """Return class -> description, as far as the database has one."""
        table = self.database.statement_table()
        known = {} if table is None else describe_classes(self.task.name, table)
        return {name: known[name] for name in self.task.class_names if name in known}

    def samples(self, seconds: float) -> int:
        """Return a duration in whole samples of the database."""
        return round(seconds * self.database.info.sampling_rate)

    def labels_digest(self) -> str:
        """Return a digest of the classes and the records of each split with their labels: equal for runs that can be compared."""
        ids = self.database.column("record_id")
        splits = {name: [ids[rows].tolist(), self.task.labels[rows].tolist()] for name, rows in self.splits.items()}
        return digest_of([self.task.class_names, splits])

    def labels(self, indices: np.ndarray) -> torch.Tensor:
        """Return class indices (records,) for a single-label task, zeros and ones (records, classes) otherwise."""
        labels = torch.from_numpy(self.task.labels[indices])
        return labels.argmax(dim=1) if self.task.single_label else labels

    def normalized(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Return a record or crop as the model takes it, float32 (leads, samples)."""
        signal = self.database.signal(index, start, length).astype(np.float32) / np.float32(MICROVOLTS_PER_MILLIVOLT)
        return normalize(signal, self.mean.astype(np.float32), self.std.astype(np.float32))

    def training_batches(self, batch_size: int, crop_length: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches of random crops (batch, leads, crop_length) and labels without end, every record once per epoch."""
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
        self, indices: np.ndarray, crop_length: int, crop_stride: int, max_crops: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield crops that cover the records, in batches of whole records: (crops, leads, crop_length) and each crop's record."""
        signals = (self.normalized(index) for index in self._long_enough(indices, crop_length))
        return batch_crops((cut_crops(signal, crop_length, crop_stride) for signal in signals), max_crops)

    def _long_enough(self, indices: np.ndarray, crop_length: int) -> np.ndarray:
        short = indices[self.database.num_samples[indices] < crop_length]
        if len(short):
            raise ValueError(
                f"{len(short)} records of {self.database.name} are shorter than the crop of "
                f"{crop_length / self.database.info.sampling_rate:g} s, the first is "
                f"{self.database.column('record_id')[short[0]]}: shorten it with --crop_duration."
            )
        return indices


def _splits(database: PreparedDatabase, task: Task, patients: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the records of each split. Raises `ValueError` if a patient is in two: its score would be of known patients."""
    fold = database.column("fold")
    if np.isnan(fold).all():
        included = np.flatnonzero(task.included)
        parts = split_by_patient(task.labels[included], patients[included], seed)
        return {name: included[rows] for name, rows in parts.items()}
    splits = {name: np.flatnonzero(task.included & np.isin(fold, folds)) for name, folds in FOLDS_OF_SPLIT.items()}
    split_of: dict[int, str] = {}
    for name, indices in splits.items():
        for index, patient in zip(indices, patients[indices], strict=True):
            if (other := split_of.setdefault(patient, name)) != name:
                patient_id = database.column("patient_id")[index]
                raise ValueError(f"Patient {patient_id} of {database.name} has records in {other} and in {name}.")
    return splits
