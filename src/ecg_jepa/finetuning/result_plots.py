"""Pictures of a classifier's results on its test records."""

import re

import numpy as np
from matplotlib.figure import Figure

from .._utils.plot_style import shortened
from ..data.records import MICROVOLTS_PER_MILLIVOLT
from ..data.task_data import TaskData
from ..evaluation.attention import attention_over_time
from ..evaluation.plots import (
    CLINICAL_DURATION,
    has_clinical_leads,
    plot_calibration,
    plot_ecg,
    plot_precision_recall,
    plot_roc,
)
from ..evaluation.results import Predictions, probabilities
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from .finetuning_loop import FinetuningRun
from .run import FinetuningResult

_SCORES_TOLD = 3  # of the likeliest classes, on a picture


def draw(run: FinetuningRun, result: FinetuningResult) -> dict[str, Figure]:
    """ROC, precision over recall and calibration; with attentive pooling, where the model looks. File name -> figure."""
    task, test = run.data.task, result.test
    scores = probabilities(test.logits, task.single_label, run.model.config.temperature)
    where = f"{shortened(task.name, 50)} on {shortened(run.data.database.name, 30)}, test"
    of_test = result.metrics["test_figures"]
    figures = {
        "roc": plot_roc(test.labels, test.logits, task.class_names, where, of_test),
        "precision_recall": plot_precision_recall(test.labels, test.logits, task.class_names, where, of_test),
        "calibration": plot_calibration(test.labels, scores, task.class_names, where, of_test),
    }
    if run.model.pooling is not None:
        examples = plot_examples(run.model, run.data, test, run.crop_length, run.crop_stride)
        for number, (name, figure) in enumerate(examples.items(), start=1):
            # The number tells those apart that have no such letters.
            figures[f"ecg_{number}_{re.sub('[^A-Za-z0-9]+', '_', name)[:60]}"] = figure
    return figures


def plot_examples(
    model: EcgJepaForSequenceClassification, data: TaskData, test: Predictions, crop_length: int, crop_stride: int, count: int = 2
) -> dict[str, Figure]:
    """
    Test records in the clinical layout with the query's attention under them: for each of the `count` most frequent classes,
    the record with that label that is scored highest for it: the clearest, not a typical one, as the title says with the scores
    of the likeliest classes. Class name -> figure; none where leads of the layout are missing.
    """
    info = data.database.info
    if not has_clinical_leads(info.lead_names):
        return {}
    scores = probabilities(test.logits, data.task.single_label, model.config.temperature)
    figures = {}
    for column in np.argsort(-test.labels.sum(axis=0), kind="stable")[:count]:
        if not test.labels[:, column].any():
            continue
        row = int(np.where(test.labels[:, column] > 0, scores[:, column], -1.0).argmax())
        index = int(data.splits["test"][row])
        length = min(round(CLINICAL_DURATION * info.sampling_rate), int(data.database.num_samples[index]))
        # The picture may be shorter than a crop; a crop is whole patches.
        crop_length = min(crop_length, length - length % model.config.patch_size)
        signal = data.database.signal(index, 0, length) / MICROVOLTS_PER_MILLIVOLT
        attention = attention_over_time(model, data.normalized(index, 0, length), crop_length, crop_stride)
        name = data.task.class_names[column]
        title = _why(str(data.database.column("record_id")[index]), data.task.class_names, test.labels[row], scores[row], column)
        figures[name] = plot_ecg(signal, info.sampling_rate, info.lead_names, attention, title, info.amplitude_free)
    return figures


def _why(record: str, class_names: list[str], labels: np.ndarray, scores: np.ndarray, column: int) -> str:
    """Which record this is, why it was chosen (for the class `column`), and what the model makes of it; (classes,) each."""
    names = [shortened(name, 40) for name in class_names]
    likeliest = np.argsort(-scores, kind="stable")[:_SCORES_TOLD].tolist()
    told = likeliest if column in likeliest else [*likeliest, column]
    labelled = ", ".join(names[i] for i in np.flatnonzero(labels > 0))
    return (
        f"record {shortened(record, 60)}, labelled {labelled}: highest score for {names[column]} among test records with that "
        f"label. Scores: {', '.join(f'{names[i]} {scores[i]:.2f}' for i in told)}"
    )
