"""CODE-15% as downloaded from Zenodo (record 4916206), archives unpacked."""

from collections.abc import Hashable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from ...formats.ecg import RecordError, reading
from ...model.signal_processing_ecg_jepa import STANDARD_LEADS, Ecg
from ..download import Zenodo
from ..raw_files import parse_age, read_csv, whole_number
from .base import EcgDatabaseBuilder, RecordInfo

EXAMS_CSV = "exams.csv"
DIAGNOSES = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")

# HDF5 files (Ribeiro et al. 2021): float32 (exams, 4096 samples at 400 Hz, leads in the standard order).
SAMPLING_RATE = 400.0
NUM_SAMPLES = 4096
_MOST_EXAMS = 1_000_000  # in a file; CODE-15's have 20,000

ZERO_PADDED = "zero-padded"

# A tracing of 7 s has 3 s of zeros around it. Zeros in all leads for less than this many samples (0.1 s) may be a signal.
_SHORTEST_PADDING = round(0.1 * SAMPLING_RATE)


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

    def wants_file(self, path: str) -> bool:
        return path == EXAMS_CSV or (path.startswith("exams_part") and path.endswith((".zip", ".hdf5")))

    def list_records(self) -> list[RecordInfo]:
        """Return the rows of `exams.csv` in the order of the HDF5 files, and exams without a row, which are rejected."""
        columns = ("exam_id", "age", "is_male", "patient_id", "trace_file", *DIAGNOSES)
        table = read_csv(self.data_dir / EXAMS_CSV, columns)
        exams = {str(name): group.to_dict("records") for name, group in table.groupby("trace_file", dropna=False)}
        files = exams.keys() | {path.name for path in self.data_dir.glob("exams_part*.hdf5")}
        return [record for name in sorted(files) for record in self._records_of_file(name, exams.get(name, []))]

    def _records_of_file(self, trace_file: str, exams: list[dict[Hashable, Any]]) -> list[RecordInfo]:
        """Return the records of an HDF5 file, in the order of its rows; then rows of the table without one."""
        path = self.data_dir / trace_file
        try:
            with _open(path) as file, reading(path, "signal"):
                ids = np.asarray(file["exam_id"][:], dtype=np.int64).tolist()  # 0 where a row holds no tracing
            problem = ("missing signal", f"{trace_file} has no such exam")
        except RecordError as error:
            ids, problem = [], (error.reason, error.detail)
        rows: dict[int, dict[Hashable, Any]] = {}
        records = []
        for row in exams:
            try:
                rows[whole_number(row["exam_id"], "exam_id", 1)] = row
            except ValueError as error:
                records.append(_unusable(str(row["exam_id"]), f"{trace_file}#{row['exam_id']}", error))
        for index, exam_id in enumerate(ids):
            if exam_id in rows:
                records.append(_record_info(f"{trace_file}#{index}", exam_id, rows[exam_id]))
            elif exam_id != 0:
                unlisted = ("not in the table", f"{EXAMS_CSV} has no row for exam {exam_id} in {trace_file}")
                records.append(RecordInfo(str(exam_id), f"{trace_file}#{index}", problem=unlisted))
        missing = rows.keys() - set(ids)
        return records + [RecordInfo(str(name), f"{trace_file}#{name}", problem=problem) for name in rows if name in missing]

    def source_files(self, record: RecordInfo) -> Iterable[str]:
        return [str(self.data_dir / record.path.partition("#")[0])]

    def read_record(self, info: RecordInfo) -> tuple[Ecg, RecordInfo]:
        trace_file, _, row = info.path.partition("#")
        ecg = read_tracing(self.data_dir / trace_file, int(row))
        recorded = np.flatnonzero(ecg.signal.any(axis=0))
        padding = ecg.signal.shape[1] - (recorded[-1] - recorded[0] + 1) if len(recorded) else 0
        if padding >= _SHORTEST_PADDING:
            raise RecordError(info.path, ZERO_PADDED, f"{padding / SAMPLING_RATE:g} s of zeros at its ends")
        return ecg, info


def _record_info(path: str, exam_id: int, row: dict[Hashable, Any]) -> RecordInfo:
    try:
        return RecordInfo(
            record_id=str(exam_id),
            path=path,
            patient_id=None if pd.isna(row["patient_id"]) else str(whole_number(row["patient_id"], "patient_id")),
            age=parse_age(row["age"]),
            sex=None if pd.isna(row["is_male"]) else "male" if _parse_bool(row["is_male"]) else "female",
            statements={name: 0.0 for name in DIAGNOSES if _parse_bool(row[name])},
        )
    except (ValueError, TypeError) as error:
        return _unusable(str(exam_id), path, error)


def _unusable(record_id: str, path: str, error: Exception) -> RecordInfo:
    return RecordInfo(record_id, path, problem=("unusable row", f"{EXAMS_CSV}: {error}"))


def _parse_bool(value: Any) -> bool:
    known = {"True": True, "1": True, "1.0": True, "False": False, "0": False, "0.0": False}
    if str(value) not in known:
        raise ValueError(f"expected True or False, not {value!r}")
    return known[str(value)]


def read_tracing(path: Path, row: int) -> Ecg:
    """
    Read a tracing of an `exams_part*.hdf5`, its numbers taken for mV as in the reference: the database's page is not clear about
    the unit, and users have measured a factor of about two. Raises `RecordError`.
    """
    file = _keep_open(path, path.stat().st_mtime_ns) if path.is_file() else _open(path)
    with reading(path, "signal"):
        tracing = np.asarray(file["tracings"][row], dtype=np.float32)
    return Ecg(np.ascontiguousarray(tracing.T), SAMPLING_RATE, list(STANDARD_LEADS), "mV")


@lru_cache(maxsize=2)
def _keep_open(path: Path, modified: int) -> h5py.File:
    """Open the file and keep it open; `modified` (its time stamp) tells it from one that took its place."""
    return _open(path)


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise RecordError(path.name, "missing signal file", f"no file {path}")
    with reading(path, "signal"):
        file = h5py.File(path, "r")
        for name in ("exam_id", "tracings"):
            # Before the dataset is used: a link would open the file that it leads to.
            if not isinstance(file.get(name, getlink=True), (h5py.HardLink, type(None))):
                raise RecordError(path.name, "outside the folder", f"{name} is a link to elsewhere")
            if file[name].external is not None or file[name].is_virtual:
                raise RecordError(path.name, "outside the folder", f"the values of {name} lie in another file")
        ids, tracings = file["exam_id"], file["tracings"]
        if ids.dtype.kind not in "iu" or tracings.dtype.kind != "f":
            raise TypeError(f"expected whole numbers as exam_id and floating-point tracings, not {ids.dtype}, {tracings.dtype}")
        if len(ids.shape) == 1 and len(ids) > _MOST_EXAMS:
            raise RecordError(path.name, "too large", f"{len(ids):,} exams in a file, at most {_MOST_EXAMS:,} are expected")
        if len(ids.shape) != 1 or tracings.shape != (*ids.shape, NUM_SAMPLES, len(STANDARD_LEADS)):
            expected = f"(N,) and (N, {NUM_SAMPLES}, {len(STANDARD_LEADS)})"
            raise TypeError(f"exam_id {ids.shape} and tracings {tracings.shape}, expected {expected}")
    return file
