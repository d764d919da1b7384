"""
How far probabilities can be taken as such: Brier score, expected calibration error, and the temperature that mends them.

All is per class, a class against all others, also for exclusive classes. Bins of the calibration error hold equally many records
(equal mass), so that none rests on a handful; those of equal width leave nearly all records of a rare class in one bin.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from .metrics import check_shapes

logger = logging.getLogger(__name__)

MOST_BINS, FEWEST_PER_BIN = 10, 20
_QUANTILE = 1.959964  # of the normal distribution, for 95%
_TEMPERATURES = (0.02, 50.0)  # beyond, logits say next to nothing, or everything


@dataclass(frozen=True)
class Temperature:
    """A temperature, and the mean loss on the records it was fitted on without it (`before`) and with it (`after`)."""

    value: float
    before: float
    after: float


def mean_loss(labels: np.ndarray, logits: np.ndarray, single_label: bool, temperature: float = 1.0) -> float:
    """
    What training minimises: cross-entropy for exclusive classes, binary cross-entropy over all classes otherwise.

    Args:
        labels: zeros and ones, (records, classes).
        logits: averaged over crops, (records, classes).
        single_label: whether classes are exclusive.
        temperature: that logits are divided by.
    """
    scaled, truth = torch.from_numpy(np.asarray(logits, dtype=np.float64)) / temperature, torch.from_numpy(np.asarray(labels))
    if single_label:
        return float(torch.nn.functional.cross_entropy(scaled, truth.argmax(dim=1)))
    return float(torch.nn.functional.binary_cross_entropy_with_logits(scaled, truth.to(scaled)))


def fit_temperature(labels: np.ndarray, logits: np.ndarray, single_label: bool) -> Temperature:
    """
    The one temperature that makes the loss on these (validation) records lowest (Guo et al. 2017), 1 if none is better. Arguments
    as for [`mean_loss`]; raises `ValueError` if they do not fit.
    """
    labels, logits = check_shapes(labels, logits)
    before = mean_loss(labels, logits, single_label)
    found = minimize_scalar(
        lambda power: mean_loss(labels, logits, single_label, float(np.exp(power))),
        bounds=tuple(np.log(_TEMPERATURES)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    value = float(np.exp(found.x))
    after = mean_loss(labels, logits, single_label, value)
    if not after < before:
        return Temperature(1.0, before, before)
    if not _TEMPERATURES[0] * 1.01 < value < _TEMPERATURES[1] / 1.01:
        logger.warning(f"The temperature is at the end of what is tried, {value:g}: validation records are few, or all right.")
    return Temperature(value, before, after)


def equal_mass_bins(probabilities: np.ndarray, most: int = MOST_BINS, fewest: int = FEWEST_PER_BIN) -> np.ndarray:
    """
    Bins of about equally many records of rising probability.

    Args:
        probabilities: of one class, (records,). Records of equal ones share a bin.
        most: bins; fewer where they would hold less than `fewest` records.

    Returns:
        The bin of each record from 0 on, (records,); a single one where there are fewer than `fewest` records.
    """
    count = len(probabilities)
    size = -(-count // max(1, min(most, count // fewest)))
    ordered = np.sort(probabilities)
    edges = []  # the highest probability of each bin but the last
    end = 0
    while (end := end + size) < count:
        end = int(np.searchsorted(ordered, ordered[end - 1], "right"))
        if count - end < fewest:
            break
        edges.append(ordered[end - 1])
    return np.searchsorted(np.array(edges), probabilities, "left")


@dataclass(frozen=True)
class Reliability:
    """
    Of the bins of one class, (bins,) each: records, mean probability (`predicted`), share of positives (`observed`) and the 95%
    interval of that (Wilson 1927), within which it stays also where none or all are positive.
    """

    records: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Of labels and probabilities of one class, (records,), in the bins of [`equal_mass_bins`]."""
    bins = equal_mass_bins(probabilities)
    records = np.bincount(bins)
    predicted, observed = (np.bincount(bins, weights=values) / records for values in (probabilities, labels))
    weight = _QUANTILE**2 / records
    middle = (observed + weight / 2) / (1 + weight)
    half = _QUANTILE * np.sqrt(observed * (1 - observed) / records + weight / (4 * records)) / (1 + weight)
    low, high = np.minimum(middle - half, observed), np.maximum(middle + half, observed)  # but for rounding, they are
    return Reliability(records, predicted, observed, low, high)


def calibration_gaps(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """
    Observation minus prediction of every record in the place of its bin, (records, classes, bins) float32, 0 elsewhere: the sum
    over records, or over those that were drawn, is what the expected calibration error is the size of.
    """
    labels, probabilities = check_shapes(labels, probabilities)
    gaps = np.zeros((*labels.shape, MOST_BINS), dtype=np.float32)
    for column in range(labels.shape[1]):
        bins = equal_mass_bins(probabilities[:, column])
        gaps[np.arange(len(bins)), column, bins] = labels[:, column] - probabilities[:, column]
    return gaps


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """
    Per class, the mean over records of how far the mean probability of their bin is from its share of positives, (classes,).
    Labels and probabilities are (records, classes); bins are those of [`equal_mass_bins`].
    """
    return np.abs(calibration_gaps(labels, probabilities).sum(axis=0, dtype=np.float64)).sum(axis=1) / len(labels)


def brier(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean squared distance of probability and label of each class, (classes,); both are (records, classes)."""
    labels, probabilities = check_shapes(labels, probabilities)
    return np.square(probabilities.astype(np.float64) - labels).mean(axis=0)


def resampled_calibration(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    [`brier`] and [`expected_calibration_error`] in each resample, (resamples, classes) each; bins stay those of all records.
    `counts` are those of [`bootstrap.resample_counts`].
    """
    squares = np.square(probabilities.astype(np.float64) - labels)
    gaps = calibration_gaps(labels, probabilities).reshape(len(labels), -1)
    sums = (counts.astype(np.float32) @ gaps).reshape(len(counts), labels.shape[1], MOST_BINS)
    return counts.astype(np.float64) @ squares / len(labels), np.abs(sums).sum(axis=2, dtype=np.float64) / len(labels)
