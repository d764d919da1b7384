"""
What is training, validation and test: PTB-XL's ten folds, which keep patients together, are the numbers for every database.
"""

import numpy as np

TRAIN_FOLDS = tuple(range(1, 9))
VALIDATION_FOLD = 9
TEST_FOLD = 10

FOLDS_OF_SPLIT = {"train": TRAIN_FOLDS, "validation": (VALIDATION_FOLD,), "test": (TEST_FOLD,)}


def in_training_folds(fold: np.ndarray) -> np.ndarray:
    """Which records may be trained on: those of folds 1 to 8, and those of databases without folds (NaN). Boolean."""
    return np.isnan(fold.astype(float)) | np.isin(fold, TRAIN_FOLDS)


def in_validation_fold(fold: np.ndarray) -> np.ndarray:
    """Which records are those of fold 9; none of a database without folds. Boolean."""
    return fold.astype(float) == VALIDATION_FOLD
