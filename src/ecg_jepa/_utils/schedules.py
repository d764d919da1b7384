"""Schedules, each a pure function of the step."""

import math


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
