"""
Bring two views of a record together, and keep the channels of all records varied and uncorrelated (VICReg, Bardes et al. 2022).
"""

import torch
from torch.nn.functional import mse_loss

from ..._utils.settings import check_at_least, option, settings
from ...model.configuration_ecg_jepa import EcgJepaConfig
from ..objective import StepOutput
from ..projection import projection
from ..spread import spread_losses
from ..two_views import TwoViews
from ..views import ViewRecipe


@settings
class VicRegRecipe(ViewRecipe):
    """Settings of VICReg; the weights are the paper's."""

    invariance_weight: float = option(25.0, "of the squared distance of both views")
    variance_weight: float = option(25.0, "of the penalty on channels with a standard deviation below 1")
    covariance_weight: float = option(1.0, "of the penalty on what channels have in common")
    projection_size: int = option(2048, "width of all layers of the projector")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "invariance_weight", "variance_weight", "covariance_weight")


class VicReg(TwoViews[VicRegRecipe]):
    """An encoder and a wide projector, which both see both views."""

    summary = "pre-trained by bringing two views of a record together while channels stay varied (VICReg, Bardes et al. 2022)"

    def __init__(self, config: EcgJepaConfig, recipe: VicRegRecipe):
        super().__init__(config, recipe)
        self.projector = projection([config.hidden_size, *[recipe.projection_size] * 3], batch_norm=True)

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> StepOutput:
        """The weighted sum of the three terms."""
        recipe = self.recipe
        rows = [self.projector(self.embed(self.model.context_encoder, view)).float() for view in (first, second)]
        invariance = mse_loss(*rows)
        spreads = [spread_losses(of_view, 1.0) for of_view in rows]
        variance, covariance = (torch.stack(terms) for terms in zip(*spreads, strict=True))
        loss = recipe.invariance_weight * invariance + recipe.variance_weight * variance.mean()
        loss = loss + recipe.covariance_weight * covariance.sum()
        figures = {"invariance_loss": invariance, "variance_loss": variance.mean(), "covariance_loss": covariance.sum()}
        return StepOutput(loss, figures={name: figure.detach() for name, figure in figures.items()})
