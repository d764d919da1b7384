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
    series = root.findall("component/series")
    codes = [attribute_of(one.find("code"), "code").upper() for one in series]
    rhythms = [
        _read_sequences(path, sequences)
        for one, code in zip(series, codes, strict=True)
        if code == "RHYTHM"
        for sequences in one.findall("component/sequenceSet")
    ]
    described = ", ".join(code or "without code" for code in codes) or "none"
    return largest_rhythm(path, rhythms, f"its series are {described}, expected one of the code RHYTHM")


def _read_sequences(path: Path, sequences: Element) -> ReadEcg:
    rate = None
    names, rows, units, others = [], [], [], []
    for sequence in sequences.findall("component/sequence"):
        code, value = attribute_of(sequence.find("code"), "code"), sequence.find("value")
        if value is None:
            raise RecordError(path, "unreadable XML", f"the sequence {code!r} has no value")
        if code.upper() in ("TIME_ABSOLUTE", "TIME_RELATIVE"):
            rate = _rate(path, value.find("increment"))
        elif _LEAD in code.upper():
            names.append(lead_name(code[code.upper().index(_LEAD) + len(_LEAD) :]))
            row, unit = _samples(path, value, code)
            rows.append(row)
            units.append(unit)
        else:
            others.append(code)
    if others:
        logger.warning(f"{path}: sequences {', '.join(others)} are no leads of the ECG and are left out.")
    if rows and rate is None:
        raise RecordError(path, "unreadable XML", "a rhythm does not say the increment of its time")
    return rhythm_of(path, rate or 0.0, names, rows, units)


def _rate(path: Path, increment: Element | None) -> float:
    unit = attribute_of(increment, "unit") or "s"
    if unit not in SECONDS:
        raise RecordError(path, "unknown unit of time", f"{unit!r}, expected one of {', '.join(SECONDS)}")
    return whole_rate(1 / (number_of(path, attribute_of(increment, "value"), "increment", positive=True) * SECONDS[unit]))


def _samples(path: Path, value: Element, code: str) -> tuple[np.ndarray, str | None]:
    """Return `origin + digit * scale` and its unit; the digits and `None` if there is no scale."""
    digits = numbers_of(path, text_of(value.find("digits")), code)
    scale, origin = value.find("scale"), value.find("origin")
    if scale is None:
        return digits, None
    unit = attribute_of(scale, "unit") or None
    offset = 0.0 if origin is None else number_of(path, origin.get("value"), f"origin of {code}")
    if offset and (attribute_of(origin, "unit") or unit) != unit:
        detail = f"{code} has its origin in {attribute_of(origin, 'unit')!r} and its scale in {unit!r}"
        raise RecordError(path, "unknown unit", detail)
    return offset + digits * number_of(path, scale.get("value"), f"scale of {code}"), unit
