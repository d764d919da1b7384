"""Statements -> labels of a classification task. `ptb_xl_tasks.py` has the seven of PTB-XL."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Strodthoff et al. 2020; ST-MEM: Na et al. 2024. Other databases have one, "all".
TASKS = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm", "ST-MEM")


@dataclass
class Task:
    """
    A task over the records of a database.

    Args:
        name: such as one of `TASKS`.
        class_names: sorted; only classes that some record has.
        labels: (records, classes) float32 zeros and ones.
        included: (records,) bool; records without a label of the task are left out, as are, for ST-MEM, those with several.
        single_label: True for ST-MEM (softmax over exclusive classes).
    """

    name: str
    class_names: list[str]
    labels: np.ndarray
    included: np.ndarray
    single_label: bool


def make_statement_task(statements: Sequence[Sequence[str]], label_names: Sequence[str] | None, min_records: int = 1) -> Task:
    """
    A multi-label task whose classes are statements.

    Args:
        statements: of each record.
        label_names: statements that were judged on every record (CODE-15's six diagnoses, the columns of an own table): they
            are the classes, and a record without any is a negative of all. `None`: the classes are the statements that occur,
            and records without any are left out, since nobody may have looked.
        min_records: classes with fewer records are left out.

    Raises:
        ValueError: if no class is left.
    """
    counts = Counter(statement for of_record in statements for statement in set(of_record))
    classes = [name for name in (sorted(counts) if label_names is None else label_names) if counts[name] >= max(min_records, 1)]
    if not classes:
        most = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5)) or "none at all"
        raise ValueError(f"No statement has {min_records} records or more; the most frequent are: {most}.")
    column = {name: index for index, name in enumerate(classes)}
    labels = np.zeros((len(statements), len(classes)), dtype=np.float32)
    for row, of_record in enumerate(statements):
        labels[row, [column[name] for name in of_record if name in column]] = 1.0
    included = np.array([label_names is not None or row.any() for row in labels], dtype=bool)
    return Task("all", classes, labels, included, single_label=False)
