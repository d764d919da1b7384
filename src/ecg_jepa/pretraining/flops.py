"""What a record costs in pre-training, so that objectives can be compared at equal cost whatever machine they run on."""

from copy import deepcopy
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .objective import BatchKey, Objective

# Few enough to be quick, enough for batch statistics. What grows with the square of a batch is next to nothing beside encoders.
_RECORDS = 4
_BATCHES = 4  # whose masks differ


def count_flops(objective: Objective[Any]) -> float:
    """
    Floating-point operations per record of a training step of the objective, forward and backward: those that PyTorch's counter
    knows (matrix products, convolutions, attention), a multiplication and an addition counted as two. Nothing is computed.
    """
    if not objective.recipe.max_steps:
        return 0.0
    shadow = deepcopy(objective).to("meta").train()
    # The counter sees through plain attention, whatever the device.
    shadow.config._attn_implementation = "eager"
    for module in shadow.modules():
        if hasattr(module, "config"):
            module.config = shadow.config  # type: ignore[assignment]
    leads, samples = len(objective.config.lead_names), objective.config.signal_length
    with FlopCounterMode(display=False) as counter:
        for index in range(_BATCHES):
            drawn = objective.draw(BatchKey(0, index), _RECORDS)
            signal = torch.empty(_RECORDS, leads, samples, device="meta")
            shadow(signal, **{name: rows.to("meta") for name, rows in drawn.items()}).loss.backward()
    return counter.get_total_flops() / (_RECORDS * _BATCHES)
