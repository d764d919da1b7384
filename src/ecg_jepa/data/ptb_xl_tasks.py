"""SCP statements -> the seven classification tasks of PTB-XL (Strodthoff et al. 2020; ST-MEM: Na et al. 2024)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .task_names import SINGLE_LABEL, parts_of
from .tasks import Task, join_tasks

# The superclasses, which the table of statements does not describe (Wagner et al. 2020, table 5).
_SUPERCLASSES = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}


def _class_of_statement(name: str, table: pd.DataFrame) -> dict[str, str]:
    """Statement -> class of the task; statements that are not in it have none."""
    if name == "all":
        return {statement: statement for statement in table.index}
    if name in ("diagnostic", "form", "rhythm"):
        return {statement: statement for statement in table.index[table[name] == 1.0]}
    column = "diagnostic_subclass" if name == "subdiagnostic" else "diagnostic_class"
    classes = table.loc[(table["diagnostic"] == 1.0) & table[column].notna(), column]
    return dict(zip(classes.index, classes, strict=True))


def class_names(name: str, table: pd.DataFrame | None = None) -> list[str]:
    """
    All classes of a task, sorted, whether some record has them or not.

    Raises:
        ValueError: if the table of statements is needed and not given.
    """
    if name in ("superdiagnostic", "ST-MEM"):
        return sorted(_SUPERCLASSES)
    if table is None:
        raise ValueError(f"The classes of task {name} stand in PTB-XL's scp_statements.csv, which is needed.")
    return sorted(set(_class_of_statement(name, table).values()))


def make_task(name: str, statements: Sequence[Sequence[str]], table: pd.DataFrame) -> Task:
    """
    Label records for a task. Every statement counts, whatever its likelihood.

    Args:
        name: one of `TASKS`, or several joined by "+": the classes of all, for records that have labels in each.
        statements: of each record.
        table: `scp_statements.csv`, indexed by statement, with columns `diagnostic`, `form`, `rhythm`, `diagnostic_class`,
            `diagnostic_subclass`.

    Raises:
        ValueError: for an unknown task or a statement that the table does not know.
    """
    parts = parts_of(name)
    unknown = {statement for of_record in statements for statement in of_record} - set(table.index)
    if unknown:
        raise ValueError(f"Statements that scp_statements.csv does not know: {', '.join(sorted(unknown))}.")
    tasks = [_make_one(part, statements, table) for part in parts]
    return tasks[0] if len(tasks) == 1 else join_tasks(tasks)


def _make_one(name: str, statements: Sequence[Sequence[str]], table: pd.DataFrame) -> Task:
    class_of = _class_of_statement(name, table)
    classes_of_records = [{class_of[s] for s in of_record if s in class_of} for of_record in statements]
    single_label = name in SINGLE_LABEL
    included = np.array([len(c) == 1 if single_label else len(c) > 0 for c in classes_of_records], dtype=bool)
    class_names = sorted({c for classes, kept in zip(classes_of_records, included, strict=True) if kept for c in classes})
    column = {class_name: index for index, class_name in enumerate(class_names)}
    labels = np.zeros((len(statements), len(class_names)), dtype=np.float32)
    for row in np.flatnonzero(included):
        labels[row, [column[c] for c in classes_of_records[row]]] = 1.0
    return Task(name, class_names, labels, included, single_label)


def describe_classes(name: str, table: pd.DataFrame) -> dict[str, str]:
    """What the classes of a task mean: class -> description, for a subclass those of all its statements. Arguments as above."""
    return {key: text for part in parts_of(name) for key, text in _describe_one(part, table).items()}


def _describe_one(name: str, table: pd.DataFrame) -> dict[str, str]:
    if name in ("superdiagnostic", "ST-MEM"):
        return dict(_SUPERCLASSES)
    if "description" not in table:
        return {}
    meanings: dict[str, list[str]] = {}
    for statement, class_name in _class_of_statement(name, table).items():
        meanings.setdefault(class_name, []).append(str(table.loc[statement, "description"]))
    return {class_name: "; ".join(descriptions) for class_name, descriptions in meanings.items()}
