"""Where in a record an attentive classifier looks."""

from collections.abc import Sequence

import numpy as np
import torch

from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from ..model.signal_processing_ecg_jepa import crop_starts, cut_crops


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
    crops = torch.from_numpy(cut_crops(signal, crop_length, crop_stride))
    return attention_of_crops(model, crops, crop_starts(signal.shape[1], crop_length, crop_stride))


@torch.no_grad()
def attention_of_crops(model: EcgJepaForSequenceClassification, crops: torch.Tensor, starts: Sequence[int]) -> np.ndarray:
    """
    The same of a record that is cut already.

    Args:
        model: with `classifier_pooling="attentive"`.
        crops: normalised, (crops, leads, samples).
        starts: the first sample of each.
    """
    if model.pooling is None:
        raise ValueError(f"classifier_pooling={model.config.classifier_pooling!r} has no query whose attention could be shown.")
    model.eval()
    hidden_states = model.mix_layers(model.encode(crops.to(model.device)))
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the others do not return weights
    try:
        _, weights = model.pooling(hidden_states)
    finally:
        model.set_attn_implementation(implementation)
    assert weights is not None
    patch, length = model.config.patch_size, crops.shape[-1]
    per_patch = weights.float().mean(dim=1)[:, 0, -(length // patch) :].cpu().numpy()
    # Crops need not start at multiples of a patch: add up per sample, then average over the samples of each patch.
    sums, counts = np.zeros(starts[-1] + length), np.zeros(starts[-1] + length)
    for start, row in zip(starts, per_patch, strict=True):
        sums[start : start + length] += np.repeat(row, patch)
        counts[start : start + length] += 1
    whole = len(sums) // patch * patch
    shares = (sums / counts)[:whole].reshape(-1, patch).mean(axis=1)
    return shares / shares.sum()
