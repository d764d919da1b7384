"""What files and their readers say of an ECG, and what all readers share: names of leads, units, declarations."""

import importlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..model.signal_processing_ecg_jepa import STANDARD_LEADS, STANDARD_LEADS_LOWER, UNKNOWN_UNIT, unit_factor
from .wfdb_record import RecordError, voltage_factor

T = TypeVar("T")
Read = TypeVar("Read")

INSTALL = 'pip install "ecg_jepa[formats]"'

# Relative; two rates that differ by less are one rate written in two ways (an interval of 3,333 µs and 300 Hz).
RATE_TOLERANCE = 1e-3

_FURTHER_LEADS = ("V7", "V8", "V9", "V3R", "V4R", "V5R", "V6R", "V7R", "V8R", "V9R", "X", "Y", "Z")
_SPELLINGS = {name.lower(): name for name in (*STANDARD_LEADS, *_FURTHER_LEADS)}
_BEFORE_NAME = re.compile(r"(?:mdc_ecg_lead|ecg|ekg|lead)[\s_:-]*", re.IGNORECASE)
# What stands in brackets is left out, unless it says that the signal is another: inverted, or of several beats.
_AFTER_NAME = re.compile(r"[\s_-]?(?:\((?!\s*(?:-|inv|neg|rev|av|mean|med))[^()]*\)|ref)$", re.IGNORECASE)
_LONGEST_NAME = 100  # characters; what is longer is no lead
_BETWEEN_NAMES = re.compile(r"[\s;,]+")


class Ecg(NamedTuple):
    """
    An ECG as it was recorded.

    Args:
        signal: (leads, samples) float32, in mV if `unit` says so, with NaN where nothing was recorded.
        sampling_rate: in Hz, or `None` where neither file nor caller says it.
        lead_names: of the rows, or `None`.
        unit: "mV", or `None` for numbers whose unit nobody says.
    """

    signal: np.ndarray
    sampling_rate: float | None
    lead_names: list[str] | None
    unit: str | None


@dataclass
class Contents:
    """
    What a file holds and says, `None` where it says nothing.

    Args:
        signal: (leads, samples), in mV if there are `units`, else as the numbers are in the file.
        sampling_rate: in Hz.
        lead_names: of the rows.
        units: of the rows, as the file has them.
    """

    signal: np.ndarray
    sampling_rate: float | None = None
    lead_names: list[str] | None = None
    units: list[str] | None = None


def load_library(path: str | Path, library: str, format_name: str) -> Any:
    """A library that reads a format. Raises `RecordError` with what to install where it is missing."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        detail = f"{format_name} is read with the library {library}: {INSTALL} ({error})"
        raise RecordError(path, f"{library.partition('.')[0]} is missing", detail) from None


def lead_name(label: str) -> str:
    """A lead as the standard spells it, of labels such as "ECG I", "EKG aVR", "I-Ref", "MDC_ECG_LEAD_AVL"; others as they are."""
    name = label = label.strip()
    if len(label) > _LONGEST_NAME:
        return label
    while (found := _BEFORE_NAME.match(name)) and found.end() < len(name):
        name = name[found.end() :]
    for candidate in (label, name, _AFTER_NAME.sub("", name)):
        if candidate.lower() in _SPELLINGS:
            return _SPELLINGS[candidate.lower()]
    return label


def split_names(text: str) -> list[str]:
    """Names of leads in a text, between spaces, commas or semicolons."""
    return [name for name in _BETWEEN_NAMES.split(text) if name]


def is_lead(name: str) -> bool:
    """Whether this is a lead of an electrocardiograph, as [`lead_name`] spells them."""
    return name.lower() in _SPELLINGS


def whole_rate(rate: float, tolerance: float = 1e-4) -> float:
    """The whole number of Hz that a rate is, if it is one but for the rounding of the times that it was computed from."""
    whole = round(rate)
    return float(whole if abs(rate - whole) <= tolerance * rate else rate)


def count_standard(names: Iterable[str]) -> int:
    """How many of the 12 standard leads there are among these."""
    return len({name.lower() for name in names} & STANDARD_LEADS_LOWER)


def to_millivolts(path: str | Path, values: np.ndarray, units: Sequence[str | None]) -> tuple[np.ndarray, list[str] | None]:
    """
    Bring the leads of a file to mV.

    Args:
        path: of the file, for messages.
        values: (leads, samples).
        units: of each lead; `None` or nothing where the file does not say.

    Returns:
        The values in mV and the units; as they are and `None` if the file says no unit at all.

    Raises:
        RecordError: if a unit is no voltage, or the file says it of some leads only.
    """
    said = [unit.strip() if unit else "" for unit in units]
    if not any(said):
        return values, None
    if not all(said):
        detail = f"leads {[number for number, unit in enumerate(said) if not unit]} (counted from 0) have none, others have"
        raise RecordError(path, "unit of some leads only", detail)
    factors = np.array([voltage_factor(Path(path), unit) for unit in said])
    return values * factors[:, None], said


def check_declared(sampling_rate: Any = None, lead_names: Any = None, unit: Any = None) -> None:
    """Raise `ValueError` for declarations that are none: a rate that is no number of Hz, one text as names, an unknown unit."""
    if sampling_rate is not None and not (is_finite(sampling_rate) and sampling_rate > 0):
        raise ValueError(f"sampling_rate={sampling_rate!r} must be a positive number of Hz.")
    if lead_names is not None and not are_names(lead_names):
        raise ValueError(f"lead_names must be a list of names, one per row of the signal, but is {lead_names!r}.")
    if unit is not None:
        unit_factor(unit, amplitude_free=True)


def are_names(value: Any) -> bool:
    """Whether these are several texts in an order: not one, whose letters would be taken for leads, and no set."""
    ordered = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return (ordered or isinstance(value, np.ndarray)) and all(isinstance(name, str) for name in value)


def is_finite(value: Any) -> bool:
    """Whether this is a number that is neither NaN nor infinite."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and bool(np.isfinite(value))


def declare(
    record: str | Path,
    contents: Contents,
    sampling_rate: float | None = None,
    lead_names: Sequence[str] | None = None,
    unit: str | None = None,
) -> Ecg:
    """
    What a record says, and where it says nothing, what the caller declares of it. The unit "unknown" declares nothing.

    Args:
        record: a name for messages.

    Raises:
        RecordError: if a declaration contradicts the record, or names are not one for each row.
        ValueError: for declarations that are none.
    """
    check_declared(sampling_rate, lead_names, unit)
    unit = None if unit == UNKNOWN_UNIT else unit
    rate = _agreed_rate(record, contents.sampling_rate, sampling_rate)
    names = _agreed_names(record, contents.lead_names, lead_names)
    rows = contents.signal.shape[0]
    if names is not None and len(names) != rows:
        detail = f"shape {contents.signal.shape} with {len(names)} lead names, expected (leads, samples)"
        raise RecordError(record, "wrong number of leads", detail)
    if contents.units is None and unit is not None:
        signal = contents.signal.astype(np.float64) * unit_factor(unit)
    else:
        signal = contents.signal
        _check_unit(record, contents.units, unit)
    with np.errstate(over="ignore"):
        signal = np.ascontiguousarray(signal, dtype=np.float32)
    if np.isinf(signal).any():
        raise RecordError(record, "infinite values", "some samples are infinite, expected numbers, or NaN where none is")
    return Ecg(signal, rate, names, None if contents.units is None and unit is None else "mV")


def _agreed_rate(record: str | Path, said: float | None, declared: float | None) -> float | None:
    if said is not None and not (is_finite(said) and said > 0):
        raise RecordError(record, "unusable rate", f"{said} Hz, expected a positive number")
    if said is not None and declared is not None and abs(said - declared) > RATE_TOLERANCE * said:
        raise _contradiction(record, "sampling_rate", declared, said)
    found = declared if said is None else said
    return None if found is None else float(found)


def _agreed_names(record: str | Path, said: Sequence[str | None] | None, declared: Sequence[str] | None) -> list[str] | None:
    own = None if said is None or not any(said) else [lead_name(name or "") for name in said]
    if own is not None and not all(own):
        raise RecordError(record, "unnamed leads", f"{own.count('')} of {len(own)} leads have no name")
    given = None if declared is None else [lead_name(str(name)) for name in declared]
    if own is not None and given is not None and [name.lower() for name in own] != [name.lower() for name in given]:
        raise _contradiction(record, "lead_names", " ".join(given), " ".join(own))
    return given if own is None else own


def _check_unit(record: str | Path, said: Sequence[str] | None, declared: str | None) -> None:
    if said is not None and declared is not None and {unit_factor(unit) for unit in said} != {unit_factor(declared)}:
        raise _contradiction(record, "unit", declared, ", ".join(sorted(set(said))))


def _contradiction(record: str | Path, name: str, declared: Any, said: Any) -> RecordError:
    detail = f"{name} is declared as {declared}, but the record itself says {said}: declare what it does not say, or nothing"
    return RecordError(record, f"contradicted {name}", detail)


def read_ahead(read: Callable[[T], Read], items: Iterable[T], ahead: int, num_threads: int = 1) -> Iterator[Read]:
    """What is read of items, in their order, up to `ahead` of them by threads while others are looked at."""
    upcoming: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(num_threads) as threads:
        for item in items:
            upcoming.append(threads.submit(read, item))
            if len(upcoming) > ahead:
                yield upcoming.popleft().result()
        while upcoming:
            yield upcoming.popleft().result()


__all__ = [
    "Contents",
    "Ecg",
    "are_names",
    "check_declared",
    "declare",
    "is_finite",
    "is_lead",
    "lead_name",
    "read_ahead",
    "split_names",
    "to_millivolts",
]
