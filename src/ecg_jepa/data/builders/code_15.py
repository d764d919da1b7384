"""CODE-15% as downloaded from Zenodo (record 4916206), archives unpacked."""

import os
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from ...formats.wfdb_record import EcgRecord, RecordError
from ..download import Zenodo
from ..quality import PublishedFigures
from ..raw_files import CODE_15_RATE, read_code_15, read_code_15_ids, read_csv, whole_number
from ..records import RecordInfo
from .base import EcgDatabaseBuilder

EXAMS_CSV = "exams.csv"
DIAGNOSES = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")

ZERO_PADDED = "zero-padded"

# A tracing of 7 s has 3 s of zeros around it. Zeros in all leads for less than this many samples (0.1 s) may be a signal.
_SHORTEST_PADDING = round(0.1 * CODE_15_RATE)


class Code15(EcgDatabaseBuilder):
    """
    CODE-15% (Ribeiro et al. 2021): 345,779 records at 400 Hz, of which the 128,033 of full length (10.24 s) are kept.

    The others are padded with zeros at both ends; they are rejected as such. Rows of the HDF5 files with `exam_id` 0 hold no
    record. Records are high-passed: without it, training on their baseline wander is unstable.
    """

    database = "code-15"
    source = Zenodo("4916206", "CC BY 4.0")
    highpass_cutoff = 0.5
    label_names = DIAGNOSES
    left_out_on_purpose = frozenset({ZERO_PADDED})
    published = PublishedFigures(
        records=128_033,
        mean=(0.0,) * 12,
        std=(0.488, 0.450, 0.437, 0.416, 0.405, 0.370, 0.548, 0.639, 0.719, 0.695, 0.676, 0.639),
    )

    def wants_file(self, path: str) -> bool:
        """The table and the archives of HDF5 files."""
        return path == EXAMS_CSV or (path.startswith("exams_part") and path.endswith((".zip", ".hdf5")))

    def list_records(self) -> list[RecordInfo]:
        """
        The rows of `exams.csv` in the order of the HDF5 files, and the exams of those that have no row, which are rejected.
        Raises `FileNotFoundError` and, for missing columns, `ValueError`.
        """
        columns = ("exam_id", "age", "is_male", "patient_id", "trace_file", *DIAGNOSES)
        table = read_csv(self.data_dir / EXAMS_CSV, columns)
        exams = {str(name): group.to_dict("records") for name, group in table.groupby("trace_file", dropna=False)}
        files = exams.keys() | {path.name for path in self.data_dir.glob("exams_part*.hdf5")}
        return [record for name in sorted(files) for record in self._records_of_file(name, exams.get(name, []))]

    def _records_of_file(self, trace_file: str, exams: list[dict[Hashable, Any]]) -> list[RecordInfo]:
        """The records of an HDF5 file, in the order of its rows; then rows of the table without one."""
        try:
            ids = read_code_15_ids(self.data_dir / trace_file).tolist()
            problem = ("missing signal", f"{trace_file} has no such exam")
        except RecordError as error:
            ids = []
            problem = (error.reason, error.detail)
        rows: dict[int, dict[Hashable, Any]] = {}
        records = []
        for row in exams:
            try:
                rows[whole_number(row["exam_id"], "exam_id", 1)] = row
            except ValueError as error:
                unusable = ("unusable row", f"{EXAMS_CSV}: {error}")
                records.append(RecordInfo(str(row["exam_id"]), f"{trace_file}#{row['exam_id']}", problem=unusable))
        for index, exam_id in enumerate(ids):
            path = f"{trace_file}#{index}"
            if exam_id in rows:
                records.append(_record_info(path, exam_id, rows[exam_id]))
            elif exam_id != 0:
                unlisted = ("not in the table", f"{EXAMS_CSV} has no row for exam {exam_id} in {trace_file}")
                records.append(RecordInfo(str(exam_id), path, problem=unlisted))
        found = set(ids)
        missing = [exam_id for exam_id in rows if exam_id not in found]
        return records + [RecordInfo(str(exam_id), f"{trace_file}#{exam_id}", problem=problem) for exam_id in missing]

    def source_files(self, record: RecordInfo) -> Iterable[str]:
        """The HDF5 file."""
        return [os.path.join(self.config.data_dir, record.path.partition("#")[0])]

    def read_record(self, info: RecordInfo) -> EcgRecord:
        """Read a tracing. Raises `RecordError`, also for one that is padded with zeros."""
        trace_file, _, row = info.path.partition("#")
        record = read_code_15(self.data_dir / trace_file, int(row))
        recorded = np.flatnonzero(record.signal.any(axis=0))
        padding = record.signal.shape[1] - (recorded[-1] - recorded[0] + 1) if len(recorded) else 0
        if padding >= _SHORTEST_PADDING:
            raise RecordError(info.path, ZERO_PADDED, f"{padding / CODE_15_RATE:g} s of zeros at its ends")
        return record


def _record_info(path: str, exam_id: int, row: dict[Hashable, Any]) -> RecordInfo:
    try:
        return RecordInfo(
            record_id=str(exam_id),
            path=path,
            patient_id=None if pd.isna(row["patient_id"]) else str(whole_number(row["patient_id"], "patient_id")),
            age=None if pd.isna(row["age"]) else float(row["age"]),
            sex=None if pd.isna(row["is_male"]) else _parse_bool(row["is_male"], "male", "female"),
            statements={name: 0.0 for name in DIAGNOSES if _parse_bool(row[name], True, False)},
        )
    except (ValueError, TypeError) as error:
        return RecordInfo(str(exam_id), path, problem=("unusable row", f"{EXAMS_CSV}: {error}"))


def _parse_bool(value: Any, if_true: Any, if_false: Any) -> Any:
    """What pandas made of True and False: a column with a gap in it holds text."""
    known = {"True": if_true, "1": if_true, "1.0": if_true, "False": if_false, "0": if_false, "0.0": if_false}
    if str(value) not in known:
        raise ValueError(f"expected True or False, not {value!r}")
    return known[str(value)]
