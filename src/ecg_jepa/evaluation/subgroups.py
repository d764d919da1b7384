"""Macro AUROC by sex and by age: whether a classifier is as good for some patients as for others."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .bootstrap import macro_auroc
from .thresholds import FEWEST

UNKNOWN = "unknown"

_AGE_BANDS = {"< 40": 40.0, "40-64": 65.0, "65-79": 80.0, ">= 80": np.inf}  # name -> years that it ends before


def age_bands(ages: np.ndarray) -> np.ndarray:
    """Return names of age bands, (records,), of ages in years, NaN where unknown."""
    names = np.array([*_AGE_BANDS, UNKNOWN], dtype=object)
    ends = np.array(list(_AGE_BANDS.values()))
    return names[np.where(np.isnan(ages), len(ends), np.searchsorted(ends, ages, "right"))]


def groups_of(sex: np.ndarray, ages: np.ndarray) -> dict[str, np.ndarray]:
    """
    Return `sex` and `age` -> the group of each record, (records,), without a kind that is unknown throughout.

    Args:
        sex: names, `None` where unknown, (records,).
        ages: in years, NaN where unknown, (records,).
    """
    named = np.array([UNKNOWN if name is None else str(name) for name in sex], dtype=object)
    groups = {"sex": named, "age": age_bands(np.asarray(ages, dtype=np.float64))}
    return {kind: names for kind, names in groups.items() if (names != UNKNOWN).any()}


def score_groups(
    labels: np.ndarray, scores: np.ndarray, class_names: list[str], groups: Mapping[str, np.ndarray], num_resamples: int = 1000
) -> dict[str, dict[str, dict[str, Any]]]:
    """
    Return macro AUROC of each group with its 95% bootstrap interval over the group's records.

    Args:
        labels, scores: (records, classes).
        class_names: of the columns.
        groups: kind of group -> name of each record's, (records,).
        num_resamples: for the intervals.

    Returns:
        Kind -> group, by age or name -> `records`; `positives` of each class; `macro_auroc` with its `interval`, over the classes
        with 10 positives and 10 negatives; `classes_left_out`, the others; `left_out`, why there is no AUROC, if there is none.
    """
    order = [*_AGE_BANDS]
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, names in groups.items():
        present = sorted(set(names), key=lambda name: (name == UNKNOWN, order.index(name) if name in order else 0, name))
        result[kind] = {
            name: _score(labels[names == name], scores[names == name], class_names, num_resamples) for name in present
        }
    return result


def _score(labels: np.ndarray, scores: np.ndarray, class_names: list[str], num_resamples: int) -> dict[str, Any]:
    positives = labels.sum(axis=0).astype(int)
    enough = np.minimum(positives, len(labels) - positives) >= FEWEST
    found: dict[str, Any] = {"macro_auroc": None, "interval": None}
    if enough.any():
        found = macro_auroc(labels[:, enough], scores[:, enough], num_resamples)
    return {
        "records": len(labels),
        "positives": dict(zip(class_names, positives.tolist(), strict=True)),
        **found,
        "classes_left_out": [name for name, has in zip(class_names, enough, strict=True) if not has],
        "left_out": None if enough.any() else f"too few records: no class has {FEWEST} with it and {FEWEST} without",
    }
