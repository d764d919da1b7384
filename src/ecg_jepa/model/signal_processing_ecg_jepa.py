"""
Processing of an ECG before a model sees it: lead names, units, plausibility, filters, resampling, normalisation.

Preparation of databases and the feature extractor call the same functions, so that a user's record is treated as the training
records were. Signals are arrays (leads, samples), in mV unless stated otherwise.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
STANDARD_LEADS_LOWER = frozenset(name.lower() for name in STANDARD_LEADS)
_FURTHER_LEADS = ("V7", "V8", "V9", "V3R", "V4R", "V5R", "V6R", "V7R", "V8R", "V9R", "X", "Y", "Z")
_SPELLINGS = {name.lower(): name for name in (*STANDARD_LEADS, *_FURTHER_LEADS)}
_BEFORE_NAME = re.compile(r"(?:mdc_ecg_lead|ecg|ekg|lead)[\s_:-]*", re.IGNORECASE)
# Brackets are ignored, unless they say that the signal is another: inverted, or averaged over beats.
_AFTER_NAME = re.compile(r"[\s_-]?(?:\((?!\s*(?:-|inv|neg|rev|av|mean|med))[^()]*\)|ref)$", re.IGNORECASE)

# The augmented limb leads and III as combinations of I and II (Einthoven 1913, Goldberger 1942).
DERIVED_LEADS = {"iii": (-1.0, 1.0), "avr": (-0.5, -0.5), "avl": (1.0, -0.5), "avf": (-0.5, 1.0)}

MILLIVOLTS_PER_UNIT = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}  # by lower-case name
UNKNOWN_UNIT = "unknown"  # of a signal of unknown gain, which only amplitude-free models accept

RATE_TOLERANCE = 1e-3  # relative; rates that differ by less are one, written in two ways (an interval of 3,333 µs and 300 Hz)
_DECLARATIONS = {  # what must be known of a record, and its possible values
    "sampling_rate": "sampling_rate=... (Hz)",
    "unit": 'unit=... ("mV", "uV", "V" or "nV")',
    "lead_names": "lead_names=... (one per row)",
}

CLIP = 5.0  # largest distance from the mean that the model sees, in standard deviations (paper, section 3)

# Largest number of values (leads x samples) of a record. Reading and conditioning take some 25 bytes for each, so that a record
# stays below 1 GB. Twelve leads at 500 Hz reach it after 83 minutes.
MAX_VALUES = 30_000_000

# Pass band in Hz of amplitude-free signals: close to what ST-MEM (0.67 to 40), HuBERT-ECG (0.05 to 47) and ECGFounder (0.5 to 40)
# keep; records at 100 Hz contain 40 Hz, too.
AMPLITUDE_FREE_BAND = (0.5, 40.0)

# Limits of plausibility. They leave room around all 2,283 records of PTB-XL, Georgia, Ningbo and PTB that they were tried on,
# which have 0.4 to 3.5 mV (typical lead) and up to 12 mV (any lead), and catch a unit mistaken for another.
SAMPLING_RATES = (50.0, 4000.0)  # Hz; below, QRS complexes are a sample or two; above, no electrocardiograph samples
# mV between the 1st and 99th percentile of a lead's samples, so that a pacemaker's spike or a moved electrode does not count: of
# the median lead, and of any. A low-voltage ECG has 0.5 mV.
TYPICAL_AMPLITUDE = (0.02, 20.0)
LARGEST_AMPLITUDE = 50.0
FLAT_SHARE = 0.02  # of the median lead's amplitude: a lead below it is flat; real ones have 0.13 or more
MOST_FLAT_LEADS = 3  # Ningbo has records with three leads of zeros
MOST_STUCK = 0.2  # share of a lead that may be one value without a break (padding); real records reach 0.06
MOST_MISSING = 0.5  # share of a lead's samples that may be NaN
NOTED_MISSING = 0.05  # share of NaN that is warned of
LARGEST_SPAN = 400.0  # mV of all samples of a lead, spikes included: 16 bits in the coarsest steps of records, 5 uV, span 328 mV
LARGEST_RELATIVE_SPAN = 400.0  # the same in amplitudes of a typical lead, for signals of unknown gain
LEAST_NORMALIZED = 0.05  # amplitude of the median lead in standard deviations of training records; real records have 1 to 10
MOST_CLIPPED = 0.5  # share of clipped samples, of all leads
MOST_CLIPPED_IN_LEAD = 0.9  # and of any lead
_SAMPLES_FOR_AMPLITUDE = 500  # per lead, evenly spread: percentiles of more cost more than the rest of the preparation
# An ECG spans 0.1 to 10 mV, so that each factor of 1,000 has a range of its own.
_LIKELY_CAUSES = {
    (1e2, 1e4): "uV (or a converter's raw numbers) declared as mV, or mV declared as V",
    (1e4, 1e7): "nV declared as mV, or uV declared as V",
    (1e-4, 1e-2): "mV declared as uV, or V declared as mV",
}

Name = str | PathLike[str]  # of a record, for messages


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


class RecordError(ValueError):
    """A record that cannot be used; `reason` is short and the same for all records with this fault."""

    def __init__(self, record: Name, reason: str, detail: str = ""):
        super().__init__(record, reason, detail)
        self.record, self.reason, self.detail = str(record), reason, detail

    def __str__(self) -> str:
        return f"{self.record}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


class ImplausibleSignalError(ValueError):
    """A signal that cannot be an ECG in the declared unit; `reason` is short and the same for all records with this fault."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def lead_name(label: str) -> str:
    """Return a lead in the standard spelling, from labels such as "ECG I", "EKG aVR", "I-Ref", "MDC_ECG_LEAD_AVL"."""
    name = label = label.strip()
    while (found := _BEFORE_NAME.match(name)) and found.end() < len(name):
        name = name[found.end() :]
    candidates = (label, name, _AFTER_NAME.sub("", name))
    return next((_SPELLINGS[text.lower()] for text in candidates if is_lead(text)), label)


def is_lead(name: str) -> bool:
    """Return whether this is a lead of an electrocardiograph, in the spelling of [`lead_name`]."""
    return name.lower() in _SPELLINGS


def unit_factor(unit: str | None) -> float:
    """Return the millivolts per `unit` (V, mV, uV, nV in any case). Raises `ValueError` for anything else."""
    factor = MILLIVOLTS_PER_UNIT.get(unit.strip().lower()) if isinstance(unit, str) else None
    if factor is None:
        raise ValueError(f'Unknown unit {unit!r}: expected one of "mV", "uV", "V", "nV".')
    return factor


def are_names(value: Any) -> bool:
    """Return whether these are names in an order: no single text, whose letters would be taken for leads, and no set."""
    ordered = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))
    return ordered and all(isinstance(name, str) for name in value)


def is_finite(value: Any) -> bool:
    """Return whether this is a number that is neither NaN nor infinite."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and bool(np.isfinite(value))


def check_declared(sampling_rate: Any = None, lead_names: Any = None, unit: Any = None, any_unit: bool = True) -> None:
    """Raise `ValueError` for a rate that is no positive number of Hz, names that are no list, or an unknown unit."""
    if sampling_rate is not None and not (is_finite(sampling_rate) and sampling_rate > 0):
        raise ValueError(f"sampling_rate={sampling_rate!r} must be a positive number of Hz.")
    if lead_names is not None and not are_names(lead_names):
        raise ValueError(f"lead_names must be a list of names, one per row of the signal, but is {lead_names!r}.")
    if unit is not None and not (any_unit and unit == UNKNOWN_UNIT):
        unit_factor(unit)


def missing_declarations(ecg: Any, any_unit: bool = False) -> list[str]:
    """Return which of `sampling_rate`, `unit` (unless `any_unit` will do) and `lead_names` of an [`Ecg`] are `None`."""
    return [name for name in _DECLARATIONS if getattr(ecg, name) is None and not (any_unit and name == "unit")]


def check_complete(record: Name, ecg: Any, any_unit: bool = False) -> None:
    """Raise `RecordError` ("undeclared") with what to declare, if [`missing_declarations`] finds any. `record` is its name."""
    if missing := missing_declarations(ecg, any_unit):
        how = ", ".join(_DECLARATIONS[name] for name in missing)
        raise RecordError(record, "undeclared", f"it does not say its {' and '.join(missing)}: pass {how}")


def to_millivolts(record: Name, values: np.ndarray, units: Sequence[str | None]) -> tuple[np.ndarray, list[str] | None]:
    """
    Return the values (leads, samples) of a record in mV, and its units; the same values and `None` if it says no unit at all.
    Raises `RecordError` if a unit is no voltage, or only some leads have one.
    """
    said = [unit.strip() if unit else "" for unit in units]
    if not any(said):
        return values, None
    if not all(said):
        detail = f"leads {[number for number, unit in enumerate(said) if not unit]} (counted from 0) have none, others have"
        raise RecordError(record, "unit of some leads only", detail)
    try:
        factors = np.array([unit_factor(unit) for unit in said])
    except ValueError as error:
        raise RecordError(record, "unknown unit", str(error)) from error
    return values * factors[:, None], said


def declare(
    record: Name,
    ecg: Ecg,
    sampling_rate: float | None = None,
    lead_names: Sequence[str] | None = None,
    unit: str | None = None,
    file_units: Sequence[str] | None = None,
) -> Ecg:
    """
    Complete what a record says (`ecg`; its name is `record`) by what the caller declares. The unit "unknown" declares nothing.
    `file_units` are those of the rows that the signal was converted from, if not `ecg.unit`. Raises `RecordError` if these
    contradict each other, names are not one for each row, or values are infinite.
    """
    check_declared(sampling_rate, lead_names, unit)
    signal, rate, names, said = ecg
    if rate is not None and not (is_finite(rate) and rate > 0):
        raise RecordError(record, "unusable rate", f"{rate} Hz, expected a positive number")
    if rate is not None and sampling_rate is not None and abs(rate - sampling_rate) > RATE_TOLERANCE * rate:
        raise _contradiction(record, "sampling_rate", sampling_rate, rate)
    rate = sampling_rate if rate is None else rate

    names = None if names is None or not any(names) else [lead_name(name or "") for name in names]
    if names is not None and not all(names):
        raise RecordError(record, "unnamed leads", f"{names.count('')} of {len(names)} leads have no name")
    given = None if lead_names is None else [lead_name(name) for name in lead_names]
    if names is not None and given is not None and [name.lower() for name in names] != [name.lower() for name in given]:
        raise _contradiction(record, "lead_names", " ".join(given), " ".join(names))
    names = given if names is None else names
    if names is not None and len(names) != signal.shape[0]:
        detail = f"shape {signal.shape} with {len(names)} lead names, expected (leads, samples)"
        raise RecordError(record, "wrong number of leads", detail)

    if unit not in (None, UNKNOWN_UNIT):
        own = [] if said is None else file_units or [said]
        if not own:
            signal, said = signal.astype(np.float64) * unit_factor(unit), "mV"
        elif {unit_factor(name) for name in own} != {unit_factor(unit)}:
            raise _contradiction(record, "unit", unit, ", ".join(sorted(set(own))))
    with np.errstate(over="ignore"):
        signal = np.ascontiguousarray(signal, dtype=np.float32)
    if np.isinf(signal).any():
        raise RecordError(record, "infinite values", "some samples are infinite, expected numbers, or NaN where none is")
    return Ecg(signal, None if rate is None else float(rate), names, said)


def _contradiction(record: Name, name: str, declared: Any, said: Any) -> RecordError:
    detail = f"{name} is declared as {declared}, but the record itself says {said}: declare what it does not say, or nothing"
    return RecordError(record, f"contradicted {name}", detail)


def select_leads(signal: np.ndarray, lead_names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """
    Return the rows of a signal (leads, samples) in the order of the `wanted` leads; III, aVR, aVL and aVF are derived from I and
    II where absent. `lead_names` may have any order and case. Raises `ValueError` if names and rows do not match, a name repeats,
    or a lead is missing and cannot be derived.
    """
    if len(lead_names) != signal.shape[0]:
        raise ValueError(f"{len(lead_names)} lead names for a signal of {signal.shape[0]} leads: name every row once.")
    rows = {name.strip().lower(): row for name, row in zip(lead_names, signal, strict=True)}
    if len(rows) != len(lead_names):
        raise ValueError(f"Lead names repeat (case does not count): {', '.join(lead_names)}.")
    if {"i", "ii"} <= rows.keys():
        derived = {key: i * rows["i"] + ii * rows["ii"] for key, (i, ii) in DERIVED_LEADS.items() if key not in rows}
        rows |= derived
    if missing := [name for name in wanted if name.lower() not in rows]:
        rule = "Only III, aVR, aVL and aVF can be derived (from I and II); no lead is filled with zeros."
        raise ValueError(f"Missing leads {', '.join(missing)}: the record has {', '.join(lead_names)}. {rule}")
    return np.stack([rows[name.lower()] for name in wanted])


def interpolate_nans(signal: np.ndarray) -> np.ndarray:
    """Replace NaNs linearly along each lead, at edges by the nearest value. Raises `ValueError` if all are, or one infinite."""
    if np.isinf(signal).any():
        raise ValueError("The signal has infinite values: expected mV, with NaN where nothing was recorded.")
    missing = np.isnan(signal)
    if not missing.any():
        return signal
    if empty := np.flatnonzero(missing.all(axis=1)).tolist():
        raise ValueError(f"Leads {empty} (counted from 0) are NaN throughout: there is nothing to interpolate from.")
    signal = signal.copy()
    for lead in np.flatnonzero(missing.any(axis=1)):
        known = np.flatnonzero(~missing[lead])
        signal[lead, missing[lead]] = np.interp(np.flatnonzero(missing[lead]), known, signal[lead, known])
    return signal


@lru_cache(maxsize=32)
def _butterworth(cutoff: float | tuple[float, float], kind: str, sampling_rate: float, output: str) -> Any:
    from scipy.signal import butter  # here and below, because importing it takes longer than importing the rest of the package

    return butter(4, cutoff, btype=kind, fs=sampling_rate, output=output)


def highpass(signal: np.ndarray, sampling_rate: float, cutoff: float = 0.5) -> np.ndarray:
    """
    Apply a 4th-order Butterworth high-pass at `cutoff` Hz, forward and backward (no phase shift). The reference applies it to
    CODE-15 and St-Petersburg, before resampling: without it, training on their baseline wander is unstable.
    """
    from scipy.signal import filtfilt

    return filtfilt(*_butterworth(cutoff, "highpass", sampling_rate, "ba"), signal, axis=1).astype(signal.dtype, copy=False)


def standardize(signal: np.ndarray, sampling_rate: float, lead_names: Sequence[str] | None = None) -> np.ndarray:
    """
    Make a signal amplitude-free: 4th-order Butterworth band-pass from 0.5 to 40 Hz, forward and backward, then divide every lead
    by its own standard deviation. Raises `ValueError` if a lead is flat, the record is too short for the filter, or the rate is
    too low for the band.
    """
    from scipy.signal import sosfiltfilt

    named = [f"number {row} (counted from 0)" for row in range(len(signal))] if lead_names is None else lead_names
    if flat := flat_leads(signal, named, any_amplitude=True):
        raise ValueError(f"Flat leads, of which amplitude-free input may have none: {', '.join(flat)}. Was an electrode off?")
    padding = round(sampling_rate / AMPLITUDE_FREE_BAND[0])  # a period of the slowest wave that passes
    if signal.shape[1] <= padding:
        raise ValueError(f"A band-pass needs more than {padding} samples, but the record has {signal.shape[1]}.")
    filtered = sosfiltfilt(_butterworth(AMPLITUDE_FREE_BAND, "bandpass", sampling_rate, "sos"), signal, axis=1, padlen=padding)
    return (filtered / filtered.std(axis=1, keepdims=True)).astype(signal.dtype, copy=False)


def resample(signal: np.ndarray, sampling_rate: float, target_rate: float) -> np.ndarray:
    """Resample by FFT from `sampling_rate` to `target_rate` (both Hz); the length is rounded to whole samples."""
    if sampling_rate == target_rate:
        return signal
    from scipy.signal import resample as resample_by_fft

    num_samples = round(signal.shape[1] * target_rate / sampling_rate)
    return resample_by_fft(signal, num_samples, axis=1).astype(signal.dtype, copy=False)


def condition(
    signal: np.ndarray,
    sampling_rate: float,
    target_rate: float,
    highpass_cutoff: float | None = None,
    amplitude_free: bool = False,
    lead_names: Sequence[str] | None = None,
) -> np.ndarray:
    """
    Do everything before normalisation: interpolate NaNs, apply the high-pass (Hz) or [`standardize`], resample. Raises
    `ValueError` for more than `MAX_VALUES` values, and as the single steps do.
    """
    values = signal.size * max(1.0, target_rate / sampling_rate)
    if values > MAX_VALUES:
        size = f"{values:,.0f} values at the higher of {sampling_rate:g} and {target_rate:g} Hz"
        raise ValueError(f"The record has {size}, more than {MAX_VALUES:,}: cut it into shorter ones.")
    signal = interpolate_nans(signal)
    if amplitude_free:
        signal = standardize(signal, sampling_rate, lead_names)
    elif highpass_cutoff is not None:
        signal = highpass(signal, sampling_rate, highpass_cutoff)
    return resample(signal, sampling_rate, target_rate)


def normalize(signal: Any, mean: Any, std: Any, clip: float | None = CLIP) -> Any:
    """
    Subtract the per-lead mean and divide by the per-lead standard deviation of the training records (not of this record: the
    amplitude carries diagnoses), then clip. `signal` is a floating-point array or tensor (..., leads, samples), `mean` and `std`
    are (..., leads) in the same unit.
    """
    normalized = signal - mean[..., None]
    normalized /= std[..., None]
    return normalized if clip is None else normalized.clip(-clip, clip)


def crop_starts(num_samples: int, crop_length: int, crop_stride: int) -> list[int]:
    """
    Return the first samples of crops that cover a record: every `crop_stride`, and one more that ends where the record ends if
    the others leave something over. A record shorter than a crop is one crop, starting at 0.
    """
    last = max(0, num_samples - crop_length)
    return sorted({*range(0, last + 1, crop_stride), last})


def cut_crops(signal: np.ndarray, crop_length: int, crop_stride: int) -> np.ndarray:
    """Cut a signal (leads, samples) into crops that cover it -> (crops, leads, samples); see [`crop_starts`]."""
    starts = crop_starts(signal.shape[1], crop_length, crop_stride)
    return np.stack([signal[:, start : start + crop_length] for start in starts])


def check_rate(sampling_rate: float) -> None:
    """Raise [`ImplausibleSignalError`] for a sampling rate outside 50 to 4,000 Hz."""
    lowest, highest = SAMPLING_RATES
    if not lowest <= sampling_rate <= highest:
        detail = f"{sampling_rate:g} Hz, expected {lowest:g} to {highest:g}: is it in kHz, or a duration?"
        raise ImplausibleSignalError("implausible rate", detail)


def _amplitudes(signal: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the range of the middle 98% of each lead's samples (0 if all are NaN), and the median of the leads that change."""
    # An odd stride, lest it coincides with a period of the signal.
    ordered = np.sort(signal[:, :: signal.shape[1] // _SAMPLES_FOR_AMPLITUDE | 1], axis=1)  # NaN last
    leads, counts = np.arange(len(ordered)), ordered.shape[1] - np.isnan(ordered).sum(axis=1)
    outside = counts // 100
    amplitudes = np.nan_to_num(ordered[leads, counts - 1 - outside] - ordered[leads, outside], nan=0.0)
    changing = amplitudes[amplitudes > 0]
    return amplitudes, float(np.median(changing)) if len(changing) else 0.0


def flat_leads(signal: np.ndarray, lead_names: Sequence[str], any_amplitude: bool = False) -> list[str]:
    """
    Return the names of leads (rows of a signal (leads, samples), NaN allowed) that do not change but for moments, or hardly so
    beside the others; with `any_amplitude`, where each lead may have a gain of its own, the former alone.
    """
    amplitudes, typical = _amplitudes(signal)
    limit = 0.0 if any_amplitude else FLAT_SHARE * typical
    return [name for name, amplitude in zip(lead_names, amplitudes, strict=True) if amplitude <= limit]


def check_plausible(signal: np.ndarray, lead_names: Sequence[str], any_amplitude: bool = False) -> list[str]:
    """
    Return warnings about a signal (leads, samples) as it was recorded, in mV, or in `any_amplitude`: flat leads, and long gaps.
    Raises [`ImplausibleSignalError`] with the likely cause, if it is mostly missing, flat, padded, or not of the size of an ECG.
    """
    missing = np.isnan(signal).mean(axis=1)
    lead, share = _largest(missing, lead_names)
    if share > MOST_MISSING:
        detail = f"lead {lead} has no value (NaN) in {share:.1%} of its samples, at most {MOST_MISSING:.0%} can be interpolated"
        raise ImplausibleSignalError("mostly missing", detail)
    flat = flat_leads(signal, lead_names, any_amplitude)
    if len(flat) > MOST_FLAT_LEADS:
        which = f"leads {', '.join(flat)} never change, or hardly beside the others; at most {MOST_FLAT_LEADS} may be flat"
        detail = f"{which}: was nothing connected, or are they in another unit?"
        raise ImplausibleSignalError("flat", detail if len(flat) < len(lead_names) else "no lead ever changes but for moments")
    _check_stuck(signal, lead_names, flat)
    _check_amplitude(signal, lead_names, any_amplitude)
    warnings = []
    if flat:
        warnings.append(f"leads {', '.join(flat)} do not change, or hardly beside the others: was an electrode off?")
    if gaps := [f"{lead_names[lead]} ({missing[lead]:.0%})" for lead in np.flatnonzero(missing > NOTED_MISSING).tolist()]:
        warnings.append(f"straight lines take the place of what is missing (NaN) in leads {', '.join(gaps)}")
    return warnings


def _largest(values: np.ndarray, lead_names: Sequence[str]) -> tuple[str, float]:
    """Return the lead with the largest of the values, one per lead, and that value."""
    lead = int(np.nanargmax(values))
    return lead_names[lead], float(values[lead])


def _check_stuck(signal: np.ndarray, lead_names: Sequence[str], flat: Sequence[str]) -> None:
    samples = signal.shape[1]
    # A value held for MOST_STUCK of the record is the same at two neighbouring samples of these.
    sparse = signal[:, :: max(1, int(MOST_STUCK * samples) // 2)]
    for lead in np.flatnonzero((sparse[:, 1:] == sparse[:, :-1]).any(axis=1)).tolist():
        changes = np.flatnonzero(signal[lead, 1:] != signal[lead, :-1])
        share = np.diff(changes, prepend=-1, append=samples - 1).max() / samples
        if share > MOST_STUCK and lead_names[lead] not in flat:
            detail = f"lead {lead_names[lead]} holds one value for {share:.1%} of the record (at most {MOST_STUCK:.0%} may be)"
            raise ImplausibleSignalError("long constant stretch", f"{detail}: was the record padded? Cut it to what was recorded")


def _check_amplitude(signal: np.ndarray, lead_names: Sequence[str], any_amplitude: bool) -> None:
    """Check the size of typical samples, unless of `any_amplitude`, and of single ones."""
    amplitudes, typical = _amplitudes(signal)
    lowest, highest = TYPICAL_AMPLITUDE
    if not (any_amplitude or lowest <= typical <= highest):
        likely = [f". It looks like {cause}" for (least, most), cause in _LIKELY_CAUSES.items() if least <= typical < most]
        detail = f"98% of the samples of a typical lead span {typical:.3g} mV, expected {lowest:g} to {highest:g} mV"
        raise ImplausibleSignalError("implausible amplitude", detail + "".join(likely))
    lead, amplitude = _largest(amplitudes, lead_names)
    if not any_amplitude and amplitude > LARGEST_AMPLITUDE:
        detail = (
            f"98% of the samples of lead {lead} span {amplitude:.3g} mV, at most {LARGEST_AMPLITUDE:g} mV are expected: is it in"
        )
        raise ImplausibleSignalError(
            "implausible amplitude", f"{detail} another unit than the others, or was its electrode loose?"
        )
    spans, most, unit = np.fmax.reduce(signal, axis=1) - np.fmin.reduce(signal, axis=1), LARGEST_SPAN, "mV"
    if any_amplitude:
        spans, most, unit = spans / typical, LARGEST_RELATIVE_SPAN, "times what a typical lead does"
    lead, span = _largest(spans, lead_names)
    if span > most:
        detail = f"lead {lead} spans {span:.3g} {unit} because of single samples, at most {most:g} are expected"
        raise ImplausibleSignalError("implausible sample", f"{detail}: is a code for what is missing among them? Make it NaN")


def check_normalized(values: np.ndarray) -> None:
    """Raise [`ImplausibleSignalError`] if the model's input (leads, samples) is next to nothing: its statistics do not fit."""
    _, typical = _amplitudes(values)
    if typical < LEAST_NORMALIZED:
        detail = f"98% of the samples of a typical lead span {typical:.2g} standard deviations of the training records"
        hint = "are mean, std (in mV) and highpass_cutoff of the feature extractor the model's?"
        raise ImplausibleSignalError("implausible amplitude", f"{detail}, at least {LEAST_NORMALIZED:g} are expected: {hint}")


def check_clipped(clipped: np.ndarray, lead_names: Sequence[str], limit: str) -> None:
    """Raise [`ImplausibleSignalError`] if too many samples lie beyond a limit: `clipped` is boolean, (leads, samples)."""
    shares = clipped.mean(axis=1)
    lead, share = _largest(shares, lead_names)
    if shares.mean() > MOST_CLIPPED or share > MOST_CLIPPED_IN_LEAD:
        detail = f"{shares.mean():.1%} of all samples and {share:.1%} of lead {lead} lie beyond {limit}"
        hint = f"at most {MOST_CLIPPED:.0%} and {MOST_CLIPPED_IN_LEAD:.0%} may: is the unit right, and is there an offset?"
        raise ImplausibleSignalError("clipped", f"{detail}, {hint}")
