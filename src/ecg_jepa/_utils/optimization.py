"""The optimiser and its parameter groups, the schedules, and what these change of the groups."""

from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from .fsdp import whole
from .schedules import cosine_schedule, linear_schedule, warmup_cosine_schedule

__all__ = [
    "MOST_SKIPPED_IN_A_ROW",
    "adamw",
    "cosine_schedule",
    "gradient_norm",
    "linear_schedule",
    "parameter_groups",
    "set_schedules",
    "warmup_cosine_schedule",
]

# Steps whose gradients are not finite are skipped; fewer in a row than these may be the fault of a record or two.
MOST_SKIPPED_IN_A_ROW = 10


def parameter_groups(modules: Iterable[nn.Module]) -> list[dict]:
    """
    Trainable parameters for AdamW in two groups: weights of Linear and Conv1d layers, and the rest (biases, norms,
    tokens, LayerScale), which are never decayed. `decays` marks the first for [`set_schedules`].
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in modules:
        for child in module.modules():
            for name, parameter in child.named_parameters(recurse=False):
                if not parameter.requires_grad or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                is_weight = name == "weight" and isinstance(child, (nn.Linear, nn.Conv1d))
                (decayed if is_weight else kept).append(parameter)
    groups = [{"params": decayed, "decays": True}, {"params": kept, "decays": False, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(modules: Iterable[nn.Module], learning_rate: float, betas: tuple[float, float], eps: float = 1e-8) -> torch.optim.AdamW:
    """AdamW of what of the modules is trained, in the groups of [`parameter_groups`]; fused, which is faster on CPUs, too."""
    return torch.optim.AdamW(parameter_groups(modules), lr=learning_rate, betas=betas, eps=eps, fused=True)


def set_schedules(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Give every group the step's learning rate, and the groups that decay the step's weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if group["decays"]:
            group["weight_decay"] = weight_decay


def gradient_norm(accelerator: Accelerator, network: Any, max_norm: float) -> torch.Tensor:
    """Norm of all gradients before they are clipped to `max_norm`; 0 does not clip. The same on all processes."""
    if max_norm > 0:
        return whole(accelerator.clip_grad_norm_(network.parameters(), max_norm))
    return whole(torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]))
