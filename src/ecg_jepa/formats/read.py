"""Files of ECGs, whatever their format -> signals in mV: [`read_ecg`]."""

import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from ..model.plausibility_ecg_jepa import ImplausibleSignalError, check_plausible, check_rate
from ..model.signal_processing_ecg_jepa import UNKNOWN_UNIT
from .binary_formats import MISSING_FILE, read_dicom, read_edf, read_npy, read_scp
from .csv_table import looks_like_csv, read_csv_ecg
from .ecg import Contents, Ecg, check_declared, declare, to_millivolts
from .wfdb_record import RecordError, check_record_size, plain_file_size, read_wfdb, signal_files
from .xml_formats import read_xml

logger = logging.get_logger(__name__)

_BEGINNING = 1 << 16  # bytes that a format is recognised by

WFDB_SUFFIXES = (".hea", ".dat", ".mat")

# Suffixes, and what files of such names are expected to be.
_SUFFIXES = {
    ".npy": "NumPy",
    ".dcm": "DICOM",
    ".edf": "EDF",
    ".bdf": "BDF",
    ".scp": "SCP-ECG",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".xml": "XML",
}

_READERS: dict[str, Callable[[Path], Contents]] = {
    "NumPy": read_npy,
    "DICOM": read_dicom,
    "EDF": read_edf,
    "BDF": read_edf,
    "SCP-ECG": read_scp,
    "CSV": read_csv_ecg,
    "XML": read_xml,
}

# What else a file may be that is taken for an ECG, by its first bytes.
_OTHERS = {
    b"MATLAB 5.0": "a MATLAB file without a WFDB header beside it",
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a ZIP archive (such as .npz or .xlsx)",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"%PDF": "a PDF: it holds a picture of an ECG",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"ISHNE1.0": "an ISHNE Holter recording: convert it to EDF or WFDB",
}

# Fields that a wfdb.Record has, and an Ecg or EcgRecord.
_OF_WFDB = ("p_signal", "fs", "sig_name", "units")
_OF_ECG = ("signal", "sampling_rate", "lead_names")

FORMATS = "WFDB, NumPy .npy, DICOM, HL7 aECG, GE MUSE XML, Philips XML, SCP-ECG, EDF, BDF, CSV with a header"


def read_ecg(
    path: str | PathLike[str],
    sampling_rate: float | None = None,
    lead_names: Sequence[str] | None = None,
    unit: str | None = None,
    check_plausibility: bool = True,
) -> Ecg:
    """
    Read an ECG from a file in any of these formats, recognised by its content: WFDB, NumPy `.npy`, DICOM, HL7 aECG, GE MUSE XML,
    Philips XML, SCP-ECG, EDF, BDF and CSV with a header.

    Args:
        path: the file; of a WFDB record any of its files, or the record without extension.
        sampling_rate: in Hz, of a file that does not say it.
        lead_names: of the rows of the signal, of a file that does not say them.
        unit: "mV", "uV", "V" or "nV", of a file that does not say it; "unknown" is the same as `None`, but that leads of a
            WFDB record need no gain then.
        check_plausibility: refuse what cannot be an ECG: rates outside 50 to 4,000 Hz, and where the unit is known, amplitudes of
            another unit, flat and mostly missing leads (see `plausibility_ecg_jepa`).

    Returns:
        `signal` (leads, samples) float32, in mV if the unit is known, `sampling_rate` in Hz, `lead_names` as the standard spells
        them, and `unit`: "mV" or `None`. Rate and names are `None` where neither file nor caller says them.

    Raises:
        RecordError: with a reason, if the file is missing, damaged, of no known format, has no rhythm, is too large, needs a
            library that is not installed, or says something else than was declared.
        ImplausibleSignalError: for what cannot be an ECG.
        ValueError: for declarations that make no sense; both of the above are of this class.
    """
    check_declared(sampling_rate, lead_names, unit)
    if not isinstance(path, (str, PathLike)):
        raise ValueError(f"path must be the path of a file, but is a {type(path).__name__}.")
    path = Path(path)
    ecg = declare(path, _read(path, unit), sampling_rate, lead_names, unit)
    if check_plausibility:
        _check(path, ecg)
    return ecg


def _read(path: Path, unit: str | None) -> Contents:
    format_name = recognize(path)
    return _read_wfdb(path, any_gain=unit == UNKNOWN_UNIT) if format_name == "WFDB" else _READERS[format_name](path)


def _read_wfdb(path: Path, any_gain: bool) -> Contents:
    record = read_wfdb(wfdb_record(path), any_gain)
    return Contents(record.signal, record.sampling_rate, record.lead_names, record.units)


def wfdb_record(path: Path) -> Path:
    """The WFDB record that a file belongs to: the same without one of WFDB's extensions."""
    return path.with_suffix("") if path.suffix in WFDB_SUFFIXES else path


def has_wfdb_header(path: Path) -> bool:
    """Whether this names a WFDB record whose header is there."""
    record = wfdb_record(path)
    return os.path.exists(f"{record}.hea") if record.name else False


def recognize(path: Path) -> str:
    """
    Name of the format of a file, by its content; of a WFDB record "WFDB".

    Raises:
        RecordError: if the file is missing, no plain file, or of no known format; the message says what it looks like.
    """
    if path.suffix in WFDB_SUFFIXES and has_wfdb_header(path):
        return "WFDB"
    try:
        plain_file_size(path, path, MISSING_FILE)
    except RecordError as error:
        missing = error.reason == MISSING_FILE
        if has_wfdb_header(path) or (missing and path.suffix in WFDB_SUFFIXES):
            return "WFDB"  # which says itself what is missing
        if missing:
            detail = f"no file {path.name}, and no WFDB record of that name: no file {path.name}.hea"
            raise RecordError(path, MISSING_FILE, detail) from None
        raise
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError as error:
        raise RecordError(path, "unreadable file", str(error)) from error
    found = _by_content(beginning)
    if found is None and has_wfdb_header(path):
        return "WFDB"
    if found is None:
        raise _unknown(path, beginning)
    expected = _SUFFIXES.get(path.suffix.lower(), found)
    if expected != found:
        logger.warning(f"{path} is named as {expected}, but is {found}, and read as such.")
    return found


def _by_content(beginning: bytes) -> str | None:
    if beginning.startswith(b"\x93NUMPY"):
        return "NumPy"
    if beginning[128:132] == b"DICM":
        return "DICOM"
    if beginning.startswith(b"0       ") and beginning[236:256].strip(b" -0123456789.") == b"" and len(beginning) >= 256:
        return "EDF"
    if beginning.startswith(b"\xffBIOSEMI"):
        return "BDF"
    # The header of section 0 of an SCP-ECG: its number, and from edition 1.3 a name.
    points_to_itself = beginning[8:10] == beginning[22:24] == b"\0\0" and beginning[28:32] == b"\7\0\0\0"
    if beginning[16:22] == b"SCPECG" or points_to_itself:
        return "SCP-ECG"
    text = _as_text(beginning)
    if text is None:
        return None
    if text.lstrip().startswith("<"):
        return "XML"
    return "CSV" if looks_like_csv(_first_line(text)) else None


def _first_line(text: str) -> str:
    """Whatever ends lines: there are files with nothing but carriage returns."""
    return next(iter(text.splitlines()), "")


def _as_text(beginning: bytes) -> str | None:
    """The beginning of a file as text; `None` if it is none."""
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        return beginning.decode("utf-16", errors="ignore").lstrip("\ufeff")
    if b"\0" in beginning:
        return None
    return beginning.decode("utf-8-sig", errors="replace")


def _unknown(path: Path, beginning: bytes) -> RecordError:
    """What is wrong with a file of no known format, in the terms of the format that its name promises."""
    if not beginning:
        return RecordError(path, "unknown format", "the file is empty")
    for magic, meaning in _OTHERS.items():
        if beginning.startswith(magic):
            return RecordError(path, "unknown format", f"it is {meaning}; formats that are read: {FORMATS}")
    expected = _SUFFIXES.get(path.suffix.lower())
    if expected == "CSV":
        first = _first_line(_as_text(beginning) or "binary data").strip()[:60]
        detail = f"its first row is {first!r}, expected a header with the names of leads, such as I,II,V1 or I (mV),II (mV)"
        return RecordError(path, "no header", detail)
    if path.suffix in WFDB_SUFFIXES:
        return RecordError(path, "missing header", f"no file {wfdb_record(path).name}.hea beside it")
    named = f"it is named {path.suffix}, but is no {expected} file" if expected else "its content is that of no known format"
    return RecordError(path, "unknown format", f"{named}; formats that are read: {FORMATS}")


def is_ecg_file(path: Path) -> bool:
    """
    Whether a file is listed as an ECG: by its extension, so that one that is damaged, or a table or text of another kind, gets
    its reason when it is read; DICOM objects, whose names often have no extension, by their content. Files of WFDB records are
    not: see `record_files` of the readers.
    """
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return _by_content(file.read(132)) == "DICOM"
    except OSError:
        return False


def files_of(path: str | Path) -> list[str]:
    """The files that [`read_ecg`] reads for this path."""
    path = Path(path)
    if os.path.isfile(path) and not (path.suffix in WFDB_SUFFIXES and has_wfdb_header(path)):
        return [str(path)]
    if not has_wfdb_header(path) and path.suffix.lower() in _SUFFIXES:
        return [str(path)]
    record = wfdb_record(path)
    header = record.with_name(f"{record.name}.hea")
    names = signal_files(header) or [f"{record.name}.dat", f"{record.name}.mat"]
    return [str(header), *(str(record.parent / name) for name in names)]


def describes_itself(record: Any) -> bool:
    """
    Whether a record has one of the forms that say something of themselves: the path of a file, an [`Ecg`], an `EcgRecord` or a
    `wfdb.Record`. The latter by their fields, not their classes: the code of a checkpoint and the installed package each have
    classes of their own.
    """
    return isinstance(record, (str, PathLike)) or any(
        all(hasattr(record, name) for name in names) for names in (_OF_WFDB, _OF_ECG)
    )


def as_ecg(
    record: Any,
    sampling_rate: float | None = None,
    lead_names: Sequence[str] | None = None,
    unit: str | None = None,
) -> Ecg:
    """
    A record that [`describes_itself`], with what is declared of it. Plausibility is not checked.

    Raises:
        RecordError: as [`read_ecg`], also for declarations that contradict the record.
    """
    if isinstance(record, (str, PathLike)):
        return read_ecg(record, sampling_rate, lead_names, unit, check_plausibility=False)
    contents = _of_wfdb(record) if hasattr(record, "p_signal") else _of_ecg(record)
    name = str(getattr(record, "record_name", None) or type(record).__name__)
    return declare(name, contents, sampling_rate, lead_names, unit)


def _of_wfdb(record: Any) -> Contents:
    name = record.record_name or "wfdb.Record"
    if record.p_signal is None:
        detail = "read it with physical=True (and, if it has several segments, m2s=True), so that it has a p_signal"
        raise RecordError(name, "no physical signal", detail)
    values = np.asarray(record.p_signal, dtype=np.float64).T
    if values.ndim != 2:
        raise RecordError(name, "unreadable signal", f"p_signal of shape {values.T.shape}, expected (samples, leads)")
    check_record_size(Path(name), *values.shape)
    signal, units = to_millivolts(name, values, record.units or [None] * len(values))
    return Contents(signal, record.fs, record.sig_name, units)


def _of_ecg(record: Any) -> Contents:
    """An `Ecg` has a unit; an `EcgRecord` is in mV."""
    values = np.asarray(record.signal)
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
        detail = f"{values.dtype} {values.shape}, expected numbers (leads, samples)"
        raise RecordError(type(record).__name__, "unreadable signal", detail)
    if getattr(record, "units", None) is not None:  # in mV, whatever the file had
        return Contents(values, record.sampling_rate, record.lead_names, record.units)
    signal, units = to_millivolts(type(record).__name__, values, [getattr(record, "unit", "mV")] * len(values))
    return Contents(signal, record.sampling_rate, record.lead_names, units)


def _check(path: Path, ecg: Ecg) -> None:
    """The rule of `plausibility_ecg_jepa`, with the file in its words."""
    try:
        if ecg.sampling_rate is not None:
            check_rate(ecg.sampling_rate)
        if ecg.unit is not None:
            names = ecg.lead_names or [f"number {row + 1}" for row in range(len(ecg.signal))]
            for oddity in check_plausible(ecg.signal, names):
                logger.warning(f"{path}: {oddity}")
    except ImplausibleSignalError as error:
        raise ImplausibleSignalError(error.reason, f"{path}: {error.detail}") from error


__all__ = [
    "FORMATS",
    "Ecg",
    "as_ecg",
    "describes_itself",
    "files_of",
    "has_wfdb_header",
    "is_ecg_file",
    "read_ecg",
    "recognize",
    "wfdb_record",
]
