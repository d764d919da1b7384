"""Tables and file names of raw databases. They are read here since `datasets` replaces `open` in the modules of builders."""

import hashlib
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ..formats.ecg import RecordError
from ..formats.read import WFDB_SUFFIXES, has_wfdb_header, is_ecg_file
from ..model.signal_processing_ecg_jepa import ImplausibleSignalError

logger = logging.getLogger(__name__)


@contextmanager
def faults_of(record: str) -> Iterator[None]:
    """Raise `RecordError` with the name of the record in the place of `ValueError`."""
    try:
        yield
    except RecordError:
        raise
    except ImplausibleSignalError as error:
        raise RecordError(record, error.reason, error.detail) from error
    except ValueError as error:
        raise RecordError(record, "unusable signal", str(error)) from error


def read_csv(path: str | Path, required_columns: Iterable[str], all_named: bool = False) -> pd.DataFrame:
    """
    Read a table that must have certain columns. Cells stay text, or NaN where there is nothing: guessed types would make 7 of
    patient 007. The first column may be without a name, as pandas writes an index, unless `all_named`. Raises `ValueError` if it
    is no table, a row has more fields than there are columns, a heading is empty or there twice, or columns are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: is {path.parent} the folder of the database as downloaded?")
    try:
        with warnings.catch_warnings():
            # Without index_col=False, an extra field in the first row would shift all columns by one in silence.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            headings = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0]
            table = pd.read_csv(path, index_col=False, dtype=str)
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ValueError(f"{path} cannot be read as a table of cells separated by commas, in UTF-8: {error}") from error
    if headings[0 if all_named else 1 :].isna().any() or headings.duplicated().any():
        raise ValueError(f"{path} has columns without a name, or two of one name: {', '.join(map(str, headings))}.")
    missing = [column for column in required_columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}.")
    return table


def check_headings(table: pd.DataFrame, known: Sequence[str], listed: Iterable[str], name: str) -> None:
    """Raise `ValueError` without a `path`, and for `known` headings in another spelling that are not `listed` as labels."""

    spelt = {column.replace("_", ""): column for column in known}
    faults = []
    for column in table.columns.difference([*known, *listed], sort=False):
        meant = spelt.get(re.sub(r"[\W_]+", "", column).casefold())
        if meant in table.columns:
            faults.append(f"column {column!r} stands beside {meant!r}: keep one of the two")
        elif meant is not None:
            faults.append(f"column {column!r}: did you mean {meant!r}?")
    if faults:
        raise ValueError(f"{name}: {'; '.join(faults)} Headings are spelt exactly so: {', '.join(known)}.")
    if "path" not in table.columns:
        raise ValueError(f"{name} lacks the column path; it has {', '.join(table.columns)}. Cells must be separated by commas.")


def whole_number(text: Any, column: str, at_least: int = 0, at_most: int | None = None) -> int:
    """Parse a whole number, which may be written as 1.0. Raises `ValueError`, also outside the bounds (inclusive)."""
    found = re.fullmatch(r"(-?\d{1,18})(?:\.0*)?", str(text).strip())
    if found is None or int(found[1]) < at_least or (at_most is not None and int(found[1]) > at_most):
        bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise ValueError(f"{column} is {str(text)[:40]!r}, expected a whole number {bounds}")
    return int(found[1])


def parse_age(text: Any) -> float | None:
    """Return years (PTB-XL writes 300 for patients older than 89), `None` for an empty cell. Raises `ValueError`."""
    if pd.isna(text):
        return None
    if not 0 <= float(text) < 1000:
        raise ValueError(f"age is {text}, expected years")
    return float(text)


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file that are not empty; none if there is no such file."""
    path = Path(path)
    return [line for line in map(str.strip, path.read_text(errors="replace").splitlines()) if line] if path.is_file() else []


def record_files(directory: str | Path, root: str | Path) -> list[str]:
    """
    Find WFDB records in `directory` and below: sorted paths relative to `root`, without suffix, of whatever has a `.hea`, a
    `.dat` or a `.mat`, so that a record that lacks one of its files is not overlooked.
    """
    return sorted({stem for stem, suffix in map(os.path.splitext, _files_below(directory, root)) if suffix in WFDB_SUFFIXES})


def find_ecg_files(directory: str | Path, root: str | Path) -> list[str]:
    """
    Find the files in `directory` and below that `read_ecg` may be able to read: sorted paths relative to `root`, WFDB records as
    [`record_files`] has them, other formats with their suffix. Warns of what is left out.
    """
    paths = set(record_files(directory, root))
    others: Counter[str] = Counter()
    for name in _files_below(directory, root):
        path = Path(root, name)
        if path.suffix in WFDB_SUFFIXES:
            continue
        if is_ecg_file(path):
            paths.add(name)
        elif not (path.suffix and has_wfdb_header(path.with_suffix(""))):  # annotations and further signals of a record
            others[path.suffix or "no extension"] += 1
    if others:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        logger.warning(f"{directory}: files that are no ECGs by their name, or begin as none, are left out: {counts}.")
    return sorted(paths)


def _files_below(directory: str | Path, root: str | Path) -> Iterator[str]:
    """Yield paths relative to `root` of all files in `directory` and below; links to folders are followed, to each once."""
    top, followed = os.path.realpath(directory), set()

    def is_new(folder: str) -> bool:
        if not os.path.islink(folder):
            return True
        real = os.path.realpath(folder)
        # What lies in `directory` is found without the link, and what it lies in would be found in itself.
        is_new = real not in followed and os.path.commonpath([real, top]) not in (real, top)
        followed.add(real)
        return is_new

    for folder, folders, names in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if is_new(os.path.join(folder, name))]
        prefix = os.path.relpath(folder, root)
        yield from names if prefix == "." else (os.path.join(prefix, name) for name in names)


def files_digest(paths: Iterable[str | Path], salt: str) -> str:
    """Return a digest that changes when a file is added, removed or rewritten (name, size and time), or `salt` changes."""
    digest = hashlib.sha256(salt.encode())
    for path in paths:
        try:
            stat = os.stat(path)
            digest.update(f"{os.path.basename(path)}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
        except (OSError, ValueError):  # ValueError: a NUL in its name
            digest.update(f"{os.path.basename(path)}:missing\n".encode(errors="backslashreplace"))
    return digest.hexdigest()
