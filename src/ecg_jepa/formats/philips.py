"""Philips (Sierra) XML. ecgdatakit decodes the XLI compression; its reader of whole documents does not bound their growth."""

from itertools import islice
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..model.signal_processing_ecg_jepa import STANDARD_LEADS, lead_name
from .ecg import ReadEcg, RecordError, as_read, check_record_size
from .xml_document import attribute_of, decoded, number_of, numbers_of, text_of


def read_philips(path: Path, root: Element) -> ReadEcg:
    """Read the parsed waveforms, plain or compressed by XLI, never the representative beats."""
    waveforms, details = list(root.iter("parsedwaveforms")), next(root.iter("signalcharacteristics"), None)
    if len(waveforms) != 1 or details is None:
        detail = f"{len(waveforms)} parsedwaveforms, {'no' if details is None else 'with'} signalcharacteristics"
        raise RecordError(path, "no rhythm", f"{detail}, expected one of each")
    (waveform,) = waveforms
    rate = number_of(waveform.get("samplespersecond") or text_of(details, "samplingrate"), "samplingrate", positive=True)
    duration = number_of(waveform.get("durationperchannel"), "durationperchannel", positive=True)  # ms
    names, num_samples = _lead_names(path, waveform, details), int(min(duration * rate / 1000, 1e12))
    check_record_size(path, len(names), num_samples)
    if num_samples < 1:
        raise RecordError(path, "no rhythm", "it lasts less than a sample")
    values = _values(path, waveform, names, num_samples)
    if values.size != len(names) * num_samples:
        raise RecordError(path, "wrong length", f"{values.size} samples, expected {len(names)} leads of {num_samples}")
    resolution, unit = _resolution(path, waveform, details)
    return as_read(path, values.reshape(len(names), num_samples) * resolution, rate, names, [unit] * len(names))


def _lead_names(path: Path, waveform: Element, details: Element) -> list[str]:
    if labels := waveform.get("leadlabels", "").split():
        said = waveform.get("numberofleads")
        return labels[: int(number_of(said, "numberofleads", positive=True))] if said else labels
    kind = text_of(details, "acquisitiontype")
    allocated = number_of(text_of(details, "numberchannelsallocated"), "numberchannelsallocated", positive=True)
    if kind not in ("STD-12", "10-WIRE") or allocated != 12:
        detail = f"it names no leads, and has {allocated:g} channels of the type {kind!r}, expected 12 of STD-12"
        raise RecordError(path, "unnamed leads", detail)
    return list(STANDARD_LEADS)


def _values(path: Path, waveform: Element, names: list[str], num_samples: int) -> np.ndarray:
    """Return the samples of all leads, one lead after the other."""
    method = waveform.get("compressmethod") or waveform.get("compression") or "Uncompressed"
    if method not in ("Uncompressed", "XLI"):
        raise ValueError(f"waveforms are compressed by {method!r}, expected XLI or none")
    compressed = method == "XLI" and waveform.get("compressflag", "True").lower() != "false"
    encoding = waveform.get("dataencoding", "")
    if encoding == "Plain" and not compressed:
        return numbers_of(text_of(waveform), "parsedwaveforms")
    if encoding != "Base64":
        raise ValueError(f"waveforms are encoded as {encoding!r}, expected Base64")
    content = decoded(text_of(waveform), "parsedwaveforms")
    if compressed:
        return _decompress(path, content, [lead_name(name) for name in names], num_samples)
    return np.frombuffer(content[: len(content) // 2 * 2], "<i2").astype(np.float64)


def _resolution(path: Path, waveform: Element, details: Element) -> tuple[float, str | None]:
    """Return the size of a step and its unit, uV unless the file says another; 1 and `None` if there is no resolution."""
    place = next((place for place in ("resolution", "signalresolution") if text_of(details, place)), None)
    said = text_of(details, place) if place else waveform.get("resolution")
    unit = (attribute_of(details, place, "unit").lower() if place else "") or "uv"
    if not said:
        return 1.0, None
    if not unit.startswith(("uv", "µv", "μv", "microv")):
        raise RecordError(path, "unknown unit", f"a resolution in {unit!r}, expected uV")
    return number_of(said, "resolution", positive=True), "uV"


def _decompress(path: Path, content: bytes, names: list[str], num_samples: int) -> np.ndarray:
    """
    Return the leads (leads, samples) of XLI chunks: second differences, compressed by LZW, one chunk per lead. III, aVR, aVL and
    aVF are stored as their differences from the estimate by I and II, which is added here.
    """
    from ecgdatakit.parsing.codecs.xli import LzwDecoder, xli_decode_deltas

    if names[:6] != list(STANDARD_LEADS[:6]):
        raise ValueError(f"XLI of leads {' '.join(names)}, expected the six limb leads first")
    rows: list[np.ndarray] = []
    offset, most = 0, 4 * num_samples + 1024  # a chunk may be longer than stated, but not without bounds
    while offset + 8 <= len(content) and len(rows) < len(names):
        size, start = int.from_bytes(content[offset : offset + 4], "little"), content[offset + 6 : offset + 8]
        decoder = LzwDecoder(content[offset + 8 : offset + 8 + size], bits=10)
        offset += 8 + size
        values = list(islice(iter(decoder.read, -1), most + 1))
        if not 2 * num_samples - 1 <= len(values) <= most:
            raise RecordError(path, "wrong length", f"a lead of {len(values) // 2} samples, expected {num_samples}")
        samples = xli_decode_deltas(values, int.from_bytes(start, "little", signed=True))
        if samples.max() > 32767 or samples.min() < -32768:
            raise ValueError("damaged XLI: samples of more than 16 bits")
        rows.append(samples[:num_samples].astype(np.float64))
    if len(rows) < len(names):
        raise RecordError(path, "wrong length", f"XLI of {len(rows)} leads, expected {len(names)}")
    i, ii, iii = rows[0], rows[1], rows[1] - rows[0] - rows[2]
    avr, avl, avf = -rows[3] - np.floor((i + ii) / 2), np.floor((i - iii) / 2) - rows[4], np.floor((ii + iii) / 2) - rows[5]
    return np.stack([i, ii, iii, avr, avl, avf, *rows[6:]])
