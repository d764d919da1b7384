"""A user's own records: a table `records.csv` and WFDB or NumPy files beside it."""

import os
import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..wfdb_ecg_jepa import EcgRecord, signal_files
from .builder import EcgDatabaseBuilder, EcgDatabaseConfig
from .own_table import (
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
from .readers import read_csv, read_npy
from .records import RecordInfo

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

    `records.csv` has a row per record. `path` is required: a WFDB record (with or without `.hea`) or a `.npy` file with
    (leads, samples), relative to the table. For `.npy` files, `sampling_rate` (Hz), `unit` (mV, uV, V) and `lead_names`
    (separated by spaces) are required, too: a bare array says none of this. `record_id`, `patient_id`, `age` (years), `sex`
    (female, male) and `split` (train, validation, test) are optional. Labels are the columns named in `label_columns`, or else
    all other columns, if each holds 0 or 1 in every row. A cell that cannot be used costs its row; a column that would cost more
    than a tenth of the rows is an error. What is understood, and what is not, is said in `own_table.py`.
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
        for index, row in enumerate(table.to_dict("records")):
            record, of_row = _record_info(index, row, self.label_names)
            faults += [*of_row, *missing_file(self.data_dir, row["path"], record.path)]
            if record.record_id in seen:
                column = "path" if pd.isna(row.get("record_id")) else "record_id"
                faults.append(CellError(column, row[column], "one of its own for every row"))
            seen.add(record.record_id)
            records.append(record)
        refuse_columns(faults, len(records), RECORDS_CSV)
        return records

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
    if path.endswith(".npy"):
        try:
            layout = _layout(given)
            faults += layout_faults(layout)
        except (ValueError, TypeError) as error:
            problems.append(str(error))
            faults += unknown_layout(given, error)
    problem = ("unusable row", f"{RECORDS_CSV}: {'; '.join(problems)}") if problems else None
    if problem:
        return RecordInfo(record_id, path, problem=problem), faults
    return RecordInfo(record_id, path, given.get("patient_id"), age, sex, fold, statements, layout=layout), faults


def _layout(given: dict[Hashable, Any]) -> tuple[float, str, tuple[str, ...]]:
    missing = [name for name in ("sampling_rate", "unit", "lead_names") if name not in given]
    if missing:
        raise ValueError(f"a .npy file needs {', '.join(missing)}")
    return float(given["sampling_rate"]), str(given["unit"]), tuple(re.split(r"[\s;,]+", str(given["lead_names"]).strip()))
