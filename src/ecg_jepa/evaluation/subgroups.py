"""Whether a classifier is as good for some patients as for others: macro AUROC by sex and by age."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .bootstrap import interval, macro, resample_counts, resampled_auroc
from .class_metrics import FEWEST
from .metrics import auroc

UNKNOWN = "unknown"

_AGE_BANDS = (("< 40", 40.0), ("40-64", 65.0), ("65-79", 80.0), (">= 80", np.inf))  # name, years that it ends before


def age_bands(ages: np.ndarray) -> np.ndarray:
    """Ages in years (records,), NaN where unknown -> names of age bands, (records,)."""
    names = np.array([name for name, _ in _AGE_BANDS] + [UNKNOWN], dtype=object)
    ends = np.array([end for _, end in _AGE_BANDS])
    return names[np.where(np.isnan(ages), len(ends), np.searchsorted(ends, ages, "right"))]


def groups_of(sex: np.ndarray, ages: np.ndarray) -> dict[str, np.ndarray]:
    """
    `sex` and `age` -> the group of each record, (records,); only what is known of some record.

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
    Macro AUROC of each group with its 95% bootstrap interval over the group's records.

    Args:
        labels: zeros and ones, (records, classes).
        scores: (records, classes).
        class_names: of the columns.
        groups: kind of group -> name of each record's, (records,).
        num_resamples: for the intervals.

    Returns:
        Kind -> group, in the order of ages or else of names, -> `records`; `positives` of each class; `macro_auroc` over the
        classes that have 10 records with and 10 without it in this group, and its `interval`; `classes_left_out` of that; and
        where there is no such class, `None` for both figures and in `left_out` the reason in words.
    """
    order = [name for name, _ in _AGE_BANDS]
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, names in groups.items():
        present = sorted(set(names), key=lambda name: (name == UNKNOWN, order.index(name) if name in order else 0, name))
        result[kind] = {
            name: _score(labels[names == name], scores[names == name], class_names, num_resamples) for name in present
        }
    return result


def _score(labels: np.ndarray, scores: np.ndarray, class_names: list[str], num_resamples: int) -> dict[str, Any]:
    positives = labels.sum(axis=0).astype(int)
    enough = (positives >= FEWEST) & (len(labels) - positives >= FEWEST)
    group: dict[str, Any] = {
        "records": len(labels),
        "positives": dict(zip(class_names, positives.tolist(), strict=True)),
        "macro_auroc": None,
        "interval": None,
        "classes_left_out": [name for name, has in zip(class_names, enough, strict=True) if not has],
        "left_out": None,
    }
    if not enough.any():
        return group | {"left_out": f"too few records: no class has {FEWEST} with it and {FEWEST} without"}
    chosen = [class_names[column] for column in np.flatnonzero(enough)]
    value = auroc(labels[:, enough], scores[:, enough], chosen).macro
    resampled = macro(resampled_auroc(labels[:, enough], scores[:, enough], resample_counts(len(labels), num_resamples, seed=0)))
    bounds = interval(value, resampled)
    return group | {"macro_auroc": value, "interval": [bounds.low, bounds.high]}
