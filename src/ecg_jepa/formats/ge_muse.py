"""GE MUSE XML. ecgdatakit takes the first rhythm of several, rounds rates to whole Hz, and reads samples of any size as int16."""

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
    waveforms = {waveform: text_of(waveform, "WaveformType") for waveform in root.findall("Waveform")}
    rhythms = [_read_waveform(path, waveform) for waveform, kind in waveforms.items() if kind.lower() == "rhythm"]
    return largest_rhythm(path, rhythms, list(waveforms.values()), "a waveform of the type Rhythm")


def _read_waveform(path: Path, waveform: Element) -> ReadEcg:
    exponent = number_of(text_of(waveform, "SampleExponent") or "0", "SampleExponent")
    base = number_of(text_of(waveform, "SampleBase"), "SampleBase", positive=True)
    leads = waveform.findall("LeadData")
    names = [text_of(lead, "LeadID") for lead in leads]
    if not all(names):
        raise RecordError(path, "unnamed leads", "LeadData without LeadID")
    samples = [_samples(path, lead, name) for lead, name in zip(leads, names, strict=True)]
    return rhythm_of(path, base * 10.0 ** max(-9.0, min(9.0, exponent)), names, samples)


def _samples(path: Path, lead: Element, name: str) -> tuple[np.ndarray, str | None]:
    """Return the samples of a lead and their unit; the numbers and `None` if they have no scale."""
    size = text_of(lead, "LeadSampleSize") or "2"
    if size != "2":
        raise ValueError(f"lead {name} has samples of {size} bytes, expected 2")
    content = decoded(text_of(lead, "WaveFormData"), f"WaveFormData of lead {name}")
    values = np.frombuffer(content, "<i2").astype(np.float64)
    for tag, found in (("LeadByteCountTotal", len(content)), ("LeadSampleCountTotal", len(values))):
        said = text_of(lead, tag)
        if said and number_of(said, tag) != found:
            raise RecordError(path, "wrong length", f"{tag} of lead {name} is {said}, its data have {found}")
    checksum = text_of(lead, "LeadDataCRC32")
    if checksum.isdecimal() and int(checksum) != zlib.crc32(content):
        logger.warning(f"{path}: lead {name} contradicts its checksum.")
    if offsets := [tag for tag in ("FirstSampleBaseline", "LeadOffsetFirstSample") if text_of(lead, tag).strip("0.+-")]:
        logger.warning(f"{path}: {', '.join(offsets)} of lead {name} is not zero, and not applied: it is not documented.")
    scale, unit = text_of(lead, "LeadAmplitudeUnitsPerBit"), text_of(lead, "LeadAmplitudeUnits")
    if not scale:
        return values, None
    return values * number_of(scale, "LeadAmplitudeUnitsPerBit", positive=True), _UNITS.get(unit.upper(), unit) or None
