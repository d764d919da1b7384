"""PTB-XL 1.0.3 as downloaded from PhysioNet."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from .builder import EcgDatabaseBuilder
from .readers import parse_scp_codes, read_csv
from .records import STATEMENTS_FILE, RecordInfo

DATABASE_CSV = "ptbxl_database.csv"


class PtbXl(EcgDatabaseBuilder):
    """
    PTB-XL (Wagner et al. 2020): 21,799 records of 10 s with SCP statements, in ten folds that keep patients together.

    At `sampling_rate=100` the database's own 100 Hz files (`filename_lr`) are read; at any other rate the 500 Hz ones, and
    resampled if it is not 500.
    """

    database = "ptb-xl"
    statements_file = STATEMENTS_FILE

    def list_records(self) -> list[RecordInfo]:
        """The rows of `ptbxl_database.csv`. Raises `FileNotFoundError` and, for missing columns, `ValueError`."""
        path_column = "filename_lr" if self.config.sampling_rate == 100 else "filename_hr"
        columns = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", path_column)
        table = read_csv(self.data_dir / DATABASE_CSV, columns)
        read_csv(self.data_dir / STATEMENTS_FILE, ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"))
        return [self._record_info(row, str(row[path_column])) for row in table.to_dict("records")]

    def source_files(self, records: list[RecordInfo]) -> Any:
        """The two tables beside the records' own files."""
        yield self.data_dir / DATABASE_CSV
        yield from super().source_files(records)

    def _record_info(self, row: dict[Hashable, Any], path: str) -> RecordInfo:
        record_id = str(row["ecg_id"])
        return RecordInfo(
            record_id=record_id,
            path=str(Path(path).with_suffix("")) if path.endswith(".hea") else path,
            patient_id=None if pd.isna(row["patient_id"]) else str(int(row["patient_id"])),
            age=None if pd.isna(row["age"]) else float(row["age"]),
            sex=None if pd.isna(row["sex"]) else ("female" if int(row["sex"]) else "male"),
            fold=int(row["strat_fold"]),
            statements=parse_scp_codes(row["scp_codes"], f"record {record_id}"),
        )
