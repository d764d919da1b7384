"""Is the run healthy, and how fast is it? Loss alone does not show a collapse of the representations."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..common.logs import duration, progress_bar
from .objective import StepOutput

logger = logging.getLogger(__name__)

_TOKENS_MEASURED = 4096


@torch.no_grad()
def collapse_measures(latents: torch.Tensor) -> dict[str, float]:
    """
    Two signs of collapse, measured on latents of any shape (..., hidden_size):

    - `target_std`: standard deviation of a channel over tokens, averaged over channels; 0 if all tokens are the same.
    - `target_effective_rank`: exponential of the entropy of the normalised singular values of the centred latents (Roy &
      Vetterli 2007), from 1 (all on a line) to hidden_size.
    """
    tokens = latents.detach().flatten(0, -2)
    if len(tokens) > _TOKENS_MEASURED:
        tokens = tokens[torch.linspace(0, len(tokens) - 1, _TOKENS_MEASURED, device=tokens.device).long()]
    tokens = tokens.double()
    centred = tokens - tokens.mean(dim=0)
    singular = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-12)
    entropy = -torch.special.xlogy(share, share).sum()
    return {"target_std": centred.std(dim=0).mean().item(), "target_effective_rank": entropy.exp().item()}


def training_seconds(path: Path) -> float:
    """Of a whole run, from its `metrics.jsonl`: interruptions do not count."""
    return sum(json.loads(line).get("seconds", 0.0) for line in path.read_text().splitlines())


def last_metrics(path: Path) -> dict[str, Any]:
    """The last log line of a run, from its `metrics.jsonl`; empty if there is none."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return next((line for line in reversed(lines) if "loss" in line), {})


class Monitor:
    """
    Log lines, progress bar, `metrics.jsonl` and Accelerate's trackers.

    Losses are summed up on the device and read only when a line is due, so that a GPU does not wait for them.

    Args:
        accelerator: of the run.
        path: of `metrics.jsonl`; lines from `start` on, left by an interrupted run, are dropped.
        start, max_steps: optimiser steps.
    """

    def __init__(self, accelerator: Accelerator, path: Path, start: int, max_steps: int):
        self.accelerator = accelerator
        self.path = path
        self.max_steps = max_steps
        self.bar = progress_bar(total=max_steps, initial=start, unit="step")
        self.losses: list[torch.Tensor] = []
        self.num_records = 0
        self.logged_step = start
        self.since = time.perf_counter()
        if accelerator.is_main_process:
            lines = path.read_text().splitlines() if path.is_file() else []
            kept = [line for line in lines if json.loads(line)["step"] <= start]
            path.write_text("".join(line + "\n" for line in kept))

    def update(self, step: int, loss: torch.Tensor, num_records: int) -> None:
        """After optimiser step `step`: its loss (a scalar on the device) and records over all processes."""
        self.losses.append(loss.detach())
        self.num_records += num_records
        self.bar.update(step + 1 - self.bar.n)

    def log(self, step: int, output: StepOutput, **values: float | torch.Tensor) -> dict[str, Any]:
        """
        Write a line for the steps since the last one.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        loss = self.accelerator.reduce(torch.stack(self.losses).mean(), "mean").item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss} after {step + 1} steps: resume from the last checkpoint with a lower learning rate, or "
                "with --mixed_precision no to see whether precision is the cause."
            )
        elapsed = time.perf_counter() - self.since
        line = {
            "step": step + 1,
            "loss": loss,
            **collapse_measures(output.latents),
            **{name: float(value) for name, value in {**output.figures, **values}.items()},
            "seconds": elapsed,
            "records_per_second": self.num_records / elapsed,
        }
        remaining = (self.max_steps - step - 1) * elapsed / (step + 1 - self.logged_step)
        self.losses, self.num_records, self.logged_step = [], 0, step + 1
        self._write(line)
        shown = ", ".join(f"{label} {line[name]:{style}}" for name, (label, style) in _SHOWN.items() if name in line)
        logger.info(f"step {step + 1}/{self.max_steps}: {shown}, {duration(remaining)} to go")
        self.since = time.perf_counter()
        return line

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile does not count as training time."""
        begun = time.perf_counter()
        yield
        self.since += time.perf_counter() - begun

    def log_evaluation(self, step: int, values: dict[str, float]) -> None:
        """Write a line of what was measured on held-out records."""
        self._write({"step": step + 1, **values})
        shown = ", ".join(f"{name.removeprefix('eval_').replace('_', ' ')} {value:.4g}" for name, value in values.items())
        logger.info(f"step {step + 1}/{self.max_steps}, held-out records: {shown}")

    def _write(self, line: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        self.accelerator.log({key: value for key, value in line.items() if key != "step"}, step=line["step"])

    def close(self) -> None:
        """End the progress bar."""
        self.bar.close()


# What a log line shows, how it is called there and with how many digits.
_SHOWN = {
    "loss": ("loss", ".4f"),
    "grad_norm": ("gradient norm", ".3g"),
    "target_std": ("target std", ".3f"),
    "target_effective_rank": ("rank", ".1f"),
    "records_per_second": ("records/s", ".0f"),
}
