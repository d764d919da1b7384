"""
Training, validation and test records: PTB-XL's ten folds, which keep patients together, number them for every database.

Databases without folds are split by patient, so that no patient is in two parts, and by class, so that even rare classes are in
each part (after Sechidis et al. 2011: rare classes first).
"""

import numpy as np
import pandas as pd

FOLDS_OF_SPLIT = {"train": tuple(range(1, 9)), "validation": (9,), "test": (10,)}

HELD_OUT_SHARE = 0.1  # for validation and for test, as in PTB-XL's folds


def in_training_folds(fold: np.ndarray) -> np.ndarray:
    """Return which records may be trained on: those of folds 1 to 8, and those of databases without folds (NaN)."""
    return np.isnan(fold.astype(float)) | np.isin(fold, FOLDS_OF_SPLIT["train"])


def in_validation_fold(fold: np.ndarray) -> np.ndarray:
    """Return which records are in fold 9; none of a database without folds."""
    return np.isin(fold, FOLDS_OF_SPLIT["validation"])


def patient_numbers(patient_ids: np.ndarray) -> np.ndarray:
    """Number patients from 0, (records,); a record without a patient id counts as a patient of its own."""
    numbers, known = pd.factorize(patient_ids)
    unknown = numbers < 0
    numbers[unknown] = len(known) + np.arange(unknown.sum())
    return numbers


def draw_share(labels: np.ndarray, patients: np.ndarray, share: float, rng: np.random.Generator, at_least: int = 0) -> np.ndarray:
    """
    Draw patients so that every class, and the records without any, give their share of records, and `at_least` so many if there
    are. `labels` are zeros and ones, (records, classes), `patients` from [`patient_numbers`], the result is (records,) bool.
    """
    if not 0 < share <= 1:
        raise ValueError(f"A share of {share} records: expected more than 0, at most 1.")
    counts, owners = _records_by_patient(labels, patients)
    total = counts.sum(axis=0)
    # Records of each class that the drawn part and the rest still need: a patient goes where its rarest class is needed more.
    drawn_needs = np.minimum(np.maximum(share * total, at_least), total)
    rest_needs = total - drawn_needs
    drawn = np.zeros(len(counts), dtype=bool)
    waiting = np.ones(len(counts), dtype=bool)
    while waiting.any():
        left = counts[waiting].sum(axis=0)
        column = np.where(left > 0, left, np.iinfo(np.int64).max).argmin()
        for patient in rng.permutation(np.flatnonzero(waiting & (counts[:, column] > 0))):
            needs = drawn_needs if drawn_needs[column] > rest_needs[column] else rest_needs
            needs -= counts[patient]
            drawn[patient] = needs is drawn_needs
            waiting[patient] = False
    # A class may still lack records because all of its patients went to the rest for another class.
    for of_class, needed in zip(counts.T, np.minimum(at_least, total), strict=True):
        while of_class[drawn].sum() < needed:
            left = np.flatnonzero(~drawn & (of_class > 0))
            drawn[left[counts[left].sum(axis=1).argmin()]] = True
    return drawn[owners]


def draw_per_class(labels: np.ndarray, patients: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw patients, of rare classes first, until every class, and the records without any, have `count` records or all."""
    if count < 1:
        raise ValueError(f"{count} records per class: expected at least 1.")
    counts, owners = _records_by_patient(labels, patients)
    drawn = np.zeros(len(counts), dtype=bool)
    have = np.zeros(counts.shape[1], dtype=np.int64)
    for column in np.argsort(counts.sum(axis=0), kind="stable"):
        for patient in rng.permutation(np.flatnonzero(counts[:, column])):
            if have[column] >= count:
                break
            if not drawn[patient]:
                drawn[patient] = True
                have += counts[patient]
    return drawn[owners]


def split_by_patient(labels: np.ndarray, patients: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return record indices of `train`, `validation` and `test`, a tenth each for the last two; a pure function of the seed."""
    rng = np.random.default_rng(seed)
    is_test = draw_share(labels, patients, HELD_OUT_SHARE, rng)
    rest = np.flatnonzero(~is_test)
    is_validation = draw_share(labels[rest], patients[rest], HELD_OUT_SHARE / (1 - HELD_OUT_SHARE), rng)
    return {"train": rest[~is_validation], "validation": rest[is_validation], "test": np.flatnonzero(is_test)}


def _records_by_patient(labels: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count records of each class, and of none, by patient, (patients, classes + 1); return also each record's patient row."""
    with_none = np.concatenate([labels, ~labels.any(axis=1, keepdims=True)], axis=1).astype(np.int64)
    numbers, rows = np.unique(patients, return_inverse=True)
    counts = np.zeros((len(numbers), with_none.shape[1]), dtype=np.int64)
    np.add.at(counts, rows, with_none)
    return counts, rows
