"""
Files -> [`EcgRecord`] and tables. All reading of raw data lives here: `datasets` patches `open` and its like in the modules
of its builders.
"""

import ast
import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import wfdb

from ..configuration_ecg_jepa import STANDARD_LEADS
from ..signal_processing_ecg_jepa import unit_factor
from .records import EcgRecord, RecordError
from .wfdb_header import WfdbHeader, parse_header, split_header

# CODE-15's HDF5 files (Ribeiro et al. 2021): float32 (exams, 4096 samples at 400 Hz, leads in the standard order).
CODE_15_RATE = 400.0
CODE_15_SAMPLES = 4096

# Bytes per sample of the WFDB formats in which every sample takes a whole number of bytes.
_WFDB_SAMPLE_BYTES = {"8": 1, "80": 1, "16": 2, "61": 2, "160": 2, "24": 3, "32": 4}

_MISSING_SAMPLE = np.iinfo(np.int16).min  # WFDB's code for "not recorded" in format 16


def read_wfdb(path: str | Path) -> EcgRecord:
    """
    Read a WFDB record.

    Records of one segment in format 16, which all ECG databases here consist of, are read directly; any other through wfdb.
    Both give the same numbers.

    Args:
        path: the record, with or without `.hea`.

    Returns:
        The physical signal in mV, float32 (leads, samples), with NaN where the file marks samples as missing, the rate in
        Hz, leads in the order of the header, and its comments.

    Raises:
        RecordError: if a file is missing, truncated or longer than its header says, cannot be parsed, or has a unit that
            is no voltage.
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix == ".hea" else path
    try:
        content = (path.parent / f"{path.name}.hea").read_bytes()
    except FileNotFoundError:
        raise RecordError(path, "missing header", f"no file {path.name}.hea") from None
    # wfdb drops what is not ASCII, so that a gain in uV with a Greek letter would be read as V.
    for line in content.split(b"\n"):
        if not line.isascii() and not line.lstrip().startswith(b"#"):
            raise RecordError(path, "unreadable header", f"characters beyond ASCII: {line.decode(errors='replace').strip()!r}")
    text = content.decode("ascii", errors="ignore")
    header = parse_header(text)
    if header is not None:
        return _read_format_16(path, header)
    return _read_through_wfdb(path, split_header(text)[1])


def _read_format_16(path: Path, header: WfdbHeader) -> EcgRecord:
    files = [(file, list(signals)) for file, signals in groupby(header.signals, key=lambda signal: signal.file)]
    leads = []
    num_bad_checksums = 0
    for name, signals in files:
        offset = signals[0].offset
        content = _read_signal_file(path, name, offset + 2 * len(signals) * header.num_samples)
        samples = np.frombuffer(content, "<i2", offset=offset).reshape(header.num_samples, len(signals))
        digital = np.ascontiguousarray(samples.T)
        checksums = digital.sum(axis=1, dtype=np.int64)
        for description, row, checksum in zip(signals, digital, checksums, strict=True):
            # In float64 and in wfdb's order, so that the result is the same to the last bit.
            physical = row.astype(np.float64)
            physical -= description.baseline
            physical /= description.gain
            physical *= _unit_factor(path, description.unit)
            physical[row == _MISSING_SAMPLE] = np.nan
            leads.append(physical.astype(np.float32))
            num_bad_checksums += int((checksum - description.checksum) % 65536 != 0)
    names = [description.name for description in header.signals]
    return EcgRecord(np.stack(leads), header.sampling_rate, names, header.comments, num_bad_checksums)


def _unit_factor(path: Path, unit: str) -> float:
    try:
        return unit_factor(unit)
    except ValueError as error:
        raise RecordError(path, "unknown unit", str(error)) from error


def _read_signal_file(path: Path, name: str, expected: int) -> bytes:
    file = path.parent / name
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise RecordError(path, "missing signal file", f"no file {name}") from None
    _check_size(path, name, len(content), expected)
    return content


def _check_size(path: Path, name: str, actual: int, expected: int) -> None:
    if actual != expected:
        reason = "truncated signal file" if actual < expected else "wrong length"
        raise RecordError(path, reason, f"{name} has {actual} bytes, its header says {expected}")


def _read_through_wfdb(path: Path, comments: list[str]) -> EcgRecord:
    try:
        header = wfdb.rdheader(str(path))
    except Exception as error:  # wfdb raises what its parsing happens to run into
        raise RecordError(path, "unreadable header", f"{type(error).__name__}: {error}") from error
    if isinstance(header, wfdb.MultiRecord) or not header.n_sig or not header.fs or header.sig_len == 0:
        raise RecordError(path, "unreadable header", "expected one segment with signals, their length and rate")
    if header.file_name is None or len(header.file_name) != header.n_sig:
        lines = len(header.file_name or [])
        raise RecordError(path, "unreadable header", f"{lines} signal lines, where the first line says {header.n_sig}")
    _check_signal_files(path, header)
    factors = np.array([_unit_factor(path, unit) for unit in header.units])
    try:
        record = wfdb.rdrecord(str(path), physical=False)
        num_bad_checksums = sum(
            stated is not None and per_frame in (None, 1) and (stated - actual) % 65536 != 0
            for stated, actual, per_frame in zip(record.checksum, record.calc_checksum(), header.samps_per_frame, strict=True)
        )
        physical = record.dac()
    except Exception as error:
        raise RecordError(path, "unreadable signal", f"{type(error).__name__}: {error}") from error
    if header.sig_len is not None and physical.shape != (header.sig_len, header.n_sig):
        raise RecordError(path, "wrong length", f"{physical.shape[0]} samples, header says {header.sig_len}")
    signal = np.ascontiguousarray((physical.T * factors[:, None]).astype(np.float32))
    return EcgRecord(signal, float(header.fs), list(header.sig_name), comments, num_bad_checksums)


def _check_signal_files(path: Path, header: wfdb.Record) -> None:
    """
    Signal files must be there and as long as the header says; wfdb reads the beginning of a longer one in silence.
    """
    for name in dict.fromkeys(header.file_name):
        file = path.parent / name
        if not file.is_file():
            raise RecordError(path, "missing signal file", f"no file {name}")
        signals = [index for index, other in enumerate(header.file_name) if other == name]
        if header.sig_len is None or any(header.fmt[index] not in _WFDB_SAMPLE_BYTES for index in signals):
            continue  # a length that is not stated, and packed formats: left to wfdb
        frame = sum(_WFDB_SAMPLE_BYTES[header.fmt[index]] * (header.samps_per_frame[index] or 1) for index in signals)
        _check_size(path, name, file.stat().st_size, (header.byte_offset[signals[0]] or 0) + frame * header.sig_len)


def _open_code_15(path: Path) -> h5py.File:
    if not path.is_file():
        raise RecordError(path.name, "missing signal file", f"no file {path}")
    try:
        file = h5py.File(path, "r")
        ids, tracings = file["exam_id"].shape, file["tracings"].shape
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ... for damaged files
        raise RecordError(path.name, "unreadable signal", f"{type(error).__name__}: {error}") from error
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


def read_npy(path: str | Path, sampling_rate: float, unit: str, lead_names: Sequence[str]) -> EcgRecord:
    """
    Read an array (leads, samples) of numbers in `unit`, saved with `numpy.save`. What the file does not say must be told.

    Raises:
        RecordError: if the file is missing, holds no such array, or rate or unit make no sense.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(path, "missing signal file", f"no file {path.name}")
    if not (math.isfinite(sampling_rate) and sampling_rate > 0):
        raise RecordError(path, "unusable row", f"sampling_rate is {sampling_rate}, expected Hz")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RecordError(path, "unreadable signal", f"{type(error).__name__}: {error}") from error
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise RecordError(path, "unreadable signal", f"{values.dtype} {values.shape}, expected numbers (leads, samples)")
    if values.shape[0] != len(lead_names):
        detail = f"shape {values.shape} with {len(lead_names)} lead names, expected (leads, samples)"
        raise RecordError(path, "wrong number of leads", detail)
    signal = values.astype(np.float64) * _unit_factor(path, unit)
    return EcgRecord(np.ascontiguousarray(signal, dtype=np.float32), float(sampling_rate), list(lead_names))


def read_csv(path: str | Path, required_columns: Iterable[str]) -> pd.DataFrame:
    """
    Read a table that must have certain columns.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no table, a row has more fields than there are columns, or columns are missing; the message names
            them and those that are there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: is {path.parent} the folder of the database as downloaded?")
    try:
        with warnings.catch_warnings():
            # Without index_col=False, an extra field in the first row would shift all columns by one in silence.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, index_col=False)
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from error
    missing = [column for column in required_columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}.")
    return table


def parse_scp_codes(text: str, where: str) -> dict[str, float]:
    """PTB-XL's `scp_codes`, a Python dictionary as text: statement -> likelihood in percent. Raises `ValueError`."""
    try:
        codes = ast.literal_eval(text)
        return {str(name): float(likelihood) for name, likelihood in codes.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError) as error:
        raise ValueError(f"scp_codes of {where} is no dictionary of statements and likelihoods: {text!r}.") from error


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that are not empty; none if there is no such file."""
    path = Path(path)
    return [line for line in map(str.strip, path.read_text().splitlines()) if line] if path.is_file() else []


def record_files(directory: str | Path, root: str | Path) -> list[str]:
    """
    The WFDB records in `directory` and below, as sorted paths relative to `root`, without suffix: whatever has a `.hea`, a
    `.dat` or a `.mat`, so that a record that lacks one of its files is not overlooked.
    """
    paths = set()
    for folder, _, names in os.walk(directory, followlinks=True):
        prefix = os.path.relpath(folder, root)
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix in (".hea", ".dat", ".mat"):
                paths.add(stem if prefix == "." else os.path.join(prefix, stem))
    return sorted(paths)


def files_digest(paths: Iterable[str | Path], salt: str) -> str:
    """A digest that changes when a file is added, removed or rewritten (name, size and time), or `salt` changes."""
    digest = hashlib.sha256(salt.encode())
    for path in paths:
        try:
            stat = os.stat(path)
            digest.update(f"{os.path.basename(path)}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
        except (FileNotFoundError, NotADirectoryError):
            digest.update(f"{os.path.basename(path)}:missing\n".encode())
    return digest.hexdigest()
