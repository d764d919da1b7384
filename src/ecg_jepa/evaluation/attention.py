"""Where in a record an attentive classifier looks."""

import numpy as np
import torch
from matplotlib.figure import Figure

from ..data.records import MICROVOLTS_PER_MILLIVOLT
from ..modeling_ecg_jepa import EcgJepaForSequenceClassification
from ..signal_processing_ecg_jepa import crop_starts, cut_crops
from .plots import CLINICAL_DURATION, has_clinical_leads, plot_ecg
from .results import Predictions, probabilities
from .task_data import TaskData


@torch.no_grad()
def attention_over_time(
    model: EcgJepaForSequenceClassification, signal: np.ndarray, crop_length: int, crop_stride: int
) -> np.ndarray:
    """
    Attention of the pooling query to each patch of a record, averaged over heads and over the crops that hold the patch.

    Args:
        model: with `classifier_pooling="attentive"`.
        signal: normalised, (leads, samples).
        crop_length, crop_stride: in samples, as the record is scored.

    Returns:
        (patches,), shares that sum to 1; what the query gives to registers is left out.

    Raises:
        ValueError: if the model pools without attention.
    """
    if model.pooling is None:
        raise ValueError(f"classifier_pooling={model.config.classifier_pooling!r} has no query whose attention could be shown.")
    model.eval()
    crops = torch.from_numpy(cut_crops(signal, crop_length, crop_stride)).to(model.device)
    hidden_states = model.ecg_jepa(crops).last_hidden_state
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the others do not return weights
    try:
        _, weights = model.pooling(hidden_states)
    finally:
        model.set_attn_implementation(implementation)
    assert weights is not None
    patch = model.config.patch_size
    per_patch = weights.float().mean(dim=1)[:, 0, -(crop_length // patch) :].cpu().numpy()
    # Crops need not start at multiples of a patch: add up per sample, then average over the samples of each patch.
    sums, counts = np.zeros(signal.shape[1]), np.zeros(signal.shape[1])
    for start, row in zip(crop_starts(signal.shape[1], crop_length, crop_stride), per_patch, strict=True):
        sums[start : start + crop_length] += np.repeat(row, patch)
        counts[start : start + crop_length] += 1
    whole = signal.shape[1] // patch * patch
    shares = (sums / counts)[:whole].reshape(-1, patch).mean(axis=1)
    return shares / shares.sum()


def plot_examples(
    model: EcgJepaForSequenceClassification, data: TaskData, test: Predictions, crop_length: int, crop_stride: int, count: int = 2
) -> dict[str, Figure]:
    """
    Test records in the clinical layout with the query's attention under them: for each of the `count` most frequent classes,
    the record with that label that is scored highest. Class name -> figure; none where leads of the layout are missing.
    """
    info = data.database.info
    if not has_clinical_leads(info.lead_names):
        return {}
    scores = probabilities(test.logits, data.task.single_label)
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
        labels = ", ".join(np.array(data.task.class_names)[test.labels[row] > 0])
        title = f"record {data.database.column('record_id')[index]}: {labels}; predicted {name} {scores[row, column]:.2f}"
        figures[name] = plot_ecg(signal, info.sampling_rate, info.lead_names, attention, title)
    return figures
