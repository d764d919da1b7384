"""MIMIC-IV-ECG 1.0 as downloaded from PhysioNet."""

import re

import pandas as pd

from ..download import PhysioNet
from ..raw_files import read_csv, read_lines
from .base import EcgDatabaseBuilder, RecordInfo, not_in_table

RECORD_LIST = "record_list.csv"
RECORDS = "RECORDS"

_PATIENT = re.compile(r"/p(\d+)/s\d+/[^/]+$")


class MimicIvEcg(EcgDatabaseBuilder):
    """
    MIMIC-IV-ECG (Gow et al. 2023): 800,035 records of 10 s at 500 Hz. Leads are I, II, III, aVR, aVF, aVL, V1-V6, which
    `select_leads` reorders by the names in the headers. It has no diagnoses; age and sex are in MIMIC-IV, under other terms.
    """

    database = "mimic-iv-ecg"
    source = PhysioNet("mimic-iv-ecg/1.0", "ODbL 1.0")

    def wants_file(self, path: str) -> bool:
        return path in (RECORD_LIST, RECORDS) or path.startswith("files/")

    def list_records(self) -> list[RecordInfo]:
        """Return the rows of `record_list.csv`, and the lines of `RECORDS` that have no row, which are rejected."""
        paths = [
            f"(row {index})" if pd.isna(path) else str(path).removesuffix(".hea")
            for index, path in enumerate(read_csv(self.data_dir / RECORD_LIST, ["path"])["path"])
        ]
        unlisted = not_in_table(read_lines(self.data_dir / RECORDS), set(paths), RECORD_LIST)
        return [*map(_record_info, paths), *unlisted]


def _record_info(path: str) -> RecordInfo:
    if path.startswith("("):
        return RecordInfo(path, path, problem=("unusable row", f"{RECORD_LIST} has no path there"))
    patient = _PATIENT.search(path)
    return RecordInfo(path.rpartition("/")[2], path, patient_id=patient and patient[1])
