"""Parameter groups and the schedules of the recipe, each a pure function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import nn


def linear_schedule(step: int, total_steps: int, start: float, final: float) -> float:
    """`start` at step 0, `final` at `total_steps` (one past the last step: the EMA momentum's convention)."""
    return start + (final - start) * step / total_steps


def cosine_schedule(step: int, total_steps: int, start: float, final: float) -> float:
    """Half a cosine from `start` at step 0 to `final` at the last step, `total_steps - 1`; `final` from there on."""
    progress = min(1.0, step / max(1, total_steps - 1))
    return final + (start - final) * (1.0 + math.cos(math.pi * progress)) / 2.0


def warmup_cosine_schedule(
    step: int, total_steps: int, start: float, final: float, warmup_steps: int = 0, warmup_start: float = 1e-6
) -> float:
    """Linear from `warmup_start` to `start` over `warmup_steps`, then half a cosine to `final` at the last step."""
    if step < warmup_steps:
        return linear_schedule(step, warmup_steps, warmup_start, start)
    return cosine_schedule(step - warmup_steps, total_steps - warmup_steps, start, final)


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


def set_schedules(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Give every group the step's learning rate, and the groups that decay the step's weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if group["decays"]:
            group["weight_decay"] = weight_decay
