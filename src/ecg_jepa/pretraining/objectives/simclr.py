"""SimCLR (Chen et al. 2020): tell the other view of a record from the views of all other records of the batch."""

import torch
from torch.nn.functional import cross_entropy, normalize

from ..._utils.settings import option, settings
from ...model.configuration_ecg_jepa import EcgJepaConfig
from ..objective import StepOutput, gather_over_processes, in_full_precision
from ..views import TwoViews, ViewRecipe, projector


@settings
class SimClrRecipe(ViewRecipe):
    """Settings of SimCLR."""

    temperature: float = option(0.1, "of similarities; the smaller, the more the hardest negatives count")
    projection_hidden_size: int = option(2048, "width of the projector's hidden layer")
    projection_size: int = option(128, "width of what is compared")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be positive.")


class SimClr(TwoViews[SimClrRecipe]):
    """An encoder and a projector, which both see both views."""

    summary = "pre-trained by telling two views of a record from those of all other records (SimCLR, Chen et al. 2020)"

    def __init__(self, config: EcgJepaConfig, recipe: SimClrRecipe):
        super().__init__(config, recipe)
        self.projector = projector([config.hidden_size, recipe.projection_hidden_size, recipe.projection_size], batch_norm=False)

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> StepOutput:
        """Return the contrastive loss, with negatives of all processes."""
        embeddings = self.embed(self.model.context_encoder, torch.cat([first, second]))
        rows = gather_over_processes(torch.stack(self.projector(embeddings).float().chunk(2), dim=1))
        loss, similarities = nt_xent(rows[:, 0], rows[:, 1], self.recipe.temperature)
        found = (similarities.argmax(dim=1) == _positives(len(rows), rows.device)).float().mean()
        return StepOutput(loss, metrics={"share_found": found})


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the NT-Xent loss of two views, (records, width) each, and cosines over temperature, (2 * records, 2 * records)."""
    with in_full_precision(first):
        rows = normalize(torch.cat([first, second]).float(), dim=1)
        similarities = (rows @ rows.T / temperature).fill_diagonal_(float("-inf"))
        return cross_entropy(similarities, _positives(len(first), rows.device)), similarities.detach()


def _positives(records: int, device: torch.device) -> torch.Tensor:
    """Return the index of each row's other view."""
    return torch.arange(2 * records, device=device).roll(records)
