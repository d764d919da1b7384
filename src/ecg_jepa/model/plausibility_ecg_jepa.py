"""
Whether a signal can be an ECG in mV: one rule for preparation, feature extractor, pipeline and embedding.

The limits leave room around all 2,283 records of PTB-XL, Georgia, Ningbo and PTB that they were tried on, which reach from 0.4 to
3.5 mV (amplitude of the typical lead) and up to 12 mV (of any lead), and catch a unit mistaken for another, a factor of 1,000.
"""

from collections.abc import Sequence

import numpy as np

# Hz. Below, QRS complexes are a sample or two; above, no electrocardiograph samples.
SAMPLING_RATES = (50.0, 4000.0)

# mV between the 1st and 99th percentile of a lead's samples, so that a pacemaker's spike or a moved electrode does not count: of
# the median lead, and of any. A low-voltage ECG has 0.5 mV.
TYPICAL_AMPLITUDE = (0.02, 20.0)
LARGEST_AMPLITUDE = 50.0

# A lead that spans less than this share of the median lead is flat, whatever noise it has: of live leads of real records, the
# smallest spans 0.13.
FLAT_SHARE = 0.02

# Ningbo has records of which three leads are zero throughout; more is no 12-lead ECG.
MOST_FLAT_LEADS = 3

# Share of the samples of a lead that may be one value without a break, which padding is: of real records, at most 0.06.
MOST_STUCK = 0.2

# Share of the samples of a lead that may be missing: what is interpolated must not be most of it. More than the lower one is
# told of.
MOST_MISSING = 0.5
NOTED_MISSING = 0.05

# mV that all samples of a lead span, any spike included: 16 bits in the coarsest steps of records, 5 uV, span 328 mV. Filters
# would spread what is beyond over seconds.
LARGEST_SPAN = 400.0

# The same in spans of a typical lead, which is around 1 mV, for signals whose gain is not known.
LARGEST_RELATIVE_SPAN = 400.0

# Standard deviations of training records that the median lead spans at least; real records span 1 to 10.
LEAST_NORMALIZED = 0.05

# Share of samples that may lie at a limit (of the prepared records, or of what the model sees): of all leads, and of any.
MOST_CLIPPED = 0.5
MOST_CLIPPED_IN_LEAD = 0.9

_SAMPLES_LOOKED_AT = 500  # per lead, evenly spread: percentiles of more cost more than the rest of the preparation


class ImplausibleSignalError(ValueError):
    """A signal that is no ECG in the declared unit; `reason` says why in a form that can be counted."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def check_rate(sampling_rate: float) -> None:
    """Raise [`ImplausibleSignalError`] for a sampling rate outside 50 to 4,000 Hz."""
    lowest, highest = SAMPLING_RATES
    if not lowest <= sampling_rate <= highest:
        raise ImplausibleSignalError(
            "implausible rate", f"{sampling_rate:g} Hz, expected {lowest:g} to {highest:g}: is it in kHz, or a duration?"
        )


def flat_leads(signal: np.ndarray, lead_names: Sequence[str], any_amplitude: bool = False) -> list[str]:
    """
    Names of the leads (rows of a signal (leads, samples), NaN allowed) that do not change but for moments, or hardly so beside
    the others; of `any_amplitude`, when each lead may have a gain of its own, the former alone.
    """
    return _flat(_amplitudes(signal), lead_names, any_amplitude)


def _flat(amplitudes: np.ndarray, lead_names: Sequence[str], any_amplitude: bool) -> list[str]:
    limit = 0.0 if any_amplitude else FLAT_SHARE * _typical(amplitudes)
    return [name for name, amplitude in zip(lead_names, amplitudes, strict=True) if amplitude <= limit]


def _amplitudes(signal: np.ndarray) -> np.ndarray:
    """What the samples of each lead span, the lowest and highest hundredth left out; 0 for a lead without any."""
    # An odd stride, lest it beats in time with what repeats.
    ordered = np.sort(signal[:, :: signal.shape[1] // _SAMPLES_LOOKED_AT | 1], axis=1)  # NaN last
    leads, counts = np.arange(len(ordered)), ordered.shape[1] - np.isnan(ordered).sum(axis=1)
    outside = counts // 100
    return np.nan_to_num(ordered[leads, counts - 1 - outside] - ordered[leads, outside], nan=0.0)


def _typical(amplitudes: np.ndarray) -> float:
    """That of the median lead, among those that change."""
    return float(np.median(amplitudes[amplitudes > 0])) if (amplitudes > 0).any() else 0.0


def check_plausible(signal: np.ndarray, lead_names: Sequence[str], any_amplitude: bool = False) -> list[str]:
    """
    Raise [`ImplausibleSignalError`] if a signal is mostly missing, flat, padded, or not of the size of an ECG, with the likely
    cause.

    Args:
        signal: (leads, samples) in mV as it was recorded, with NaN where nothing was.
        lead_names: of its rows.
        any_amplitude: leave out the size, for signals whose gain is not known.

    Returns:
        What is odd of a signal that may pass, in sentences for the user: flat leads, and long gaps.
    """
    shares = np.isnan(signal).mean(axis=1)
    if shares.max() > MOST_MISSING:
        lead = int(shares.argmax())
        raise ImplausibleSignalError(
            "mostly missing",
            f"lead {lead_names[lead]} has no value (NaN) in {shares[lead]:.1%} of its samples, at most {MOST_MISSING:.0%} can be "
            "interpolated",
        )
    amplitudes = _amplitudes(signal)
    flat = _flat(amplitudes, lead_names, any_amplitude)
    if len(flat) > MOST_FLAT_LEADS:
        raise ImplausibleSignalError(
            "flat",
            f"leads {', '.join(flat)} never change, or hardly beside the others; at most {MOST_FLAT_LEADS} may be flat: was "
            "nothing connected, or are they in another unit?"
            if len(flat) < len(lead_names)
            else "no lead ever changes but for moments",
        )
    _check_stuck(signal, lead_names, flat)
    if any_amplitude:
        _check_samples(signal, lead_names, _typical(amplitudes), LARGEST_RELATIVE_SPAN, "times what a typical lead does")
    else:
        _check_amplitude(signal, amplitudes, lead_names)
        _check_samples(signal, lead_names, 1.0, LARGEST_SPAN, "mV")
    return _oddities(lead_names, flat, shares)


def _oddities(lead_names: Sequence[str], flat: Sequence[str], missing: np.ndarray) -> list[str]:
    found = []
    if flat:
        found.append(f"leads {', '.join(flat)} do not change, or hardly beside the others: was an electrode off?")
    gaps = [f"{lead_names[lead]} ({missing[lead]:.0%})" for lead in np.flatnonzero(missing > NOTED_MISSING).tolist()]
    if gaps:
        found.append(f"straight lines take the place of what is missing (NaN) in leads {', '.join(gaps)}")
    return found


def _check_stuck(signal: np.ndarray, lead_names: Sequence[str], flat: Sequence[str]) -> None:
    """What holds one value for so long holds it at two of these samples that follow each other."""
    samples = signal.shape[1]
    looked_at = signal[:, :: max(1, int(MOST_STUCK * samples) // 2)]
    for lead in np.flatnonzero((looked_at[:, 1:] == looked_at[:, :-1]).any(axis=1)).tolist():
        changes = np.flatnonzero(signal[lead, 1:] != signal[lead, :-1])
        share = np.diff(changes, prepend=-1, append=samples - 1).max() / samples
        if share > MOST_STUCK and lead_names[lead] not in flat:
            raise ImplausibleSignalError(
                "long constant stretch",
                f"lead {lead_names[lead]} holds one value for {share:.1%} of the record without a break, at most "
                f"{MOST_STUCK:.0%} may be: was the record padded? Cut it to what was recorded",
            )


def _check_amplitude(signal: np.ndarray, amplitudes: np.ndarray, lead_names: Sequence[str]) -> None:
    amplitude = _typical(amplitudes)
    lowest, highest = TYPICAL_AMPLITUDE
    if not lowest <= amplitude <= highest:
        raise ImplausibleSignalError(
            "implausible amplitude",
            f"98% of the samples of a typical lead span {amplitude:.3g} mV, expected {lowest:g} to {highest:g} mV"
            + _likely_cause(amplitude),
        )
    lead = int(amplitudes.argmax())
    if amplitudes[lead] > LARGEST_AMPLITUDE:
        raise ImplausibleSignalError(
            "implausible amplitude",
            f"98% of the samples of lead {lead_names[lead]} span {amplitudes[lead]:.3g} mV, at most {LARGEST_AMPLITUDE:g} mV are "
            "expected: is it in another unit than the others, or was its electrode loose?",
        )


def _check_samples(signal: np.ndarray, lead_names: Sequence[str], unit: float, most: float, named: str) -> None:
    """No lead may span more than `most` of such units, which are `named`, any spike included."""
    spans = (np.fmax.reduce(signal, axis=1) - np.fmin.reduce(signal, axis=1)) / unit
    lead = int(np.nanargmax(spans))
    if spans[lead] > most:
        raise ImplausibleSignalError(
            "implausible sample",
            f"lead {lead_names[lead]} spans {spans[lead]:.3g} {named} because of single samples, at most {most:g} are expected: "
            "is there a code for what is missing among them? Make it NaN",
        )


def _likely_cause(amplitude: float) -> str:
    # An ECG spans 0.1 to 10 mV, so that each factor of 1,000 has a range of its own.
    if 1e2 <= amplitude < 1e4:
        return ". It looks like uV (or a converter's raw numbers) declared as mV, or mV declared as V"
    if 1e4 <= amplitude < 1e7:
        return ". It looks like nV declared as mV, or uV declared as V"
    if 1e-4 <= amplitude < 1e-2:
        return ". It looks like mV declared as uV, or V declared as mV"
    return ""


def check_normalized(values: np.ndarray) -> None:
    """
    Raise [`ImplausibleSignalError`] if a plausible signal was made next to nothing: by statistics or a filter of another kind.

    Args:
        values: what the model would see, (leads, samples) in standard deviations of its training records.
    """
    amplitude = _typical(_amplitudes(values))
    if amplitude < LEAST_NORMALIZED:
        raise ImplausibleSignalError(
            "implausible amplitude",
            f"98% of the samples of a typical lead span {amplitude:.2g} standard deviations of the training records, at least "
            f"{LEAST_NORMALIZED:g} are expected: are mean, std (in mV) and highpass_cutoff of the feature extractor the model's?",
        )


def check_clipped(clipped: np.ndarray, lead_names: Sequence[str], limit: str) -> None:
    """
    Raise [`ImplausibleSignalError`] if too many samples lie at a limit.

    Args:
        clipped: whether each sample does, (leads, samples).
        lead_names: of its rows.
        limit: which one it is, for the message.
    """
    shares = clipped.mean(axis=1)
    lead = int(shares.argmax())
    if shares.mean() > MOST_CLIPPED or shares[lead] > MOST_CLIPPED_IN_LEAD:
        raise ImplausibleSignalError(
            "clipped",
            f"{shares.mean():.1%} of all samples and {shares[lead]:.1%} of lead {lead_names[lead]} lie beyond {limit}, at most "
            f"{MOST_CLIPPED:.0%} and {MOST_CLIPPED_IN_LEAD:.0%} may: is the unit right, and is there an offset?",
        )


__all__ = ["ImplausibleSignalError", "check_clipped", "check_normalized", "check_plausible", "check_rate", "flat_leads"]
