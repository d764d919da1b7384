"""The fine-tuning loop, of heads over frozen encoders and of whole classifiers."""

import contextlib
import copy
import logging
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from .._utils.hardware import use_faster_attention
from .._utils.logs import progress_bar
from .._utils.optimization import MOST_SKIPPED_IN_A_ROW, adamw, gradient_norm, set_schedules
from .._utils.processes import send_no_constants
from ..data.task_data import TaskData
from ..evaluation.metrics import MacroAuroc, measure
from ..evaluation.results import Predictions
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from .classifier import Scorer
from .encoders import StartingPoint
from .protocols import FinetuneSettings

logger = logging.getLogger(__name__)


@dataclass
class FinetuningRun:
    """Everything that a run works with; `model` is trained in place."""

    settings: FinetuneSettings
    accelerator: Accelerator
    data: TaskData
    start: StartingPoint
    model: EcgJepaForSequenceClassification

    def __post_init__(self) -> None:
        self.crop_length = self.data.samples(self.settings.crop_duration)
        self.crop_stride = self.data.samples(self.settings.crop_stride)
        self.model = self.model.to(self.accelerator.device)
        config = self.model.config
        num_tokens = self.crop_length // config.patch_size + config.num_register_tokens
        use_faster_attention(self.model, num_tokens, self.settings.mixed_precision)

    def scorer(self, split: str) -> Scorer:
        """Return what scores the records of a split over strided crops."""
        return Scorer(self.model, self.data, split, self.crop_length, self.crop_stride, self.settings.frozen)

    def predict(self, scorer: Scorer) -> Predictions:
        """Return labels and logits of a scorer's split."""
        return Predictions(self.data.task.labels[scorer.indices], scorer.logits())


class Best(NamedTuple):
    """The best validation: optimiser steps done, macro AUROC, and weights."""

    step: int
    validation_macro_auroc: float
    weights: dict[str, Any]


def train(run: FinetuningRun, validation: Scorer) -> tuple[Best, int]:
    """Train the classifier, leave it at its best validation, and return that and the number of steps done."""
    settings, accelerator, model = run.settings, run.accelerator, run.model
    optimizer = adamw([model], settings.learning_rate, (settings.adam_beta1, settings.adam_beta2))
    send_no_constants(model)
    network, optimizer = accelerator.prepare(model, optimizer)
    seed = settings.seed * accelerator.num_processes + accelerator.process_index
    batches = run.data.training_batches(settings.batch_size // accelerator.num_processes, run.crop_length, seed)
    best = Best(0, -1.0, copy.deepcopy(model.state_dict()))
    progress = Progress(run)

    for step in range(settings.max_steps):
        network.train()
        if settings.frozen:
            model.ecg_jepa.eval()
        set_schedules(optimizer, settings.learning_rate_at(step), settings.weight_decay)
        crops, labels = next(batches)
        loss = network(crops.to(accelerator.device), labels=labels.to(accelerator.device)).loss
        accelerator.backward(loss)
        norm = gradient_norm(accelerator, network, settings.max_grad_norm)
        if torch.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
        progress.update(step, norm)
        if settings.evaluation_due(step):
            score = validate(run, validation)
            if score > best.validation_macro_auroc:
                best = Best(step + 1, score, copy.deepcopy(model.state_dict()))
            progress.log(step, loss.item(), float(norm), score)
            if step + 1 - best.step >= settings.patience:
                break
    progress.bar.close()
    model.load_state_dict(best.weights)
    return best, step + 1


def validate(run: FinetuningRun, validation: Scorer) -> float:
    """Return macro AUROC on validation records, in the run's precision."""
    # Except for a frozen encoder, whose output is kept for the final scores.
    with contextlib.nullcontext() if run.settings.frozen else run.accelerator.autocast():
        predictions = run.predict(validation)
    return measure(MacroAuroc, predictions.labels, predictions.logits)["macro_auroc"]


class Progress:
    """Log lines, progress bar and Accelerate's trackers."""

    def __init__(self, run: FinetuningRun):
        self.run = run
        self.bar = progress_bar(total=run.settings.max_steps, unit="step")
        self.since, self.steps = time.perf_counter(), 0
        self.skipped_in_a_row = 0

    def update(self, step: int, norm: torch.Tensor) -> None:
        """Count a step, and warn if its gradients are not finite and it is skipped. Raises `FloatingPointError` after many."""
        self.bar.update()
        self.steps += 1
        self.skipped_in_a_row = 0 if torch.isfinite(norm) else self.skipped_in_a_row + 1
        if self.skipped_in_a_row:
            logger.warning(f"step {step + 1}/{self.run.settings.max_steps}: gradients are not finite, the step is skipped.")
        if self.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"Gradients were not finite in {self.skipped_in_a_row} steps in a row, to step {step + 1}: lower the learning "
                "rate, or use --mixed_precision no to see whether precision is the cause."
            )

    def log(self, step: int, loss: float, norm: float, score: float) -> None:
        """Log a validation, whose time counts for how long the rest takes."""
        settings, elapsed = self.run.settings, time.perf_counter() - self.since
        remaining = tqdm.format_interval((settings.max_steps - step - 1) * elapsed / self.steps)
        logger.info(
            f"step {step + 1}/{settings.max_steps}: loss {loss:.4f}, gradient norm {norm:.3g}, validation AUROC {score:.4f}, "
            f"{self.steps * settings.batch_size / elapsed:.0f} records/s, {remaining} to go"
        )
        self.run.accelerator.log({"loss": loss, "grad_norm": norm, "validation_macro_auroc": score}, step=step + 1)
        self.since, self.steps = time.perf_counter(), 0
