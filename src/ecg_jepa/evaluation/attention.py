"""Where in a record an attentive classifier looks."""

from collections.abc import Sequence

import numpy as np
import torch

from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification


@torch.no_grad()
def attention_over_time(model: EcgJepaForSequenceClassification, crops: torch.Tensor, starts: Sequence[int]) -> np.ndarray:
    """
    Return the attention of the pooling query to each patch of a record, averaged over heads and over the crops of the patch.

    Args:
        model: with `classifier_pooling="attentive"`.
        crops: of the normalised record, (crops, leads, samples).
        starts: the first sample of each crop.

    Returns:
        (patches,), shares that sum to 1, without what the query gives to registers.

    Raises:
        ValueError: if the model pools without attention.
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
