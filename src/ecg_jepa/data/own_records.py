"""A user's own records: a table `records.csv` and files of any format that `read_ecg` reads beside it."""

import os
import re
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from ..formats_ecg_jepa import as_ecg, files_of, recognize, wfdb_record
from ..record_ecg_jepa import check_declared
from ..wfdb_ecg_jepa import EcgRecord, RecordError, read_wfdb
from .builder import EcgDatabaseBuilder
from .folds import TEST_FOLD, TRAIN_FOLDS, VALIDATION_FOLD
from .readers import read_csv
from .records import RecordInfo

RECORDS_CSV = "records.csv"

# Columns with a meaning; every other column is a label.
KNOWN_COLUMNS = ("path", "record_id", "patient_id", "age", "sex", "split", "sampling_rate", "unit", "lead_names")

_FOLD_OF_SPLIT = {"train": TRAIN_FOLDS[0], "validation": VALIDATION_FOLD, "test": TEST_FOLD}


class OwnRecords(EcgDatabaseBuilder):
    """
    Own records with own labels.

    `records.csv` has a row per record. `path` is required: a file in any format that `read_ecg` reads (of a WFDB record with or
    without `.hea`), relative to the table. What a file does not say must be told: `sampling_rate` (Hz), `unit` (mV, uV, V, nV)
    and `lead_names` (separated by spaces), for a `.npy` file (leads, samples) all of them; what contradicts a file is refused.
    `record_id`, `patient_id`, `age` (years), `sex` (female, male) and `split` (train, validation, test) are optional. Every
    other column is a label of zeros and ones.
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
        """The file, or of a WFDB record header and signals, which may have any name."""
        return files_of(os.path.join(self.config.data_dir, record.path))

    def read_record(self, info: RecordInfo) -> EcgRecord:
        """Read a file of any format; what it does not say is taken from the table. Raises `RecordError`."""
        path = self.data_dir / info.path
        record = read_wfdb(wfdb_record(path)) if recognize(path) == "WFDB" else None
        rate, unit, names = info.layout or (None, None, None)
        ecg = as_ecg(path if record is None else record, rate, names, unit)
        said = {"sampling_rate": ecg.sampling_rate, "lead_names": ecg.lead_names, "unit": ecg.unit}
        if self.config.amplitude_free:
            del said["unit"]
        if missing := [name for name, value in said.items() if value is None]:
            detail = f"the file does not say its {', '.join(missing)}: add such columns to {RECORDS_CSV}"
            raise RecordError(info.path, "undeclared", detail)
        read = EcgRecord(ecg.signal, ecg.sampling_rate or 0.0, ecg.lead_names or [])
        return read if record is None else replace(record, lead_names=read.lead_names)


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
            layout=_layout(given, path),
        )
    except (ValueError, TypeError) as error:
        return RecordInfo(record_id, path, problem=("unusable row", f"{RECORDS_CSV}: {error}"))


def _choice(value: Any, column: str, known: dict[str, Any]) -> Any:
    text = re.sub(r"^(\d+)\.0*$", r"\1", str(value).strip().lower())  # 1.0 is 1
    if text not in known:
        raise ValueError(f"{column} is {value!r}, expected one of {', '.join(known)}")
    return known[text]


def _layout(given: dict[Hashable, Any], path: str) -> tuple[float | None, str | None, tuple[str, ...] | None] | None:
    """What a row says of its signal; `None` if it says nothing. Raises `ValueError` for what makes no sense, or is missing."""
    named = {name: given[name] for name in ("sampling_rate", "unit", "lead_names") if name in given}
    if path.endswith(".npy") and len(named) < 3:
        missing = [name for name in ("sampling_rate", "unit", "lead_names") if name not in named]
        raise ValueError(f"a .npy file needs {', '.join(missing)}")
    if not named:
        return None
    rate = float(named["sampling_rate"]) if "sampling_rate" in named else None
    unit = str(named["unit"]) if "unit" in named else None
    names = tuple(re.split(r"[\s;,]+", str(named["lead_names"]).strip())) if "lead_names" in named else None
    check_declared(rate, names, unit)
    return rate, unit, names
