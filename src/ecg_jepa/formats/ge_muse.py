"""
GE MUSE XML. ecgdatakit reads it too, but takes the first rhythm of several, rounds rates to whole Hz, and reads samples of any
size as two bytes.
"""

import zlib
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from transformers.utils import logging

from .ecg import ReadEcg, RecordError
from .xml_document import decoded, largest_rhythm, number_of, rhythm_of, text_of

logger = logging.get_logger(__name__)

_UNITS = {"MICROVOLTS": "uV", "MILLIVOLTS": "mV", "VOLTS": "V", "NANOVOLTS": "nV"}


def read_muse(path: Path, root: Element) -> ReadEcg:
    """Read the longest waveform of the type Rhythm, as a rule of eight leads; the others follow from I and II."""
    waveforms = root.findall("Waveform")
    kinds = [text_of(waveform.find("WaveformType")) for waveform in waveforms]
    rhythms = [_read_waveform(path, one) for one, kind in zip(waveforms, kinds, strict=True) if kind.lower() == "rhythm"]
    described = ", ".join(kind or "without type" for kind in kinds) or "none"
    return largest_rhythm(path, rhythms, f"its waveforms are {described}, expected one of the type Rhythm")


def _read_waveform(path: Path, waveform: Element) -> ReadEcg:
    exponent = number_of(path, text_of(waveform.find("SampleExponent")) or "0", "SampleExponent")
    base = number_of(path, text_of(waveform.find("SampleBase")), "SampleBase", positive=True)
    leads = waveform.findall("LeadData")
    names = [text_of(lead.find("LeadID")) for lead in leads]
    if not all(names):
        raise RecordError(path, "unnamed leads", "LeadData without LeadID")
    samples = [_samples(path, lead, name) for lead, name in zip(leads, names, strict=True)]
    rate = base * 10.0 ** max(-9.0, min(9.0, exponent))
    return rhythm_of(path, rate, names, [row for row, _ in samples], [unit for _, unit in samples])


def _samples(path: Path, lead: Element, name: str) -> tuple[np.ndarray, str | None]:
    """Return the samples of a lead and their unit; the numbers and `None` if they have no scale."""
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
    return values * number_of(path, scale, "LeadAmplitudeUnitsPerBit", positive=True), _UNITS.get(unit.upper(), unit) or None
