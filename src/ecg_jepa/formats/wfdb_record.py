"""
WFDB records. Those of one segment in format 16, one sample per frame, which ECG databases consist of, are read directly: wfdb
parses a header in 5 to 16 ms, the strict parser here in 0.05 ms. Others are left to wfdb; tests hold the two against each other.
"""

import re
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..model.signal_processing_ecg_jepa import MAX_VALUES, STANDARD_LEADS_LOWER, Ecg, RecordError, to_millivolts
from .ecg import check_length, check_record_size, plain_file_size, reading

_RECORD_LINE = re.compile(
    r"[-\w]+ [ \t]+ (?P<leads>\d{1,9}) [ \t]+ (?P<rate>\d+(?:\.\d+)?) [ \t]+ (?P<samples>\d{1,12})"
    r"(?: [ \t]+ (?P<time>\d{1,2}:\d{2}:\d{2}) (?P<fraction>\.\d{1,6})? (?: [ \t]+ (?P<date>\d{1,2}/\d{1,2}/\d{4}) )? )?",
    re.VERBOSE,
)

_SIGNAL_LINE = re.compile(
    r"(?P<file>[-\w]+(?:\.\w+)?) [ \t]+ 16(?:x1)?(?:\+(?P<offset>\d{1,12}))?"
    r"[ \t]+ (?P<gain>\d+(?:\.\d*)?) (?:\((?P<baseline>-?\d{1,12})\))? (?:/(?P<unit>[\w^\-?%/]+))?"
    r"[ \t]+ \d+ [ \t]+ (?P<adc_zero>-?\d{1,12}) [ \t]+ -?\d+ [ \t]+ (?P<checksum>-?\d{1,12}) [ \t]+ \d+"
    r"[ \t]+ (?P<name>\S[^\t\n\r\f\v]*)",
    re.VERBOSE,
)

# File and format, and then nothing, or a gain of 0 or of no digits.
_SIGNAL_WITHOUT_GAIN = re.compile(r"\S+[ \t]+\d\S*(?:[ \t]+(?=\S)[-+]?0*\.?0*(?:[eE]\S*)?(?:[(/]\S*)?(?:[ \t].*)?)?")

# Bytes per sample of the formats in which every sample takes a whole number of bytes.
_SAMPLE_BYTES = {"8": 1, "80": 1, "16": 2, "61": 2, "160": 2, "24": 3, "32": 4}


class WfdbRecord(NamedTuple):
    """A record and what else its header says."""

    ecg: Ecg  # in mV; with leads of unknown gain, of any unit
    units: list[str] | None  # of the leads, as the header has them; `None` for leads of unknown gain
    comments: list[str]  # without their `#`
    num_bad_checksums: int  # signals that contradict the checksum in the header


def read_wfdb(path: Path, any_gain: bool = False) -> WfdbRecord:
    """
    Read a WFDB record, named with or without `.hea`; samples that the file marks as missing become NaN.

    A gain of 0, or none, says that the amplitude is not known (header(5)), and wfdb silently takes 200 units per mV. The 12
    standard leads and leads without a name must have a gain, others without one are NaN throughout; with `any_gain`, for
    amplitude-free use, all may have none. Raises `RecordError` for that, and if a file is missing, too short, too long or cannot
    be parsed, or has a unit that is no voltage.
    """
    path = path.with_suffix("") if path.suffix == ".hea" else path
    content = _read_header(path.parent / f"{path.name}.hea", path)
    # wfdb drops what is not ASCII, so that a gain in uV with a Greek letter would be read as V.
    for line in content.split(b"\n"):
        if not line.isascii() and not line.lstrip().startswith(b"#"):
            raise RecordError(path, "unreadable header", f"characters beyond ASCII: {line.decode(errors='replace').strip()!r}")
    text = content.decode("ascii", errors="ignore")
    lines, comments = _split_header(text)
    if header := parse_header(text):
        return _read_format_16(path, *header, comments)
    without_gain = _rows_without_gain(path, lines, any_gain)
    record = _read_through_wfdb(path, comments)
    if without_gain and any_gain:
        return record._replace(ecg=record.ecg._replace(unit=None), units=None)
    record.ecg.signal[without_gain] = np.nan
    return record


def parse_header(text: str) -> tuple[re.Match[str], list[re.Match[str]]] | None:
    """Parse the record line and the signal lines of a header; return `None` for anything but the plain kind described above."""
    lines, _ = _split_header(text)
    record = _RECORD_LINE.fullmatch(lines[0]) if lines else None
    signals = [match for match in map(_SIGNAL_LINE.fullmatch, lines[1:]) if match is not None and float(match["gain"])]
    if record is None or not len(signals) == len(lines) - 1 == int(record["leads"]) > 0:
        return None
    try:  # wfdb refuses times and dates that do not exist
        datetime.strptime(f"{record['time'] or '0:0:0'} {record['date'] or '1/1/2000'}", "%H:%M:%S %d/%m/%Y")
    except ValueError:
        return None
    # Signals of one file must stand together and begin at one offset.
    files = [file for (file, _), _ in groupby(signals, key=lambda signal: (signal["file"], signal["offset"]))]
    is_plain = float(record["rate"]) and int(record["samples"]) and len(set(files)) == len(files)
    return (record, signals) if is_plain else None


def signal_files(header: Path) -> list[str]:
    """Return the names of the signal files in a header; none if it cannot be read."""
    try:
        lines, _ = _split_header(_read_header(header, header).decode(errors="replace"))
    except (OSError, ValueError):
        return []
    return list(dict.fromkeys(line.split()[0] for line in lines[1:]))


def _read_header(header: Path, record: Path) -> bytes:
    plain_file_size(record, header, "missing header", at_most=1 << 20)  # real ones have some thousand bytes
    return header.read_bytes()


def _split_header(text: str) -> tuple[list[str], list[str]]:
    """Return the lines of a header that are not empty, and the comments without their `#`."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    comments = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return [line for line in lines if not line.startswith("#")], comments


def _rows_without_gain(path: Path, lines: list[str], any_gain: bool) -> list[int]:
    """Return the rows whose line in the header has no gain. Raises `RecordError` for those that must have one."""
    signal_lines = lines[1:] if lines and "/" not in lines[0].split()[0] else []  # lines of segments have no gain
    rows = [row for row, line in enumerate(signal_lines) if _SIGNAL_WITHOUT_GAIN.fullmatch(line)]
    for row in rows if not any_gain else ():
        fields = signal_lines[row].split(maxsplit=8)  # of a complete line, the ninth is the name
        if len(fields) < 9 or fields[-1].strip().lower() in STANDARD_LEADS_LOWER:
            advice = 'amplitude-free use does without one (unit="unknown", prepare --amplitude_free)'
            detail = f"{signal_lines[row]!r} has no gain: write the units per mV there, as in 1000/mV; {advice}"
            raise RecordError(path, "amplitude not known", detail)
    return rows


def _signal_file(path: Path, name: str, expected: int | None, at_most: int | None = None) -> Path:
    """Return the path of a signal file in a header. Raises `RecordError` unless it is beside it and of the expected bytes."""
    if Path(name).name != name:
        raise RecordError(path, "signal file elsewhere", f"the header names {name}, expected a file in its own folder")
    size = plain_file_size(path, path.parent / name, at_most=at_most)
    if expected is not None:
        check_length(path, name, size, expected)
    return path.parent / name


def _read_format_16(path: Path, record: re.Match[str], signals: list[re.Match[str]], comments: list[str]) -> WfdbRecord:
    num_samples = int(record["samples"])
    files = []
    for name, group in groupby(signals, key=lambda signal: signal["file"]):
        lines = list(group)
        offset = int(lines[0]["offset"] or 0)
        files.append((_signal_file(path, name, offset + 2 * len(lines) * num_samples), offset))
    check_record_size(path, len(signals), num_samples)
    rows = [np.frombuffer(file.read_bytes(), "<i2", offset=offset).reshape(num_samples, -1).T for file, offset in files]
    digital = np.ascontiguousarray(np.concatenate(rows))
    checksums = digital.sum(axis=1, dtype=np.int64) - [int(signal["checksum"]) for signal in signals]
    # In float64 and in wfdb's order, so that the result is the same to the last bit.
    physical = digital - np.array([float(signal["baseline"] or signal["adc_zero"]) for signal in signals])[:, None]
    physical /= np.array([float(signal["gain"]) for signal in signals])[:, None]
    physical, units = to_millivolts(path, physical, [signal["unit"] or "mV" for signal in signals])
    physical[digital == np.iinfo(np.int16).min] = np.nan  # WFDB's code for "not recorded" in format 16
    ecg = Ecg(physical.astype(np.float32), float(record["rate"]), [signal["name"] for signal in signals], "mV")
    return WfdbRecord(ecg, units, comments, int((checksums % 65536 != 0).sum()))


def _read_through_wfdb(path: Path, comments: list[str]) -> WfdbRecord:
    with reading(path, "header"):
        import wfdb  # here, because most records do without it: it takes a second

        header = wfdb.rdheader(str(path))
    if isinstance(header, wfdb.MultiRecord) or not header.n_sig or not header.fs or header.sig_len == 0:
        raise RecordError(path, "unreadable header", "expected one segment with signals, their length and rate")
    if header.file_name is None or len(header.file_name) != header.n_sig:
        lines = len(header.file_name or [])
        raise RecordError(path, "unreadable header", f"{lines} signal lines, where the first line says {header.n_sig}")
    # wfdb reads the beginning of a longer file in silence.
    for name in dict.fromkeys(header.file_name):
        signals = [index for index, other in enumerate(header.file_name) if other == name]
        expected = None
        if header.sig_len is not None and all(header.fmt[index] in _SAMPLE_BYTES for index in signals):
            frame = sum(_SAMPLE_BYTES[header.fmt[index]] * (header.samps_per_frame[index] or 1) for index in signals)
            expected = (header.byte_offset[signals[0]] or 0) + frame * header.sig_len
        # Samples take at most four bytes where their number is stated, and else, in packed formats, one or more.
        _signal_file(path, name, expected, (1 if expected is None else 4) * MAX_VALUES)
    check_record_size(path, header.n_sig, header.sig_len or 0)
    with reading(path, "signal"):
        record = wfdb.rdrecord(str(path), physical=False)
        num_bad_checksums = sum(
            stated is not None and per_frame in (None, 1) and (stated - actual) % 65536 != 0
            for stated, actual, per_frame in zip(record.checksum, record.calc_checksum(), header.samps_per_frame, strict=True)
        )
        physical = record.dac()
    if header.sig_len is not None and physical.shape != (header.sig_len, header.n_sig):
        raise RecordError(path, "wrong length", f"{physical.shape[0]} samples, header says {header.sig_len}")
    signal, units = to_millivolts(path, physical.T, header.units)
    ecg = Ecg(np.ascontiguousarray(signal, dtype=np.float32), float(header.fs), list(header.sig_name), "mV")
    return WfdbRecord(ecg, units, comments, num_bad_checksums)
