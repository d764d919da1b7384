"""The optimiser with its parameter groups, and schedules, each a pure function of the step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

# Steps whose gradients are not finite are skipped; fewer in a row than these may come from a record or two.
MOST_SKIPPED_IN_A_ROW = 10


def linear_schedule(step: int, total_steps: int, start: float, final: float) -> float:
    """Return `start` at step 0 and `final` at `total_steps` (one past the last step: the EMA momentum's convention)."""
    return start + (final - start) * step / total_steps


def cosine_schedule(step: int, total_steps: int, start: float, final: float) -> float:
    """Return half a cosine from `start` at step 0 to `final` at the last step, `total_steps - 1`, and `final` from there on."""
    progress = min(1.0, step / max(1, total_steps - 1))
    return final + (start - final) * (1.0 + math.cos(math.pi * progress)) / 2.0


def warmup_cosine_schedule(
    step: int, total_steps: int, start: float, final: float, warmup_steps: int = 0, warmup_start: float = 1e-6
) -> float:
    """Return a linear rise from `warmup_start` to `start` over `warmup_steps`, then half a cosine to `final` at the last step."""
    if step < warmup_steps:
        return linear_schedule(step, warmup_steps, warmup_start, start)
    return cosine_schedule(step - warmup_steps, total_steps - warmup_steps, start, final)


def parameter_groups(modules: Iterable[nn.Module]) -> list[dict]:
    """
    Return trainable parameters for AdamW in two groups: weights of Linear and Conv1d layers, and the rest (biases, norms, tokens,
    LayerScale), which never decay. `decays` marks the first for [`set_schedules`].
    """
    decays: dict[nn.Parameter, bool] = {}
    for child in (child for module in modules for child in module.modules()):
        for name, parameter in child.named_parameters(recurse=False):
            decays.setdefault(parameter, name == "weight" and isinstance(child, (nn.Linear, nn.Conv1d)))
    decayed, kept = ([p for p, decay in decays.items() if p.requires_grad and decay == wanted] for wanted in (True, False))
    groups = [{"params": decayed, "decays": True}, {"params": kept, "decays": False, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(modules: Iterable[nn.Module], learning_rate: float, betas: tuple[float, float], eps: float = 1e-8) -> torch.optim.AdamW:
    """Return AdamW of the [`parameter_groups`] of modules; fused, which is faster on CPUs, too."""
    return torch.optim.AdamW(parameter_groups(modules), lr=learning_rate, betas=betas, eps=eps, fused=True)


def set_schedules(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Give every group the step's learning rate, and the groups that decay the step's weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if group["decays"]:
            group["weight_decay"] = weight_decay


def gradient_norm(accelerator: Accelerator, network: Any, max_norm: float) -> torch.Tensor:
    """Return the norm of all gradients, the same on all processes, before clipping them to `max_norm` (0 does not clip)."""
    if max_norm > 0:
        norm = accelerator.clip_grad_norm_(network.parameters(), max_norm)
    else:
        norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of weights that are sharded
