"""Is the run healthy, and how fast is it? Loss alone does not show a collapse of the representations."""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from ..modeling_ecg_jepa import EcgJepaForPreTrainingOutput

_TOKENS_MEASURED = 4096


@torch.no_grad()
def collapse_measures(targets: torch.Tensor) -> dict[str, float]:
    """
    Two signs of collapse, measured on latents of any shape (..., hidden_size):

    - `target_std`: standard deviation of a channel over tokens, averaged over channels; 0 if all tokens are the same.
    - `target_effective_rank`: exponential of the entropy of the normalised singular values of the centred latents (Roy &
      Vetterli 2007), from 1 (all on a line) to hidden_size.
    """
    tokens = targets.detach().flatten(0, -2)
    if len(tokens) > _TOKENS_MEASURED:
        tokens = tokens[torch.linspace(0, len(tokens) - 1, _TOKENS_MEASURED, device=tokens.device).long()]
    tokens = tokens.double()
    centred = tokens - tokens.mean(dim=0)
    singular = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-12)
    entropy = -torch.special.xlogy(share, share).sum()
    return {"target_std": centred.std(dim=0).mean().item(), "target_effective_rank": entropy.exp().item()}


@torch.no_grad()
def patch_errors(output: EcgJepaForPreTrainingOutput, target_mask: torch.Tensor, num_patches: int) -> torch.Tensor:
    """Mean absolute error of the predicted latents of each patch, (batch, num_patches) float32; NaN where it was visible."""
    assert output.prediction is not None
    assert output.target is not None
    errors = (output.prediction.float() - output.target.float()).abs().mean(dim=-1)
    return torch.full((len(errors), num_patches), torch.nan, device=errors.device).scatter(1, target_mask, errors)


def training_seconds(path: Path) -> float:
    """Of a whole run, from its `metrics.jsonl`: interruptions do not count."""
    return sum(json.loads(line)["seconds"] for line in path.read_text().splitlines())


class Monitor:
    """
    Progress bar, `metrics.jsonl` and Accelerate's trackers.

    The loss is summed up on the device and read only when a line is due, so that a GPU does not wait for it.

    Args:
        accelerator: of the run.
        path: of `metrics.jsonl`; lines from `start` on, left by an interrupted run, are dropped.
        start, max_steps: optimiser steps.
    """

    def __init__(self, accelerator: Accelerator, path: Path, start: int, max_steps: int):
        self.accelerator = accelerator
        self.path = path
        self.bar = tqdm(total=max_steps, initial=start, unit="step", disable=not accelerator.is_main_process)
        self.losses: list[torch.Tensor] = []
        self.num_records = 0
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

    def log(self, step: int, output: EcgJepaForPreTrainingOutput, **values: float) -> dict[str, Any]:
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
        assert output.target is not None
        elapsed = time.perf_counter() - self.since
        line = {
            "step": step + 1,
            "loss": loss,
            **collapse_measures(output.target),
            **values,
            "seconds": elapsed,
            "records_per_second": self.num_records / elapsed,
        }
        self.losses, self.num_records, self.since = [], 0, time.perf_counter()
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        self.accelerator.log({key: value for key, value in line.items() if key != "step"}, step=step + 1)
        self.bar.set_postfix_str(
            f"loss {loss:.4f}, target std {line['target_std']:.3f}, rank {line['target_effective_rank']:.1f}, "
            f"{line['records_per_second']:.0f} records/s"
        )
        return line

    def close(self) -> None:
        """End the progress bar."""
        self.bar.close()
