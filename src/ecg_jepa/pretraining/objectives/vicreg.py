"""VICReg (Bardes et al. 2022): bring two views of a record together, keep channels varied and uncorrelated over records."""

import torch
from torch.nn.functional import mse_loss, relu

from ..._utils.settings import check_at_least, option, settings
from ...model.configuration_ecg_jepa import EcgJepaConfig
from ..objective import StepOutput, in_full_precision, mean_over_processes
from ..views import TwoViews, ViewRecipe, projector


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
        self.projector = projector([config.hidden_size, *[recipe.projection_size] * 3], batch_norm=True)

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> StepOutput:
        """Return the weighted sum of the three terms."""
        recipe = self.recipe
        rows = [self.projector(self.embed(self.model.context_encoder, view)).float() for view in (first, second)]
        invariance = mse_loss(*rows)
        variance, covariance = map(torch.stack, zip(*(vicreg_penalties(of_view, 1.0) for of_view in rows), strict=True))
        terms = {"invariance_loss": invariance, "variance_loss": variance.mean(), "covariance_loss": covariance.sum()}
        loss = recipe.invariance_weight * terms["invariance_loss"] + recipe.variance_weight * terms["variance_loss"]
        loss = loss + recipe.covariance_weight * terms["covariance_loss"]
        return StepOutput(loss, metrics={name: term.detach() for name, term in terms.items()})


def vicreg_penalties(rows: torch.Tensor, floor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return VICReg's penalties of the rows of all processes, of which this one has (rows, width), in float32: the mean over
    channels of how far the standard deviation falls below `floor`, and the sum of squared covariances of different channels over
    their number. C-JEPA (Mo & Tong 2024) adds them to a JEPA's loss. Variances are means over the rows, with 1e-6 before the
    root; VICReg's authors divide by one row less, and add 1e-4.
    """
    with in_full_precision(rows):
        rows = rows.float()
        centred = rows - mean_over_processes(rows.mean(dim=0))
        covariance = mean_over_processes(centred.T @ centred / len(rows))
        variance = covariance.diagonal()
        shared = covariance.square().sum() - variance.square().sum()
        return relu(floor - (variance + 1e-6).sqrt()).mean(), shared / len(variance)
