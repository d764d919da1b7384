"""
The table of own records: which of its columns are labels, what its cells mean, and what is wrong with it, said once per column.

What is accepted, because it can mean one thing only: `1.0` for 1; `True`, `False`, `yes` and `no` (in any case) in columns that
are listed as labels; `F` and `M` for female and male; DICOM's `075Y` for 75 years. All else is refused, with the name of what was
probably meant: headings in another spelling (`patientid`), `val`, `W`, and ages such as `75M`, which are 75 months in DICOM and a
man of 75 in a clinician's notes.
"""

import difflib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..model.signal_processing_ecg_jepa import STANDARD_LEADS, select_leads, unit_factor
from .folds import FOLDS_OF_SPLIT

# A column that makes more of the rows unusable is an error, not a rejection of each; one row alone never is.
LARGEST_UNUSABLE_SHARE = 0.1

_ZERO_OR_ONE = {"0": False, "1": True}
_LABEL_WORDS = {"false": False, "true": True, "no": False, "yes": True}
_SEXES = {"female": "female", "male": "male", "f": "female", "m": "male"}

# What people write -> what they may have meant.
_MEANT = {
    "split": {
        **dict.fromkeys(("val", "valid", "dev", "eval"), "validation"),
        **dict.fromkeys(("training", "tr"), "train"),
        **dict.fromkeys(("testing", "holdout", "ts"), "test"),
    },
    "sex": {**dict.fromkeys(("w", "woman", "weiblich"), "female"), **dict.fromkeys(("man", "männlich"), "male")},
}
_SHOWN_VALUES = 3


class CellError(ValueError):
    """
    A cell that cannot be used.

    Args:
        column: its heading.
        value: what it holds; NaN if nothing.
        expected: in its place.
        hint: what was probably meant, in words.
    """

    def __init__(self, column: str, value: Any, expected: str, hint: str = ""):
        self.column, self.value, self.expected, self.hint = column, value, expected, hint
        super().__init__(f"{column} is {_shown(value)}, expected {expected}" + (f": {hint}" if hint else ""))


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a table that are labels, and those that mean nothing here."""

    names: tuple[str, ...]
    ignored: tuple[str, ...] = ()


def check_headings(table: pd.DataFrame, known: Sequence[str], listed: Iterable[str], name: str) -> None:
    """
    Raise `ValueError` for headings that are known ones in another spelling, by case, spaces, dashes and underscores, and if there
    is no `path`. The columns `listed` as labels are what they are called; `name` of the table is for messages.
    """
    plain = {_plain(column): column for column in known}
    faults = []
    for column in table.columns.difference([*known, *listed], sort=False):
        meant = plain.get(_plain(column))
        if meant in table.columns:
            faults.append(f"column {column!r} stands beside {meant!r}: keep one of the two")
        elif meant is not None:
            faults.append(f"column {column!r}: did you mean {meant!r}?")
    if faults:
        raise ValueError(f"{name}: {'; '.join(faults)} Headings are spelt exactly so: {', '.join(known)}.")
    if "path" not in table.columns:
        only = str(table.columns[0])
        hint = " Its cells must be separated by commas." if len(table.columns) == 1 and re.search(r"[;\t|]", only) else ""
        raise ValueError(f"{name} lacks the column path; it has {', '.join(table.columns)}.{hint}")


def choose_labels(table: pd.DataFrame, known: Sequence[str], listed: Sequence[str] | None, name: str) -> LabelColumns:
    """
    Which columns are labels: those `listed`, and all others that are not `known` are ignored; or, if none are listed (`None`),
    all that are not `known`, each of which must then hold 0 or 1 in every row.

    Raises:
        ValueError: if a listed column is not there, is listed twice or has a meaning of its own; if a column that nobody listed
            holds anything but 0 and 1. The message says what, and how to list labels. `name` of the table is for messages.
    """
    others = [column for column in table.columns if column not in known]
    if listed is None:
        _check_zeros_and_ones(table[others], known, name)
        return LabelColumns(tuple(others))
    for column in listed:
        if column in known:
            raise ValueError(f"--label_columns: {column!r} is no label, it has a meaning of its own in {name}.")
        if column not in others:
            raise ValueError(f"--label_columns: {name} has no column {column!r}{_nearest(column, others)}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"--label_columns names a column twice: {' '.join(listed)}.")
    return LabelColumns(tuple(listed), tuple(column for column in others if column not in listed))


def _check_zeros_and_ones(table: pd.DataFrame, known: Sequence[str], name: str) -> None:
    odd = {column: [value for value in table[column] if _plain_value(value) not in _ZERO_OR_ONE] for column in table.columns}
    described = [f"{column} holds {_counted(values)}{_advice(column, values, known)}" for column, values in odd.items() if values]
    if not described:
        return
    # Cells that are empty cost their rows, not the label.
    labels = [
        column
        for column, values in odd.items()
        if all(_plain_value(value) in (*_LABEL_WORDS, "") for value in values) and table[column].notna().any()
    ]
    others = [column for column in odd if column not in labels]
    example = f"--label_columns {' '.join(labels)}" if labels else "--label_columns without any name, if none are"
    ignored = f" ({', '.join(others)})" if others else ""
    raise ValueError(
        f"{name} has columns that are neither known nor labels of 0 and 1 in every row: {'; '.join(described)}. "
        f"List the labels with --label_columns, such as {example}; what is not listed{ignored} is then ignored."
    )


def _advice(column: str, values: Sequence[Any], known: Sequence[str]) -> str:
    if all(_plain_value(value) in _LABEL_WORDS for value in values):
        return ", where 1 and 0 are expected: write these, or list the column as a label"
    if all(_plain_value(value) == "" for value in values):
        return ", where 1 or 0 is expected: fill it in, or list the column as a label, and its row is rejected"
    nearest = difflib.get_close_matches(_plain(column), [_plain(name) for name in known], n=1, cutoff=0.75)
    return f" (did you mean the column {next(n for n in known if _plain(n) == nearest[0])!r}?)" if nearest else ""


def parse_label(column: str, value: Any) -> bool:
    """Whether the label is given. Raises `CellError`."""
    return _choice(column, value, _ZERO_OR_ONE | _LABEL_WORDS, "one of 0, 1")


def parse_split(value: Any) -> int:
    """The fold that stands for a split. Raises `CellError`."""
    folds = {split: numbers[0] for split, numbers in FOLDS_OF_SPLIT.items()}
    return _choice("split", value, folds, f"one of {', '.join(folds)}")


def parse_sex(value: Any) -> str | None:
    """ "female" or "male", `None` for an empty cell. Raises `CellError`."""
    return None if pd.isna(value) else _choice("sex", value, _SEXES, "one of female, male, or nothing")


def parse_age(value: Any) -> float | None:
    """Years, `None` for an empty cell. Raises `CellError`."""
    if pd.isna(value):
        return None
    text = str(value).strip()
    years = re.sub(r"^(\d{1,3})[Yy]$", r"\1", text)  # DICOM's
    try:
        age = float(years)
    except ValueError:
        age = math.nan
    if not 0 <= age < 1000:
        raise CellError("age", value, "a number of years, or nothing", _meant_age(text))
    return age


def _meant_age(text: str) -> str:
    if found := re.fullmatch(r"(\d{1,3})([MmWwDd])", text):
        number, per_year = int(found[1]), {"m": 12, "w": 52.18, "d": 365.25}[found[2].lower()]
        return f"if DICOM's age string is meant, write years: {number / per_year:.2g}"
    if re.fullmatch(r"\d+,\d+", text):
        return f"did you mean {text.replace(',', '.')}?"
    found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*(?:y|yr|yrs|years?|yo|j|jahre)\.?", text.lower())
    return f"did you mean {found[1]}?" if found else ""


def unknown_layout(given: Mapping[Any, Any], error: Exception) -> list[CellError]:
    """The cells for which it is not known how to read an array: those of a row that are not `given`, or else its rate."""
    empty = [name for name in ("sampling_rate", "unit", "lead_names") if name not in given]
    if empty:
        return [CellError(name, math.nan, "what the file does not say itself", f"{error}.") for name in empty]
    return [CellError("sampling_rate", given["sampling_rate"], "a number of Hz")]


@lru_cache(maxsize=1024)
def layout_faults(layout: tuple[float | None, str | None, tuple[str, ...] | None] | None) -> tuple[CellError, ...]:
    """What is wrong with the rate in Hz, the unit and the names of leads of a file, as far as that is known without it."""
    rate, unit, leads = layout or (None, None, None)
    faults = []
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        faults.append(CellError("sampling_rate", rate, "a positive number of Hz"))
    try:
        unit_factor(unit or "mV", amplitude_free=True)
    except ValueError as error:
        faults.append(CellError("unit", unit, "a unit of voltage", str(error)))
    try:
        select_leads(np.zeros((len(leads or STANDARD_LEADS), 1)), leads or STANDARD_LEADS, STANDARD_LEADS)
    except ValueError as error:
        faults.append(CellError("lead_names", " ".join(leads or ()), "the leads of the file, in its order", str(error)))
    return tuple(faults)


def missing_file(root: Path, cell: Any, path: str) -> list[CellError]:
    """The fault of a `cell` if there is nothing at `path` below `root`, neither by that name nor by that of a WFDB header."""
    if pd.isna(cell):
        return [CellError("path", cell, "a file")]
    place = os.path.join(root, path)
    if os.path.exists(place) or os.path.exists(f"{place}.hea"):
        return []
    return [CellError("path", cell, f"a file, as seen from {root}")]


def refuse_columns(faults: Sequence[CellError], num_rows: int, name: str) -> None:
    """
    Raise `ValueError` if a column makes more than a tenth of the rows (and more than one) unusable: it is the column that is
    wrong, not the rows. The message has, for each such column, how many rows, the commonest odd values and what was expected.
    `name` of the table is for messages.
    """
    of_column: dict[str, list[CellError]] = {}
    for fault in faults:
        of_column.setdefault(fault.column, []).append(fault)
    described = []
    for column, found in of_column.items():
        if len(found) > max(1, LARGEST_UNUSABLE_SHARE * num_rows):
            values = _counted([fault.value for fault in found])
            hints = dict.fromkeys(fault.hint for fault in _commonest_first(found) if fault.hint)
            meant = "; ".join(list(hints)[:_SHOWN_VALUES])
            expected = _ended(f"{found[0].expected}: {meant}" if meant else found[0].expected)
            described.append(
                f"column {column!r} makes {len(found)} of {num_rows} rows unusable. It holds {values}; expected {expected}"
            )
    if described:
        raise ValueError(f"{name}: {' '.join(described)} Mend the column; rows are rejected one by one only if they are few.")


def _choice(column: str, value: Any, known: Mapping[str, Any], expected: str) -> Any:
    text = _plain_value(value)
    if text in known:
        return known[text]
    meant = _MEANT.get(column, {}).get(text)
    if meant is None:
        longer = [word for word in known if len(word) > 2]  # of one letter, every other is as near
        meant = next(iter(difflib.get_close_matches(text, longer, n=1, cutoff=0.7)), None)
    raise CellError(column, value, expected, f"did you mean {meant!r}?" if meant else "")


def _plain_value(value: Any) -> str:
    """As cells are compared: 1.0 is 1, and case does not count."""
    return "" if pd.isna(value) else re.sub(r"^(\d+)\.0*$", r"\1", str(value).strip().lower())


def _plain(heading: str) -> str:
    return re.sub(r"[\W_]+", "", heading).casefold()


def _nearest(word: str, words: Sequence[str]) -> str:
    by_plain = {_plain(other): other for other in words}
    nearest = difflib.get_close_matches(_plain(word), by_plain, n=1)
    hint = f": did you mean {by_plain[nearest[0]]!r}?" if nearest else "."
    return f"{hint} Those that may be labels are {', '.join(words) or 'none'}."


def _shown(value: Any) -> str:
    text = str(value)
    return "empty" if pd.isna(value) else repr(text if len(text) <= 60 else f"{text[:60]}...")


def _counted(values: Iterable[Any]) -> str:
    """The commonest values and in how many rows they are."""
    counts = Counter("nothing" if pd.isna(value) else _shown(value) for value in values).most_common()
    shown = [f"{value} in {count} row{'s' if count > 1 else ''}" for value, count in counts[:_SHOWN_VALUES]]
    rest = len(counts) - len(shown)
    words = [*shown, f"{rest} other value{'s' if rest > 1 else ''}"] if rest else shown
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."


def _commonest_first(faults: Sequence[CellError]) -> list[CellError]:
    counts = Counter(_shown(fault.value) for fault in faults)
    return sorted(faults, key=lambda fault: -counts[_shown(fault.value)])
