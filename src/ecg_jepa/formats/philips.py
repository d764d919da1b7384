"""
Philips (Sierra) XML. ecgdatakit decodes the XLI compression; its reader of whole documents has no bound on what they grow to.
"""

from itertools import islice
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..model.signal_processing_ecg_jepa import STANDARD_LEADS, lead_name
from .ecg import ReadEcg, RecordError, as_read, check_record_size, load_library, reading
from .xml_document import decoded, number_of, numbers_of, text_of

_LIMB_LEADS = list(STANDARD_LEADS[:6])


def read_philips(path: Path, root: Element) -> ReadEcg:
    """Read the parsed waveforms, plain or compressed by XLI, never the representative beats."""
    waveforms, details = list(root.iter("parsedwaveforms")), next(root.iter("signalcharacteristics"), None)
    if len(waveforms) != 1 or details is None:
        detail = f"{len(waveforms)} parsedwaveforms, {'no' if details is None else 'with'} signalcharacteristics"
        raise RecordError(path, "no rhythm", f"{detail}, expected one of each")
    (waveform,) = waveforms
    said = waveform.get("samplespersecond") or text_of(details.find("samplingrate"))
    rate = number_of(path, said, "samplingrate", positive=True)
    duration = number_of(path, waveform.get("durationperchannel"), "durationperchannel", positive=True)  # ms
    num_samples = int(min(duration * rate / 1000, 1e12))
    names = _lead_names(path, waveform, details)
    check_record_size(path, len(names), num_samples)
    if num_samples < 1:
        raise RecordError(path, "no rhythm", "it lasts less than a sample")
    method = waveform.get("compressmethod") or waveform.get("compression") or "Uncompressed"
    if method == "XLI" and waveform.get("compressflag", "True").lower() != "false":
        values = _decompress(path, _content(path, waveform), names, num_samples)
    elif method in ("Uncompressed", "XLI"):
        values = _uncompressed(path, waveform, len(names), num_samples)
    else:
        raise RecordError(path, "unreadable XML", f"waveforms are compressed by {method!r}, expected XLI or none")
    resolution, unit = _resolution(path, waveform, details)
    return as_read(path, values * resolution, rate, names, [unit] * len(names))


def _lead_names(path: Path, waveform: Element, details: Element) -> list[str]:
    if labels := waveform.get("leadlabels", "").split():
        said = waveform.get("numberofleads")
        return labels[: int(number_of(path, said, "numberofleads", positive=True))] if said else labels
    kind = text_of(details.find("acquisitiontype"))
    allocated = number_of(path, text_of(details.find("numberchannelsallocated")), "numberchannelsallocated", positive=True)
    if kind not in ("STD-12", "10-WIRE") or allocated != 12:
        detail = f"it names no leads, and has {allocated:g} channels of the type {kind!r}, expected 12 of STD-12"
        raise RecordError(path, "unnamed leads", detail)
    return list(STANDARD_LEADS)


def _content(path: Path, waveform: Element) -> bytes:
    encoding = waveform.get("dataencoding", "")
    if encoding != "Base64":
        raise RecordError(path, "unreadable XML", f"waveforms are encoded as {encoding!r}, expected Base64")
    return decoded(path, text_of(waveform), "parsedwaveforms")


def _uncompressed(path: Path, waveform: Element, num_leads: int, num_samples: int) -> np.ndarray:
    if waveform.get("dataencoding") == "Plain":
        values = numbers_of(path, text_of(waveform), "parsedwaveforms")
    else:
        content = _content(path, waveform)
        values = np.frombuffer(content[: len(content) // 2 * 2], "<i2")
    if len(values) != num_leads * num_samples:
        raise RecordError(path, "wrong length", f"{len(values)} samples, expected {num_leads} leads of {num_samples}")
    return values.reshape(num_leads, num_samples).astype(np.float64)


def _resolution(path: Path, waveform: Element, details: Element) -> tuple[float, str | None]:
    """Return the size of a step and its unit, uV unless the file says another; 1 and `None` if there is no resolution."""
    for said in (details.find("resolution"), details.find("signalresolution")):
        if said is not None and text_of(said):
            unit = said.get("unit", "uV").lower()
            if not unit.startswith(("uv", "µv", "μv", "microv")):
                raise RecordError(path, "unknown unit", f"a resolution in {unit!r}, expected uV")
            return number_of(path, text_of(said), "resolution", positive=True), "uV"
    if waveform.get("resolution"):
        return number_of(path, waveform.get("resolution"), "resolution", positive=True), "uV"
    return 1.0, None


def _decompress(path: Path, content: bytes, names: list[str], num_samples: int) -> np.ndarray:
    """
    Return the leads (leads, samples) of XLI chunks: second differences, compressed by LZW, one chunk per lead. III, aVR, aVL and
    aVF are stored as their differences from the estimate by I and II, which is added here.
    """
    xli = load_library(path, "ecgdatakit.parsing.codecs.xli", "Philips XML with XLI compression")
    names = [lead_name(name) for name in names]
    if names[:6] != _LIMB_LEADS:
        raise RecordError(path, "unreadable XML", f"XLI of leads {' '.join(names)}, expected the six limb leads first")
    rows: list[np.ndarray] = []
    offset, most = 0, 4 * num_samples + 1024  # a chunk may be longer than stated, but not without bounds
    while offset + 8 <= len(content) and len(rows) < len(names):
        size, start = int.from_bytes(content[offset : offset + 4], "little"), content[offset + 6 : offset + 8]
        decoder = xli.LzwDecoder(content[offset + 8 : offset + 8 + size], bits=10)
        offset += 8 + size
        with reading(path, "XML"):
            values = list(islice(iter(decoder.read, -1), most + 1))
            if not 2 * num_samples - 1 <= len(values) <= most:
                raise RecordError(path, "wrong length", f"a lead of {len(values) // 2} samples, expected {num_samples}")
            samples = xli.xli_decode_deltas(values, int.from_bytes(start, "little", signed=True))
            if samples.max() > 32767 or samples.min() < -32768:
                raise RecordError(path, "unreadable XML", "damaged XLI: samples of more than 16 bits")
        rows.append(samples[:num_samples].astype(np.float64))
    if len(rows) < len(names):
        raise RecordError(path, "wrong length", f"XLI of {len(rows)} leads, expected {len(names)}")
    i, ii, iii = rows[0], rows[1], rows[1] - rows[0] - rows[2]
    avr, avl, avf = -rows[3] - np.floor((i + ii) / 2), np.floor((i - iii) / 2) - rows[4], np.floor((ii + iii) / 2) - rows[5]
    return np.stack([i, ii, iii, avr, avl, avf, *rows[6:]])
