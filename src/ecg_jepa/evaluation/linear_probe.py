"""A quick check of an encoder: logistic regression on its mean token. `training/finetune.py` has the real protocols."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..modeling_ecg_jepa import EcgJepaModel
from .metrics import Auroc, auroc
from .task_data import TaskData


@torch.no_grad()
def embed(encoder: EcgJepaModel, data: TaskData, indices: np.ndarray) -> np.ndarray:
    """Mean token of each record, over as many crops of the encoder's length as cover it: (records, hidden_size)."""
    encoder.eval()
    device = next(encoder.parameters()).device
    length = encoder.config.signal_length
    sums = np.zeros((len(indices), encoder.config.hidden_size))
    counts = np.zeros((len(indices), 1))
    for crops, owners in data.strided_crops(indices, length, length, max_crops=128):
        pooled = encoder(crops.to(device)).pooler_output.double().cpu().numpy()
        np.add.at(sums, owners.numpy(), pooled)
        np.add.at(counts, owners.numpy(), 1)
    return sums / counts


def linear_probe(encoder: EcgJepaModel, data: TaskData) -> Auroc:
    """
    Macro AUROC on the test fold of a logistic regression per class, fitted on the training folds.

    Deterministic; classes that the training folds do not have are not scored.
    """
    train, test = data.splits["train"], data.splits["test"]
    labels = data.task.labels
    learnable = labels[train].any(axis=0) & ~labels[train].all(axis=0)
    regression = OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=1000))
    probe = make_pipeline(StandardScaler(), regression).fit(embed(encoder, data, train), labels[train][:, learnable])
    scores = np.zeros((len(test), labels.shape[1]))
    scores[:, learnable] = probe.predict_proba(embed(encoder, data, test)).reshape(len(test), -1)
    names = data.task.class_names
    result = auroc(labels[test][:, learnable], scores[:, learnable], [n for n, ok in zip(names, learnable, strict=True) if ok])
    result.left_out += [name for name, ok in zip(names, learnable, strict=True) if not ok]
    return result
