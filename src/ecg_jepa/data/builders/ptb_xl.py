"""PTB-XL 1.0.3 as downloaded from PhysioNet."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from ..download import PhysioNet
from ..quality import PublishedFigures
from ..raw_files import parse_scp_codes, read_csv, record_files, whole_number
from ..records import STATEMENTS_FILE, RecordInfo
from .base import EcgDatabaseBuilder, not_in_table

DATABASE_CSV = "ptbxl_database.csv"


class PtbXl(EcgDatabaseBuilder):
    """
    PTB-XL (Wagner et al. 2020): 21,799 records of 10 s with SCP statements, in ten folds that keep patients together.

    At `sampling_rate=100` the database's own 100 Hz files (`filename_lr`) are read; at any other rate the 500 Hz ones, and
    resampled if it is not 500.
    """

    database = "ptb-xl"
    source: PhysioNet | None = PhysioNet(
        "ptb-xl/1.0.3",
        "CC BY 4.0",
        "Wagner, P., Strodthoff, N., Bousseljot, R.-D., Samek, W., Schaeffter, T.: PTB-XL, a large publicly available "
        "electrocardiography dataset (version 1.0.3). PhysioNet (2022), doi:10.13026/kfzx-aw45; Scientific Data 7, 154 (2020)",
    )
    # Wagner et al. 2020, "Methods".
    population = "patients of one country (Germany), 1989 to 1996, recorded with devices of one maker (Schiller)"
    statements_file = STATEMENTS_FILE
    published: PublishedFigures | None = PublishedFigures(
        records=17_418,
        mean=(-0.002, -0.002, 0.0, 0.002, -0.001, -0.001, 0.0, -0.001, -0.002, -0.001, -0.001, -0.001),
        std=(0.191, 0.166, 0.173, 0.142, 0.149, 0.147, 0.235, 0.338, 0.335, 0.299, 0.294, 0.242),
    )

    @property
    def _rate_is_low(self) -> bool:
        return self.config.sampling_rate == 100

    @property
    def _folder(self) -> str:
        return "records100" if self._rate_is_low else "records500"

    def wants_file(self, path: str) -> bool:
        """The two tables and the records of one rate."""
        return path in (DATABASE_CSV, STATEMENTS_FILE) or path.startswith(f"{self._folder}/")

    def list_records(self) -> list[RecordInfo]:
        """
        The rows of `ptbxl_database.csv`, and the records that lie in their folders but have no row, which are rejected.
        Raises `FileNotFoundError` and, for missing columns, `ValueError`.
        """
        path_column = "filename_lr" if self._rate_is_low else "filename_hr"
        columns = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", path_column)
        table = read_csv(self.data_dir / DATABASE_CSV, columns)
        read_csv(self.data_dir / STATEMENTS_FILE, ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"))
        records = [self._record_info(row, row[path_column]) for row in table.to_dict("records")]
        found = record_files(self.data_dir / self._folder, self.data_dir)
        return [*records, *not_in_table(found, {record.path for record in records}, DATABASE_CSV)]

    def _record_info(self, row: dict[Hashable, Any], path: Any) -> RecordInfo:
        record_id = str(row["ecg_id"])
        path = str(path).removesuffix(".hea")
        try:
            return RecordInfo(
                record_id=record_id,
                path=path,
                patient_id=None if pd.isna(row["patient_id"]) else str(whole_number(row["patient_id"], "patient_id")),
                age=None if pd.isna(row["age"]) else float(row["age"]),
                sex=None if pd.isna(row["sex"]) else ("male", "female")[whole_number(row["sex"], "sex", 0, 1)],
                fold=whole_number(row["strat_fold"], "strat_fold", 1, 10),
                statements=parse_scp_codes(row["scp_codes"], f"record {record_id}"),
            )
        except (ValueError, TypeError) as error:
            return RecordInfo(record_id, path, problem=("unusable row", f"{DATABASE_CSV}: {error}"))
