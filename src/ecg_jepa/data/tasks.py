"""Classification tasks: their names, and statements -> labels. How PTB-XL's are made is in `builders/ptb_xl.py`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

# PTB-XL's: Strodthoff et al. 2020; ST-MEM: Na et al. 2024. Other databases have one, "all".
TaskName = Literal["all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm", "ST-MEM"]
TASKS: tuple[str, ...] = get_args(TaskName)

SINGLE_LABEL = ("ST-MEM",)  # tasks whose classes exclude each other


def parts_of(name: str) -> list[str]:
    """Return the tasks that `a+b` joins. Raises `ValueError` for unknown, repeated or, among several, exclusive ones."""
    parts = name.split("+")
    if unknown := [part for part in parts if part not in TASKS]:
        raise ValueError(f"Unknown task {unknown[0]!r}: choose one of {', '.join(TASKS)}, or several, such as form+rhythm.")
    if len(set(parts)) < len(parts):
        raise ValueError(f"Task {name!r} names a part twice.")
    exclusive = [part for part in parts if part in SINGLE_LABEL]
    if exclusive and len(parts) > 1:
        raise ValueError(f"Task {name!r}: the classes of {exclusive[0]} exclude each other, so it cannot be joined to others.")
    return parts


@dataclass
class Task:
    """A task over the records of a database."""

    name: str
    class_names: list[str]  # sorted (of joined tasks, one after the other); only classes that some record has
    labels: np.ndarray  # (records, classes) float32 zeros and ones
    included: np.ndarray  # (records,) bool; False for records without a label of the task and, for ST-MEM, with several
    single_label: bool  # True for ST-MEM (softmax over exclusive classes)
    parts: dict[str, list[str]] = field(default_factory=dict)  # name and classes of each joined task; empty for others
    too_rare: list[str] = field(default_factory=list)  # statements that too few records have to be classes


def multi_hot(statements: Sequence[Iterable[str]], names: Sequence[str]) -> np.ndarray:
    """Return zeros and ones (records, names), float32; statements that are not among the names are left out."""
    column = {name: index for index, name in enumerate(names)}
    labels = np.zeros((len(statements), len(names)), dtype=np.float32)
    for row, of_record in enumerate(statements):
        labels[row, [column[name] for name in of_record if name in column]] = 1.0
    return labels


def join_tasks(tasks: Sequence[Task]) -> Task:
    """Join tasks into a multi-label one. Records without a label in one of them are left out: nobody may have looked for it."""
    columns = {name: task.labels[:, index] for task in reversed(tasks) for index, name in enumerate(task.class_names)}
    names = list(dict.fromkeys(name for task in tasks for name in task.class_names))
    included = np.logical_and.reduce([task.included for task in tasks])
    labels = np.stack([columns[name] for name in names], axis=1) * included[:, None]
    parts = {task.name: task.class_names for task in tasks}
    return Task("+".join(parts), names, labels, included, False, parts)


def make_statement_task(statements: Sequence[Sequence[str]], label_names: Sequence[str] | None, min_records: int = 1) -> Task:
    """
    Make a multi-label task whose classes are the statements that at least `min_records` have.

    With `label_names`, which were looked for in every record, they are the classes, and a record without any is a negative of
    all. With `None`, records without any statement are left out, since nobody may have looked. Raises `ValueError` if no class is
    left.
    """
    counts = Counter(statement for of_record in statements for statement in set(of_record))
    candidates = sorted(counts) if label_names is None else label_names
    classes = [name for name in candidates if counts[name] >= max(min_records, 1)]
    if not classes:
        most = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5)) or "none at all"
        raise ValueError(f"No statement has {min_records} records or more; the most frequent are: {most}.")
    labels = multi_hot(statements, classes)
    included = np.asarray(labels.any(axis=1) | (label_names is not None))
    too_rare = sorted(set(candidates).difference(classes))
    return Task("all", classes, labels, included, single_label=False, too_rare=too_rare)
