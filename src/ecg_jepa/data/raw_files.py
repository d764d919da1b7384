"""
Files -> [`EcgRecord`] and tables. All reading of raw data lives here and, for files of one ECG each, in `formats_ecg_jepa.py` and
`wfdb_ecg_jepa.py`: `datasets` patches `open` and its like in the modules of its builders.
"""

import ast
import hashlib
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from ..formats.read import WFDB_SUFFIXES, has_wfdb_header, is_ecg_file
from ..formats.wfdb_record import EcgRecord, RecordError
from ..model.plausibility_ecg_jepa import ImplausibleSignalError
from ..model.signal_processing_ecg_jepa import STANDARD_LEADS

logger = logging.getLogger(__name__)

# CODE-15's HDF5 files (Ribeiro et al. 2021): float32 (exams, 4096 samples at 400 Hz, leads in the standard order).
CODE_15_RATE = 400.0
CODE_15_SAMPLES = 4096
_MOST_EXAMS = 1_000_000  # in a file; CODE-15's have 20,000


def _open_code_15(path: Path) -> h5py.File:
    if not path.is_file():
        raise RecordError(path.name, "missing signal file", f"no file {path}")
    try:
        file = h5py.File(path, "r")
        for name in ("exam_id", "tracings"):
            # Before the dataset is looked at: a link would open the file that it leads to.
            if not isinstance(file.get(name, getlink=True), (h5py.HardLink, type(None))):
                raise RecordError(path.name, "outside the folder", f"{name} is a link to elsewhere")
            if file[name].external is not None or file[name].is_virtual:
                raise RecordError(path.name, "outside the folder", f"the values of {name} lie in another file")
        ids, tracings = file["exam_id"].shape, file["tracings"].shape
        kinds = file["exam_id"].dtype.kind, file["tracings"].dtype.kind
    except RecordError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ... for damaged files
        raise RecordError(path.name, "unreadable signal", f"{type(error).__name__}: {error}") from error
    if kinds[0] not in "iu" or kinds[1] != "f":
        detail = "expected whole numbers as exam_id and floating-point tracings"
        raise RecordError(path.name, "unreadable signal", f"{detail}, but their types are of the kinds {' and '.join(kinds)}")
    if len(ids) == 1 and ids[0] > _MOST_EXAMS:
        raise RecordError(path.name, "too large", f"{ids[0]:,} exams in a file, at most {_MOST_EXAMS:,} are expected")
    if len(ids) != 1 or tracings != (*ids, CODE_15_SAMPLES, len(STANDARD_LEADS)):
        expected = f"(N,) and (N, {CODE_15_SAMPLES}, {len(STANDARD_LEADS)})"
        raise RecordError(path.name, "unreadable signal", f"exam_id {ids} and tracings {tracings}, expected {expected}")
    return file


@lru_cache(maxsize=2)
def _keep_open_code_15(path: Path, modified: int) -> h5py.File:
    """The file, kept open; `modified` (its time stamp) keeps one that was replaced from being taken for the old one."""
    return _open_code_15(path)


def read_code_15_ids(path: str | Path) -> np.ndarray:
    """The exam ids of an `exams_part*.hdf5`, one per tracing, 0 where a row holds none. Raises `RecordError`."""
    with _open_code_15(Path(path)) as file:
        try:
            return np.asarray(file["exam_id"][:], dtype=np.int64)
        except Exception as error:
            raise RecordError(Path(path).name, "unreadable signal", f"{type(error).__name__}: {error}") from error


def read_code_15(path: str | Path, row: int) -> EcgRecord:
    """
    Read a tracing of CODE-15.

    Args:
        path: an `exams_part*.hdf5`.
        row: of the tracing in it.

    Returns:
        The tracing as it is stored, at 400 Hz, its numbers taken for mV. The database's page is not clear about the unit,
        and users have measured a factor of about two; the reference takes the numbers as they are, and so do we.

    Raises:
        RecordError: if the file cannot be read or is not of this kind.
    """
    path = Path(path)
    file = _keep_open_code_15(path, path.stat().st_mtime_ns) if path.is_file() else _open_code_15(path)
    try:
        tracing = np.asarray(file["tracings"][row], dtype=np.float32)
    except Exception as error:
        raise RecordError(f"{path.name}#{row}", "unreadable signal", f"{type(error).__name__}: {error}") from error
    return EcgRecord(np.ascontiguousarray(tracing.T), CODE_15_RATE, list(STANDARD_LEADS))


@contextmanager
def faults_of(record: str) -> Iterator[None]:
    """What is wrong with a signal, as the fault of its record. Raises `RecordError` in the place of `ValueError`."""
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
    Read a table that must have certain columns. All that it holds stays text, or NaN where there is nothing: guessed types would
    make 7 of patient 007, merge long numbers, and turn a whole column over for one odd cell. The first column may be without a
    name, as pandas writes an index, unless `all_named`.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no table, a row has more fields than there are columns, a heading is empty or there twice, or columns
            are missing; the message names them and those that are there.
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
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} cannot be read as a table: it is not in UTF-8; save it as "CSV UTF-8". ({error})') from error
    except (ValueError, pd.errors.ParserWarning) as error:
        first = path.read_bytes()[:1000].partition(b"\n")[0]
        others = max(first.count(b";"), first.count(b"\t"))
        hint = " Its cells must be separated by commas." if others > first.count(b",") or first.startswith(b"sep=") else ""
        raise ValueError(f"{path} cannot be read as a table: {error}{hint}") from error
    if headings[0 if all_named else 1 :].isna().any() or headings.duplicated().any():
        raise ValueError(f"{path} has columns without a name, or two of one name: {', '.join(map(str, headings))}.")
    missing = [column for column in required_columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}.")
    return table


def whole_number(text: Any, column: str, at_least: int = 0, at_most: int | None = None) -> int:
    """A whole number of a table, which may be written as 1.0. Raises `ValueError`, also outside the bounds (inclusive)."""
    found = re.fullmatch(r"(-?\d{1,18})(?:\.0*)?", str(text).strip())
    if found is None or int(found[1]) < at_least or (at_most is not None and int(found[1]) > at_most):
        bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise ValueError(f"{column} is {str(text)[:40]!r}, expected a whole number {bounds}")
    return int(found[1])


def parse_scp_codes(text: str, where: str) -> dict[str, float]:
    """PTB-XL's `scp_codes`, a Python dictionary as text: statement -> likelihood in percent. Raises `ValueError`."""
    try:
        codes = ast.literal_eval(text)
        return {str(name): float(likelihood) for name, likelihood in codes.items()}
    except Exception as error:  # Python's own parser has more ways to fail than it documents
        shown = repr(text) if len(str(text)) < 200 else f"{str(text)[:200]!r}..."
        raise ValueError(f"scp_codes of {where} is no dictionary of statements and likelihoods: {shown}.") from error


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that are not empty; none if there is no such file."""
    path = Path(path)
    return [line for line in map(str.strip, path.read_text(errors="replace").splitlines()) if line] if path.is_file() else []


def record_files(directory: str | Path, root: str | Path) -> list[str]:
    """
    The WFDB records in `directory` and below, as sorted paths relative to `root`, without suffix: whatever has a `.hea`, a
    `.dat` or a `.mat`, so that a record that lacks one of its files is not overlooked. Links to folders are followed, but to none
    a second time.
    """
    paths = set()
    for folder, name in _files_below(directory):
        stem, suffix = os.path.splitext(name)
        if suffix in WFDB_SUFFIXES:
            paths.add(_relative(folder, stem, root))
    return sorted(paths)


def find_ecg_files(directory: str | Path, root: str | Path) -> list[str]:
    """
    The ECGs in `directory` and below that `read_ecg` may be able to read, as sorted paths relative to `root`: WFDB records as
    [`record_files`] has them, other formats with their suffix. What is left out is told in a warning.
    """
    paths = set(record_files(directory, root))
    others: Counter[str] = Counter()
    for folder, name in _files_below(directory):
        path = Path(folder, name)
        if path.suffix in WFDB_SUFFIXES:
            continue
        if is_ecg_file(path):
            paths.add(_relative(folder, name, root))
        elif not (path.suffix and has_wfdb_header(path.with_suffix(""))):  # annotations and further signals of a record
            others[path.suffix or "no extension"] += 1
    if others:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        logger.warning(f"{directory}: files that are no ECGs by their name, or begin as none, are left out: {counts}.")
    return sorted(paths)


def _relative(folder: str, name: str, root: str | Path) -> str:
    prefix = os.path.relpath(folder, root)
    return name if prefix == "." else os.path.join(prefix, name)


def _files_below(directory: str | Path) -> Iterator[tuple[str, str]]:
    """Folder and name of all files in `directory` and below. Links to folders are followed, but to none a second time."""
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
        yield from ((folder, name) for name in names)


def files_digest(paths: Iterable[str | Path], salt: str) -> str:
    """A digest that changes when a file is added, removed or rewritten (name, size and time), or `salt` changes."""
    digest = hashlib.sha256(salt.encode())
    for path in paths:
        try:
            stat = os.stat(path)
            digest.update(f"{os.path.basename(path)}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
        except (OSError, ValueError):  # ValueError: a NUL in its name
            digest.update(f"{os.path.basename(path)}:missing\n".encode(errors="backslashreplace"))
    return digest.hexdigest()
