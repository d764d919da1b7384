"""Is the run healthy, and how fast is it? Loss alone does not show a collapse of the representations."""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .._utils.json_lines import JsonLines, read_lines
from .._utils.logs import duration, progress_bar
from .._utils.optimization import MOST_SKIPPED_IN_A_ROW
from .._utils.processes import on_main_process

logger = logging.getLogger(__name__)

_TOKENS_MEASURED = 4096
_RECORDS_MEASURED = 512

_EVAL = "eval_"  # before names of what was measured on held-out records

_MEASURES = (
    *("target_std", "target_effective_rank", "position_share", "content_std", "content_effective_rank"),
    *("embedding_std", "embedding_effective_rank"),
)

# A loss that is so many times what it was at first does not come back by itself.
_DIVERGED = 2.0

_NAMES_SHOWN = 8  # of the records of a step that is skipped

# More of the variance than this is position: what is in a patch no longer shows in its token.
_ONLY_POSITION = 0.999
# Embeddings that differ less than this share of what an untrained encoder's do have lost what told records apart.
_CONTENT_LOST = 0.5
# The same of the number of dimensions that content spreads over.
_DIMENSIONS_LOST = 0.25


@torch.no_grad()
def collapse_measures(latents: torch.Tensor) -> dict[str, float]:
    """
    Signs of collapse of tokens (records, positions, width).

    Over all tokens. With sinusoidal positions, 80 to 93% of the variance of an untrained encoder's tokens is their position, so
    that these look healthy whatever becomes of the content:

    - `target_std`: standard deviation of a channel, averaged over channels; 0 if all tokens are the same.
    - `target_effective_rank`: exponential of the entropy of the normalised singular values of the centred tokens (Roy &
      Vetterli 2007), from 1 (all on a line) to the width.
    - `position_share`: of the variance; 1 if tokens of the same position are the same in all records.

    Over records at the same position, its mean taken out: `content_std` and `content_effective_rank`. Of the mean token of each
    record, which is its embedding: `embedding_std` and `embedding_effective_rank`, over records.
    """
    latents = _thin_out(latents.detach(), _RECORDS_MEASURED).double()
    if len(latents) < 2 or not torch.isfinite(latents).all():
        return dict.fromkeys(_MEASURES, float("nan"))  # nothing can be told of one record, and no sign of a collapse follows
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
    """Evenly spaced rows, at most `count`."""
    return rows if len(rows) <= count else rows[torch.linspace(0, len(rows) - 1, count, device=rows.device).long()]


def _effective_rank(tokens: torch.Tensor) -> float:
    """Of tokens (..., width)."""
    tokens = _thin_out(tokens.flatten(0, -2), _TOKENS_MEASURED)
    centred = tokens - tokens.mean(dim=0)
    singular = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-12)
    return (-torch.special.xlogy(share, share).sum()).exp().item()


def signs_of_collapse(untrained: Mapping[str, float], now: Mapping[str, float]) -> dict[str, str]:
    """
    What is wrong with the representations: measure -> a sentence; empty if nothing is.

    Args:
        untrained: what was measured before training: of [`collapse_measures`], and `probe_auroc` if there is a probe; without it,
            only what needs no comparison is told.
        now: the same.
    """
    signs = {}
    if now["position_share"] > _ONLY_POSITION:
        signs["position_share"] = (
            f"{now['position_share']:.2%} of the variance of tokens is their position: they say where a patch is, not what is "
            "in it."
        )
    elif now["embedding_std"] < _CONTENT_LOST * untrained.get("embedding_std", 0.0):
        signs["embedding_std"] = (
            f"Embeddings of records differ by {now['embedding_std']:.2g}, those of the untrained encoder by "
            f"{untrained['embedding_std']:.2g}: what tells records apart is being lost."
        )
    if now["content_effective_rank"] < _DIMENSIONS_LOST * untrained.get("content_effective_rank", 0.0):
        signs["content_effective_rank"] = (
            f"What tokens hold spreads over {now['content_effective_rank']:.1f} dimensions, in the untrained encoder over "
            f"{untrained['content_effective_rank']:.1f}."
        )
    if now.get("probe_auroc", 1.0) <= untrained.get("probe_auroc", 0.0):
        signs["probe_auroc"] = (
            f"The linear probe finds {now['probe_auroc']:.3f}, no more than in the untrained encoder, "
            f"{untrained['probe_auroc']:.3f}."
        )
    return signs


def training_seconds(path: Path) -> float:
    """Of a whole run, from its `metrics.jsonl`: interruptions do not count."""
    return sum(line.get("seconds", 0.0) for line in run_lines(path))


def last_metrics(path: Path) -> dict[str, Any]:
    """The last log line of a run, from its `metrics.jsonl`; empty if there is none."""
    return next((line for line in reversed(run_lines(path)) if "loss" in line), {})


def skipped_steps(path: Path) -> int:
    """How many steps of a run were skipped because gradients were not finite, from its `metrics.jsonl`."""
    return sum("skipped" in line for line in run_lines(path))


def run_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; those that are of no step, which nobody but an editor writes, are left out."""
    return [line for line in read_lines(path) if _is_of_a_step(line)]


def _is_of_a_step(line: Mapping[str, Any]) -> bool:
    numbers = (line[name] for name in ("loss", "seconds") if line.get(name) is not None)
    return isinstance(line.get("step"), int) and all(isinstance(number, (int, float)) for number in numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def untrained_metrics(path: Path) -> dict[str, Any]:
    """What was measured before the first step, from a run's `metrics.jsonl`; empty if nothing was."""
    return {name: value for line in run_lines(path) if line["step"] == 0 for name, value in line.items()}


class Monitor:
    """
    Log lines, progress bar, `metrics.jsonl` and Accelerate's trackers.

    Losses are summed up on the device and read only when a line is due, so that a GPU does not wait for them. What is measured
    before the first step is a line of step 0, with which what follows is compared: signs of collapse are warnings.

    Args:
        accelerator: of the run.
        path: of `metrics.jsonl`; lines from `start` on, left by an interrupted run, are dropped.
        start, max_steps: optimiser steps.
        source: the log of the checkpoint that is gone on from, if that is another.
        stop_on_collapse: a sign of collapse or divergence is a `reason_to_stop`, on the main process, beside a warning.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        path: Path,
        start: int,
        max_steps: int,
        stop_on_collapse: bool = False,
        source: Path | None = None,
    ):
        self.accelerator = accelerator
        self.max_steps = max_steps
        self.stop_on_collapse = stop_on_collapse
        self.first_loss: float | None = None
        self.reason_to_stop = ""
        self.bar = progress_bar(total=max_steps, initial=start, unit="step")
        self.losses: list[torch.Tensor] = []
        self.skipped = self.skipped_in_a_row = 0
        self.latents_are_finite = True
        self.diverged = False
        self.num_records = 0
        self.logged_step = start
        self.since = time.perf_counter()
        self.untrained: dict[str, Any] = {}
        self.signs: dict[str, dict[str, str]] = {"": {}, _EVAL: {}}  # that the last measurements showed, of either kind

        def open_log() -> None:
            if source is not None and source.is_file() and not path.is_file():
                shutil.copyfile(source, path)
            self.lines = JsonLines(path, lambda line: _is_of_a_step(line) and 0 <= line["step"] <= start and start > 0)
            self.untrained = untrained_metrics(path)
            losses = [line["loss"] for line in run_lines(path) if _is_number(line.get("loss"))]
            self.first_loss = losses[0] if losses else None
            self.skipped = skipped_steps(path)
            if start and "position_share" not in self.untrained:
                logger.warning(
                    f"{path} has no line of step 0: that embeddings or content collapse can only be told in comparison with the "
                    "untrained encoder, and will not be."
                )

        on_main_process(accelerator, open_log)

    def is_usable(self, step: int, norm: torch.Tensor, records_of: Callable[[int], list[str]]) -> bool:
        """
        Whether gradients of that norm may change weights. A step whose are not finite is skipped, counted, and told with its
        records; what it would have changed is lost for good.

        Args:
            step: of the optimiser.
            norm: of the gradients, the same on all processes.
            records_of: a step -> the names of its records.

        Raises:
            FloatingPointError: after too many such steps in a row; weights are those of before the first of them.
        """
        if torch.isfinite(norm):
            self.skipped_in_a_row = 0
            return True
        self.skipped += 1
        self.skipped_in_a_row += 1
        names = records_of(step)
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        logger.warning(f"step {step + 1}/{self.max_steps}: gradients are not finite, the step is skipped. Its records: {shown}")
        if self.accelerator.is_main_process:
            self.lines.append({"step": step + 1, "skipped": self.skipped, "records": names})
        if self.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"Gradients were not finite in {self.skipped_in_a_row} steps in a row, to step {step + 1}: resume from the last "
                "checkpoint with a lower learning rate, or with --mixed_precision no to see whether precision is the cause "
                "(--allow_changes)."
            )
        return False

    def log_untrained(self, latents: torch.Tensor, gflop_per_record: float) -> None:
        """Write the line of step 0: what the encoder makes of records before any training, and what each of them will cost."""
        self._write({"step": 0, **collapse_measures(latents), "gflop_per_record": gflop_per_record})

    def update(self, step: int, loss: torch.Tensor | None, num_records: int, latents: Callable[[], torch.Tensor]) -> None:
        """
        After optimiser step `step`: its loss (a scalar on the device; `None` if it was skipped), records over all processes, and
        how to have the step's latents.
        """
        if loss is not None:
            self.losses.append(loss.detach())
        else:
            self.latents_are_finite = bool(torch.isfinite(latents()).all())
        self.num_records += num_records
        self.bar.update(step + 1 - self.bar.n)

    def log(self, step: int, latents: torch.Tensor, **values: float | torch.Tensor) -> dict[str, Any]:
        """
        Write a line for the steps since the last one, with figures of the last step.

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
            **collapse_measures(latents),
            **{name: float(value) for name, value in values.items()},
            "seconds": elapsed,
            "records_per_second": self.num_records / elapsed,
        }
        remaining = (self.max_steps - step - 1) * elapsed / (step + 1 - self.logged_step)
        self.losses, self.num_records, self.logged_step = [], 0, step + 1
        self._write(line)
        self._look_for_divergence(line)
        self._look_for_collapse(line, "")
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
        """Write a line of what was measured on held-out records after optimiser step `step`; before the first one it is -1."""
        line = {"step": step + 1, **{f"{_EVAL}{name}": value for name, value in values.items()}}
        self._write(line)
        self._look_for_collapse(line, _EVAL)
        shown = ", ".join(f"{label} {values[name]:{style}}" for name, (label, style) in _SHOWN.items() if name in values)
        logger.info(f"step {step + 1}/{self.max_steps}, held-out records: {shown}")

    def _look_for_collapse(self, line: dict[str, Any], prefix: str) -> None:
        """Warn of signs that were not there at the last measurement of this kind, once the first tenth of the run is over."""
        now, untrained = (
            {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            for values in (line, self.untrained)
        )
        measured = "position_share" in now
        if not self.accelerator.is_main_process or not measured or 10 * line["step"] < self.max_steps:
            return
        signs = signs_of_collapse(untrained, now)
        # Of the probe at the end only: representations often get worse before they get better.
        for name in sorted(signs.keys() - self.signs[prefix].keys() - {"probe_auroc"}):
            self._warn(line["step"], f"a sign of collapse. {signs[name]}")
        self.signs[prefix] = signs

    def _look_for_divergence(self, line: dict[str, Any]) -> None:
        """Warn once of a loss far above what it was at first."""
        if not self.accelerator.is_main_process:
            return
        if self.first_loss is None:
            self.first_loss = line["loss"]
        elif line["loss"] > _DIVERGED * self.first_loss:
            if not self.diverged:
                self._warn(
                    line["step"],
                    f"the loss is {line['loss']:.3g}, and was {self.first_loss:.3g} at first: lower the learning rate.",
                )
            self.diverged = True

    def _warn(self, step: int, sentence: str) -> None:
        if self.stop_on_collapse:
            self.reason_to_stop = f"Stopped after {step} steps of {self.max_steps}, as --stop_on_collapse asks: {sentence}"
        logger.warning(f"step {step}/{self.max_steps}: {sentence}")

    def _write(self, line: dict[str, Any]) -> None:
        if line["step"] == 0:
            self.untrained |= line
        if self.accelerator.is_main_process:
            self.lines.append(line)
        self.accelerator.log({key: value for key, value in line.items() if key != "step"}, step=line["step"])

    def close(self) -> None:
        """
        End the progress bar, and say whether the run was healthy.

        Raises:
            FloatingPointError: if its last steps were skipped, and the last latents are not finite either: weights can be finite
                and yet too large to compute with.
        """
        self.bar.close()
        if self.skipped_in_a_row and not self.latents_are_finite:
            raise FloatingPointError(
                f"Gradients were not finite in the last {self.skipped_in_a_row} steps, nor what the encoder computes: nothing is "
                "exported. Resume from a checkpoint of before with a lower learning rate (--allow_changes)."
            )
        for sentence in (self.signs[_EVAL] or self.signs[""]).values():
            logger.warning(f"The run ends with a sign of collapse. {sentence} docs/recipe.md says what helps.")


# What a log line shows, how it is called there and with how many digits.
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
