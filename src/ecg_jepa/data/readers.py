"""
Files -> [`EcgRecord`] and tables. All reading of raw data lives here: `datasets` patches `open` and its like in the modules
of its builders.
"""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import wfdb

from ..signal_processing_ecg_jepa import unit_factor
from .records import EcgRecord, RecordError

# Bytes per sample of the WFDB formats in which every sample takes a whole number of bytes.
_WFDB_SAMPLE_BYTES = {"8": 1, "80": 1, "16": 2, "61": 2, "160": 2, "24": 3, "32": 4}


def read_wfdb(path: str | Path) -> EcgRecord:
    """
    Read a WFDB record.

    Args:
        path: the record, with or without `.hea`.

    Returns:
        The physical signal in mV, float32 (leads, samples), with NaN where the file marks samples as missing, the rate in
        Hz, and leads in the order of the header.

    Raises:
        RecordError: if a file is missing, truncated or longer than its header says, cannot be parsed, or has a unit that
            is no voltage.
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix == ".hea" else path
    header_path = path.parent / f"{path.name}.hea"
    if not header_path.is_file():
        raise RecordError(path, "missing header", f"no file {header_path.name}")
    try:
        record = wfdb.rdrecord(str(path))
        factors = np.array([unit_factor(unit) for unit in record.units])
    except Exception as error:  # wfdb raises what its parsing happens to run into
        _check_header(path)
        raise RecordError(path, "unreadable signal", f"{type(error).__name__}: {error}") from error
    _check_signal_files(path, record)
    signal = (record.p_signal.T * factors[:, None]).astype(np.float32)
    if signal.shape != (record.n_sig, record.sig_len):
        raise RecordError(path, "wrong length", f"{signal.shape[1]} samples, header says {record.sig_len}")
    return EcgRecord(np.ascontiguousarray(signal), float(record.fs), list(record.sig_name))


def _check_header(path: Path) -> None:
    """Why wfdb could not read a record: raises a `RecordError` that says more than wfdb's own, if header and sizes tell."""
    try:
        header = wfdb.rdheader(str(path))
    except Exception as error:
        raise RecordError(path, "unreadable header", f"{type(error).__name__}: {error}") from error
    if isinstance(header, wfdb.MultiRecord) or not header.n_sig or not header.sig_len or not header.fs:
        raise RecordError(path, "unreadable header", "expected one segment with signals, their length and rate")
    _check_signal_files(path, header)


def _check_signal_files(path: Path, header: wfdb.Record) -> None:
    """
    Signal files must be there and as long as the header says; wfdb reads the beginning of a longer one in
    silence.
    """
    for name in dict.fromkeys(header.file_name):
        file = path.parent / name
        if not file.is_file():
            raise RecordError(path, "missing signal file", f"no file {name}")
        signals = [index for index, other in enumerate(header.file_name) if other == name]
        if any(header.fmt[index] not in _WFDB_SAMPLE_BYTES for index in signals):
            continue  # packed formats: left to wfdb
        frame = sum(_WFDB_SAMPLE_BYTES[header.fmt[index]] * (header.samps_per_frame[index] or 1) for index in signals)
        expected = (header.byte_offset[signals[0]] or 0) + frame * header.sig_len
        actual = file.stat().st_size
        if actual != expected:
            reason = "truncated signal file" if actual < expected else "wrong length"
            raise RecordError(path, reason, f"{name} has {actual} bytes, its header says {expected}")


def read_csv(path: str | Path, required_columns: Iterable[str], index_column: str | None = None) -> pd.DataFrame:
    """
    Read a table that must have certain columns.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if columns are missing; the message names them and those that are there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: is {path.parent} the folder of the database as downloaded?")
    table = pd.read_csv(path)
    missing = [column for column in required_columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}.")
    return table if index_column is None else table.set_index(index_column)


def parse_scp_codes(text: str, where: str) -> dict[str, float]:
    """PTB-XL's `scp_codes`, a Python dictionary as text: statement -> likelihood in percent. Raises `ValueError`."""
    try:
        codes = ast.literal_eval(text)
        return {str(name): float(likelihood) for name, likelihood in codes.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError) as error:
        raise ValueError(f"scp_codes of {where} is no dictionary of statements and likelihoods: {text!r}.") from error


def files_digest(paths: Iterable[str | Path], salt: str) -> str:
    """A digest that changes when a file is added, removed or rewritten (path, size and time), or `salt` changes."""
    digest = hashlib.sha256(salt.encode())
    for path in paths:
        path = Path(path)
        stat = path.stat() if path.is_file() else None
        digest.update(f"{path.name}:{stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()
