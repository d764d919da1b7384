"""The fine-tuning loop, of heads over frozen encoders and of whole classifiers."""

import contextlib
import copy
import logging
import time
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from .._utils.logs import duration, progress_bar
from .._utils.optimization import MOST_SKIPPED_IN_A_ROW, adamw, gradient_norm, set_schedules
from .._utils.processes import send_no_constants
from ..data.task_data import TaskData
from ..evaluation.metrics import macro_auroc
from ..evaluation.results import Predictions
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from .classifier import Scorer
from .encoders import StartingPoint
from .protocols import ProtocolSettings

logger = logging.getLogger(__name__)


@dataclass
class FinetuningRun:
    """
    What a run works with.

    Args:
        settings: of the protocol.
        accelerator: of the process.
        data: records and labels of the task.
        start: where the weights come from.
        model: the classifier; trained in place.
    """

    settings: ProtocolSettings
    accelerator: Accelerator
    data: TaskData
    start: StartingPoint
    model: EcgJepaForSequenceClassification

    def __post_init__(self) -> None:
        self.crop_length = self.data.samples(self.settings.crop_duration)
        self.crop_stride = self.data.samples(self.settings.crop_stride)
        self.model = self.model.to(self.accelerator.device)

    def scorer(self, split: str) -> Scorer:
        """Scores the records of a split over strided crops."""
        return Scorer(self.model, self.data, split, self.crop_length, self.crop_stride, self.settings.frozen)

    def predict(self, scorer: Scorer) -> Predictions:
        """Labels and logits of a scorer's split."""
        return Predictions(self.data.task.labels[scorer.indices], scorer.logits())


def train(run: FinetuningRun, validation: Scorer) -> dict[str, Any]:
    """Train the classifier and leave it at its best validation; return step and macro AUROC of that, and the steps done."""
    settings, accelerator, model = run.settings, run.accelerator, run.model
    optimizer = adamw([model], settings.learning_rate, (settings.adam_beta1, settings.adam_beta2))
    send_no_constants(model)
    network, optimizer = accelerator.prepare(model, optimizer)
    share = settings.batch_size // accelerator.num_processes
    seed = settings.seed * accelerator.num_processes + accelerator.process_index
    batches = run.data.training_batches(share, run.crop_length, seed)
    progress = Progress(run)
    best = {"best_step": 0, "validation_macro_auroc": -1.0}
    best_weights = copy.deepcopy(model.state_dict())

    for step in range(settings.max_steps):
        network.train()
        if settings.frozen:
            model.ecg_jepa.eval()
        set_schedules(optimizer, settings.learning_rate_at(step), settings.weight_decay)
        crops, labels = next(batches)
        loss = network(crops.to(accelerator.device), labels=labels.to(accelerator.device)).loss
        accelerator.backward(loss)
        evaluation_due = settings.evaluation_due(step)
        norm = gradient_norm(accelerator, network, settings.max_grad_norm)
        progress.count_skipped(step, norm)
        if torch.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
        progress.update()
        if evaluation_due:
            # In the run's precision, but for a frozen encoder's output, which is kept for the scores that are reported.
            with contextlib.nullcontext() if settings.frozen else accelerator.autocast():
                predictions = run.predict(validation)
            score = macro_auroc(predictions.labels, predictions.logits, run.data.task.class_names)
            if score > best["validation_macro_auroc"]:
                best = {"best_step": step + 1, "validation_macro_auroc": score}
                best_weights = copy.deepcopy(model.state_dict())
            progress.log(step, loss.item(), float(norm), score)
            if step + 1 - best["best_step"] >= settings.patience:
                break
    progress.close()
    model.load_state_dict(best_weights)
    return {**best, "steps": step + 1}


class Progress:
    """Log lines, progress bar and Accelerate's trackers."""

    def __init__(self, run: FinetuningRun):
        self.run = run
        self.bar = progress_bar(total=run.settings.max_steps, unit="step")
        self.since, self.steps = time.perf_counter(), 0
        self.skipped_in_a_row = 0

    def count_skipped(self, step: int, norm: torch.Tensor) -> None:
        """
        Tell of a step whose gradients are not finite, which is skipped. Raises `FloatingPointError` after too many in a row, when
        the weights are those of before the first of them.
        """
        self.skipped_in_a_row = 0 if torch.isfinite(norm) else self.skipped_in_a_row + 1
        if self.skipped_in_a_row:
            logger.warning(f"step {step + 1}/{self.run.settings.max_steps}: gradients are not finite, the step is skipped.")
        if self.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"Gradients were not finite in {self.skipped_in_a_row} steps in a row, to step {step + 1}: lower the learning "
                "rate, or use --mixed_precision no to see whether precision is the cause."
            )

    def update(self) -> None:
        """After a step."""
        self.bar.update()
        self.steps += 1

    def log(self, step: int, loss: float, norm: float, score: float) -> None:
        """After a validation, whose time counts for how long the rest takes."""
        settings, elapsed = self.run.settings, time.perf_counter() - self.since
        remaining = duration((settings.max_steps - step - 1) * elapsed / self.steps)
        logger.info(
            f"step {step + 1}/{settings.max_steps}: loss {loss:.4f}, gradient norm {norm:.3g}, validation AUROC {score:.4f}, "
            f"{self.steps * settings.batch_size / elapsed:.0f} records/s, {remaining} to go"
        )
        self.run.accelerator.log({"loss": loss, "grad_norm": norm, "validation_macro_auroc": score}, step=step + 1)
        self.since, self.steps = time.perf_counter(), 0

    def close(self) -> None:
        """End the progress bar."""
        self.bar.close()
