"""
What happens to a signal before the model sees it. Preparation of databases and the feature extractor both call these
functions, so that a user's record goes through exactly what the training records went through.

Signals are arrays (leads, samples) in mV.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .plausibility_ecg_jepa import flat_leads

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# The same for comparisons with names in any spelling.
STANDARD_LEADS_LOWER = frozenset(name.lower() for name in STANDARD_LEADS)

# Millivolts per unit, by lower-case name; databases spell "mV" in every case.
MILLIVOLTS_PER_UNIT = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}

# Largest distance from the mean that the model sees, in standard deviations (paper, section 3).
CLIP = 5.0

# Values of all leads of a record. Reading and conditioning take some 25 bytes for each, so that a record stays below 1 GB. Twelve
# leads at 500 Hz reach it after 83 minutes.
MAX_VALUES = 30_000_000

# Pass band in Hz of amplitude-free signals: what ST-MEM (0.67 to 40), HuBERT-ECG (0.05 to 47) and ECGFounder (0.5 to 40) keep,
# give or take; 40 Hz can be had of records at 100 Hz, too.
AMPLITUDE_FREE_BAND = (0.5, 40.0)

# Unit of a signal whose gain is not known, which only amplitude-free input can do with.
UNKNOWN_UNIT = "unknown"

# The augmented limb leads and III as combinations of I and II (Einthoven 1913, Goldberger 1942).
DERIVED_LEADS = {"iii": (-1.0, 1.0), "avr": (-0.5, -0.5), "avl": (1.0, -0.5), "avf": (-0.5, 1.0)}


def unit_factor(unit: str, amplitude_free: bool = False) -> float:
    """
    Millivolts per `unit` (V, mV, uV, nV in any case; for amplitude-free input also "unknown"). Raises `ValueError` for anything
    else.
    """
    if unit == UNKNOWN_UNIT and amplitude_free:
        return 1.0
    factor = MILLIVOLTS_PER_UNIT.get(unit.strip().lower()) if isinstance(unit, str) else None
    if factor is None:
        raise ValueError(f'Unknown unit {unit!r}: expected one of "mV", "uV", "V", "nV".')
    return factor


def select_leads(signal: np.ndarray, lead_names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """
    Bring leads into the wanted order.

    Args:
        signal: (leads, samples), rows named by `lead_names` in any order and case; more leads than wanted are fine.
        wanted: names in the order of the result. III, aVR, aVL and aVF are derived from I and II where absent.

    Raises:
        ValueError: if names and rows do not match, a name repeats, or a lead is missing and cannot be derived.
    """
    if len(lead_names) != signal.shape[0]:
        raise ValueError(f"{len(lead_names)} lead names for a signal of {signal.shape[0]} leads: name every row once.")
    rows = {name.strip().lower(): index for index, name in enumerate(lead_names)}
    if len(rows) != len(lead_names):
        raise ValueError(f"Lead names repeat (case does not count): {', '.join(lead_names)}.")
    selected = []
    missing = []
    for name in wanted:
        key = name.lower()
        if key in rows:
            selected.append(signal[rows[key]])
        elif key in DERIVED_LEADS and "i" in rows and "ii" in rows:
            factor_i, factor_ii = DERIVED_LEADS[key]
            selected.append(factor_i * signal[rows["i"]] + factor_ii * signal[rows["ii"]])
        else:
            missing.append(name)
    if missing:
        raise ValueError(
            f"Missing leads {', '.join(missing)}: the record has {', '.join(lead_names)}. Only III, aVR, aVL and aVF "
            "can be derived (from I and II); no lead is filled with zeros."
        )
    return np.stack(selected)


def interpolate_nans(signal: np.ndarray) -> np.ndarray:
    """
    Replace NaNs by linear interpolation along each lead; at the edges by the nearest value.

    Raises:
        ValueError: if a lead has no finite value, or any value is infinite.
    """
    if np.isinf(signal).any():
        raise ValueError("The signal has infinite values: expected mV, with NaN where nothing was recorded.")
    missing = np.isnan(signal)
    if not missing.any():
        return signal
    if missing.all(axis=1).any():
        leads = np.flatnonzero(missing.all(axis=1)).tolist()
        raise ValueError(f"Leads {leads} (counted from 0) are NaN throughout: there is nothing to interpolate from.")
    signal = signal.copy()
    positions = np.arange(signal.shape[1])
    for lead in np.flatnonzero(missing.any(axis=1)):
        gaps = missing[lead]
        signal[lead, gaps] = np.interp(positions[gaps], positions[~gaps], signal[lead, ~gaps])
    return signal


@lru_cache(maxsize=32)
def _butterworth(cutoff: float, sampling_rate: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.signal import butter  # here, because importing it takes longer than importing the rest of the package

    return butter(4, cutoff, btype="highpass", fs=sampling_rate)


def highpass(signal: np.ndarray, sampling_rate: float, cutoff: float = 0.5) -> np.ndarray:
    """
    4th-order Butterworth high-pass at `cutoff` Hz, forward and backward (no phase shift).

    The reference applies it to CODE-15 and St-Petersburg, at 0.5 Hz and before resampling: without it, training on
    their baseline wander is unstable.
    """
    from scipy.signal import filtfilt

    numerator, denominator = _butterworth(cutoff, sampling_rate)
    shortest = 3 * max(len(numerator), len(denominator))
    if signal.shape[1] <= shortest:
        raise ValueError(f"A high-pass needs more than {shortest} samples, but the record has {signal.shape[1]}.")
    return filtfilt(numerator, denominator, signal, axis=1).astype(signal.dtype, copy=False)


@lru_cache(maxsize=32)
def _bandpass(sampling_rate: float) -> np.ndarray:
    from scipy.signal import butter

    return butter(4, AMPLITUDE_FREE_BAND, btype="bandpass", fs=sampling_rate, output="sos")


def standardize(signal: np.ndarray, sampling_rate: float, lead_names: Sequence[str] | None = None) -> np.ndarray:
    """
    Make a signal amplitude-free: 4th-order Butterworth band-pass from 0.5 to 40 Hz, forward and backward, then every lead divided
    by its own standard deviation. What is left are shapes and timing; amplitudes, and ratios between leads, are gone.
    Messages call leads by `lead_names`, or count them from 0.

    Raises:
        ValueError: if a lead does not change but for moments, the record is too short for the filter, or the rate is too low for
            the band.
    """
    from scipy.signal import sosfiltfilt

    named = [f"number {row} (counted from 0)" for row in range(len(signal))] if lead_names is None else lead_names
    if flat := flat_leads(signal, named, any_amplitude=True):
        raise ValueError(f"Flat leads, of which amplitude-free input may have none: {', '.join(flat)}. Was an electrode off?")
    if sampling_rate <= 2 * AMPLITUDE_FREE_BAND[1]:
        raise ValueError(
            f"A band-pass to {AMPLITUDE_FREE_BAND[1]:g} Hz needs more than twice that rate, not {sampling_rate:g} Hz."
        )
    padding = round(sampling_rate / AMPLITUDE_FREE_BAND[0])  # a period of the slowest wave that passes
    if signal.shape[1] <= padding:
        raise ValueError(f"A band-pass needs more than {padding} samples, but the record has {signal.shape[1]}.")
    filtered = sosfiltfilt(_bandpass(sampling_rate), signal, axis=1, padlen=padding)
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
    NaNs, then the high-pass if a cutoff (Hz) is given, or what makes the signal amplitude-free ([`standardize`]), then the target
    rate: everything before normalisation. Messages call leads by `lead_names`. Raises `ValueError` for what would take more than
    `MAX_VALUES`.
    """
    values = signal.size * max(1.0, target_rate / sampling_rate)
    if values > MAX_VALUES:
        raise ValueError(
            f"{signal.shape[0]} leads of {signal.shape[1] / sampling_rate:,.0f} s are {values:,.0f} values at the higher of "
            f"{sampling_rate:g} and {target_rate:g} Hz, more than {MAX_VALUES:,}: cut the record into shorter ones."
        )
    signal = interpolate_nans(signal)
    if amplitude_free:
        signal = standardize(signal, sampling_rate, lead_names)
    elif highpass_cutoff is not None:
        signal = highpass(signal, sampling_rate, highpass_cutoff)
    return resample(signal, sampling_rate, target_rate)


def normalize(signal: Any, mean: Any, std: Any, clip: float | None = CLIP) -> Any:
    """
    Subtract the per-lead mean and divide by the per-lead standard deviation (of the training records, not of this record: the
    amplitude carries diagnoses), then clip. The one place where this happens: of batches on their device, of records for a task,
    and in the feature extractor.

    Args:
        signal: floating-point array or tensor (..., leads, samples), in any unit.
        mean, std: in the same unit and of the same kind, (..., leads).
        clip: largest distance from the mean in standard deviations; `None` for none.
    """
    normalized = signal - mean[..., None]
    normalized /= std[..., None]
    return normalized if clip is None else normalized.clip(-clip, clip)


def crop_starts(num_samples: int, crop_length: int, crop_stride: int) -> list[int]:
    """
    First samples of crops that cover a record: every `crop_stride`, and one more that ends where the record ends if the
    others leave something over. A record shorter than a crop is one crop, starting at 0.
    """
    last = max(0, num_samples - crop_length)
    starts = list(range(0, last + 1, crop_stride))
    return starts if starts[-1] == last else [*starts, last]


def cut_crops(signal: np.ndarray, crop_length: int, crop_stride: int) -> np.ndarray:
    """Crops of `crop_length` samples that cover a signal (leads, samples) -> (crops, leads, samples); see [`crop_starts`]."""
    starts = crop_starts(signal.shape[1], crop_length, crop_stride)
    return np.stack([signal[:, start : start + crop_length] for start in starts])


__all__ = [
    "condition",
    "crop_starts",
    "cut_crops",
    "highpass",
    "interpolate_nans",
    "normalize",
    "resample",
    "select_leads",
    "standardize",
    "unit_factor",
]
