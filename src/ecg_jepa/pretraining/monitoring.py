"""Health and speed of a run: collapse measures, log lines and `metrics.jsonl`."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from .._utils.files import JsonLines, read_lines
from .._utils.logs import progress_bar
from .._utils.optimization import MOST_SKIPPED_IN_A_ROW
from .._utils.processes import on_main_process

logger = logging.getLogger(__name__)

Line = dict[str, Any]

_TOKENS_MEASURED = 4096
_RECORDS_MEASURED = 512

_EVAL = "eval_"  # prefix of metrics on held-out records

# Metrics of a log line: label and format.
_SHOWN = {
    "loss": ("loss", ".4f"),
    "grad_norm": ("gradient norm", ".3g"),
    "target_std": ("target std", ".3f"),
    "target_effective_rank": ("effective rank", ".1f"),
    "position_share": ("position share", ".3f"),
    "embedding_std": ("embedding std", ".3f"),
    "probe_auroc": ("probe AUROC", ".3f"),
    "records_per_second": ("records/s", ".0f"),
}

_REMEDY = "resume from the last checkpoint (--allow_changes) with a lower learning rate, or with --mixed_precision no."

# A loss that exceeds the first one by this factor does not recover by itself.
_DIVERGED = 2.0
# A larger share of position in the variance means that tokens no longer show the content of their patch.
_ONLY_POSITION = 0.999
# Collapse: embeddings differ less than this share of an untrained encoder's, or content has less of its effective rank.
_CONTENT_LOST = 0.5
_DIMENSIONS_LOST = 0.25


@torch.no_grad()
def collapse_measures(latents: torch.Tensor) -> dict[str, float]:
    """
    Measure signs of collapse of tokens (records, positions, width).

    Over all tokens. With sinusoidal positions, 80 to 93% of the variance of an untrained encoder's tokens is their position, so
    that these look healthy whatever becomes of the content:

    - `target_std`: standard deviation of a channel, averaged over channels; 0 if all tokens are the same.
    - `target_effective_rank`: exponential of the entropy of the normalised singular values of the centred tokens (Roy &
      Vetterli 2007), from 1 (all on a line) to the width.
    - `position_share`: of the variance; 1 if tokens of the same position are the same in all records.

    Over records at the same position, without its mean: `content_std` and `content_effective_rank`. Of the mean token of each
    record: `embedding_std` and `embedding_effective_rank`. All are NaN for a single record, and for latents that are not finite.
    """
    latents = _thin_out(latents.detach(), _RECORDS_MEASURED).double()
    if len(latents) < 2 or not torch.isfinite(latents).all():
        return dict.fromkeys(collapse_measures(torch.zeros(2, 1, 1)), float("nan"))
    content = latents - latents.mean(dim=0)
    embeddings = latents.mean(dim=1)
    # One record less, because the mean of each position is that of the same records.
    of_content = content.square().sum(dim=(0, 1)) / max(1, (len(latents) - 1) * latents.shape[1])
    of_all = (latents - latents.mean(dim=(0, 1))).square().mean(dim=(0, 1))
    return {
        "target_std": of_all.sqrt().mean().item(),
        "target_effective_rank": _effective_rank(latents),
        "position_share": 1.0 - (of_content.sum() / of_all.sum().clamp(min=1e-12)).clamp(max=1.0).item(),
        "content_std": of_content.sqrt().mean().item(),
        "content_effective_rank": _effective_rank(content),
        "embedding_std": (embeddings - embeddings.mean(dim=0)).square().mean(dim=0).sqrt().mean().item(),
        "embedding_effective_rank": _effective_rank(embeddings),
    }


def _thin_out(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return evenly spaced rows, at most `count`."""
    return rows if len(rows) <= count else rows[torch.linspace(0, len(rows) - 1, count, device=rows.device).long()]


def _effective_rank(tokens: torch.Tensor) -> float:
    """Return the effective rank of tokens (..., width)."""
    tokens = _thin_out(tokens.flatten(0, -2), _TOKENS_MEASURED)
    centred = tokens - tokens.mean(dim=0)
    singular = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-12)
    return (-torch.special.xlogy(share, share).sum()).exp().item()


def signs_of_collapse(untrained: Line, now: Line) -> dict[str, str]:
    """Return signs of collapse, measure -> a sentence, from [`collapse_measures`] and `probe_auroc`, before training and now."""
    share, std, rank, probe = "position_share", "embedding_std", "content_effective_rank", "probe_auroc"
    signs = {}
    if now[share] > _ONLY_POSITION:
        signs[share] = f"{now[share]:.2%} of the variance of tokens is their position: they say where a patch is, not more."
    elif now[std] < _CONTENT_LOST * untrained.get(std, 0.0):
        lost = "what tells records apart is being lost"
        signs[std] = f"Embeddings of records differ by {now[std]:.2g}, the untrained encoder's by {untrained[std]:.2g}: {lost}."
    if now[rank] < _DIMENSIONS_LOST * untrained.get(rank, 0.0):
        signs[rank] = f"Tokens spread over {now[rank]:.1f} dimensions, in the untrained encoder over {untrained[rank]:.1f}."
    if now.get(probe, 1.0) <= untrained.get(probe, 0.0):
        signs[probe] = f"The linear probe finds {now[probe]:.3f}, no more than in the untrained encoder, {untrained[probe]:.3f}."
    return signs


def run_summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Sum up `metrics.jsonl`: `seconds` of training alone, skipped steps, the last log line, and the one before training."""
    return {
        "seconds": sum(line.get("seconds", 0.0) for line in lines),
        "skipped_steps": sum("skipped" in line for line in lines),
        "metrics": next((line for line in reversed(lines) if "loss" in line), {}),
        "untrained_metrics": {name: value for line in lines if line["step"] == 0 for name, value in line.items()},
    }


@dataclass
class Monitor:
    """
    Writes log lines, the progress bar, `metrics.jsonl` and Accelerate's trackers, and looks for signs of collapse and divergence.
    Losses are summed up on the device and read only when a line is due, so that a GPU does not wait for them. Metrics before the
    first step are a line of step 0, with which later ones are compared.
    """

    accelerator: Accelerator
    path: Path  # of `metrics.jsonl`; lines after step `start`, left by an interrupted run, are dropped
    start: int
    max_steps: int
    stop_on_collapse: bool = False  # raise `FloatingPointError` at a sign of collapse or divergence, instead of a warning

    def __post_init__(self) -> None:
        self.bar = progress_bar(total=self.max_steps, initial=self.start, unit="step")
        self.losses: list[torch.Tensor] = []
        self.num_records, self.logged_step = 0, self.start
        self.since = time.perf_counter()
        self.skipped_in_a_row, self.latents_are_finite = 0, True
        self.has_diverged = False
        self.signs: dict[str, dict[str, str]] = {"": {}, _EVAL: {}}  # of the last training and held-out metrics
        self.file = on_main_process(self.accelerator, lambda: JsonLines(self.path, lambda line: 0 < self.start >= line["step"]))
        self.lines = read_lines(self.path)

    def update(self, loss: torch.Tensor, num_records: int) -> None:
        """Count an optimiser step with its loss (a scalar on the device) and its records over all processes."""
        self.skipped_in_a_row = 0
        self.losses.append(loss.detach())
        self.num_records += num_records
        self.bar.update()

    def skip(self, step: int, records: list[str], latents: torch.Tensor) -> None:
        """Count and log a step whose gradients are not finite. Raise `FloatingPointError` after too many such steps in a row."""
        self.skipped_in_a_row += 1
        times, skipped = self.skipped_in_a_row, 1 + run_summary(self.lines)["skipped_steps"]
        self.latents_are_finite = bool(torch.isfinite(latents).all())
        shown = ", ".join(records[:8]) + (", ..." if len(records) > 8 else "")
        logger.warning(f"step {step + 1}/{self.max_steps}: gradients are not finite, the step is skipped. Its records: {shown}")
        self.write({"step": step + 1, "skipped": skipped, "records": records}, is_tracked=False)
        if times >= MOST_SKIPPED_IN_A_ROW:
            raise FloatingPointError(f"Gradients were not finite in {times} steps in a row, to step {step + 1}: {_REMEDY}")
        self.num_records += len(records)
        self.bar.update()

    def log(self, step: int, latents: torch.Tensor, **metrics: float | torch.Tensor) -> None:
        """Write mean loss, measures of `latents`, and `metrics`. Raise `FloatingPointError` for a loss that is not finite."""
        loss = self.accelerator.reduce(torch.stack(self.losses).mean(), "mean").item()
        if not math.isfinite(loss):
            raise FloatingPointError(f"The loss is {loss} after {step + 1} steps: {_REMEDY}")
        elapsed = time.perf_counter() - self.since
        numbers = {name: float(value) for name, value in metrics.items()}
        speed = {"seconds": elapsed, "records_per_second": self.num_records / elapsed}
        line = {"step": step + 1, "loss": loss, **collapse_measures(latents), **numbers, **speed}
        remaining = (self.max_steps - step - 1) * elapsed / (step + 1 - self.logged_step)
        self.losses, self.num_records, self.logged_step = [], 0, step + 1
        self.write(line)
        logger.info(f"step {step + 1}/{self.max_steps}: {_format(line)}, {tqdm.format_interval(remaining)} to go")
        on_main_process(self.accelerator, partial(self._check_health, line))
        self.since = time.perf_counter()

    def log_evaluation(self, step: int, evaluate: Callable[[], dict[str, float]]) -> None:
        """Evaluate on held-out records after optimiser step `step` (-1: before the first) and write a line, off training time."""
        begun = time.perf_counter()
        metrics = evaluate()
        line = {"step": step + 1, **{f"{_EVAL}{name}": value for name, value in metrics.items()}}
        self.write(line)
        logger.info(f"step {step + 1}/{self.max_steps}, held-out records: {_format(metrics)}")
        on_main_process(self.accelerator, partial(self._check_health, line, _EVAL))
        self.since += time.perf_counter() - begun

    def write(self, line: Line, is_tracked: bool = True) -> None:
        """Write a line to `metrics.jsonl`, and to the trackers of the run."""
        self.lines.append(line)
        if self.accelerator.is_main_process:
            self.file.append(line)
        if is_tracked:
            self.accelerator.log({key: value for key, value in line.items() if key != "step"}, step=line["step"])

    def _check_health(self, line: Line, prefix: str = "") -> None:
        """Warn once of a loss far above the first one, and, after a tenth of the run, of new signs of collapse."""
        step, first = line["step"], next((each["loss"] for each in self.lines if "loss" in each), None)
        if line.get("loss", 0.0) > _DIVERGED * (first or math.inf) and not self.has_diverged:
            self.has_diverged = True
            self._warn(step, f"the loss is {line['loss']:.3g}, and was {first:.3g} at first: lower the learning rate.")
        if 10 * step < self.max_steps:
            return
        now, untrained = (
            {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            for values in (line, run_summary(self.lines)["untrained_metrics"])
        )
        known, self.signs[prefix] = self.signs[prefix], signs_of_collapse(untrained, now)
        # The probe counts at the end only: representations often get worse before they get better.
        for name in sorted(self.signs[prefix].keys() - known.keys() - {"probe_auroc"}):
            self._warn(step, f"a sign of collapse. {self.signs[prefix][name]}")

    def _warn(self, step: int, sentence: str) -> None:
        logger.warning(f"step {step}/{self.max_steps}: {sentence}")
        if self.stop_on_collapse:
            raise FloatingPointError(f"Stopped after {step} steps of {self.max_steps}, as --stop_on_collapse asks: {sentence}")

    def close(self) -> None:
        """End the progress bar, and warn of collapse. Raise `FloatingPointError` if the last steps computed nothing finite."""
        self.bar.close()
        # Weights can be finite and yet too large to compute with.
        if self.skipped_in_a_row and not self.latents_are_finite:
            sentence = f"Gradients were not finite in the last {self.skipped_in_a_row} steps, nor what the encoder computes"
            raise FloatingPointError(f"{sentence}: nothing is exported; {_REMEDY}")
        for sentence in (self.signs[_EVAL] or self.signs[""]).values():
            logger.warning(f"The run ends with a sign of collapse. {sentence} docs/recipe.md says what helps.")


def _format(line: Line) -> str:
    """Format the metrics of a log line."""
    return ", ".join(f"{label} {line[name]:{style}}" for name, (label, style) in _SHOWN.items() if name in line)
