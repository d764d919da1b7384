"""
WFDB records -> signals in mV.

Records of one segment in format 16, one sample per frame, which ECG databases consist of, are read directly: wfdb takes 5 to
16 ms to parse a header, the strict parser here 0.05 ms. It declines whatever it is not sure to read as wfdb does, and leaves
that to wfdb; the tests hold the two against each other.
"""

import re
import stat
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..model.signal_processing_ecg_jepa import MAX_VALUES, STANDARD_LEADS_LOWER, unit_factor

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

_FIELDS_BEFORE_NAME = 8  # of a line with all of them

# Bytes per sample of the formats in which every sample takes a whole number of bytes.
_SAMPLE_BYTES = {"8": 1, "80": 1, "16": 2, "61": 2, "160": 2, "24": 3, "32": 4}

_MISSING_SAMPLE = np.iinfo(np.int16).min  # WFDB's code for "not recorded" in format 16

_HEADER_AT_MOST = 1 << 20  # bytes; real ones have some thousand


class RecordError(ValueError):
    """A record that cannot be used; `reason` says why in a form that can be counted."""

    def __init__(self, record: str | Path, reason: str, detail: str = ""):
        super().__init__(record, reason, detail)
        self.record, self.reason, self.detail = str(record), reason, detail

    def __str__(self) -> str:
        return f"{self.record}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class EcgRecord:
    """A signal as read from its file: (leads, samples) in mV, NaN where nothing was recorded."""

    signal: np.ndarray
    sampling_rate: float
    lead_names: list[str]
    comments: list[str] = field(default_factory=list)  # of a WFDB header, without the "#"
    num_bad_checksums: int = 0
    units: list[str] | None = None  # of the leads, as the file has them


@dataclass(frozen=True)
class WfdbSignal:
    """A signal line: `(sample - baseline) / gain` is the value in `unit`."""

    file: str
    offset: int  # bytes before the first sample
    gain: float
    baseline: int
    unit: str
    checksum: int  # sum of the samples, modulo 65536
    name: str


@dataclass(frozen=True)
class WfdbHeader:
    """What a header says."""

    sampling_rate: float  # Hz
    num_samples: int  # per signal
    signals: list[WfdbSignal]
    comments: list[str]


def split_header(text: str) -> tuple[list[str], list[str]]:
    """Lines of a header that are not empty, apart from comments, and the comments without their `#`."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    comments = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return [line for line in lines if not line.startswith("#")], comments


def signal_files(header: str | Path) -> list[str]:
    """Names of the files that a header says the signals are in; none if it cannot be read."""
    try:
        if plain_file_size(Path(header), Path(header), "missing header", at_most=_HEADER_AT_MOST) == 0:
            return []
        lines, _ = split_header(Path(header).read_text(errors="replace"))
    except (OSError, ValueError):
        return []
    return list(dict.fromkeys(line.split()[0] for line in lines[1:]))


def parse_header(text: str) -> WfdbHeader | None:
    """The header, or `None` for anything but the plain kind described above."""
    lines, comments = split_header(text)
    record = _RECORD_LINE.fullmatch(lines[0]) if lines else None
    if record is None or len(lines) != int(record["leads"]) + 1 or not _is_date(record):
        return None
    signals = []
    for line in lines[1:]:
        fields = _SIGNAL_LINE.fullmatch(line)
        if fields is None or not float(fields["gain"]):
            return None
        signals.append(
            WfdbSignal(
                file=fields["file"],
                offset=int(fields["offset"] or 0),
                gain=float(fields["gain"]),
                baseline=int(fields["baseline"] or fields["adc_zero"]),
                unit=fields["unit"] or "mV",
                checksum=int(fields["checksum"]),
                name=fields["name"],
            )
        )
    header = WfdbHeader(float(record["rate"]), int(record["samples"]), signals, comments)
    return header if header.sampling_rate and header.num_samples and signals and _files_are_contiguous(signals) else None


def _is_date(record: re.Match[str]) -> bool:
    """Whether time and date, where given, exist: wfdb refuses the others."""
    try:
        for name, form in (("time", "%H:%M:%S"), ("date", "%d/%m/%Y")):
            if record[name]:
                datetime.strptime(record[name], form)
    except ValueError:
        return False
    return True


def _files_are_contiguous(signals: list[WfdbSignal]) -> bool:
    """Whether signals of a file stand together and agree on where its samples begin."""
    files = [(signal.file, signal.offset) for signal in signals]
    runs = [file for index, file in enumerate(files) if index == 0 or file != files[index - 1]]
    return len({name for name, _ in runs}) == len(runs)


def read_wfdb(path: str | Path, any_gain: bool = False) -> EcgRecord:
    """
    Read a WFDB record.

    Records of one segment in format 16, which all ECG databases here consist of, are read directly; any other through wfdb.
    Both give the same numbers.

    Args:
        path: the record, with or without `.hea`.
        any_gain: whether leads may have any, for amplitude-free use. A gain of 0, or none, says that the amplitude is not known
            (header(5)), and wfdb takes 200 units per mV for it in silence. By default, one of the 12 standard leads, or one
            without a name, must have a gain, and others without are NaN throughout.

    Returns:
        The physical signal in mV, float32 (leads, samples), with NaN where the file marks samples as missing, the rate in
        Hz, leads in the order of the header, and its comments. With leads of any gain, `units` is `None`.

    Raises:
        RecordError: if a file is missing, truncated or longer than its header says, cannot be parsed, has a unit that is no
            voltage, or a lead without a gain.
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix == ".hea" else path
    header_file = path.parent / f"{path.name}.hea"
    plain_file_size(path, header_file, "missing header", _HEADER_AT_MOST)
    content = header_file.read_bytes()
    # wfdb drops what is not ASCII, so that a gain in uV with a Greek letter would be read as V.
    for line in content.split(b"\n"):
        if not line.isascii() and not line.lstrip().startswith(b"#"):
            raise RecordError(path, "unreadable header", f"characters beyond ASCII: {line.decode(errors='replace').strip()!r}")
    text = content.decode("ascii", errors="ignore")
    header = parse_header(text)
    if header is not None:
        return _read_format_16(path, header)
    lines, comments = split_header(text)
    uncalibrated = _without_gain(path, lines, any_gain)
    read = _read_through_wfdb(path, comments)
    if uncalibrated and any_gain:
        return replace(read, units=None)
    read.signal[uncalibrated] = np.nan
    return read


def _without_gain(path: Path, lines: list[str], any_gain: bool) -> list[int]:
    """Rows whose line in the header has no gain. Raises `RecordError` for those that must have one."""
    of_signals = lines[1:] if lines and "/" not in lines[0].split()[0] else []  # lines of segments have no gain
    rows = [row for row, line in enumerate(of_signals) if _SIGNAL_WITHOUT_GAIN.fullmatch(line)]
    for row in rows if not any_gain else ():
        fields = of_signals[row].split(maxsplit=_FIELDS_BEFORE_NAME)
        if len(fields) <= _FIELDS_BEFORE_NAME or fields[-1].strip().lower() in STANDARD_LEADS_LOWER:
            detail = (
                f"{of_signals[row]!r} has no gain: write the units per mV there, as in 1000/mV; amplitude-free use does without "
                'one (unit="unknown", prepare --amplitude_free)'
            )
            raise RecordError(path, "amplitude not known", detail)
    return rows


def _read_format_16(path: Path, header: WfdbHeader) -> EcgRecord:
    files = [(file, list(signals)) for file, signals in groupby(header.signals, key=lambda signal: signal.file)]
    for name, signals in files:
        size = plain_file_size(path, _signal_file(path, name), "missing signal file")
        _check_size(path, name, size, signals[0].offset + 2 * len(signals) * header.num_samples)
    check_record_size(path, len(header.signals), header.num_samples)
    leads = []
    num_bad_checksums = 0
    for name, signals in files:
        samples = np.frombuffer(_signal_file(path, name).read_bytes(), "<i2", offset=signals[0].offset).reshape(
            header.num_samples, len(signals)
        )
        digital = np.ascontiguousarray(samples.T)
        checksums = digital.sum(axis=1, dtype=np.int64)
        for description, row, checksum in zip(signals, digital, checksums, strict=True):
            # In float64 and in wfdb's order, so that the result is the same to the last bit.
            physical = row.astype(np.float64)
            physical -= description.baseline
            physical /= description.gain
            physical *= voltage_factor(path, description.unit)
            physical[row == _MISSING_SAMPLE] = np.nan
            leads.append(physical.astype(np.float32))
            num_bad_checksums += int((checksum - description.checksum) % 65536 != 0)
    names = [description.name for description in header.signals]
    units = [description.unit for description in header.signals]
    return EcgRecord(np.stack(leads), header.sampling_rate, names, header.comments, num_bad_checksums, units)


def voltage_factor(path: Path, unit: str) -> float:
    """Millivolts per `unit` of the record at `path`. Raises `RecordError` if it is no voltage."""
    try:
        return unit_factor(unit)
    except ValueError as error:
        raise RecordError(path, "unknown unit", str(error)) from error


def plain_file_size(path: Path, file: Path, missing: str, at_most: int | None = None) -> int:
    """
    Bytes of a file of the record `path`, before any of it is read.

    Raises:
        RecordError: with reason `missing` if it is not there, and if it is no plain file (a folder, pipe or device, which could
            be read for ever), cannot be looked at, or has more than `at_most` bytes.
    """
    try:
        found = file.stat()
    except FileNotFoundError:
        raise RecordError(path, missing, f"no file {file.name}") from None
    except (OSError, ValueError) as error:  # no permission, links in a circle, too long a name; NUL in a name
        raise RecordError(path, "unreadable file", str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise RecordError(path, "no plain file", f"{file.name} is a folder, pipe or device")
    if at_most is not None and found.st_size > at_most:
        raise RecordError(path, "too large", f"{file.name} has {found.st_size:,} bytes, at most {at_most:,} are expected")
    return found.st_size


def check_record_size(path: Path, num_leads: int, num_samples: int) -> None:
    """Raise `RecordError` for a record that would take more memory than any that this package is for."""
    if num_leads * num_samples > MAX_VALUES:
        detail = (
            f"{num_leads} leads of {num_samples:,} samples, at most {MAX_VALUES:,} values are read: cut it into shorter records"
        )
        raise RecordError(path, "too large", detail)


def _signal_file(path: Path, name: str) -> Path:
    """Where a signal file is that a header names: beside it."""
    if Path(name).name != name:
        raise RecordError(path, "signal file elsewhere", f"the header names {name}, expected a file in its own folder")
    return path.parent / name


def _check_size(path: Path, name: str, actual: int, expected: int) -> None:
    if actual != expected:
        reason = "truncated signal file" if actual < expected else "wrong length"
        raise RecordError(path, reason, f"{name} has {actual} bytes, its header says {expected}")


def _read_through_wfdb(path: Path, comments: list[str]) -> EcgRecord:
    try:
        import wfdb  # here, because most records do without it, and it takes a second
    except ImportError:
        detail = "this record is not of the plain kind: install wfdb to read it"
        raise RecordError(path, "wfdb is missing", detail) from None
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
    factors = np.array([voltage_factor(path, unit) for unit in header.units])
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
    return EcgRecord(signal, float(header.fs), list(header.sig_name), comments, num_bad_checksums, list(header.units))


def _check_signal_files(path: Path, header: Any) -> None:
    """
    Signal files must be there and as long as the header says; wfdb reads the beginning of a longer one in silence.
    """
    for name in dict.fromkeys(header.file_name):
        signals = [index for index, other in enumerate(header.file_name) if other == name]
        is_told = header.sig_len is not None and all(header.fmt[index] in _SAMPLE_BYTES for index in signals)
        # Samples take at most four bytes where the header tells how many there are, and else, in packed formats, one or more.
        at_most = (4 if is_told else 1) * MAX_VALUES
        size = plain_file_size(path, _signal_file(path, name), "missing signal file", at_most)
        if not is_told:
            continue  # a length that is not stated, and packed formats: left to wfdb
        frame = sum(_SAMPLE_BYTES[header.fmt[index]] * (header.samps_per_frame[index] or 1) for index in signals)
        _check_size(path, name, size, (header.byte_offset[signals[0]] or 0) + frame * header.sig_len)
    check_record_size(path, header.n_sig, header.sig_len or 0)


__all__ = [
    "EcgRecord",
    "RecordError",
    "check_record_size",
    "parse_header",
    "plain_file_size",
    "read_wfdb",
    "signal_files",
    "voltage_factor",
]
