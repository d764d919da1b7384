"""NumPy, DICOM, EDF/BDF and SCP-ECG files -> what they hold; see docs/formats.md."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from ..model.signal_processing_ecg_jepa import MAX_VALUES
from .ecg import RATE_TOLERANCE, Contents, count_standard, is_lead, lead_name, load_library, to_millivolts, whole_rate
from .wfdb_record import RecordError, check_record_size, plain_file_size

logger = logging.get_logger(__name__)

MISSING_FILE = "missing signal file"

# Bytes; real files of 12 leads over a day, in the widest of the formats, stay below.
_AT_MOST = 8 * MAX_VALUES
_SCP_AT_MOST = 16 << 20  # an SCP-ECG holds seconds; and Huffman codes make up to a sample of every bit

# Codes of leads in DICOM: the last number of "2:1" (MDC) and of "5.6.3-9-1" (SCPECG) is that of ISO 11073-91064.
_CODED_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "V7")
_CODED_LATER_LEADS = {61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 66: "V8", 67: "V9"}

# What stands in the label of a group that is no rhythm, but one beat made of many.
_ONE_BEAT = ("median", "average", "representative", "template", "beat")


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Whatever a library runs into in a damaged file, as `RecordError`."""
    try:
        yield
    except RecordError:
        raise
    except Exception as error:  # libraries raise what their parsing happens to run into
        raise RecordError(path, f"unreadable {what}", f"{type(error).__name__}: {error}") from error


def read_npy(path: Path) -> Contents:
    """An array (leads, samples) saved with `numpy.save`, which says nothing of itself. Raises `RecordError`."""
    plain_file_size(path, path, MISSING_FILE)
    with reading(path, "signal"):
        # Mapped, so that no memory is taken for what the header says, but the file does not hold.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
        raise RecordError(path, "unreadable signal", f"{values.dtype} {values.shape}, expected numbers (leads, samples)")
    check_record_size(path, *values.shape)
    return Contents(np.array(values, dtype=np.float64))


def read_dicom(path: Path) -> Contents:
    """
    The rhythm of a DICOM object with waveforms: of its multiplex groups that are no median beats, the one with the most samples
    of standard leads. Samples that the file marks as padding are NaN.

    Raises:
        RecordError: if the file cannot be read, has no waveforms, or none but median beats.
    """
    plain_file_size(path, path, MISSING_FILE, _AT_MOST)
    pydicom = load_library(path, "pydicom", "DICOM")
    with reading(path, "DICOM"):
        deflated = pydicom.uid.DeflatedExplicitVRLittleEndian
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == deflated:
            raise RecordError(path, "compressed", "a deflated DICOM object could grow without bounds: save it inflated")
        dataset = pydicom.dcmread(path)
        groups = list(dataset.get("WaveformSequence", []))
        if not groups:
            kind = getattr(dataset.get("SOPClassUID", "unknown"), "name", "unknown")
            raise RecordError(path, "no waveform", f"a DICOM object of the kind {kind}, expected an ECG waveform")
        index = _rhythm_group(path, groups)
        return _read_group(path, load_library(path, "pydicom.waveforms", "DICOM"), dataset, index)


def _rhythm_group(path: Path, groups: list[Any]) -> int:
    """Number of the group to read; what is left out is told."""
    labels = [str(group.get("MultiplexGroupLabel") or "").strip() for group in groups]
    rhythms = {}
    for index, group in enumerate(groups):
        is_rhythm = "rhythm" in labels[index].lower()
        one_beat = any(word in labels[index].lower() for word in _ONE_BEAT)
        derived = str(group.get("WaveformOriginality", "ORIGINAL")).upper() == "DERIVED"
        if is_rhythm or not (one_beat or derived):
            names = [_channel_name(channel) or "" for channel in group.get("ChannelDefinitionSequence", [])]
            samples = int(group.NumberOfWaveformSamples)
            rhythms[index] = (count_standard(names) * samples, len(names) * samples)
    if not rhythms:
        described = ", ".join(f"{label or 'without label'!r}" for label in labels)
        detail = f"its waveforms are {described}, all median beats or derived, expected a rhythm"
        raise RecordError(path, "no rhythm", detail)
    chosen = max(rhythms, key=lambda index: (rhythms[index], -index))
    if others := [labels[index] or f"number {index + 1}" for index in rhythms if index != chosen]:
        logger.warning(f"{path}: of several rhythms, {labels[chosen] or chosen + 1} is read, not {', '.join(others)}.")
    return chosen


def _read_group(path: Path, handlers: Any, dataset: Any, index: int) -> Contents:
    group = dataset.WaveformSequence[index]
    channels = list(group.ChannelDefinitionSequence)
    num_channels, num_samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    if num_channels != len(channels) or num_channels < 1 or num_samples < 1:
        detail = f"{len(channels)} channels are described, of {num_channels} with {num_samples} samples each"
        raise RecordError(path, "unreadable DICOM", detail)
    check_record_size(path, num_channels, num_samples)
    values = handlers.numpy_handler.multiplex_array(dataset, index, as_raw=False).T
    if not np.isfinite(values).all():
        raise RecordError(path, "unreadable DICOM", "sensitivities or baselines are not finite")
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        raw = handlers.numpy_handler.multiplex_array(dataset, index, as_raw=True).T
        code = np.frombuffer(padding, raw.dtype)[0] if isinstance(padding, bytes) else padding
        values[raw == code] = np.nan
    signal, units = to_millivolts(path, values, [_channel_unit(channel) for channel in channels])
    names = [_channel_name(channel) for channel in channels]
    said = [name for name in names if name]
    if said and len(said) < len(names):
        raise RecordError(path, "unnamed leads", f"{len(names) - len(said)} of {len(names)} channels say no lead")
    return Contents(signal, float(group.SamplingFrequency), said or None, units)


def _channel_name(channel: Any) -> str | None:
    """A lead by its code, by what the code means, or by its label; `None` if it has none of these."""
    source = next(iter(channel.get("ChannelSourceSequence", [])), None)
    if source is not None:
        if str(source.get("CodingSchemeDesignator", "")) in ("MDC", "SCPECG"):
            number = str(source.get("CodeValue", "")).replace("-", ":").rpartition(":")[2]
            if number.isdecimal() and 1 <= int(number) <= len(_CODED_LEADS):
                return _CODED_LEADS[int(number) - 1]
            if number.isdecimal() and int(number) in _CODED_LATER_LEADS:
                return _CODED_LATER_LEADS[int(number)]
        for text in (source.get("CodeMeaning"), source.get("CodeValue")):
            if text and is_lead(lead_name(str(text))):
                return lead_name(str(text))
    label = str(channel.get("ChannelLabel") or (source.get("CodeMeaning") if source is not None else "") or "")
    return lead_name(label) or None


def _channel_unit(channel: Any) -> str | None:
    """The unit of a channel; `None` if its sensitivity is not given, so that its values are raw numbers."""
    units = next(iter(channel.get("ChannelSensitivityUnitsSequence", [])), None)
    if channel.get("ChannelSensitivity") is None or units is None:
        return None
    return str(units.get("CodeValue") or "")


def read_edf(path: Path) -> Contents:
    """
    The ECG channels of an EDF or BDF file: those labelled as leads, or if none is, those labelled ECG or EKG, or all.

    Raises:
        RecordError: if the file cannot be read, or these channels differ in rate.
    """
    plain_file_size(path, path, MISSING_FILE, _AT_MOST)
    pyedflib = load_library(path, "pyedflib", "EDF")
    _check_edf_size(path)
    with reading(path, "EDF"), pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS) as file:
        labels = [label.strip() for label in file.getSignalLabels()]
        channels = _ecg_channels(path, labels)
        rates = {float(file.getSampleFrequency(channel)) for channel in channels}
        counts = {int(file.getNSamples()[channel]) for channel in channels}
        if len(rates) > 1 or len(counts) > 1:
            named = ", ".join(f"{labels[channel]} {file.getSampleFrequency(channel):g} Hz" for channel in channels)
            raise RecordError(path, "several rates", f"{named}: save the leads of the ECG at one rate in a file of their own")
        check_record_size(path, len(channels), counts.pop())
        values = np.stack([file.readSignal(channel) for channel in channels])
        said = [file.getPhysicalDimension(channel).strip() for channel in channels]
        signal, units = to_millivolts(path, values, said)
        return Contents(signal, rates.pop(), [labels[channel] for channel in channels], units)


def _check_edf_size(path: Path) -> None:
    """Refuse a file that is not as long as its header says, which pyedflib prints instead of saying."""
    with reading(path, "EDF"), path.open("rb") as file:
        beginning = file.read(256)
        is_bdf = beginning[0] == 0xFF
        num_signals, num_records = int(beginning[252:256]), int(beginning[236:244])
        if num_signals < 1 or num_records < 1:
            detail = f"{num_signals} signals in {num_records} data records: was the recording never closed?"
            raise RecordError(path, "unreadable EDF", detail)
        # Of each signal, 216 bytes of other fields stand before its number of samples.
        counts = file.read(256 * num_signals)[216 * num_signals : 224 * num_signals]
        samples = sum(int(counts[8 * signal : 8 * signal + 8]) for signal in range(num_signals))
        expected = 256 * (1 + num_signals) + num_records * samples * (3 if is_bdf else 2)
        size = path.stat().st_size
        if size != expected:
            reason = "truncated signal file" if size < expected else "wrong length"
            raise RecordError(path, reason, f"the file has {size:,} bytes, its header says {expected:,}")


def _ecg_channels(path: Path, labels: list[str]) -> list[int]:
    if not labels:
        raise RecordError(path, "no signal", "an EDF file without channels")
    leads = [number for number, label in enumerate(labels) if is_lead(lead_name(label))]
    ecgs = [number for number, label in enumerate(labels) if label.lower().startswith(("ecg", "ekg"))]
    chosen = leads or ecgs or list(range(len(labels)))
    if others := [label for number, label in enumerate(labels) if number not in chosen]:
        logger.warning(f"{path}: channels {', '.join(others)} are no leads of the ECG and are left out.")
    return chosen


def read_scp(path: Path) -> Contents:
    """
    The rhythm (section 6) of an SCP-ECG file.

    Raises:
        RecordError: if the file cannot be read or contradicts its checksums, leads are not recorded at the same time, or it is
            compressed in a way that loses samples.
    """
    plain_file_size(path, path, MISSING_FILE, _SCP_AT_MOST)
    scp_ecg = load_library(path, "ecgdatakit.parsing.parsers.scp_ecg", "SCP-ECG")
    with reading(path, "SCP-ECG"):
        _check_scp_size(path, path.read_bytes())
        record = scp_ecg.SCPECGParser().parse(path)
        if not record.raw_metadata["checksum_valid"]:
            raise RecordError(path, "bad checksum", "the file is not what was written: it contradicts its own checksums")
        if len({(len(lead.samples), lead.annotations.get("start_sample")) for lead in record.leads}) != 1:
            raise RecordError(path, "several lengths", "its leads were not recorded at the same time, or not for as long")
        rate = 1e6 / record.raw_metadata["rhythm_sample_interval_us"]
        values = np.stack([lead.samples * lead.resolution for lead in record.leads])
        signal, units = to_millivolts(path, values, [lead.resolution_unit for lead in record.leads])
        # Intervals are whole µs: 3,333 are written for 300 Hz.
        return Contents(signal, whole_rate(rate, RATE_TOLERANCE), [lead.label for lead in record.leads], units)


def _check_scp_size(path: Path, content: bytes) -> None:
    """Refuse more samples than bits, before room is made for them: their numbers stand in section 3."""
    length = struct.unpack_from("<I", content, 10)[0]
    for pointer in range(22, min(6 + length, len(content)) - 9, 10):
        section, _, index = struct.unpack_from("<HII", content, pointer)
        if section != 3 or not index:
            continue
        body = index - 1 + 16
        for lead in range(content[body]):
            first, last = struct.unpack_from("<II", content, body + 2 + 9 * lead)
            if last - first >= 8 * len(content):
                detail = f"lead {lead + 1} is said to have {last - first + 1:,} samples, the file has {len(content):,} bytes"
                raise RecordError(path, "unreadable SCP-ECG", detail)


__all__ = ["read_dicom", "read_edf", "read_npy", "read_scp", "reading"]
