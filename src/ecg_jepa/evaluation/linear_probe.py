"""A quick check of an encoder: logistic regression on its mean token. `training/finetune.py` has the real protocols."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..modeling_ecg_jepa import EcgJepaModel
from .embedding import embed
from .metrics import PerClass, auroc
from .task_data import TaskData


def embed_split(encoder: EcgJepaModel, data: TaskData, indices: np.ndarray) -> np.ndarray:
    """Mean token of each record, over as many crops of the encoder's length as cover it: (records, hidden_size)."""
    length = encoder.config.signal_length
    return np.concatenate(list(embed(encoder, data.strided_crops(indices, length, length, max_crops=128))))


def linear_probe(encoder: EcgJepaModel, data: TaskData) -> PerClass:
    """
    Macro AUROC on folds 9 and 10 of a logistic regression per class, fitted on the training folds.

    Deterministic, and nothing is chosen on fold 9, so that both may be scored. Classes that the training folds do not have
    are left out.
    """
    train, held_out = data.splits["train"], held_out_records(data)
    learnable = data.task.labels[train].any(axis=0) & ~data.task.labels[train].all(axis=0)
    labels = data.task.labels[:, learnable]
    regression = OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=1000))
    probe = make_pipeline(StandardScaler(), regression).fit(embed_split(encoder, data, train), labels[train])
    scores = probe.predict_proba(embed_split(encoder, data, held_out)).reshape(len(held_out), -1)
    names = np.array(data.task.class_names)
    result = auroc(labels[held_out], scores, names[learnable].tolist())
    result.left_out += names[~learnable].tolist()
    return result


def held_out_records(data: TaskData) -> np.ndarray:
    """Records of folds 9 and 10."""
    return np.concatenate([data.splits["validation"], data.splits["test"]])
