"""What objectives that compare two views of a record have in common."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from matplotlib.figure import Figure

from ..data.corpus import CorpusBatch
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.modeling_ecg_jepa import EcgJepaModel
from .objective import BatchKey, Objective, StepOutput
from .progress_plots import plot_views
from .views import ViewRecipe, draw_pair, view_of

Recipe = TypeVar("Recipe", bound=ViewRecipe)

_RECORDS_DRAWN = 2


class TwoViews(Objective[Recipe]):
    """Draws and makes the views; what is learned of them is [`~TwoViews.compare`]."""

    needs_units = True

    def __init__(self, config: EcgJepaConfig, recipe: Recipe):
        super().__init__(config, recipe)
        if recipe.embedding == "register" and not config.num_register_tokens:
            raise ValueError("embedding='register', but the encoder has no register token: choose embedding='mean'.")
        self.views = recipe.make_views(config)

    def draw(self, key: BatchKey, batch_size: int) -> dict[str, torch.Tensor]:
        """What the `first_...` and the `second_...` view of each record are made by."""
        return draw_pair(self.views, key, batch_size)

    def forward(
        self, input_values: torch.Tensor, units_per_millivolt: torch.Tensor | None = None, **drawn: torch.Tensor
    ) -> StepOutput:
        """The loss of both views of all records."""
        units = input_values.new_ones(1, 1, 1) if units_per_millivolt is None else units_per_millivolt
        first, second = (view_of(which, self.views, input_values, drawn, units) for which in ("first", "second"))
        return self.compare(first, second)

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> StepOutput:
        """Views (batch, leads, samples) of the same records -> loss and figures."""
        raise NotImplementedError

    def embed(self, encoder: EcgJepaModel, views: torch.Tensor) -> torch.Tensor:
        """What is compared of views: the first register token, or the mean of patches, (batch, hidden_size)."""
        output = encoder(views)
        return output.last_hidden_state[:, 0] if self.recipe.embedding == "register" else output.pooler_output

    def figures(self, batch: CorpusBatch, input_values: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> dict[str, Figure]:
        """Some records beside their views."""
        signal = input_values[:_RECORDS_DRAWN]
        rows = {name: values[:_RECORDS_DRAWN] for name, values in drawn.items()}
        units = rows.pop("units_per_millivolt", signal.new_ones(1, 1, 1))
        pair = [view_of(which, self.views, signal, rows, units) for which in ("first", "second")]
        records, first, second = (part.cpu().numpy() for part in (signal, *pair))
        return {"views": plot_views(records, first, second, self.config.sampling_rate, self.config.lead_names)}
