"""
Calibration of probabilities: Brier score, expected calibration error, and the temperature that improves them.

All is per class, a class against all others, also for exclusive classes. Bins of the calibration error hold equally many records
(equal mass): bins of equal width leave nearly all records of a rare class in one bin.
"""

import logging
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from .metrics import check_shapes

logger = logging.getLogger(__name__)

MOST_BINS, FEWEST_PER_BIN = 10, 20
_QUANTILE = 1.959964  # of the normal distribution, for 95%
_TEMPERATURES = (0.02, 50.0)  # beyond, all probabilities are nearly equal, or nearly 0 and 1


class Temperature(NamedTuple):
    """A temperature, and the mean loss without it (`before`) and with it (`after`) on the records it was fitted on."""

    value: float
    before: float
    after: float


def probabilities(logits: np.ndarray, single_label: bool, temperature: float | None = None) -> np.ndarray:
    """Return softmax for exclusive classes, else sigmoid, of logits (records, classes), averaged over crops, / temperature."""
    tensor = torch.from_numpy(logits)
    if temperature is not None:
        tensor = tensor / temperature
    return (tensor.softmax(dim=1) if single_label else tensor.sigmoid()).numpy()


def mean_loss(labels: np.ndarray, logits: np.ndarray, single_label: bool, temperature: float = 1.0) -> float:
    """
    Return the loss of training: cross-entropy for exclusive classes (`single_label`), else binary cross-entropy over all classes.

    Labels (zeros and ones) and logits are (records, classes); logits are divided by the temperature.
    """
    scaled, truth = torch.from_numpy(np.asarray(logits, dtype=np.float64)) / temperature, torch.from_numpy(np.asarray(labels))
    if single_label:
        return float(torch.nn.functional.cross_entropy(scaled, truth.argmax(dim=1)))
    return float(torch.nn.functional.binary_cross_entropy_with_logits(scaled, truth.to(scaled)))


def fit_temperature(labels: np.ndarray, logits: np.ndarray, single_label: bool) -> Temperature:
    """
    Return the temperature with the lowest loss on these (validation) records (Guo et al. 2017), 1 if none is better. Arguments as
    for [`mean_loss`]; raises `ValueError` if they do not fit.
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
        logger.warning(f"The temperature is at the end of its range, {value:g}: validation records are few, or all right.")
    return Temperature(value, before, after)


def equal_mass_bins(probabilities: np.ndarray, most: int = MOST_BINS, fewest: int = FEWEST_PER_BIN) -> np.ndarray:
    """
    Return the bin of each record, from 0 on, (records,): at most `most` bins of about equally many records of rising probability,
    at least `fewest` in each, or a single bin. Records of equal probability, (records,), share a bin.
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


class Reliability(NamedTuple):
    """
    Bins of one class, (bins,) each: records, mean probability (`predicted`), share of positives (`observed`) and its 95% interval
    (Wilson 1927), which stays within 0 and 1 also where none or all are positive.
    """

    records: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Return the bins of [`equal_mass_bins`] for labels and probabilities of one class, (records,)."""
    bins = equal_mass_bins(probabilities)
    records = np.bincount(bins)
    predicted, observed = (np.bincount(bins, weights=values) / records for values in (probabilities, labels))
    weight = _QUANTILE**2 / records
    middle = (observed + weight / 2) / (1 + weight)
    half = _QUANTILE * np.sqrt(observed * (1 - observed) / records + weight / (4 * records)) / (1 + weight)
    low, high = np.minimum(middle - half, observed), np.maximum(middle + half, observed)  # but for rounding, they are
    return Reliability(records, predicted, observed, low, high)


def brier(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the mean squared distance of probability and label of each class; arguments and shapes as in [`metrics`]."""
    labels, probabilities = check_shapes(labels, probabilities)
    squares = np.square(probabilities.astype(np.float64) - labels)
    return squares.mean(axis=0) if counts is None else counts.astype(np.float64) @ squares / len(labels)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """
    Return per class the mean over records of how far the mean probability of their bin is from its share of positives; arguments
    and shapes as in [`metrics`]. Bins are those of [`equal_mass_bins`], of all records also for resamples.
    """
    labels, probabilities = check_shapes(labels, probabilities)
    gaps = np.zeros((*labels.shape, MOST_BINS), dtype=np.float32)  # label minus probability of a record, at its bin
    for column in range(labels.shape[1]):
        bins = equal_mass_bins(probabilities[:, column])
        gaps[np.arange(len(bins)), column, bins] = labels[:, column] - probabilities[:, column]
    if counts is None:
        sums = gaps.sum(axis=0, dtype=np.float64)
    else:
        sums = (counts.astype(np.float32) @ gaps.reshape(len(labels), -1)).reshape(len(counts), labels.shape[1], MOST_BINS)
    return np.abs(sums).sum(axis=-1, dtype=np.float64) / len(labels)
