"""
Predict the latents of hidden patches from visible ones (Weimann & Conrad 2024), as a target encoder that follows the trained one
sees them.
"""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

from ...configuration_ecg_jepa import EcgJepaConfig
from ...data.corpus import CorpusBatch
from ...data.records import MICROVOLTS_PER_MILLIVOLT
from ...modeling_ecg_jepa import EcgJepaForPreTraining, EcgJepaForPreTrainingOutput
from ..masking import draw_num_context, sample_block_masks
from ..objective import BatchKey, Objective, StepOutput
from ..plots import plot_masked_prediction
from ..recipe import JepaRecipe


class Jepa(Objective[JepaRecipe]):
    """Context encoder and predictor learn, the target encoder is an exponential moving average of the former."""

    model: EcgJepaForPreTraining

    def __init__(self, config: EcgJepaConfig, recipe: JepaRecipe):
        super().__init__(config, recipe)
        self.model = EcgJepaForPreTraining(config)

    def draw(self, key: BatchKey, batch_size: int) -> dict[str, torch.Tensor]:
        """Masks (batch_size, visible) and (batch_size, hidden); equally many patches are visible in all records of a batch."""
        recipe, num_patches = self.recipe, self.config.num_patches
        shared = _seeded_generator(key.seed, key.index)
        num_context = draw_num_context(num_patches, recipe.min_keep_ratio, recipe.max_keep_ratio, shared)
        own = _seeded_generator(key.seed, key.index, 1)
        context_mask, target_mask = sample_block_masks(
            batch_size, num_patches, num_context, recipe.min_block_size, own, recipe.uniform_mask_positions
        )
        return {"context_mask": context_mask, "target_mask": target_mask}

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """The mean absolute error of predicted latents; the targets tell of a collapse."""
        output = self.model(input_values, **drawn)
        return StepOutput(output.loss, output.target)

    def after_step(self, step: int) -> None:
        """The reference moves the target encoder in every forward; here once per optimiser step."""
        self.model.update_target_encoder(self.recipe.momentum_at(step + 1))

    def figures(self, batch: CorpusBatch, input_values: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> dict[str, Figure]:
        """The masks of some records, with the prediction error of each hidden patch."""
        errors = patch_errors(self.model(input_values, **drawn), drawn["target_mask"], self.config.num_patches)
        names = self.config.lead_names
        lead = names.index("II") if "II" in names else 0
        figure = plot_masked_prediction(
            batch.signal[0, lead].cpu().numpy() / MICROVOLTS_PER_MILLIVOLT,
            self.config.sampling_rate,
            names[lead],
            errors.cpu().numpy(),
            f"Masks and prediction error after {self.recipe.max_steps} steps",
        )
        return {"masks": figure}


@torch.no_grad()
def patch_errors(output: EcgJepaForPreTrainingOutput, target_mask: torch.Tensor, num_patches: int) -> torch.Tensor:
    """Mean absolute error of the predicted latents of each patch, (batch, num_patches) float32; NaN where it was visible."""
    assert output.prediction is not None
    assert output.target is not None
    errors = (output.prediction.float() - output.target.float()).abs().mean(dim=-1)
    return torch.full((len(errors), num_patches), torch.nan, device=errors.device).scatter(1, target_mask, errors)


def _seeded_generator(*key: int) -> torch.Generator:
    """A generator whose stream depends on all numbers of `key`."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
