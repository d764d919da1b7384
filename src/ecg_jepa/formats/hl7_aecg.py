"""HL7 annotated ECG (aECG). ecgdatakit reads it too, but takes the first rhythm of several and rounds rates to whole Hz."""

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from transformers.utils import logging

from ..model.signal_processing_ecg_jepa import lead_name
from .ecg import ReadEcg, RecordError, whole_rate
from .xml_document import SECONDS, attribute_of, largest_rhythm, number_of, numbers_of, rhythm_of, text_of

logger = logging.get_logger(__name__)

_LEAD = "_ECG_LEAD_"  # in the codes of leads, such as MDC_ECG_LEAD_II


def read_aecg(path: Path, root: Element) -> ReadEcg:
    """Read the longest series of the code RHYTHM, never one derived from it (representative beats)."""
    codes = {series: attribute_of(series, "code", "code").upper() for series in root.findall("component/series")}
    sets = [one for series, code in codes.items() if code == "RHYTHM" for one in series.findall("component/sequenceSet")]
    return largest_rhythm(path, [_read_sequences(path, one) for one in sets], list(codes.values()), "a series of the code RHYTHM")


def _read_sequences(path: Path, sequences: Element) -> ReadEcg:
    rate = None
    names, samples, others = [], [], []
    for sequence in sequences.findall("component/sequence"):
        code, value = attribute_of(sequence, "code", "code"), sequence.find("value")
        if value is None:
            raise ValueError(f"the sequence {code!r} has no value")
        if code.upper() in ("TIME_ABSOLUTE", "TIME_RELATIVE"):
            unit = attribute_of(value, "increment", "unit") or "s"
            if unit not in SECONDS:
                raise RecordError(path, "unknown unit of time", f"{unit!r}, expected one of {', '.join(SECONDS)}")
            increment = number_of(attribute_of(value, "increment", "value"), "increment", positive=True)
            rate = whole_rate(1 / (increment * SECONDS[unit]))
        elif _LEAD in code.upper():
            names.append(lead_name(code[code.upper().index(_LEAD) + len(_LEAD) :]))
            samples.append(_samples(path, value, code))
        else:
            others.append(code)
    if others:
        logger.warning(f"{path}: sequences {', '.join(others)} are no leads of the ECG and are left out.")
    if samples and rate is None:
        raise ValueError("a rhythm does not say the increment of its time")
    return rhythm_of(path, rate or 0.0, names, samples)


def _samples(path: Path, value: Element, code: str) -> tuple[np.ndarray, str | None]:
    """Return `origin + digit * scale` and its unit; the digits and `None` if there is no scale."""
    digits = numbers_of(text_of(value, "digits"), code)
    if value.find("scale") is None:
        return digits, None
    scale = number_of(attribute_of(value, "scale", "value"), f"scale of {code}")
    has_origin = value.find("origin") is not None
    offset = number_of(attribute_of(value, "origin", "value"), f"origin of {code}") if has_origin else 0.0
    unit, unit_of_origin = attribute_of(value, "scale", "unit"), attribute_of(value, "origin", "unit")
    if offset and unit_of_origin not in ("", unit):
        raise RecordError(path, "unknown unit", f"{code} has its origin in {unit_of_origin!r} and its scale in {unit!r}")
    return offset + digits * scale, unit or None
