"""Calibration of the probabilities of each class against all others: Brier score, calibration error, and a temperature."""

import logging
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from .metrics import check_shapes

logger = logging.getLogger(__name__)

MOST_BINS, FEWEST_PER_BIN = 10, 20
_TEMPERATURES = (0.02, 50.0)  # beyond, all probabilities are nearly equal, or nearly 0 and 1


class Temperature(NamedTuple):
    """A temperature, and the mean loss without it (`before`) and with it (`after`) on the records it was fitted on."""

    value: float
    before: float
    after: float


def probabilities(logits: np.ndarray, single_label: bool, temperature: float | None = None) -> np.ndarray:
    """Return softmax for exclusive classes, else sigmoid, of logits (records, classes), averaged over crops, / temperature."""
    tensor = torch.from_numpy(logits) / (1.0 if temperature is None else temperature)
    return (tensor.softmax(dim=1) if single_label else tensor.sigmoid()).numpy()


def mean_loss(labels: np.ndarray, logits: np.ndarray, single_label: bool, temperature: float = 1.0) -> float:
    """Return cross-entropy for exclusive classes, else binary cross-entropy, of logits (records, classes) / temperature."""
    scaled, truth = torch.from_numpy(np.asarray(logits, dtype=np.float64)) / temperature, torch.from_numpy(np.asarray(labels))
    if single_label:
        return float(torch.nn.functional.cross_entropy(scaled, truth.argmax(dim=1)))
    return float(torch.nn.functional.binary_cross_entropy_with_logits(scaled, truth.to(scaled)))


def fit_temperature(labels: np.ndarray, logits: np.ndarray, single_label: bool) -> Temperature:
    """Return the temperature with the lowest [`mean_loss`] on (validation) records (Guo et al. 2017), 1 if none is better."""
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


def equal_mass_bins(probabilities: np.ndarray) -> np.ndarray:
    """
    Return the bin of each record, from 0 on, (records,): at most `MOST_BINS` of about equally many records of rising probability,
    at least `FEWEST_PER_BIN` in each, or a single bin; of equal width, one would hold nearly all records of a rare class.
    Records of equal probability, (records,), share a bin.
    """
    count = len(probabilities)
    size = -(-count // max(1, min(MOST_BINS, count // FEWEST_PER_BIN)))
    ordered = np.sort(probabilities)
    edges = []  # the highest probability of each bin but the last
    end = 0
    while (end := end + size) < count:
        end = int(np.searchsorted(ordered, ordered[end - 1], "right"))
        if count - end < FEWEST_PER_BIN:
            break
        edges.append(ordered[end - 1])
    return np.searchsorted(np.array(edges), probabilities, "left")


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """
    Return a row per bin of [`equal_mass_bins`] for labels and probabilities of one class, (records,): `records`, mean probability
    (`predicted`), share of positives (`observed`), and its 95% Wilson interval, `low` and `high`.
    """
    bins = equal_mass_bins(probabilities)
    records = np.bincount(bins)
    positives, predicted = (np.bincount(bins, weights=values) for values in (labels, probabilities))
    tests = [binomtest(int(hits), int(count)) for hits, count in zip(positives, records, strict=True)]
    low, high = np.array([test.proportion_ci(0.95, "wilson") for test in tests]).T
    shares = {"predicted": predicted / records, "observed": positives / records, "low": low, "high": high}
    return pd.DataFrame({"records": records, **shares})


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
