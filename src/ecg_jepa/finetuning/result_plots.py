"""Plots of a classifier's results on its test records."""

import re

import numpy as np
import torch
from matplotlib.figure import Figure

from .._utils.plot_style import shortened
from ..data.records import MICROVOLTS_PER_MILLIVOLT
from ..data.task_data import TaskData
from ..evaluation.calibration import probabilities
from ..evaluation.ecg_plot import CLINICAL_DURATION, attention_over_time, missing_leads, plot_ecg
from ..evaluation.plots import plot_calibration, plot_curves
from ..evaluation.results import Predictions
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from ..model.signal_processing_ecg_jepa import crop_starts, cut_crops
from .finetuning_loop import FinetuningResult, FinetuningRun


def plot_results(run: FinetuningRun, result: FinetuningResult) -> dict[str, Figure]:
    """Return file name -> plot: ROC, precision over recall, calibration; with attentive pooling also where the model looks."""
    task, test = run.data.task, result.test
    scores = probabilities(test.logits, task.single_label, run.model.config.temperature)
    where = f"{shortened(task.name, 50)} on {shortened(run.data.database.name, 30)}, test"
    metrics = result.metrics["test_metrics"]
    plots = {
        "roc": plot_curves("auroc", test.labels, test.logits, task.class_names, metrics, where),
        "precision_recall": plot_curves("average_precision", test.labels, test.logits, task.class_names, metrics, where),
        "calibration": plot_calibration(test.labels, scores, task.class_names, metrics, where),
    }
    if run.model.pooling is None:
        return plots
    examples = plot_examples(run.model, run.data, test, run.crop_length, run.crop_stride)
    # The number keeps names apart that have no such letters.
    names = [f"ecg_{number}_{re.sub('[^A-Za-z0-9]+', '_', name)[:60]}" for number, name in enumerate(examples, start=1)]
    return {**plots, **dict(zip(names, examples.values(), strict=True))}


def plot_examples(
    model: EcgJepaForSequenceClassification, data: TaskData, test: Predictions, crop_length: int, crop_stride: int, count: int = 2
) -> dict[str, Figure]:
    """
    Plot test records in the clinical layout with the query's attention under them, class name -> plot: of each of the `count`
    most frequent classes the record with the highest score. There are none where leads of the layout are missing.
    """
    info = data.database.info
    if missing_leads(info.lead_names):
        return {}
    scores = probabilities(test.logits, data.task.single_label, model.config.temperature)
    plots = {}
    for column in np.argsort(-test.labels.sum(axis=0), kind="stable")[:count]:
        if not test.labels[:, column].any():
            continue
        row = int(np.where(test.labels[:, column] > 0, scores[:, column], -1.0).argmax())
        index = int(data.splits["test"][row])
        length = min(round(CLINICAL_DURATION * info.sampling_rate), int(data.database.num_samples[index]))
        # The plot may be shorter than a crop; a crop is whole patches.
        crop_length = min(crop_length, length - length % model.config.patch_size)
        crops = torch.from_numpy(cut_crops(data.normalized(index, 0, length), crop_length, crop_stride))
        attention = attention_over_time(model, crops, crop_starts(length, crop_length, crop_stride))
        signal = data.database.signal(index, 0, length) / MICROVOLTS_PER_MILLIVOLT
        names, record = data.task.class_names, str(data.database.column("record_id")[index])
        title = _title(record, names, test.labels[row], scores[row], column)
        plots[names[column]] = plot_ecg(signal, info.sampling_rate, info.lead_names, attention, title, info.amplitude_free)
    return plots


def _title(record: str, class_names: list[str], labels: np.ndarray, scores: np.ndarray, column: int) -> str:
    """Return which record this is, for which class (`column`) it was chosen, and its highest scores; (classes,) each."""
    names = [shortened(name, 40) for name in class_names]
    likeliest = np.argsort(-scores, kind="stable")[:3].tolist()
    shown = likeliest if column in likeliest else [*likeliest, column]
    labelled = ", ".join(names[i] for i in np.flatnonzero(labels > 0))
    return (
        f"record {shortened(record, 60)}, labelled {labelled}: highest score for {names[column]} among test records with that "
        f"label. Scores: {', '.join(f'{names[i]} {scores[i]:.2f}' for i in shown)}"
    )
