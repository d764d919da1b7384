"""Statements -> labels of a classification task. `ptb_xl_tasks.py` has the seven of PTB-XL."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Task:
    """
    A task over the records of a database.

    Args:
        name: such as one of `task_names.TASKS`, or several of them joined.
        class_names: sorted (of joined tasks, one after the other); only classes that some record has.
        labels: (records, classes) float32 zeros and ones.
        included: (records,) bool; records without a label of the task are left out, as are, for ST-MEM, those with several.
        single_label: True for ST-MEM (softmax over exclusive classes).
        parts: of joined tasks, the name of each and its classes; empty for others.
        too_rare: statements that too few records have to be classes.
    """

    name: str
    class_names: list[str]
    labels: np.ndarray
    included: np.ndarray
    single_label: bool
    parts: dict[str, list[str]] = field(default_factory=dict)
    too_rare: list[str] = field(default_factory=list)


def join_tasks(tasks: Sequence[Task]) -> Task:
    """
    One multi-label task with the classes of several. A record without a label in one of them is left out: nobody may have looked
    for its classes. A class that two tasks share is taken once.
    """
    names, columns = [], []
    for task in tasks:
        for index, name in enumerate(task.class_names):
            if name not in names:
                names.append(name)
                columns.append(task.labels[:, index])
    included = np.logical_and.reduce([task.included for task in tasks])
    labels = np.stack(columns, axis=1) * included[:, None]
    parts = {task.name: task.class_names for task in tasks}
    return Task("+".join(parts), names, labels, included, False, parts)


def make_statement_task(statements: Sequence[Sequence[str]], label_names: Sequence[str] | None, min_records: int = 1) -> Task:
    """
    A multi-label task whose classes are statements.

    Args:
        statements: of each record.
        label_names: statements that were judged on every record (CODE-15's six diagnoses, the columns of an own table): they
            are the classes, and a record without any is a negative of all. `None`: the classes are the statements that occur,
            and records without any are left out, since nobody may have looked.
        min_records: statements with fewer records are no classes.

    Raises:
        ValueError: if no class is left.
    """
    counts = Counter(statement for of_record in statements for statement in set(of_record))
    candidates = sorted(counts) if label_names is None else label_names
    classes = [name for name in candidates if counts[name] >= max(min_records, 1)]
    if not classes:
        most = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5)) or "none at all"
        raise ValueError(f"No statement has {min_records} records or more; the most frequent are: {most}.")
    column = {name: index for index, name in enumerate(classes)}
    labels = np.zeros((len(statements), len(classes)), dtype=np.float32)
    for row, of_record in enumerate(statements):
        labels[row, [column[name] for name in of_record if name in column]] = 1.0
    included = np.array([label_names is not None or row.any() for row in labels], dtype=bool)
    too_rare = sorted(set(candidates).difference(classes))
    return Task("all", classes, labels, included, single_label=False, too_rare=too_rare)
