"""CSV files whose header names leads, with or without a unit ("V1 [uV]"), and perhaps a column of times."""

import csv
import re
from pathlib import Path

import numpy as np

from .ecg import ReadEcg, RecordError, as_read, check_record_size, count_standard, whole_rate
from .xml_document import SECONDS

_COLUMN = re.compile(r"(?P<name>[^()\[\]]*)(?:[(\[](?P<unit>[^()\[\]]*)[)\]])?")
_TIME = re.compile(r"(?:time|t)(?:[_ ](?P<unit>s|sec|seconds|ms|us))?", re.IGNORECASE)
_SECONDS = SECONDS | {"sec": 1.0, "seconds": 1.0}


def looks_like_csv(first_line: str) -> bool:
    """Return whether a line is a header with standard leads among its names."""
    return count_standard(name for name, _ in _columns(first_line)[0]) > 0


def read_csv_ecg(path: Path) -> ReadEcg:
    """
    Read a table with a row per sample and a column per lead, separated by commas, semicolons or tabs, whose first line
    [`looks_like_csv`].

    Empty cells are missing samples. The unit of a column may stand in brackets behind its name. A column "time", "t",
    "time (ms)", "t_us" and the like holds times, in s unless it says so, which must be uniform to 0.1 %.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # numbers are the same in all of these, and so is the micro sign
    # Empty lines at the end hold nothing; between samples, they are samples that are missing.
    header, *lines = text.rstrip("\n\r ").splitlines()
    columns, delimiter = _columns(header)
    names = [name for name, _ in columns]
    if unnamed := [number + 1 for number, name in enumerate(names) if not name]:
        detail = f"columns {unnamed} (counted from 1) have no name or one that cannot be read: name a lead, or leave them out"
        raise RecordError(path, "unnamed leads", detail)
    times = [number for number, name in enumerate(names) if _TIME.fullmatch(name)]
    leads = [number for number in range(len(columns)) if number not in times]
    if len(times) > 1 or not leads:
        raise ValueError(f"{len(times)} of {len(columns)} columns are times, expected one at most")
    check_record_size(path, len(columns), len(lines))
    values = _numbers(lines, delimiter, len(columns))
    rate = _rate(path, values[:, times[0]], *columns[times[0]]) if times else None
    signal = np.ascontiguousarray(values[:, leads].T)
    return as_read(path, signal, rate, [names[number] for number in leads], [columns[number][1] for number in leads])


def _columns(line: str) -> tuple[list[tuple[str, str | None]], str]:
    """Return names (empty where they cannot be read) and units of the columns, and the most frequent delimiter."""
    delimiter = max((",", ";", "\t"), key=line.count)
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [""])
    except csv.Error:
        cells = [""]
    found = [_COLUMN.fullmatch(cell.strip()) for cell in cells]
    return [(one["name"].strip(), one["unit"] and one["unit"].strip()) if one else ("", None) for one in found], delimiter


def _numbers(lines: list[str], delimiter: str, num_columns: int) -> np.ndarray:
    """Return the cells as numbers (rows, columns), NaN where a cell is empty. Raises `ValueError`."""
    if not lines:
        raise ValueError("it has a header, but no samples")
    empty = re.compile(rf"(?:^|(?<={delimiter}))[ ]*(?={delimiter}|$)")
    missing = delimiter.join(["nan"] * num_columns)
    lines = [empty.sub("nan", line) if delimiter in line else line.strip() or missing for line in lines]
    try:  # not by pandas, which would fill rows that are too short with NaN
        values = np.loadtxt(lines, delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
    except ValueError as error:
        hint = " Decimal commas are not read: write points." if delimiter != "," and "," in lines[0] else ""
        raise ValueError(f"{error} (rows counted from 0, below the header).{hint}") from error
    if values.shape[1] != num_columns:
        raise ValueError(f"rows have {values.shape[1]} cells, the header has {num_columns}")
    return values


def _rate(path: Path, times: np.ndarray, name: str, unit: str | None) -> float:
    """Return the rate in Hz of uniform times."""
    matched = _TIME.fullmatch(name)
    unit = (unit or (matched and matched["unit"]) or "s").lower()
    if unit not in _SECONDS:
        raise RecordError(path, "unknown unit of time", f"column {name!r} in {unit!r}, expected one of {', '.join(_SECONDS)}")
    steps = np.diff(times)
    step = steps.mean() if len(steps) else np.nan
    if not (np.isfinite(times).all() and step > 0 and (np.abs(steps - step) <= 1e-3 * step).all()):
        found = f"its steps range from {steps.min():g} to {steps.max():g}" if len(steps) else "there is one row alone"
        advice = "resample the record, or leave the column out and declare sampling_rate"
        raise RecordError(path, "irregular times", f"column {name!r}: {found}, expected the same to 0.1 %: {advice}")
    return whole_rate(1 / (step * _SECONDS[unit]))
