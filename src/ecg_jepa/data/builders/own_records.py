"""A user's own records: a table `records.csv` and files of any format that `read_ecg` reads beside it."""

import logging
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ...formats.ecg import split_names
from ...formats.read import as_ecg, files_of, recognize, wfdb_record
from ...formats.wfdb_record import EcgRecord, RecordError, read_wfdb
from ..own_table import (
    CellError,
    LabelColumns,
    check_headings,
    choose_labels,
    layout_faults,
    missing_file,
    parse_age,
    parse_label,
    parse_sex,
    parse_split,
    refuse_columns,
    unknown_layout,
)
from ..raw_files import read_csv
from ..records import RecordInfo
from .base import EcgDatabaseBuilder, EcgDatabaseConfig

logger = logging.getLogger(__name__)

RECORDS_CSV = "records.csv"

# Columns with a meaning of their own.
KNOWN_COLUMNS = ("path", "record_id", "patient_id", "age", "sex", "split", "sampling_rate", "unit", "lead_names")


@dataclass
class OwnRecordsConfig(EcgDatabaseConfig):
    """
    Args:
        label_columns: the columns that are labels; all others without a meaning of their own are ignored. `None`: all of them are
            labels, and must hold 0 or 1 in every row.
    """

    label_columns: list[str] | None = None


class OwnRecords(EcgDatabaseBuilder):
    """
    Own records with own labels.

    `records.csv` has a row per record. `path` is required: a file in any format that `read_ecg` reads (of a WFDB record with or
    without `.hea`), relative to the table. What a file does not say must be told: `sampling_rate` (Hz), `unit` (mV, uV, V, nV)
    and `lead_names` (separated by spaces), for a `.npy` file (leads, samples) all of them; what contradicts a file is refused.
    `record_id`, `patient_id`, `age` (years), `sex` (female, male) and `split` (train, validation, test) are optional. Labels are
    the columns named in `label_columns`, or else all other columns, if each holds 0 or 1 in every row. A cell that cannot be
    used costs its row; a column that would cost more than a tenth of the rows is an error. What is understood, and what is not,
    is said in `own_table.py`.
    """

    BUILDER_CONFIG_CLASS = OwnRecordsConfig
    database = "own"

    _labels: LabelColumns | None = None  # of the table as it was listed last

    @property
    def label_columns(self) -> LabelColumns:
        """Which columns are labels and which are ignored. Raises as [`list_records`] does for the headings."""
        if self._labels is None:
            self._read_table()
        assert self._labels is not None  # for the type checker
        return self._labels

    @property
    def label_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns that are labels; judged on every record."""
        return self.label_columns.names

    @property
    def ignored_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns that mean nothing here."""
        return self.label_columns.ignored

    def source_folder(self) -> str:
        """Where the table is."""
        return str(self.data_dir.resolve())

    def table_digest(self) -> str:
        """What of the table shows in no record: which labels there are, also if no record has one."""
        return repr(self.label_columns)

    def _read_table(self) -> pd.DataFrame:
        table = read_csv(self.data_dir / RECORDS_CSV, [], all_named=True)
        listed = self.config.label_columns
        check_headings(table, KNOWN_COLUMNS, listed or (), RECORDS_CSV)
        self._labels = choose_labels(table, KNOWN_COLUMNS, listed, RECORDS_CSV)
        return table

    def list_records(self) -> list[RecordInfo]:
        """
        The rows of `records.csv`.

        Raises:
            FileNotFoundError: if there is no such table.
            ValueError: for a missing or misspelt heading, columns that are no labels, and a column that makes more than a tenth
                of the rows unusable.
        """
        table = self._read_table()
        records: list[RecordInfo] = []
        faults: list[CellError] = []
        seen: set[str] = set()
        files: dict[str, str] = {}
        for index, row in enumerate(table.to_dict("records")):
            record, of_row = _record_info(index, row, self.label_names)
            faults += [*of_row, *missing_file(self.data_dir, row["path"], record.path)]
            if record.record_id in seen:
                column = "path" if pd.isna(row.get("record_id")) else "record_id"
                faults.append(CellError(column, row[column], "one of its own for every row"))
            seen.add(record.record_id)
            first = files.setdefault(os.path.normpath(record.path), record.record_id)
            if first != record.record_id:
                # In two splits, a classifier would be judged on what it was trained on.
                fault = CellError("path", row["path"], f"a file of its own for every row, but {first} has it, too")
                faults.append(fault)
                record = replace(record, problem=record.problem or ("listed twice", f"{RECORDS_CSV}: {fault}"))
            records.append(record)
        refuse_columns(faults, len(records), RECORDS_CSV)
        _warn_of_patients(records)
        return records

    def source_files(self, record: RecordInfo) -> Iterable[str]:
        """The file, or of a WFDB record header and signals, which may have any name."""
        return files_of(os.path.join(self.config.data_dir, record.path))

    def read_record(self, info: RecordInfo) -> EcgRecord:
        """Read a file of any format; what it does not say is taken from the table. Raises `RecordError`."""
        path = self.data_dir / info.path
        record = read_wfdb(wfdb_record(path), self.config.amplitude_free) if recognize(path) == "WFDB" else None
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


def _warn_of_patients(records: Sequence[RecordInfo]) -> None:
    """
    A classifier cannot be judged on patients that it was trained on, and is refused; better known before. Whom a record without a
    patient is of, nobody can see.
    """
    unknown = sum(record.patient_id is None for record in records)
    if 0 < unknown < len(records):
        logger.warning(
            f"{RECORDS_CSV}: {unknown} of {len(records)} rows have no patient_id: each counts as a patient of its own."
        )
    folds: dict[str, set[int | None]] = {}
    for record in records:
        if record.patient_id is not None:
            folds.setdefault(record.patient_id, set()).add(record.fold)
    shared = [patient for patient, found in folds.items() if len(found) > 1]
    if shared:
        logger.warning(
            f"{RECORDS_CSV}: {len(shared)} patient(s) have records in several splits (the first: {shared[0]}): classifiers will "
            "be refused until each has one split."
        )


def _record_info(index: int, row: dict[Hashable, Any], labels: tuple[str, ...]) -> tuple[RecordInfo, list[CellError]]:
    """A row as a record, and all that is wrong with its cells, also what its record will be rejected for when it is read."""
    given = {name: value for name, value in row.items() if not pd.isna(value)}
    path = str(given.get("path", f"(row {index})")).removesuffix(".hea")
    record_id = str(given.get("record_id", path))
    faults: list[CellError] = []

    def cell(parse: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return parse(*arguments)
        except CellError as fault:
            faults.append(fault)

    age, sex = cell(parse_age, row.get("age")), cell(parse_sex, row.get("sex"))
    fold = cell(parse_split, row["split"]) if "split" in row else None
    statements = {name: 0.0 for name in labels if cell(parse_label, name, row[name])}
    problems = [str(fault) for fault in faults]
    layout = None
    try:
        layout = _layout(given, path)
        faults += layout_faults(layout)
    except (ValueError, TypeError) as error:
        problems.append(str(error))
        faults += unknown_layout(given, error)
    problem = ("unusable row", f"{RECORDS_CSV}: {'; '.join(problems)}") if problems else None
    if problem:
        return RecordInfo(record_id, path, problem=problem), faults
    patient = str(given.get("patient_id", "")).strip() or None
    return RecordInfo(record_id, path, patient, age, sex, fold, statements, layout=layout), faults


def _layout(given: dict[Hashable, Any], path: str) -> tuple[float | None, str | None, tuple[str, ...] | None] | None:
    """What a row says of its signal; `None` if it says nothing. Raises `ValueError` for no number, and for what is missing."""
    named = {name: given[name] for name in ("sampling_rate", "unit", "lead_names") if name in given}
    if path.endswith(".npy") and len(named) < 3:
        missing = [name for name in ("sampling_rate", "unit", "lead_names") if name not in named]
        raise ValueError(f"a .npy file needs {', '.join(missing)}")
    if not named:
        return None
    rate = float(named["sampling_rate"]) if "sampling_rate" in named else None
    unit = str(named["unit"]) if "unit" in named else None
    names = tuple(split_names(str(named["lead_names"]))) if "lead_names" in named else None
    return rate, unit, names
