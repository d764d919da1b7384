"""Learn nothing: an untrained encoder, exported as others are, against which is measured what others learn."""

import torch

from ..._utils.settings import settings
from ..objective import Objective, StepOutput
from ..recipe import PretrainingRecipe


@settings
class RandomRecipe(PretrainingRecipe):
    """Settings of no training: however many steps are asked for, there are none."""

    LEAST_STEPS = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.max_steps = 0


class Random(Objective[RandomRecipe]):
    """An encoder with random weights."""

    summary = "not trained at all: its weights are random"

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """A loss for the measurements before training; nothing is learned from it."""
        return StepOutput(input_values.new_zeros(()))
