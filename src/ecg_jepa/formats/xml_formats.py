"""HL7 aECG, GE MUSE XML and Philips (Sierra) XML -> what they hold; see docs/formats.md."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from transformers.utils import logging

from .ecg import Contents, count_standard, lead_name, load_library, to_millivolts, whole_rate
from .wfdb_record import RecordError, check_record_size
from .xml_elements import attribute_of, decoded, number_of, numbers_of, parse_xml, positive_number, text_of

logger = logging.get_logger(__name__)

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
_MUSE_UNITS = {"MICROVOLTS": "uV", "MILLIVOLTS": "mV", "VOLTS": "V", "NANOVOLTS": "nV"}
_LIMB_LEADS = ["I", "II", "III", "aVR", "aVL", "aVF"]


def read_xml(path: Path) -> Contents:
    """
    Read an ECG in one of the three formats, which the root of the document tells apart.

    Raises:
        RecordError: if the file cannot be read, declares entities, is of another kind, or has no rhythm.
    """
    root = parse_xml(path)
    if root.tag not in XML_FORMATS:
        expected = ", ".join(f"{name} ({meaning})" for name, (meaning, _) in XML_FORMATS.items())
        raise RecordError(path, "unknown XML", f"the document is a {root.tag!r}, expected one of {expected}")
    return XML_FORMATS[root.tag][1](path, root)


def _stack(path: Path, names: Sequence[str], rows: Sequence[np.ndarray]) -> np.ndarray:
    """Leads of one length -> (leads, samples)."""
    if len({len(row) for row in rows}) != 1:
        lengths = ", ".join(f"{name} {len(row)}" for name, row in zip(names, rows, strict=True))
        raise RecordError(path, "several lengths", f"leads of one rhythm have different numbers of samples: {lengths}")
    check_record_size(path, len(rows), len(rows[0]))
    return np.stack(rows)


def _largest(path: Path, rhythms: list[Contents], none: str) -> Contents:
    """Of several rhythms the one with the most samples of standard leads. Raises `RecordError` with `none` if there is none."""
    if not rhythms:
        raise RecordError(path, "no rhythm", none)
    sizes = [count_standard(map(lead_name, rhythm.lead_names or [])) * rhythm.signal.shape[1] for rhythm in rhythms]
    if len(rhythms) > 1:
        logger.warning(f"{path}: of {len(rhythms)} rhythms, number {sizes.index(max(sizes)) + 1} is read, the longest.")
    return rhythms[sizes.index(max(sizes))]


def read_aecg(path: Path, root: Element) -> Contents:
    """HL7 aECG: series of rhythm, not what is derived from them; a sample is `origin + digit * scale`."""
    series = root.findall("component/series")
    codes = [attribute_of(one.find("code"), "code").upper() for one in series]
    rhythms = [
        _sequences(path, sequences)
        for one, code in zip(series, codes, strict=True)
        if code == "RHYTHM"
        for sequences in one.findall("component/sequenceSet")
    ]
    described = ", ".join(code or "without code" for code in codes) or "none"
    return _largest(path, rhythms, f"its series are {described}, expected one of the code RHYTHM")


def _sequences(path: Path, sequences: Element) -> Contents:
    rate = None
    names, rows, units, others = [], [], [], []
    for sequence in sequences.findall("component/sequence"):
        code, value = attribute_of(sequence.find("code"), "code"), sequence.find("value")
        if value is None:
            raise RecordError(path, "unreadable XML", f"the sequence {code!r} has no value")
        if code.upper() in ("TIME_ABSOLUTE", "TIME_RELATIVE"):
            rate = _rate(path, value.find("increment"))
        elif "_ECG_LEAD_" in code.upper():
            names.append(lead_name(code[code.upper().index("_ECG_LEAD_") + len("_ECG_LEAD_") :]))
            row, unit = _sequence(path, value, code)
            rows.append(row)
            units.append(unit)
        else:
            others.append(code)
    if not rows:
        raise RecordError(path, "no rhythm", "a rhythm without leads")
    if rate is None:
        raise RecordError(path, "unreadable XML", "a rhythm does not say the increment of its time")
    if others:
        logger.warning(f"{path}: sequences {', '.join(others)} are no leads of the ECG and are left out.")
    signal, said = to_millivolts(path, _stack(path, names, rows), units)
    return Contents(signal, rate, names, said)


def _rate(path: Path, increment: Element | None) -> float:
    unit = attribute_of(increment, "unit") or "s"
    if unit not in _SECONDS:
        raise RecordError(path, "unknown unit of time", f"{unit!r}, expected one of {', '.join(_SECONDS)}")
    return whole_rate(1 / (positive_number(path, attribute_of(increment, "value"), "increment") * _SECONDS[unit]))


def _sequence(path: Path, value: Element, code: str) -> tuple[np.ndarray, str | None]:
    """Samples of a lead and their unit; raw numbers and `None` if it says no scale."""
    digits = numbers_of(path, text_of(value.find("digits")), code)
    scale, origin = value.find("scale"), value.find("origin")
    if scale is None:
        return digits, None
    unit = attribute_of(scale, "unit") or None
    if origin is not None and (attribute_of(origin, "unit") or unit) != unit and number_of(path, origin.get("value"), "origin"):
        detail = f"{code} has its origin in {attribute_of(origin, 'unit')!r} and its scale in {unit!r}"
        raise RecordError(path, "unknown unit", detail)
    offset = 0.0 if origin is None else number_of(path, origin.get("value"), f"origin of {code}")
    return offset + digits * number_of(path, scale.get("value"), f"scale of {code}"), unit


def read_muse(path: Path, root: Element) -> Contents:
    """GE MUSE: waveforms of the type Rhythm, as a rule of eight leads; the others follow from I and II."""
    waveforms = root.findall("Waveform")
    kinds = [text_of(waveform.find("WaveformType")) for waveform in waveforms]
    rhythms = [
        _muse_waveform(path, waveform) for waveform, kind in zip(waveforms, kinds, strict=True) if kind.lower() == "rhythm"
    ]
    described = ", ".join(kind or "without type" for kind in kinds) or "none"
    return _largest(path, rhythms, f"its waveforms are {described}, expected one of the type Rhythm")


def _muse_waveform(path: Path, waveform: Element) -> Contents:
    exponent = text_of(waveform.find("SampleExponent")) or "0"
    base = positive_number(path, text_of(waveform.find("SampleBase")), "SampleBase")
    rate = base * 10.0 ** max(-9.0, min(9.0, number_of(path, exponent, "SampleExponent")))
    leads = waveform.findall("LeadData")
    if not leads:
        raise RecordError(path, "no rhythm", "a rhythm without leads")
    names = [text_of(lead.find("LeadID")) for lead in leads]
    if not all(names):
        raise RecordError(path, "unnamed leads", "LeadData without LeadID")
    rows, units = zip(*(_muse_lead(path, lead, name) for lead, name in zip(leads, names, strict=True)), strict=True)
    signal, said = to_millivolts(path, _stack(path, names, rows), units)
    return Contents(signal, rate, names, said)


def _muse_lead(path: Path, lead: Element, name: str) -> tuple[np.ndarray, str | None]:
    size = text_of(lead.find("LeadSampleSize")) or "2"
    if size != "2":
        raise RecordError(path, "unreadable XML", f"lead {name} has samples of {size} bytes, expected 2")
    content = decoded(path, text_of(lead.find("WaveFormData")), f"WaveFormData of lead {name}")
    if not content or len(content) % 2:
        raise RecordError(path, "unreadable XML", f"lead {name} has {len(content)} bytes, expected two for each sample")
    for tag, found in (("LeadByteCountTotal", len(content)), ("LeadSampleCountTotal", len(content) // 2)):
        said = text_of(lead.find(tag))
        if said and number_of(path, said, tag) != found:
            raise RecordError(path, "wrong length", f"{tag} of lead {name} is {said}, its data have {found}")
    said = text_of(lead.find("LeadDataCRC32"))
    if said.isdecimal() and int(said) != zlib.crc32(content):
        logger.warning(f"{path}: lead {name} contradicts its checksum.")
    if offsets := [tag for tag in ("FirstSampleBaseline", "LeadOffsetFirstSample") if text_of(lead.find(tag)).strip("0.+-")]:
        logger.warning(f"{path}: {', '.join(offsets)} of lead {name} is not zero, and not applied: it is not documented.")
    values = np.frombuffer(content, "<i2").astype(np.float64)
    scale, unit = text_of(lead.find("LeadAmplitudeUnitsPerBit")), text_of(lead.find("LeadAmplitudeUnits"))
    if not scale:
        return values, None
    return values * positive_number(path, scale, "LeadAmplitudeUnitsPerBit"), _MUSE_UNITS.get(unit.upper(), unit) or None


def read_philips(path: Path, root: Element) -> Contents:
    """Philips (Sierra): the parsed waveforms, plain or compressed by XLI, not the representative beats."""
    waveforms, details = list(root.iter("parsedwaveforms")), next(root.iter("signalcharacteristics"), None)
    if len(waveforms) != 1 or details is None:
        detail = f"{len(waveforms)} parsedwaveforms, {'no' if details is None else 'with'} signalcharacteristics"
        raise RecordError(path, "no rhythm", f"{detail}, expected one of each")
    (waveform,) = waveforms
    said_rate = waveform.get("samplespersecond") or text_of(details.find("samplingrate"))
    rate = positive_number(path, said_rate, "samplingrate")
    duration = positive_number(path, waveform.get("durationperchannel"), "durationperchannel")
    num_samples = int(min(duration * rate / 1000, 1e12))
    names = _philips_names(path, waveform, details)
    check_record_size(path, len(names), num_samples)
    if num_samples < 1:
        raise RecordError(path, "no rhythm", "it lasts less than a sample")
    method = waveform.get("compressmethod") or waveform.get("compression") or "Uncompressed"
    if method == "XLI" and waveform.get("compressflag", "True").lower() != "false":
        values = _from_xli(path, _philips_content(path, waveform), names, num_samples)
    elif method in ("Uncompressed", "XLI"):
        values = _uncompressed(path, waveform, len(names), num_samples)
    else:
        raise RecordError(path, "unreadable XML", f"waveforms are compressed by {method!r}, expected XLI or none")
    resolution, unit = _resolution(path, waveform, details)
    signal, units = to_millivolts(path, values * resolution, [unit] * len(names))
    return Contents(signal, rate, names, units)


def _philips_names(path: Path, waveform: Element, details: Element) -> list[str]:
    labels = waveform.get("leadlabels", "").split()
    if labels:
        said = waveform.get("numberofleads")
        return labels[: int(positive_number(path, said, "numberofleads"))] if said else labels
    kind = text_of(details.find("acquisitiontype"))
    allocated = positive_number(path, text_of(details.find("numberchannelsallocated")), "numberchannelsallocated")
    if kind not in ("STD-12", "10-WIRE") or allocated != 12:
        detail = f"it names no leads, and has {allocated:g} channels of the type {kind!r}, expected 12 of STD-12"
        raise RecordError(path, "unnamed leads", detail)
    return [*_LIMB_LEADS, *(f"V{number}" for number in range(1, 7))]


def _philips_content(path: Path, waveform: Element) -> bytes:
    encoding = waveform.get("dataencoding", "")
    if encoding != "Base64":
        raise RecordError(path, "unreadable XML", f"waveforms are encoded as {encoding!r}, expected Base64")
    return decoded(path, text_of(waveform), "parsedwaveforms")


def _uncompressed(path: Path, waveform: Element, num_leads: int, num_samples: int) -> np.ndarray:
    if waveform.get("dataencoding") == "Plain":
        values = numbers_of(path, text_of(waveform), "parsedwaveforms")
    else:
        content = _philips_content(path, waveform)
        values = np.frombuffer(content[: len(content) // 2 * 2], "<i2")
    if len(values) != num_leads * num_samples:
        detail = f"{len(values)} samples, expected {num_leads} leads of {num_samples}"
        raise RecordError(path, "wrong length", detail)
    return values.reshape(num_leads, num_samples).astype(np.float64)


def _resolution(path: Path, waveform: Element, details: Element) -> tuple[float, str | None]:
    """Size of a step and its unit, µV unless it says otherwise; 1 and `None` where it is not said."""
    for said in (details.find("resolution"), details.find("signalresolution")):
        if said is not None and text_of(said):
            unit = said.get("unit", "uV").lower()
            if not unit.startswith(("uv", "µv", "μv", "microv")):
                raise RecordError(path, "unknown unit", f"a resolution in {unit!r}, expected uV")
            return positive_number(path, text_of(said), "resolution"), "uV"
    if waveform.get("resolution"):
        return positive_number(path, waveform.get("resolution"), "resolution"), "uV"
    return 1.0, None


def _from_xli(path: Path, content: bytes, names: Iterable[str], num_samples: int) -> np.ndarray:
    """
    Chunks of XLI (second differences, compressed by LZW), one per lead -> (leads, samples). Four of the limb leads are kept as
    what their estimate from I and II leaves over.
    """
    lzw = load_library(path, "sierraecg.lzw", "Philips XML with XLI compression")
    xli = load_library(path, "sierraecg.xli", "Philips XML with XLI compression")
    names = [lead_name(name) for name in names]
    if names[:6] != _LIMB_LEADS:
        raise RecordError(path, "unreadable XML", f"XLI of leads {' '.join(names)}, expected the six limb leads first")
    rows: list[np.ndarray] = []
    offset, most = 0, 4 * num_samples + 1024  # chunks may be longer than what is said to be in them, but not without bounds
    while offset + 8 <= len(content) and len(rows) < len(names):
        size, start = int.from_bytes(content[offset : offset + 4], "little"), content[offset + 6 : offset + 8]
        decoder = lzw.LzwDecoder(content[offset + 8 : offset + 8 + size], bits=10)
        offset += 8 + size
        try:
            values: list[int] = []
            while (byte := decoder.read()) >= 0 and len(values) <= most:
                values.append(byte)
            values += [0] * (len(values) % 2)
            if not 2 * num_samples <= len(values) <= most:
                raise RecordError(path, "wrong length", f"a lead of {len(values) // 2} samples, expected {num_samples}")
            deltas = xli.xli_decode_deltas(values, int.from_bytes(start, "little", signed=True))
        except (IndexError, OverflowError) as error:
            raise RecordError(path, "unreadable XML", f"damaged XLI: {type(error).__name__}: {error}") from error
        rows.append(deltas[:num_samples].astype(np.float64))
    if len(rows) < len(names):
        raise RecordError(path, "wrong length", f"XLI of {len(rows)} leads, expected {len(names)}")
    i, ii, iii = rows[0], rows[1], rows[1] - rows[0] - rows[2]
    rows[2:6] = [
        iii,
        -rows[3] - np.floor((i + ii) / 2),
        np.floor((i - iii) / 2) - rows[4],
        np.floor((ii + iii) / 2) - rows[5],
    ]
    return np.stack(rows)


# Roots of documents: what they are, and what reads them.
XML_FORMATS: dict[str, tuple[str, Callable[[Path, Element], Contents]]] = {
    "AnnotatedECG": ("HL7 aECG", read_aecg),
    "RestingECG": ("GE MUSE", read_muse),
    "restingecgdata": ("Philips", read_philips),
}

__all__ = ["XML_FORMATS", "read_xml"]
