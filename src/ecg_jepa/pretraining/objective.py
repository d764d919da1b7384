"""What an objective is: all that pre-training does not share among objectives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from ..data.corpus import CorpusBatch
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.modeling_ecg_jepa import EcgJepaEncoderPair, EcgJepaModel
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

    def generator(self, *more: int) -> torch.Generator:
        """A generator on the CPU whose stream depends on the batch, and on what else tells one draw for it from another."""
        key = (self.seed, self.index, *more)
        return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


@dataclass
class StepOutput:
    """
    What a forward computes.

    Args:
        loss: a scalar.
        latents: what [`Objective.latents`] would compute, where the forward has it anyway; without gradient.
        figures: scalars to log beside the loss.
    """

    loss: torch.Tensor
    latents: torch.Tensor | None = None
    figures: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Objective(nn.Module, Generic[Recipe]):
    """
    What the loop trains.

    `model` holds the encoder that is trained as `.context_encoder` and its moving average as `.ecg_jepa`; both are exported, and
    the recipe says which of them is meant for use. What an objective needs beside it (decoders, projectors) are modules of the
    objective: they are trained and resumed, but not exported.

    Args:
        config: of the model.
        recipe: of the objective.
    """

    # The end of the sentence "A vision transformer for 12-lead ECG, ..." on cards.
    summary: ClassVar[str]
    model_class: ClassVar[type[EcgJepaEncoderPair]] = EcgJepaEncoderPair

    # Whether `units_per_millivolt` is among what is drawn: what a millivolt is in the input, (batch, leads, 1).
    needs_units: ClassVar[bool] = False

    def __init__(self, config: EcgJepaConfig, recipe: Recipe):
        super().__init__()
        self.config = config
        self.recipe = recipe
        self.model: Any = self.model_class(config)
        self.register_load_state_dict_pre_hook(_accept_bare_model)

    @property
    def encoder(self) -> EcgJepaModel:
        """The encoder meant for use."""
        return self.model.ecg_jepa if self.recipe.exported_weights == "ema" else self.model.context_encoder

    def plain_encoder(self) -> EcgJepaModel:
        """The encoder meant for use, as the class that is exported."""
        if type(self.encoder) is EcgJepaModel:
            return self.encoder
        model = EcgJepaModel(self.config)
        model.load_state_dict(self.encoder.state_dict())
        return model

    @torch.no_grad()
    def latents(self, input_values: torch.Tensor) -> torch.Tensor:
        """What the encoder meant for use makes of whole records, by which a collapse shows: (records, positions, width)."""
        return self.model.without_registers(self.encoder(input_values).last_hidden_state)

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
        """What follows optimiser step `step`, counted from 0: the average moves."""
        self.model.update_target_encoder(self.recipe.momentum_at(step + 1))

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
    if _is_alone(value):
        return value
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(value) / torch.distributed.get_world_size()


def gather_over_processes(rows: torch.Tensor) -> torch.Tensor:
    """
    Rows (own rows, ...) of all processes of the run, in the order of processes, (all rows, ...); gradients flow to each of them.

    A loss that every process computes of all rows then has the gradient of one process with the same batch, after the average
    over processes that data-parallel training takes.
    """
    if _is_alone(rows):
        return rows
    from torch.distributed.nn.functional import all_reduce

    count, rank = len(rows), torch.distributed.get_rank()
    everywhere = rows.new_zeros(count * torch.distributed.get_world_size(), *rows.shape[1:])
    return all_reduce(everywhere.index_copy(0, torch.arange(count, device=rows.device) + rank * count, rows))


def _is_alone(tensor: torch.Tensor) -> bool:
    """Whether there are no others to share with: one process, or a tensor without values, by which costs are counted."""
    return tensor.is_meta or not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1


def in_full_precision(like: torch.Tensor) -> torch.autocast:
    """A context in which products of float32 stay float32, whatever the precision of the run, on the device of a tensor."""
    return torch.autocast("cpu" if like.is_meta else like.device.type, enabled=False)


def _accept_bare_model(objective: nn.Module, state_dict: dict[str, Any], *_: Any) -> None:
    """Checkpoints of before there were objectives hold the weights of `model` alone, under their own names."""
    if not any(name.startswith("model.") for name in state_dict):
        for name in list(state_dict):
            state_dict[f"model.{name}"] = state_dict.pop(name)
