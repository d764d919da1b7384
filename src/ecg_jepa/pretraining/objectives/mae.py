"""Masked autoencoder (He et al. 2022) with the JEPA's encoder, masks and predictor: reconstruct the signal of hidden patches."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import mse_loss

from ..._utils.settings import check_share, option, settings
from ...model.configuration_ecg_jepa import EcgJepaConfig
from ...model.modeling_ecg_jepa import EcgJepaForPreTraining, gather_patches
from ..masking import BlockMaskRecipe, draw_block_masks
from ..objective import BatchKey, Objective, StepOutput

_EPSILON = 1e-6  # of variances of patches, as in the original


@settings
class MaeRecipe(BlockMaskRecipe):
    """Settings of the masked autoencoder."""

    mask: Literal["block", "random"] = option("block", "block: hidden as in the JEPA; random: patches here and there")
    mask_ratio: float = option(0.75, "share of patches that a random mask hides")
    normalize_patches: bool = option(
        False, "predict each hidden patch in units of its own standard deviation; in short patches this erases amplitude"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self, "mask_ratio", below_one=True)


class Mae(Objective[MaeRecipe]):
    """Encoder, predictor as decoder, and a linear layer to samples are trained."""

    summary = "pre-trained by reconstructing the signal of hidden patches from visible ones (masked autoencoder, He et al. 2022)"
    model_class = EcgJepaForPreTraining

    def __init__(self, config: EcgJepaConfig, recipe: MaeRecipe):
        super().__init__(config, recipe)
        self.to_samples = nn.Linear(config.hidden_size, len(config.lead_names) * config.patch_size)

    def draw(self, key: BatchKey, batch_size: int) -> dict[str, torch.Tensor]:
        """Draw masks (batch_size, visible) and (batch_size, hidden), rows sorted."""
        num_patches = self.config.num_patches
        if self.recipe.mask == "block":
            return draw_block_masks(key, self.recipe, num_patches, batch_size)
        order = torch.rand(batch_size, num_patches, generator=key.generator()).argsort(dim=1)
        hidden = min(num_patches - 1, max(1, round(self.recipe.mask_ratio * num_patches)))
        return {"context_mask": order[:, hidden:].sort(dim=1).values, "target_mask": order[:, :hidden].sort(dim=1).values}

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """Compute the mean squared error of the normalised signal of hidden patches."""
        target = gather_patches(self.patches(input_values), drawn["target_mask"])
        if self.recipe.normalize_patches:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) * (variance + _EPSILON).rsqrt()
        loss = mse_loss(self.reconstruct(input_values, **drawn).float(), target)
        return StepOutput(loss, metrics={"share_explained": 1 - loss.detach() / target.var(correction=0)})

    def patches(self, input_values: torch.Tensor) -> torch.Tensor:
        """Cut signals (batch, leads, samples) into patches (batch, patches, leads * patch_size)."""
        return input_values.unflatten(2, (-1, self.config.patch_size)).transpose(1, 2).flatten(2)

    def reconstruct(self, input_values: torch.Tensor, context_mask: torch.Tensor, target_mask: torch.Tensor) -> torch.Tensor:
        """Predict the samples of hidden patches, (batch, hidden, leads * patch_size)."""
        model = self.model
        context = model.without_registers(model.context_encoder(input_values, patch_indices=context_mask).last_hidden_state)
        return self.to_samples(model.predictor(context, context_mask, target_mask))

    def plots(self, signal: torch.Tensor, input_values: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Plot the first record with the reconstruction of its hidden patches."""
        from ..progress_plots import plot_reconstruction

        record, masks, config = input_values[:1], {name: rows[:1] for name, rows in drawn.items()}, self.config
        hidden, patches = masks["target_mask"][0], self.patches(record)[0]
        made = torch.full_like(patches, torch.nan)
        made[hidden] = self.reconstruct(record, **masks)[0].float()
        if self.recipe.normalize_patches:  # back to the units of the signal, which the network does not predict
            variance, mean = torch.var_mean(patches[hidden], dim=-1, keepdim=True)
            made[hidden] = made[hidden] * (variance + _EPSILON).sqrt() + mean
        whole = made.unflatten(1, (-1, config.patch_size)).transpose(0, 1).flatten(1).cpu().numpy()
        return {"reconstruction": plot_reconstruction(record[0].cpu().numpy(), whole, config.sampling_rate, config.lead_names)}
