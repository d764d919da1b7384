"""Read an ECG from a file of any format: [`read_ecg`]."""

import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from transformers.utils import logging

from ..model.signal_processing_ecg_jepa import UNKNOWN_UNIT, ImplausibleSignalError, check_plausible, check_rate, declare
from .csv_table import looks_like_csv, read_csv_ecg
from .dicom import read_dicom
from .ecg import LARGEST_FILE, MISSING_FILE, Ecg, ReadEcg, RecordError, plain_file_size, reading
from .edf import read_edf
from .ge_muse import read_muse
from .hl7_aecg import read_aecg
from .numpy_array import read_npy
from .philips import read_philips
from .scp_ecg import read_scp
from .wfdb_record import read_wfdb, signal_files
from .xml_document import parse_xml

logger = logging.get_logger(__name__)

FORMATS = "WFDB, NumPy .npy, DICOM, HL7 aECG, GE MUSE XML, Philips XML, SCP-ECG, EDF, BDF, CSV with a header"

WFDB_SUFFIXES = (".hea", ".dat", ".mat")


def _read_xml(path: Path) -> ReadEcg:
    readers = {"AnnotatedECG": read_aecg, "RestingECG": read_muse, "restingecgdata": read_philips}
    root = parse_xml(path)
    if root.tag not in readers:
        names = "AnnotatedECG (HL7 aECG), RestingECG (GE MUSE), restingecgdata (Philips)"
        raise RecordError(path, "unknown XML", f"the document is a {root.tag!r}, expected one of {names}")
    return readers[root.tag](path, root)


# The reader of a format, and the bytes of the largest file that is opened.
_READERS: dict[str, tuple[Callable[[Path], ReadEcg], int | None]] = {
    "NumPy": (read_npy, None),  # mapped into memory
    "DICOM": (read_dicom, LARGEST_FILE),
    "EDF": (read_edf, LARGEST_FILE),
    "BDF": (read_edf, LARGEST_FILE),
    "SCP-ECG": (read_scp, 16 << 20),  # it holds seconds, and Huffman codes make up to a sample of every bit
    "CSV": (read_csv_ecg, 128 << 20),  # lines and numbers take several times as much
    "XML": (_read_xml, 32 << 20),  # files of ten seconds have less than one million
}

_SUFFIXES = {".npy": "NumPy", ".dcm": "DICOM", ".edf": "EDF", ".bdf": "BDF", ".scp": "SCP-ECG", ".xml": "XML"}
_SUFFIXES |= {".csv": "CSV", ".tsv": "CSV"}  # the formats that suffixes promise

# Other files that are taken for ECGs, by their first bytes.
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
            another unit, flat and mostly missing leads.

    Returns:
        `signal` (leads, samples) float32, in mV if the unit is known, `sampling_rate` in Hz, `lead_names` as the standard spells
        them, and `unit`: "mV" or `None`. Rate and names are `None` where neither file nor caller says them.

    Raises:
        RecordError: with a reason, if the file is missing, damaged, of no known format, has no rhythm, is too large, needs a
            library that is not installed, or says something else than was declared.
        ImplausibleSignalError: for what cannot be an ECG.
        ValueError: for declarations that make no sense; both of the above are of this class.
    """
    if not isinstance(path, (str, PathLike)):
        raise ValueError(f"path must be the path of a file, but is a {type(path).__name__}.")
    path = Path(path)
    format_name = recognize(path)
    if format_name == "WFDB":
        found, units, *_ = read_wfdb(wfdb_record(path), any_gain=unit == UNKNOWN_UNIT)
    else:
        read, at_most = _READERS[format_name]
        plain_file_size(path, path, at_most=at_most)
        with reading(path, format_name):
            found, units = read(path)
    ecg = declare(path, found, sampling_rate, lead_names, unit, units)
    try:
        if check_plausibility and ecg.sampling_rate is not None:
            check_rate(ecg.sampling_rate)
        if check_plausibility and ecg.unit is not None:
            names = ecg.lead_names or [f"number {row + 1}" for row in range(len(ecg.signal))]
            for oddity in check_plausible(ecg.signal, names):
                logger.warning(f"{path}: {oddity}")
    except ImplausibleSignalError as error:
        raise ImplausibleSignalError(error.reason, f"{path}: {error.detail}") from error
    return ecg


def wfdb_record(path: Path) -> Path:
    """Return the WFDB record that a file belongs to: the same without one of WFDB's extensions."""
    return path.with_suffix("") if path.suffix in WFDB_SUFFIXES else path


def has_wfdb_header(path: Path) -> bool:
    """Return whether this names a WFDB record whose header is there."""
    record = wfdb_record(path)
    return os.path.exists(f"{record}.hea") if record.name else False


def recognize(path: Path) -> str:
    """Return the name of the format of a file, by its content; of a WFDB record "WFDB". Raises `RecordError` if there is none."""
    if has_wfdb_header(path) and (path.suffix in WFDB_SUFFIXES or not os.path.isfile(path)):
        return "WFDB"
    try:
        plain_file_size(path, path, at_most=None)
        with path.open("rb") as file:
            beginning = file.read(1 << 16)
    except RecordError as error:
        if error.reason != MISSING_FILE:
            raise
        if path.suffix in WFDB_SUFFIXES:
            return "WFDB"  # whose reader says what is missing
        detail = f"{error.detail}, and no WFDB record of that name: no file {path.name}.hea"
        raise RecordError(path, MISSING_FILE, detail) from None
    except OSError as error:
        raise RecordError(path, "unreadable file", str(error)) from error
    found = _by_content(beginning)
    if found is None and not has_wfdb_header(path):
        raise _unknown(path, beginning)
    expected = _SUFFIXES.get(path.suffix.lower(), found)
    if found and expected != found:
        logger.warning(f"{path} is named as {expected}, but is {found}, and read as such.")
    return found or "WFDB"


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
    if text.lstrip().startswith("<"):
        return "XML"
    return "CSV" if looks_like_csv(text.partition("\n")[0]) else None


def _as_text(beginning: bytes) -> str:
    """Return the beginning of a file as text, an empty one for binary data. Some files end lines with carriage returns alone."""
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = beginning.decode("utf-16", errors="ignore").lstrip("\ufeff")
    else:
        text = "" if b"\0" in beginning else beginning.decode("utf-8-sig", errors="replace")
    return text.replace("\r", "\n")


def _unknown(path: Path, beginning: bytes) -> RecordError:
    """Return what is wrong with a file of no known format, in the terms of the format that its name promises."""
    expected = _SUFFIXES.get(path.suffix.lower())
    reason = "unknown format"
    if not beginning:
        detail = "the file is empty"
    elif meaning := next((meaning for magic, meaning in _OTHERS.items() if beginning.startswith(magic)), None):
        detail = f"it is {meaning}; formats that are read: {FORMATS}"
    elif expected == "CSV":
        reason, first = "no header", (_as_text(beginning) or "binary data").partition("\n")[0].strip()[:60]
        detail = f"its first row is {first!r}, expected a header with the names of leads, such as I,II,V1 or I (mV),II (mV)"
    elif path.suffix in WFDB_SUFFIXES:
        reason, detail = "missing header", f"no file {wfdb_record(path).name}.hea beside it"
    else:
        named = f"it is named {path.suffix}, but is no {expected} file" if expected else "its content is that of no known format"
        detail = f"{named}; formats that are read: {FORMATS}"
    return RecordError(path, reason, detail)


def is_ecg_file(path: Path) -> bool:
    """
    Return whether a file is listed as an ECG: by its suffix, so that a damaged one gets its reason when it is read; a DICOM
    object, whose name often has no suffix, by its content. WFDB records are listed by `data.raw_files.record_files`.
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
    """Return the files that [`read_ecg`] reads for this path."""
    path = Path(path)
    is_record = has_wfdb_header(path) and (path.suffix in WFDB_SUFFIXES or not os.path.isfile(path))
    if not is_record and (os.path.isfile(path) or path.suffix.lower() in _SUFFIXES):
        return [str(path)]
    record = wfdb_record(path)
    header = record.with_name(f"{record.name}.hea")
    names = signal_files(header) or [f"{record.name}.dat", f"{record.name}.mat"]
    return [str(header), *(str(record.parent / name) for name in names)]
