"""Names of classification tasks. Imports nothing heavy: settings check names before anything is loaded."""

from typing import Literal, get_args

# PTB-XL's: Strodthoff et al. 2020; ST-MEM: Na et al. 2024. Other databases have one, "all".
TaskName = Literal["all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm", "ST-MEM"]
TASKS: tuple[str, ...] = get_args(TaskName)

# Tasks whose classes exclude each other.
SINGLE_LABEL = ("ST-MEM",)


def parts_of(name: str) -> list[str]:
    """
    Return the tasks that a task is joined from: `superdiagnostic+rhythm` has the classes of both.

    Raises:
        ValueError: for an unknown or repeated part, and for exclusive classes joined to others.
    """
    parts = name.split("+")
    if unknown := [part for part in parts if part not in TASKS]:
        raise ValueError(
            f"Unknown task {unknown[0]!r}: choose one of {', '.join(TASKS)}, or several joined by '+' (superdiagnostic+rhythm)."
        )
    if len(set(parts)) < len(parts):
        raise ValueError(f"Task {name!r} names a part twice.")
    exclusive = [part for part in parts if part in SINGLE_LABEL]
    if exclusive and len(parts) > 1:
        raise ValueError(f"Task {name!r}: the classes of {exclusive[0]} exclude each other, so it cannot be joined to others.")
    return parts
