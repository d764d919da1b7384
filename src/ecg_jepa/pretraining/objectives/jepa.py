"""The JEPA (Weimann & Conrad 2024): predict from visible patches how the moving average of the encoder represents hidden ones."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.nn.functional import l1_loss, layer_norm, mse_loss

from ..._utils.settings import check_at_least, option, settings
from ...model.configuration_ecg_jepa import EcgJepaConfig
from ...model.modeling_ecg_jepa import EcgJepaForPreTraining, gather_patches
from ..masking import BlockMaskRecipe, draw_block_masks
from ..objective import BatchKey, Objective, StepOutput, mean_over_processes
from .vicreg import vicreg_penalties


@settings
class JepaRecipe(BlockMaskRecipe):
    """Settings of the JEPA."""

    masks_per_record: int = option(1, "masks of each record that share one pass of the target encoder")

    # Targets and loss; the paper has none of these, and docs/recipe.md says what each is worth
    normalize_targets: bool = option(False, "LayerNorm without parameters on targets")
    target_layers: int = option(1, "targets are the average of the last layers, each normalised, and normalised once more")
    center_targets: bool = option(False, "take the mean over records at the same position out of targets")
    context_loss_weight: float = option(0.0, "of the loss on visible patches, beside that on hidden ones")
    variance_weight: float = option(0.0, "of a penalty on channels of the context encoder that vary less than variance_floor")
    variance_floor: float = option(1.0, "standard deviation below which that penalty begins")
    covariance_weight: float = option(0.0, "of a penalty on what channels of the context encoder have in common (VICReg)")
    spread_of: Literal["tokens", "records"] = option("tokens", "what both penalties look at: visible tokens, or their mean")
    invariance_weight: float = option(
        0.0, "of the squared distance between the mean of visible tokens and that of all tokens of the target encoder"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "masks_per_record", "target_layers")
        weights = ("context_loss_weight", "variance_weight", "covariance_weight", "invariance_weight")
        check_at_least(self, 0, "variance_floor", *weights)
        coupled = self.center_targets or self.variance_weight or self.covariance_weight
        if self.gradient_accumulation_steps > 1 and coupled:
            remedy = "use a larger batch_size instead of gradient_accumulation_steps"
            raise ValueError(f"center_targets, variance_weight and covariance_weight look at all records of a step: {remedy}.")


class Jepa(Objective[JepaRecipe]):
    """Context encoder and predictor are trained; the target encoder is an exponential moving average of the former."""

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
        """Draw masks (batch_size, visible) and (batch_size, hidden); with several per record (batch_size, masks, ...)."""
        count = self.recipe.masks_per_record
        masks = draw_block_masks(key, self.recipe, self.config.num_patches, batch_size * count)
        return masks if count == 1 else {name: mask.view(batch_size, count, -1) for name, mask in masks.items()}

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """Compute the mean absolute error of predicted latents, and the recipe's additions to it."""
        recipe, count = self.recipe, self.recipe.masks_per_record
        latents, targets = self.encode_targets(input_values)
        # One pass of the target encoder, which costs most, for all masks of a record.
        input_values, targets = (x.repeat_interleave(count, dim=0) for x in (input_values, targets))
        context_mask, target_mask = (drawn[name].flatten(0, -2) for name in ("context_mask", "target_mask"))
        output = self.model(input_values, context_mask, target_mask, targets, predict_context=recipe.context_loss_weight > 0)
        loss, context, metrics = output.loss, output.context.float(), {}
        if recipe.context_loss_weight:
            metrics["context_loss"] = l1_loss(output.context_prediction.float(), gather_patches(targets, context_mask))
            loss = loss + recipe.context_loss_weight * metrics["context_loss"]
        if recipe.variance_weight or recipe.covariance_weight:
            rows = context.flatten(0, 1) if recipe.spread_of == "tokens" else context.mean(dim=1)
            metrics["variance_loss"], metrics["covariance_loss"] = vicreg_penalties(rows, recipe.variance_floor)
            loss = loss + recipe.variance_weight * metrics["variance_loss"]
            loss = loss + recipe.covariance_weight * metrics["covariance_loss"]
        if recipe.invariance_weight:
            metrics["invariance_loss"] = mse_loss(context.mean(dim=1), latents.mean(dim=1).repeat_interleave(count, dim=0))
            loss = loss + recipe.invariance_weight * metrics["invariance_loss"]
        known = latents if recipe.exported_weights == "ema" else None
        return StepOutput(loss, known, {name: value.detach() for name, value in metrics.items()})

    @torch.no_grad()
    def encode_targets(self, input_values: torch.Tensor, alone: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens of the target encoder, and the targets made of them: (batch, patches, hidden_size) float32 each."""
        recipe, width = self.recipe, (self.config.hidden_size,)
        layers = [output.float() for output in self.model.encode_targets(input_values, recipe.target_layers)]
        targets = layers[-1]
        if recipe.target_layers > 1:
            targets = torch.stack([layer_norm(output, width) for output in layers]).mean(dim=0)
        if recipe.center_targets:
            mean = targets.mean(dim=0)
            targets = targets - (mean if alone else mean_over_processes(mean))  # alone: one process draws plots
        if recipe.normalize_targets or recipe.target_layers > 1:
            targets = layer_norm(targets, width)
        return layers[-1], targets

    def plots(self, signal: torch.Tensor, input_values: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Plot the masks of a few records, with the prediction error of each hidden patch."""
        from ..progress_plots import plot_masked_prediction

        config = self.config
        masks = {name: mask if mask.dim() == 2 else mask[:, 0] for name, mask in drawn.items()}
        output = self.model(input_values, **masks, targets=self.encode_targets(input_values, alone=True)[1])
        errors = patch_errors(output.prediction, output.target, masks["target_mask"], config.num_patches).cpu().numpy()
        lead = config.lead_names.index("II") if "II" in config.lead_names else 0
        title = f"Masks and prediction error after {self.recipe.max_steps} steps"
        label = f"lead {config.lead_names[lead]} ({'standard deviations' if config.amplitude_free else 'mV'})"
        return {"masks": plot_masked_prediction(signal[0, lead].cpu().numpy(), config.sampling_rate, errors, title, label)}


@torch.no_grad()
def patch_errors(prediction: torch.Tensor, target: torch.Tensor, target_mask: torch.Tensor, num_patches: int) -> torch.Tensor:
    """Return the mean absolute error of each patch's predicted latents, (batch, num_patches); NaN where it was visible."""
    errors = (prediction.float() - target.float()).abs().mean(dim=-1)
    return torch.full((len(errors), num_patches), torch.nan, device=errors.device).scatter(1, target_mask, errors)
