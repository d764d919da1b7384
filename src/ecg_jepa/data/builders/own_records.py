"""
A user's own records: a table `records.csv` and files of any format that `read_ecg` reads beside it.

A cell that cannot be used costs its row. A column that would cost more than a tenth of the rows is an error: then the column is
wrong, not the rows.
"""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ...formats.ecg import split_names
from ...formats.read import files_of, read_ecg, recognize, wfdb_record
from ...formats.wfdb_record import read_wfdb
from ...model.signal_processing_ecg_jepa import (
    STANDARD_LEADS,
    UNKNOWN_UNIT,
    Ecg,
    RecordError,
    check_complete,
    check_declared,
    declare,
    select_leads,
)
from ..raw_files import check_headings, parse_age, read_csv
from ..splits import FOLDS_OF_SPLIT
from .base import EcgDatabaseBuilder, EcgDatabaseConfig, RecordInfo

logger = logging.getLogger(__name__)

RECORDS_CSV = "records.csv"
LAYOUT_COLUMNS = ("sampling_rate", "unit", "lead_names")

# Columns with a meaning of their own, and what their cells are expected to hold.
KNOWN_COLUMNS = ("path", "record_id", "patient_id", "age", "sex", "split", *LAYOUT_COLUMNS)
_EXPECTED = {
    "age": "a number of years, or nothing",
    "sex": "one of female, male, or nothing",
    "split": f"one of {', '.join(FOLDS_OF_SPLIT)}",
    "sampling_rate": "a positive number of Hz",
    "unit": "one of mV, uV, V, nV",
}

_ZERO_OR_ONE = {"0": False, "1": True}
_LABEL_WORDS = {"false": False, "true": True, "no": False, "yes": True}  # in columns that are listed as labels
_WORDS: dict[str, dict[str, Any]] = {
    "sex": {"female": "female", "male": "male", "f": "female", "m": "male"},
    "split": {split: folds[0] for split, folds in FOLDS_OF_SPLIT.items()},
}

# A column that makes more of the rows unusable is an error; one row alone never is.
LARGEST_UNUSABLE_SHARE = 0.1


class CellError(ValueError):
    """A cell that cannot be used: the heading of its `column`, its `value` (NaN if empty), and what was `expected`."""

    def __init__(self, column: str, value: Any, expected: str):
        self.column, self.value, self.expected = column, value, expected
        super().__init__(f"{column} is {_shown(value) or 'empty'}, expected {expected}")


@dataclass
class OwnRecordsConfig(EcgDatabaseConfig):
    """Adds the columns that are labels; `None`: all without a meaning of their own, which must hold 0 or 1 in every row."""

    label_columns: list[str] | None = None


class OwnRecords(EcgDatabaseBuilder):
    """
    Own records with own labels.

    `records.csv` has a row per record. `path` is required: a file in any format that `read_ecg` reads (of a WFDB record with or
    without `.hea`), relative to the table. What a file does not say must be given: `sampling_rate` (Hz), `unit` (mV, uV, V, nV)
    and `lead_names` (separated by spaces), for a `.npy` file (leads, samples) all of them; what contradicts a file is refused.
    `record_id`, `patient_id`, `age` (years, also as DICOM's `075Y`), `sex` (female, male, F, M) and `split` (train, validation,
    test) are optional. Labels are the columns named in `label_columns`, which may hold 0 and 1, true and false or yes and no, or
    else all other columns, if each holds 0 or 1 in every row.
    """

    BUILDER_CONFIG_CLASS = OwnRecordsConfig
    database = "own"

    has_own_labels = True
    label_names: tuple[str, ...] = ()  # known once the records are listed, as are the ignored columns

    def list_records(self) -> list[RecordInfo]:
        """Return the rows of `records.csv`. Raises `ValueError` for columns that are misspelt, no labels, or mostly unusable."""
        table = read_csv(self.data_dir / RECORDS_CSV, [], all_named=True)
        check_headings(table, KNOWN_COLUMNS, self.config.label_columns or (), RECORDS_CSV)
        self.label_names, self.ignored_columns = choose_labels(table, self.config.label_columns)
        records: list[RecordInfo] = []
        faults: list[CellError] = []
        seen: set[str] = set()
        files: dict[str, str] = {}
        for index, row in enumerate(table.to_dict("records")):
            record, of_row = _record_info(index, row, self.label_names)
            faults += of_row
            if not any(os.path.exists(self.data_dir / name) for name in (record.path, f"{record.path}.hea")):
                faults.append(CellError("path", row["path"], f"a file, as seen from {self.data_dir}"))
            if record.record_id in seen:
                column = "path" if pd.isna(row.get("record_id")) else "record_id"
                faults.append(CellError(column, row[column], "one of its own for every row"))
            seen.add(record.record_id)
            first = files.setdefault(os.path.normpath(record.path), record.record_id)
            if first != record.record_id:
                # In two splits, a classifier would be evaluated on what it was trained on.
                faults.append(CellError("path", row["path"], f"a file of its own for every row, but {first} has it, too"))
                record = replace(record, problem=record.problem or ("listed twice", f"{RECORDS_CSV}: {faults[-1]}"))
            records.append(record)
        refuse_columns(faults, len(records))
        _warn_about_patients(records)
        return records

    def source_files(self, record: RecordInfo) -> Iterable[str]:
        return files_of(os.path.join(self.config.data_dir, record.path))

    def read_record(self, info: RecordInfo) -> tuple[Ecg, RecordInfo]:
        path, any_gain = self.data_dir / info.path, self.config.amplitude_free
        rate, unit, names = info.layout or (None, None, None)
        if recognize(path) == "WFDB":
            record = read_wfdb(wfdb_record(path), any_gain)
            info = replace(info, num_bad_checksums=record.num_bad_checksums)
            ecg = declare(info.path, record.ecg, rate, names, unit, record.units)
        else:
            unit = UNKNOWN_UNIT if unit is None and any_gain else unit
            ecg = read_ecg(path, rate, names, unit, check_plausibility=False)
        try:
            check_complete(info.path, ecg, any_gain)
        except RecordError as error:
            raise RecordError(info.path, error.reason, f"{error.detail}, as columns of {RECORDS_CSV}") from None
        return ecg, info


def choose_labels(table: pd.DataFrame, listed: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    Return the label columns, which are those `listed` or, if `None`, all without a meaning of their own, and the ignored ones.
    Raises `ValueError` for a list that cannot be, and for a column that nobody listed and that holds anything but 0 and 1.
    """
    others = [column for column in table.columns if column not in KNOWN_COLUMNS]
    if listed is None:
        _check_zeros_and_ones(table[others])
        return tuple(others), ()
    for column in listed:
        if column in KNOWN_COLUMNS:
            raise ValueError(f"--label_columns: {column!r} is no label, it has a meaning of its own in {RECORDS_CSV}.")
        if column not in others:
            choice = ", ".join(others) or "none"
            raise ValueError(f"--label_columns: {RECORDS_CSV} has no column {column!r}; those that may be labels are {choice}.")
    if len(set(listed)) < len(listed):
        raise ValueError(f"--label_columns names a column twice: {' '.join(listed)}.")
    return tuple(listed), tuple(column for column in others if column not in listed)


def _check_zeros_and_ones(table: pd.DataFrame) -> None:
    odd = {column: [value for value in table[column] if _plain(value) not in _ZERO_OR_ONE] for column in table.columns}
    if not any(odd.values()):
        return
    held = "; ".join(f"{column} holds {_counted(values)}" for column, values in odd.items() if values)
    # Empty cells cost their rows, not the label.
    may_be = {column: all(_plain(value) in (*_LABEL_WORDS, "") for value in values) for column, values in odd.items()}
    labels = [column for column in odd if may_be[column] and table[column].notna().any()]
    others = ", ".join(column for column in odd if column not in labels)
    raise ValueError(
        f"{RECORDS_CSV} has columns that are neither known nor labels of 0 and 1 in every row: {held}. Write 0 or 1 in every "
        f"row, or list the labels, such as --label_columns {' '.join(labels) or 'without any name, if none are'}; what is not "
        f"listed{f' ({others})' if others else ''} is then ignored."
    )


def _record_info(index: int, row: dict[Hashable, Any], labels: tuple[str, ...]) -> tuple[RecordInfo, list[CellError]]:
    """Return a row as a record, and the faults of its cells."""
    given = {str(name): value for name, value in row.items() if not pd.isna(value)}
    path = str(given.get("path", f"(row {index})")).removesuffix(".hea")
    record_id = str(given.get("record_id", path))
    values: dict[str, Any] = {}
    faults: list[CellError] = []
    for column in ("age", "sex", *(["split"] if "split" in row else []), *labels, *LAYOUT_COLUMNS):
        try:
            if column in LAYOUT_COLUMNS and column not in given and path.endswith(".npy"):
                raise CellError(column, math.nan, "what a .npy file does not say itself")
            values[column] = parse_cell(column, row.get(column))
        except CellError as fault:
            faults.append(fault)
    if faults:
        details = "; ".join(map(str, faults))
        return RecordInfo(record_id, path, problem=("unusable row", f"{RECORDS_CSV}: {details}")), faults
    rate, unit, names = (values[column] for column in LAYOUT_COLUMNS)
    layout = None if (rate, unit, names) == (None, None, None) else (rate, unit, names)
    patient = str(given.get("patient_id", "")).strip() or None
    statements = {name: 0.0 for name in labels if values[name]}
    return RecordInfo(record_id, path, patient, values["age"], values["sex"], values.get("split"), statements, layout=layout), []


def parse_cell(column: str, value: Any) -> Any:
    """
    Return the meaning of a cell: years, sex, fold, rate in Hz, unit, leads, `None` for an empty cell that need not be filled;
    True or False in a column without a meaning of its own, a label. Raises `CellError`.
    """
    if pd.isna(value) and column in ("age", "sex", *LAYOUT_COLUMNS):
        return None
    text = str(value).strip()
    try:
        match column:
            case "age":
                return parse_age(re.sub(r"^(\d{1,3})[Yy]$", r"\1", text))  # DICOM's 075Y
            case "sampling_rate":
                check_declared(sampling_rate=float(text))
                return float(text)
            case "unit":
                check_declared(unit=str(value))
                return str(value)
            case "lead_names":
                leads = tuple(split_names(text))
                select_leads(np.zeros((len(leads), 1)), leads, STANDARD_LEADS)
                return leads
            case _:
                return _WORDS.get(column, _ZERO_OR_ONE | _LABEL_WORDS)[_plain(value)]
    except KeyError:
        raise CellError(column, value, _EXPECTED.get(column, "one of 0, 1")) from None
    except ValueError as error:
        raise CellError(column, value, _EXPECTED.get(column, f"the leads of the file, in its order ({error})")) from None


def refuse_columns(faults: Sequence[CellError], num_rows: int) -> None:
    """Raise `ValueError` if a column makes more than a tenth of the rows, and more than one, unusable."""
    described = []
    for column, count in Counter(fault.column for fault in faults).items():
        if count > max(1, LARGEST_UNUSABLE_SHARE * num_rows):
            found = [fault for fault in faults if fault.column == column]
            described.append(
                f"column {column!r} makes {count} of {num_rows} rows unusable. It holds {_counted(f.value for f in found)}; "
                f"expected {found[0].expected}."
            )
    if described:
        raise ValueError(f"{RECORDS_CSV}: {' '.join(described)} Mend the column; rows are rejected alone only if they are few.")


def _warn_about_patients(records: Sequence[RecordInfo]) -> None:
    """Warn of patients in several splits, which finetuning refuses, and of rows whose patients are not known."""
    table = pd.DataFrame([(record.patient_id, record.fold) for record in records], columns=["patient", "fold"])
    unknown = table.patient.isna().sum()
    if 0 < unknown < len(table):
        logger.warning(f"{RECORDS_CSV}: {unknown} of {len(table)} rows have no patient_id: each counts as a patient of its own.")
    splits = table.groupby("patient", sort=False).fold.nunique(dropna=False)
    if len(shared := splits.index[splits > 1]):
        logger.warning(
            f"{RECORDS_CSV}: {len(shared)} patient(s) have records in several splits (the first: {shared[0]}): classifiers will "
            "be refused until each has one split."
        )


def _plain(value: Any) -> str:
    """Return a cell as it is compared: 1.0 is 1, and case does not count."""
    return "" if pd.isna(value) else re.sub(r"^(\d+)\.0*$", r"\1", str(value).strip().lower())


def _shown(value: Any) -> str:
    """Return a cell as messages show it; nothing for an empty one."""
    text = str(value)
    return "" if pd.isna(value) else repr(text if len(text) <= 60 else f"{text[:60]}...")


def _counted(values: Iterable[Any]) -> str:
    """Return the commonest values, each with its number of rows."""
    counts = Counter(_shown(value) or "nothing" for value in values).most_common()
    words = [f"{value} in {count} row{'s' if count > 1 else ''}" for value, count in counts[:3]]
    if rest := len(counts) - len(words):
        words.append(f"{rest} other value{'s' if rest > 1 else ''}")
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
