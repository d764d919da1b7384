"""BYOL (Grill et al. 2020): predict how the moving average of the encoder represents the other view of a record."""

from copy import deepcopy

import torch
from torch.nn.functional import cosine_similarity

from ..._utils.settings import option, settings
from ...model.configuration_ecg_jepa import EcgJepaConfig
from ..objective import StepOutput
from ..views import TwoViews, ViewRecipe, projector


@settings
class ByolRecipe(ViewRecipe):
    """Settings of BYOL."""

    projection_hidden_size: int = option(2048, "width of the hidden layers of projector and predictor")
    projection_size: int = option(256, "width of what is compared")


class Byol(TwoViews[ByolRecipe]):
    """Encoder, projector and predictor are trained; the moving averages of encoder and projector make the targets."""

    summary = (
        "pre-trained by predicting how the moving average of the encoder represents another view of a record (BYOL, Grill et al. "
        "2020)"
    )

    def __init__(self, config: EcgJepaConfig, recipe: ByolRecipe):
        super().__init__(config, recipe)
        hidden, size = recipe.projection_hidden_size, recipe.projection_size
        self.projector = projector([config.hidden_size, hidden, size], batch_norm=True)
        self.predictor = projector([size, hidden, size], batch_norm=True)
        self.target_projector = deepcopy(self.projector).requires_grad_(False)

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> StepOutput:
        """Return two minus twice the cosine of prediction and target, the mean of both directions."""
        predictions = [self.predictor(self.projector(self.embed(self.model.context_encoder, view))) for view in (first, second)]
        with torch.no_grad():
            targets = [self.target_projector(self.embed(self.model.ecg_jepa, view)) for view in (second, first)]
        cosines = [cosine_similarity(p.float(), t.float()).mean() for p, t in zip(predictions, targets, strict=True)]
        unit = targets[0].float()
        spread = (unit / unit.norm(dim=1, keepdim=True)).std(dim=0, correction=0).mean()
        return StepOutput(2 - (cosines[0] + cosines[1]), metrics={"target_projection_std": spread})

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move both averages."""
        super().after_step(step)
        targets, sources = ([p.data for p in network.parameters()] for network in (self.target_projector, self.projector))
        torch._foreach_lerp_(targets, sources, 1.0 - self.recipe.momentum_at(step + 1))
