"""A user's own records: a table `records.csv` and WFDB or NumPy files beside it."""

import os
import re
from collections.abc import Hashable, Iterable
from typing import Any

import pandas as pd

from ..wfdb_ecg_jepa import EcgRecord, signal_files
from .builder import EcgDatabaseBuilder
from .folds import TEST_FOLD, TRAIN_FOLDS, VALIDATION_FOLD
from .readers import read_csv, read_npy
from .records import RecordInfo

RECORDS_CSV = "records.csv"

# Columns with a meaning; every other column is a label.
KNOWN_COLUMNS = ("path", "record_id", "patient_id", "age", "sex", "split", "sampling_rate", "unit", "lead_names")

_FOLD_OF_SPLIT = {"train": TRAIN_FOLDS[0], "validation": VALIDATION_FOLD, "test": TEST_FOLD}


class OwnRecords(EcgDatabaseBuilder):
    """
    Own records with own labels.

    `records.csv` has a row per record. `path` is required: a WFDB record (with or without `.hea`) or a `.npy` file with
    (leads, samples), relative to the table. For `.npy` files, `sampling_rate` (Hz), `unit` (mV, uV, V) and `lead_names`
    (separated by spaces) are required, too: a bare array says none of this. `record_id`, `patient_id`, `age` (years), `sex`
    (female, male) and `split` (train, validation, test) are optional. Every other column is a label of zeros and ones.
    """

    database = "own"

    @property
    def label_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns that are labels; judged on every record."""
        return tuple(name for name in self._table().columns if name not in KNOWN_COLUMNS)

    def _table(self) -> pd.DataFrame:
        return read_csv(self.data_dir / RECORDS_CSV, ["path"], all_named=True)

    def list_records(self) -> list[RecordInfo]:
        """The rows of `records.csv`. Raises `FileNotFoundError` and, for a missing column, `ValueError`."""
        labels = self.label_names
        return [_record_info(index, row, labels) for index, row in enumerate(self._table().to_dict("records"))]

    def source_files(self, record: RecordInfo) -> Iterable[str]:
        """The array, or header and signals, which may have any name."""
        path = os.path.join(self.config.data_dir, record.path)
        if path.endswith(".npy"):
            return [path]
        named = [os.path.join(os.path.dirname(path), name) for name in signal_files(f"{path}.hea")]
        return [f"{path}.hea", *(named or (f"{path}.dat", f"{path}.mat"))]

    def read_record(self, info: RecordInfo) -> EcgRecord:
        """Read an array or a WFDB record. Raises `RecordError`."""
        if info.layout is None:
            return super().read_record(info)
        return read_npy(self.data_dir / info.path, *info.layout)


def _record_info(index: int, row: dict[Hashable, Any], labels: tuple[str, ...]) -> RecordInfo:
    given = {name: value for name, value in row.items() if not pd.isna(value)}
    path = str(given.get("path", f"(row {index})")).removesuffix(".hea")
    record_id = str(given.get("record_id", path))
    try:
        return RecordInfo(
            record_id=record_id,
            path=path,
            patient_id=given.get("patient_id"),
            age=float(given["age"]) if "age" in given else None,
            sex=_choice(given["sex"], "sex", {"female": "female", "male": "male"}) if "sex" in given else None,
            fold=_choice(row["split"], "split", _FOLD_OF_SPLIT) if "split" in row else None,
            statements={name: 0.0 for name in labels if _choice(row[name], name, {"0": False, "1": True})},
            layout=_layout(given) if path.endswith(".npy") else None,
        )
    except (ValueError, TypeError) as error:
        return RecordInfo(record_id, path, problem=("unusable row", f"{RECORDS_CSV}: {error}"))


def _choice(value: Any, column: str, known: dict[str, Any]) -> Any:
    text = re.sub(r"^(\d+)\.0*$", r"\1", str(value).strip().lower())  # 1.0 is 1
    if text not in known:
        raise ValueError(f"{column} is {value!r}, expected one of {', '.join(known)}")
    return known[text]


def _layout(given: dict[Hashable, Any]) -> tuple[float, str, tuple[str, ...]]:
    missing = [name for name in ("sampling_rate", "unit", "lead_names") if name not in given]
    if missing:
        raise ValueError(f"a .npy file needs {', '.join(missing)}")
    return float(given["sampling_rate"]), str(given["unit"]), tuple(re.split(r"[\s;,]+", str(given["lead_names"]).strip()))
