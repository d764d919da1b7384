"""No training at all: an untrained encoder, exported like others, as the baseline of what others learn."""

import torch

from ..._utils.settings import settings
from ..objective import Objective, StepOutput
from ..recipe import PretrainingRecipe


@settings
class UntrainedRecipe(PretrainingRecipe):
    """Settings of no training: `max_steps` is always 0."""

    LEAST_STEPS = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.max_steps = 0


class Untrained(Objective[UntrainedRecipe]):
    """An encoder with random weights."""

    summary = "not trained at all: its weights are random"

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """Return a loss of 0, for the evaluation before training."""
        return StepOutput(input_values.new_zeros(()))
