"""A quick check of embeddings: logistic regression. `finetuning/` has the real protocols."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from .metrics import MacroAuroc, measure


@dataclass
class ProbeResult:
    """Macro AUROC over classes, and the classes that could not be scored."""

    macro_auroc: float
    left_out: list[str]


def probe_scores(features: np.ndarray, labels: np.ndarray, held_out_features: np.ndarray) -> np.ndarray:
    """
    Probabilities of held-out records by a logistic regression per class, (records, classes). A class that all or none of the
    training records have is NaN.
    """
    learnable = labels.any(axis=0) & ~labels.all(axis=0)
    scaler = StandardScaler().fit(features)
    features, held_out_features = scaler.transform(features), scaler.transform(held_out_features)
    scores = np.full((len(held_out_features), labels.shape[1]), np.nan)
    for column in np.flatnonzero(learnable):
        regression = LogisticRegression(C=0.1, max_iter=1000).fit(features, labels[:, column])
        scores[:, column] = regression.predict_proba(held_out_features)[:, 1]
    return scores


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    held_out_features: np.ndarray,
    held_out_labels: np.ndarray,
    class_names: list[str],
) -> ProbeResult:
    """
    Fit a logistic regression per class and score held-out records. Deterministic, and nothing is chosen on the latter. Classes
    that the training records do not have are left out.

    Args:
        features, held_out_features: (records, width).
        labels, held_out_labels: zeros and ones, (records, classes).
        class_names: of the columns of the labels.

    Raises:
        ValueError: if there is no class that some training records have and others have not, or none of those among the held-out
            ones.
    """
    learnable = labels.any(axis=0) & ~labels.all(axis=0)
    if not learnable.any():
        raise ValueError(
            f"A linear probe cannot learn any class: each of {', '.join(class_names)} has all or none of the records."
        )
    scores = probe_scores(features, labels, held_out_features)[:, learnable]
    names = np.array(class_names)
    result = measure(MacroAuroc, held_out_labels[:, learnable], scores, class_names=names[learnable].tolist())
    return ProbeResult(result["macro_auroc"], result["auroc_left_out"] + names[~learnable].tolist())
