"""
CSV files with a header -> what they hold.

The header names leads, with or without a unit ("V1 [uV]"), and may name a column of times, from which the rate follows.
"""

import csv
import re
from pathlib import Path

import numpy as np

from .binary_formats import MISSING_FILE
from .ecg import Contents, count_standard, lead_name, to_millivolts, whole_rate
from .wfdb_record import RecordError, check_record_size, plain_file_size

_AT_MOST = 128 << 20  # bytes; lines and numbers take several times as much

_DELIMITERS = (",", ";", "\t")
_COLUMN = re.compile(r"(?P<name>[^()\[\]]*)(?:[(\[](?P<unit>[^()\[\]]*)[)\]])?")
_TIME = re.compile(r"(?:time|t)(?:[_ ](?P<unit>s|sec|seconds|ms|us))?", re.IGNORECASE)
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}

# Relative: steps between times that differ by more are no rate.
_UNIFORM = 1e-3


def looks_like_csv(first_line: str) -> bool:
    """Whether a line is a header with standard leads among its names."""
    names, _ = _header(first_line)
    return count_standard(lead_name(name) for name, _ in map(_split, names)) > 0


def read_csv_ecg(path: Path) -> Contents:
    """
    Read a table with a row per sample and a column per lead, separated by commas, semicolons or tabs. Empty cells are missing
    samples. The unit of a column may stand in brackets behind its name; a column "time", "t", "time (ms)", "t_us" and the like
    holds times, in s unless it says so, which must be uniform to 0.1 %.

    Raises:
        RecordError: if the file cannot be read, has no header, columns without a name, cells that are no numbers, or times that
            are not uniform.
    """
    plain_file_size(path, path, MISSING_FILE, _AT_MOST)
    lines = _read_text(path).splitlines()
    # Empty lines before the header and at the end hold nothing; between samples, they are samples that are missing.
    while lines and not lines[0].strip():
        del lines[0]
    while lines and not lines[-1].strip(" "):
        del lines[-1]
    if not lines:
        raise RecordError(path, "unreadable table", "it is empty, expected a row of lead names, and a row per sample")
    columns, delimiter = _header(lines[0])
    if all(_is_number(column) for column in columns):
        detail = f"the first row is {lines[0][:40]!r}, expected the names of the leads"
        raise RecordError(path, "no header", detail)
    described = [_split(column) for column in columns]
    if unnamed := [number + 1 for number, (name, _) in enumerate(described) if not name]:
        detail = f"columns {unnamed} (counted from 1) have no name or one that cannot be read: name a lead, or leave them out"
        raise RecordError(path, "unnamed leads", detail)
    check_record_size(path, len(columns), len(lines) - 1)
    values = _numbers(path, lines[1:], delimiter, len(columns))
    times = [number for number, (name, _) in enumerate(described) if _TIME.fullmatch(name)]
    if len(times) > 1 or len(times) == len(columns):
        raise RecordError(path, "unreadable table", f"{len(times)} of {len(columns)} columns are times, expected one at most")
    rate = _rate(path, values[:, times[0]], columns[times[0]]) if times else None
    leads = [number for number in range(len(columns)) if number not in times]
    signal, units = to_millivolts(path, np.ascontiguousarray(values[:, leads].T), [described[number][1] for number in leads])
    return Contents(signal, rate, [described[number][0] for number in leads], units)


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # numbers are the same in all of these, and so is the micro sign


def _header(line: str) -> tuple[list[str], str]:
    """Names of columns, and what separates them: what is there most often. No names in what csv cannot read."""
    delimiter = max(_DELIMITERS, key=line.count)
    try:
        return next(csv.reader([line], delimiter=delimiter), [""]), delimiter
    except csv.Error:
        return [""], delimiter


def _split(column: str) -> tuple[str, str | None]:
    """Name and unit of a column; the name is empty for what is no such heading."""
    found = _COLUMN.fullmatch(column.strip())
    if not found:
        return "", None
    return found["name"].strip(), None if found["unit"] is None else found["unit"].strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, lines: list[str], delimiter: str, num_columns: int) -> np.ndarray:
    """Cells as numbers (rows, columns), NaN where a cell is empty."""
    if not lines:
        raise RecordError(path, "unreadable table", "it has a header, but no samples")
    empty = re.compile(rf"(?:^|(?<={delimiter}))[ ]*(?={delimiter}|$)")
    lines = [
        empty.sub("nan", line) if delimiter in line else line.strip() or delimiter.join(["nan"] * num_columns) for line in lines
    ]
    try:
        values = np.loadtxt(lines, delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
    except ValueError as error:
        hint = " Decimal commas are not read: write points." if delimiter != "," and "," in lines[0] else ""
        raise RecordError(path, "unreadable table", f"{error} (rows counted from 0, below the header).{hint}") from error
    if values.shape[1] != num_columns:
        detail = f"rows have {values.shape[1]} cells, the header has {num_columns}"
        raise RecordError(path, "unreadable table", detail)
    return values


def _rate(path: Path, times: np.ndarray, column: str) -> float:
    """Hz, of uniform times."""
    name, unit = _split(column)
    matched = _TIME.fullmatch(name)
    unit = unit or (matched["unit"] if matched else None) or "s"
    if unit.lower() not in _SECONDS:
        raise RecordError(path, "unknown unit of time", f"{column!r}, expected one of {', '.join(_SECONDS)}")
    steps = np.diff(times)
    step = steps.mean() if len(steps) else np.nan
    if not (np.isfinite(times).all() and step > 0 and (np.abs(steps - step) <= _UNIFORM * step).all()):
        found = f"its steps range from {steps.min():g} to {steps.max():g}" if len(steps) else "there is one row alone"
        advice = "resample the record, or leave the column out and declare sampling_rate"
        detail = f"column {column!r}: {found}, expected the same to 0.1 %: {advice}"
        raise RecordError(path, "irregular times", detail)
    return whole_rate(1 / (step * _SECONDS[unit.lower()]))


__all__ = ["looks_like_csv", "read_csv_ecg"]
