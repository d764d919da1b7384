"""PTB-XL 1.0.3 as downloaded from PhysioNet, and its seven tasks (Strodthoff et al. 2020; ST-MEM: Na et al. 2024)."""

import ast
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..download import PhysioNet
from ..raw_files import parse_age, read_csv, record_files, whole_number
from ..records import STATEMENTS_FILE
from ..tasks import SINGLE_LABEL, Task, join_tasks, multi_hot, parts_of
from .base import EcgDatabaseBuilder, RecordInfo, not_in_table

DATABASE_CSV = "ptbxl_database.csv"

# The superclasses, which the table of statements does not describe (Wagner et al. 2020, table 5).
_SUPERCLASSES = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}


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

    @property
    def _folder_and_column(self) -> tuple[str, str]:
        """Return the folder of the records at this rate, and the column of the table with their paths."""
        return ("records100", "filename_lr") if self.config.sampling_rate == 100 else ("records500", "filename_hr")

    def wants_file(self, path: str) -> bool:
        return path in (DATABASE_CSV, STATEMENTS_FILE) or path.startswith(f"{self._folder_and_column[0]}/")

    def list_records(self) -> list[RecordInfo]:
        """Return the rows of `ptbxl_database.csv`, and records in the folders that have no row, which are rejected."""
        folder, path_column = self._folder_and_column
        columns = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", path_column)
        table = read_csv(self.data_dir / DATABASE_CSV, columns)
        read_csv(self.data_dir / STATEMENTS_FILE, ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"))
        records = [_record_info(row, row[path_column]) for row in table.to_dict("records")]
        found = record_files(self.data_dir / folder, self.data_dir)
        return [*records, *not_in_table(found, {record.path for record in records}, DATABASE_CSV)]


def _record_info(row: dict[Hashable, Any], path: Any) -> RecordInfo:
    record_id = str(row["ecg_id"])
    path = str(path).removesuffix(".hea")
    try:
        return RecordInfo(
            record_id=record_id,
            path=path,
            patient_id=None if pd.isna(row["patient_id"]) else str(whole_number(row["patient_id"], "patient_id")),
            age=parse_age(row["age"]),
            sex=None if pd.isna(row["sex"]) else ("male", "female")[whole_number(row["sex"], "sex", 0, 1)],
            fold=whole_number(row["strat_fold"], "strat_fold", 1, 10),
            statements=parse_scp_codes(row["scp_codes"], f"record {record_id}"),
        )
    except (ValueError, TypeError) as error:
        return RecordInfo(record_id, path, problem=("unusable row", f"{DATABASE_CSV}: {error}"))


def parse_scp_codes(text: str, where: str) -> dict[str, float]:
    """Parse `scp_codes`, a Python dictionary as text: statement -> likelihood in percent. Raises `ValueError`."""
    try:
        codes = ast.literal_eval(text)
        "".join(codes).encode()  # escapes of what is no UTF-8 could not be stored
        return {str(name): float(likelihood) for name, likelihood in codes.items()}
    except Exception as error:  # Python's own parser has more ways to fail than it documents
        shown = repr(text) if len(str(text)) < 200 else f"{str(text)[:200]!r}..."
        raise ValueError(f"scp_codes of {where} is no dictionary of statements and likelihoods: {shown}.") from error


def make_task(name: str, statements: Sequence[Sequence[str]], table: pd.DataFrame) -> Task:
    """
    Label records for one of `TASKS`, or several joined by "+": the classes of all, for records that have labels in each. Every
    statement counts, whatever its likelihood. `table` is `scp_statements.csv`, indexed by statement. Raises `ValueError` for an
    unknown task or a statement that the table does not know.
    """
    parts = parts_of(name)
    unknown = {statement for of_record in statements for statement in of_record} - set(table.index)
    if unknown:
        raise ValueError(f"Statements that scp_statements.csv does not know: {', '.join(sorted(unknown))}.")
    tasks = []
    for part in parts:
        class_of, single_label = _class_of_statement(part, table), part in SINGLE_LABEL
        classes_of_records = [{class_of[s] for s in of_record if s in class_of} for of_record in statements]
        included = np.array([len(c) == 1 if single_label else len(c) > 0 for c in classes_of_records], dtype=bool)
        names = sorted({c for classes, kept in zip(classes_of_records, included, strict=True) if kept for c in classes})
        tasks.append(Task(part, names, multi_hot(classes_of_records, names) * included[:, None], included, single_label))
    return tasks[0] if len(tasks) == 1 else join_tasks(tasks)


def _class_of_statement(name: str, table: pd.DataFrame) -> dict[str, str]:
    """Return statement -> class of the task; statements that are not in it have none."""
    if name == "all":
        return {statement: statement for statement in table.index}
    if name in ("diagnostic", "form", "rhythm"):
        return {statement: statement for statement in table.index[table[name] == 1.0]}
    column = "diagnostic_subclass" if name == "subdiagnostic" else "diagnostic_class"
    classes = table.loc[(table["diagnostic"] == 1.0) & table[column].notna(), column]
    return dict(zip(classes.index, classes, strict=True))


def class_names(name: str, table: pd.DataFrame | None = None) -> list[str]:
    """Return all classes of a task, sorted. Raises `ValueError` if the table of statements is needed and not given."""
    if name in ("superdiagnostic", "ST-MEM"):
        return sorted(_SUPERCLASSES)
    if table is None:
        raise ValueError(f"The classes of task {name} stand in PTB-XL's scp_statements.csv, which is needed.")
    return sorted(set(_class_of_statement(name, table).values()))


def describe_classes(name: str, table: pd.DataFrame) -> dict[str, str]:
    """Return class -> description, for a subclass those of all its statements. Arguments as for [`make_task`]."""
    descriptions: dict[str, str] = {}
    for part in parts_of(name):
        if part in ("superdiagnostic", "ST-MEM"):
            descriptions |= _SUPERCLASSES
        elif "description" in table:
            class_of = pd.Series(_class_of_statement(part, table), dtype=object)
            descriptions |= table.loc[class_of.index, "description"].astype(str).groupby(class_of).agg("; ".join).to_dict()
    return descriptions
