"""A quick check of an encoder: logistic regression on its mean tokens. `finetuning/` has the protocols."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from .._utils.hardware import crops_at_once
from ..data.crops import mean_over_crops
from ..data.task_data import TaskData
from ..model.modeling_ecg_jepa import EcgJepaModel
from .metrics import MacroAuroc, measure


@torch.no_grad()
def embed_records(
    encoder: EcgJepaModel, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], pooling: str = "mean"
) -> Iterator[np.ndarray]:
    """
    Yield the vectors of each batch's records, (records, hidden_size) float32: pooled tokens, averaged over crops.
    `batches` are those of [`data.crops.batch_crops`]; `pooling` is the "mean" over patches, or the first "register".
    """
    encoder.eval()
    for crops, owners in batches:
        outputs = encoder(crops.to(encoder.device))
        pooled = outputs.pooler_output if pooling == "mean" else outputs.last_hidden_state[:, 0]
        yield mean_over_crops(pooled.float().cpu(), owners).numpy()


class ProbeResult(NamedTuple):
    """Macro AUROC over classes, and the classes that could not be scored."""

    macro_auroc: float
    left_out: list[str]


class Probe:
    """
    Linear probe of encoders on a task, scored on the validation fold; crops are as long as the encoder takes and do not overlap.
    It is fitted on `num_records` of the training folds at most, evenly spread.
    """

    def __init__(self, data: TaskData, num_records: int):
        self.data = data
        train = data.splits["train"]
        chosen = train if len(train) <= num_records else train[np.linspace(0, len(train) - 1, num_records).astype(int)]
        self.parts = (chosen, data.splits["validation"])

    def score(self, encoder: EcgJepaModel) -> ProbeResult:
        """Return the macro AUROC of an encoder. Raises `FloatingPointError` if its embeddings are not finite."""
        length, data = encoder.config.signal_length, self.data
        crops = [data.strided_crops(rows, length, length, crops_at_once(encoder.device)) for rows in self.parts]
        train, held_out = (np.concatenate(list(embed_records(encoder, batches))) for batches in crops)
        if not (np.isfinite(train).all() and np.isfinite(held_out).all()):
            advice = "resume from an earlier checkpoint with a lower learning rate (--allow_changes)."
            raise FloatingPointError(f"Embeddings of the encoder are not finite: {advice}")
        labels = [data.task.labels[rows] for rows in self.parts]
        return linear_probe(train, labels[0], held_out, labels[1], data.task.class_names)


def linear_probe(
    features: np.ndarray, labels: np.ndarray, held_out_features: np.ndarray, held_out_labels: np.ndarray, class_names: list[str]
) -> ProbeResult:
    """
    Fit a logistic regression per class and score held-out records: features (records, width), labels (records, classes).
    Deterministic, and nothing is chosen on held-out records. Raises `ValueError` if no class can be learned (all or none of the
    training records have it), or none of those scored.
    """
    learnable = labels.any(axis=0) & ~labels.all(axis=0)
    if not learnable.any():
        raise ValueError(f"Probes cannot learn any class: each of {', '.join(class_names)} has all or none of the records.")
    scores = probe_scores(features, labels, held_out_features)[:, learnable]
    names = np.array(class_names)
    result = measure(MacroAuroc, held_out_labels[:, learnable], scores, class_names=names[learnable].tolist())
    return ProbeResult(result["macro_auroc"], result["auroc_left_out"] + names[~learnable].tolist())


def probe_scores(features: np.ndarray, labels: np.ndarray, held_out_features: np.ndarray) -> np.ndarray:
    """Return probabilities (records, classes) by logistic regression; NaN for a class that all or no training records have."""
    scaler = StandardScaler().fit(features)
    features, held_out_features = scaler.transform(features), scaler.transform(held_out_features)
    scores = np.full((len(held_out_features), labels.shape[1]), np.nan)
    for column in np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0)):
        regression = LogisticRegression(C=0.1, max_iter=1000).fit(features, labels[:, column])
        scores[:, column] = regression.predict_proba(held_out_features)[:, 1]
    return scores
