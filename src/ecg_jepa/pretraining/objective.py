"""What an objective is: all that pre-training does not share among objectives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from matplotlib.figure import Figure
from torch import nn

from ..configuration_ecg_jepa import EcgJepaConfig
from ..data.corpus import CorpusBatch
from ..modeling_ecg_jepa import EcgJepaModel, EcgJepaPreTrainedModel
from .recipe import PretrainingRecipe

Recipe = TypeVar("Recipe", bound=PretrainingRecipe)

# Of the draws for records of the validation folds, which must not be those of a training batch.
_HELD_OUT = 1 << 62


@dataclass(frozen=True)
class BatchKey:
    """Which batch something is drawn for; with the seed, all that a draw may depend on."""

    seed: int
    index: int

    @classmethod
    def held_out(cls, seed: int, index: int) -> "BatchKey":
        """The key of a batch of the validation folds."""
        return cls(seed, _HELD_OUT + index)


@dataclass
class StepOutput:
    """
    What a forward computes.

    Args:
        loss: a scalar.
        latents: (records, positions, width), tokens of the encoder meant for use, by which a collapse shows; without gradient.
        figures: scalars to log beside the loss.
    """

    loss: torch.Tensor
    latents: torch.Tensor
    figures: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Objective(nn.Module, Generic[Recipe]):
    """
    What the loop trains.

    `model` holds the encoder that is exported and probed as `.ecg_jepa`. What an objective needs beside it (decoders, projectors)
    are modules of the objective: they are trained and resumed, but not exported.

    Args:
        config: of the model.
        recipe: of the objective.
    """

    model: EcgJepaPreTrainedModel

    def __init__(self, config: EcgJepaConfig, recipe: Recipe):
        super().__init__()
        self.config = config
        self.recipe = recipe
        self.register_load_state_dict_pre_hook(_accept_bare_model)

    @property
    def encoder(self) -> EcgJepaModel:
        """The encoder meant for use."""
        model: Any = self.model
        return model.ecg_jepa

    def draw(self, key: BatchKey, batch_size: int) -> dict[str, torch.Tensor]:
        """
        What is random about a batch beside its records, such as masks: tensors on the CPU with a row for each of the `batch_size`
        records of all processes, of which each process takes its own. A pure function of its arguments.
        """
        return {}

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """Normalised records (batch, leads, samples) and what was drawn for them -> loss and latents."""
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """What follows optimiser step `step`, counted from 0."""

    def figures(self, batch: CorpusBatch, input_values: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> dict[str, Figure]:
        """
        Pictures at the end of a run: file name without ending -> figure.

        Args:
            batch: a few records of the last batch, as they were read.
            input_values: the same, normalised.
            drawn: for them, on their device.
        """
        return {}


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Average a tensor over all processes of the run; its gradient flows to each of them."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return value
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(value) / torch.distributed.get_world_size()


def _accept_bare_model(objective: nn.Module, state_dict: dict[str, Any], *_: Any) -> None:
    """Checkpoints of before there were objectives hold the weights of `model` alone, under their own names."""
    if not any(name.startswith("model.") for name in state_dict):
        for name in list(state_dict):
            state_dict[f"model.{name}"] = state_dict.pop(name)
