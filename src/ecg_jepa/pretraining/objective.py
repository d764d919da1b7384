"""The interface of an objective: everything that objectives of pre-training do not share, and helpers for losses of batches."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.utils.flop_counter import FlopCounterMode

from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.modeling_ecg_jepa import EcgJepaEncoderPair, EcgJepaModel
from .recipe import PretrainingRecipe

Recipe = TypeVar("Recipe", bound=PretrainingRecipe)

_COUNTED = 4  # batches for count_flops, to average over mask sizes, and records in each, for batch statistics


@dataclass(frozen=True)
class BatchKey:
    """Seed and index of a batch: all that its random draws may depend on."""

    seed: int
    index: int

    @classmethod
    def held_out(cls, seed: int, index: int) -> "BatchKey":
        """Return the key of a batch of the validation folds, whose draws are not those of a training batch."""
        return cls(seed, (1 << 62) + index)

    def generator(self, *more: int) -> torch.Generator:
        """Return a CPU generator whose stream depends on the batch, and on `more` where a batch needs several streams."""
        key = (self.seed, self.index, *more)
        return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


@dataclass
class StepOutput:
    """Result of a forward: a scalar loss, and without gradient what else it computes."""

    loss: torch.Tensor
    latents: torch.Tensor | None = None  # the output of `Objective.latents`, if the forward computes it anyway
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict)  # scalars to log beside the loss


class Objective(nn.Module, Generic[Recipe]):
    """
    Networks and loss that the loop trains. `model` holds the trained encoder as `.context_encoder` and its moving average as
    `.ecg_jepa`. Both are exported; `recipe.exported_weights` says which one is meant for use. Decoders and projectors are modules
    of the objective: they are trained and resumed, but not exported.
    """

    summary: ClassVar[str]  # completes the sentence "A vision transformer for 12-lead ECG, ..." on cards
    model_class: ClassVar[type[EcgJepaEncoderPair]] = EcgJepaEncoderPair
    needs_units: ClassVar[bool] = False  # True if `forward` takes `units_per_millivolt`, in normalised units, (batch, leads, 1)

    def __init__(self, config: EcgJepaConfig, recipe: Recipe):
        super().__init__()
        self.config = config
        self.recipe = recipe
        self.model: Any = self.model_class(config)

    @property
    def encoder(self) -> EcgJepaModel:
        """Return the encoder meant for use."""
        return self.model.ecg_jepa if self.recipe.exported_weights == "ema" else self.model.context_encoder

    @torch.no_grad()
    def latents(self, input_values: torch.Tensor) -> torch.Tensor:
        """Encode whole records for the collapse measures: tokens (records, patches, width) of the encoder meant for use."""
        return self.model.without_registers(self.encoder(input_values).last_hidden_state)

    def draw(self, key: BatchKey, batch_size: int) -> dict[str, torch.Tensor]:
        """Draw masks or the like: CPU tensors, a row for each record of all processes. A pure function of its arguments."""
        return {}

    def forward(self, input_values: torch.Tensor, **drawn: torch.Tensor) -> StepOutput:
        """Compute the loss of normalised records (batch, leads, samples) with the draws for them."""
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """Update what follows optimiser step `step`, counted from 0: the moving average of the encoder."""
        self.model.update_target_encoder(self.recipe.momentum_at(step + 1))

    def plots(self, signal: torch.Tensor, input_values: torch.Tensor, drawn: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Plot a few records of the last batch, in mV and normalised, with the draws for them: file name -> Matplotlib figure."""
        return {}


def count_flops(objective: Objective[Any]) -> float:
    """Count operations per record of forward and backward: matrix products, convolutions, attention; a multiply-add is two."""
    if not objective.recipe.max_steps:
        return 0.0
    shadow = deepcopy(objective).to("meta").train()
    # The counter sees through eager attention only.
    shadow.config._attn_implementation = "eager"
    for module in shadow.modules():
        if hasattr(module, "config"):
            module.config = shadow.config  # type: ignore[assignment]
    shape = (_COUNTED, len(objective.config.lead_names), objective.config.signal_length)
    with FlopCounterMode(display=False) as counter:
        for index in range(_COUNTED):
            drawn = objective.draw(BatchKey(0, index), _COUNTED)
            shadow(torch.empty(shape, device="meta"), **{k: rows.to("meta") for k, rows in drawn.items()}).loss.backward()
    return counter.get_total_flops() / (_COUNTED * _COUNTED)


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Average a tensor over all processes of the run; its gradient flows to each of them."""
    return value if _is_alone(value) else all_reduce(value) / torch.distributed.get_world_size()


def gather_over_processes(rows: torch.Tensor) -> torch.Tensor:
    """Gather the rows of all processes, in order, with gradients: a loss of all of them trains as it does in one process."""
    if _is_alone(rows):
        return rows
    count, rank = len(rows), torch.distributed.get_rank()
    everywhere = rows.new_zeros(count * torch.distributed.get_world_size(), *rows.shape[1:])
    return all_reduce(everywhere.index_copy(0, torch.arange(count, device=rows.device) + rank * count, rows))


def _is_alone(tensor: torch.Tensor) -> bool:
    """Return whether there is nobody to share with: one process, or a tensor without values, on which costs are counted."""
    return tensor.is_meta or not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1


def in_full_precision(like: torch.Tensor) -> torch.autocast:
    """Return a context in which products of float32 stay float32, whatever the run's precision, on the device of a tensor."""
    return torch.autocast("cpu" if like.is_meta else like.device.type, enabled=False)
