"""
Predict the latents of hidden patches from visible ones (Weimann & Conrad 2024), as a target encoder that follows the trained one
sees them. The recipe's switches that the paper does not have are off by default; docs/recipe.md says what each is worth.
"""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch.nn.functional import l1_loss, layer_norm, mse_loss

from ...data.corpus import CorpusBatch
from ...data.records import MICROVOLTS_PER_MILLIVOLT
from ...model.configuration_ecg_jepa import EcgJepaConfig
from ...model.modeling_ecg_jepa import EcgJepaForPreTraining, EcgJepaForPreTrainingOutput, gather_patches
from ..masking import draw_block_masks
from ..objective import BatchKey, Objective, StepOutput, mean_over_processes
from ..progress_plots import plot_masked_prediction
from ..recipe import JepaRecipe
from ..spread import spread_losses


class Jepa(Objective[JepaRecipe]):
    """Context encoder and predictor learn, the target encoder is an exponential moving average of the former."""

    summary = (
        "pre-trained by predicting from visible patches how a target encoder, the moving average of the trained one, represents "
        "hidden ones (Weimann & Conrad 2024)"
    )
    model_class = EcgJepaForPreTraining

    def __init__(self, config: EcgJepaConfig, recipe: JepaRecipe):
        super().__init__(config, recipe)
        if recipe.target_layers > config.num_hidden_layers:
            raise ValueError(f"target_layers={recipe.target_layers}, but the encoder has {config.num_hidden_layers} layers.")

    def draw(self, key: BatchKey, batch_size: int) -> dict[str, torch.Tensor]:
        """Masks (batch_size, visible) and (batch_size, hidden); with several per record (batch_size, masks, visible), ..."""
        count = self.recipe.masks_per_record
        masks = draw_block_masks(key, self.recipe, self.config.num_patches, batch_size * count)
        context_mask, target_mask = (mask if count == 1 else mask.view(batch_size, count, -1) for mask in masks)
        return {"context_mask": context_mask, "target_mask": target_mask}

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """The mean absolute error of predicted latents; the target encoder's tokens tell of a collapse."""
        recipe, model = self.recipe, self.model
        latents, targets = self.encode_targets(input_values)
        # One pass of the target encoder, which costs most, for all masks of a record.
        input_values, targets = (x.repeat_interleave(recipe.masks_per_record, dim=0) for x in (input_values, targets))
        context_mask, target_mask = (drawn[name].flatten(0, -2) for name in ("context_mask", "target_mask"))
        context = model.without_registers(model.context_encoder(input_values, patch_indices=context_mask).last_hidden_state)
        predictions = model.predictor(context, context_mask, target_mask, with_context=recipe.context_loss_weight > 0)
        of_hidden = predictions[:, -target_mask.shape[1] :]
        loss = l1_loss(of_hidden.float(), gather_patches(targets, target_mask))
        figures = {}
        if recipe.context_loss_weight:
            of_context = predictions[:, : context_mask.shape[1]]
            figures["context_loss"] = l1_loss(of_context.float(), gather_patches(targets, context_mask))
            loss = loss + recipe.context_loss_weight * figures["context_loss"]
        if recipe.variance_weight or recipe.covariance_weight:
            context = context.float()
            rows = context.flatten(0, 1) if recipe.spread_of == "tokens" else context.mean(dim=1)
            figures["variance_loss"], figures["covariance_loss"] = spread_losses(rows, recipe.variance_floor)
            loss = loss + recipe.variance_weight * figures["variance_loss"]
            loss = loss + recipe.covariance_weight * figures["covariance_loss"]
        if recipe.invariance_weight:
            whole = latents.mean(dim=1).repeat_interleave(recipe.masks_per_record, dim=0)
            figures["invariance_loss"] = mse_loss(context.float().mean(dim=1), whole)
            loss = loss + recipe.invariance_weight * figures["invariance_loss"]
        known = latents if recipe.exported_weights == "ema" else None
        return StepOutput(loss, known, {name: figure.detach() for name, figure in figures.items()})

    @torch.no_grad()
    def encode_targets(self, input_values: torch.Tensor, alone: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Tokens of the target encoder, and what is predicted of them: (batch, patches, hidden_size) float32 each. Targets are
        centred over the records of all processes, unless this one does it `alone`.
        """
        recipe = self.recipe
        layers = [output.float() for output in self.model.encode_targets(input_values, recipe.target_layers)]
        width = (self.config.hidden_size,)
        targets = layers[-1]
        if recipe.target_layers > 1:
            targets = torch.stack([layer_norm(output, width) for output in layers]).mean(dim=0)
        if recipe.center_targets:
            mean = targets.mean(dim=0)
            targets = targets - (mean if alone else mean_over_processes(mean))
        if recipe.normalize_targets or recipe.target_layers > 1:
            targets = layer_norm(targets, width)
        return layers[-1], targets

    def figures(self, batch: CorpusBatch, input_values: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> dict[str, Figure]:
        """The masks of some records, with the prediction error of each hidden patch; only one process draws them."""
        masks = {name: mask if mask.dim() == 2 else mask[:, 0] for name, mask in drawn.items()}
        output = self.model(input_values, **masks)
        output.target = gather_patches(self.encode_targets(input_values, alone=True)[1], masks["target_mask"])
        errors = patch_errors(output, masks["target_mask"], self.config.num_patches)
        names = self.config.lead_names
        lead = names.index("II") if "II" in names else 0
        figure = plot_masked_prediction(
            batch.signal[0, lead].cpu().numpy() / MICROVOLTS_PER_MILLIVOLT,
            self.config.sampling_rate,
            names[lead],
            errors.cpu().numpy(),
            f"Masks and prediction error after {self.recipe.max_steps} steps",
            "standard deviations" if self.config.amplitude_free else "mV",
        )
        return {"masks": figure}


@torch.no_grad()
def patch_errors(output: EcgJepaForPreTrainingOutput, target_mask: torch.Tensor, num_patches: int) -> torch.Tensor:
    """Mean absolute error of the predicted latents of each patch, (batch, num_patches) float32; NaN where it was visible."""
    assert output.prediction is not None
    assert output.target is not None
    errors = (output.prediction.float() - output.target.float()).abs().mean(dim=-1)
    return torch.full((len(errors), num_patches), torch.nan, device=errors.device).scatter(1, target_mask, errors)
