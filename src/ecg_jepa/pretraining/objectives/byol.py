"""
Predict how the moving average of the encoder represents the other view of a record, without negatives (BYOL, Grill et al. 2020).
"""

from copy import deepcopy

import torch
from torch.nn.functional import cosine_similarity

from ..._utils.settings import option, settings
from ...model.configuration_ecg_jepa import EcgJepaConfig
from ..objective import StepOutput
from ..projection import projection
from ..two_views import TwoViews
from ..views import ViewRecipe


@settings
class ByolRecipe(ViewRecipe):
    """Settings of BYOL."""

    projection_hidden_size: int = option(2048, "width of the hidden layers of projector and predictor")
    projection_size: int = option(256, "width of what is compared")


class Byol(TwoViews[ByolRecipe]):
    """Encoder, projector and predictor learn; encoder and projector have moving averages, which make the targets."""

    summary = (
        "pre-trained by predicting how the moving average of the encoder represents another view of a record (BYOL, Grill et al. "
        "2020)"
    )

    def __init__(self, config: EcgJepaConfig, recipe: ByolRecipe):
        super().__init__(config, recipe)
        hidden, size = recipe.projection_hidden_size, recipe.projection_size
        self.projector = projection([config.hidden_size, hidden, size], batch_norm=True)
        self.predictor = projection([size, hidden, size], batch_norm=True)
        self.target_projector = deepcopy(self.projector).requires_grad_(False)

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> StepOutput:
        """Two minus twice the cosine of prediction and target, mean of both directions."""
        predictions = [self.predictor(self.projector(self.embed(self.model.context_encoder, view))) for view in (first, second)]
        with torch.no_grad():
            targets = [self.target_projector(self.embed(self.model.ecg_jepa, view)) for view in (second, first)]
        cosines = [cosine_similarity(p.float(), t.float()).mean() for p, t in zip(predictions, targets, strict=True)]
        spread = targets[0].float()
        spread = (spread / spread.norm(dim=1, keepdim=True)).std(dim=0, correction=0).mean()
        return StepOutput(2 - (cosines[0] + cosines[1]), figures={"target_projection_std": spread})

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Both averages move."""
        super().after_step(step)
        targets, sources = ([p.data for p in network.parameters()] for network in (self.target_projector, self.projector))
        torch._foreach_lerp_(targets, sources, 1.0 - self.recipe.momentum_at(step + 1))
