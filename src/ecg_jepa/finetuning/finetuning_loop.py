"""A run of a protocol on a task: open, train, and score the test records once."""

import contextlib
import copy
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from .._utils.hardware import use_faster_attention
from .._utils.logs import progress_bar
from .._utils.optimization import MOST_SKIPPED_IN_A_ROW, adamw, gradient_norm, set_schedules
from .._utils.processes import send_no_constants, share_of_batch
from .._utils.run_directory import MODEL_FILES, check_own, left_in
from .._utils.settings import deciding_values
from ..data.task_data import LabelBudget, TaskData
from ..evaluation.metrics import MacroAuroc, measure
from ..evaluation.results import METRICS_FILE, PREDICTIONS_FILE, Predictions, groups_of, summarize
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from .classifier import Scorer, StartingPoint, build_classifier, find_start
from .protocols import FAILURE_FILE, FinetuneSettings

logger = logging.getLogger(__name__)

PLOTS_DIR = "plots"

# Patterns of the files that a run writes; a folder may hold others, which are left alone.
_PLOTS = tuple(f"{PLOTS_DIR}/{name}.png" for name in ("roc", "precision_recall", "calibration", "ecg_[0-9]*"))
WRITTEN = ("training_info.json", METRICS_FILE, PREDICTIONS_FILE, FAILURE_FILE, *_PLOTS, *MODEL_FILES)


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


class FinetuningResult(NamedTuple):
    """Content of `metrics.json`, predictions of the test records, records seen in training, and its duration in seconds."""

    metrics: dict[str, Any]
    test: Predictions
    records_seen: int
    seconds: float


def check_directory(settings: FinetuneSettings) -> None:
    """Raise `FileExistsError` if a run may not use its folder, and touch nothing in it."""
    directory = Path(settings.output_dir)
    if (directory / METRICS_FILE).is_file() and not settings.overwrite_output_dir:
        remedy = "choose another --output_dir, or replace it with --overwrite_output_dir"
        raise FileExistsError(f"{directory} holds a finished run: {remedy}.")
    config, start, held = directory / "config.json", Path(settings.model_name_or_path), ""
    if left_in(directory, ("checkpoint-*", "metrics.jsonl")):
        held = "a pre-training run"
    elif config.is_file() and "EcgJepaForSequenceClassification" not in config.read_text():
        held = "a model that is no classifier"
    elif start.is_dir() and start.resolve() == directory.resolve():
        held = "the weights to start from"
    if held:
        raise FileExistsError(f"{directory} holds {held}: choose another --output_dir.")
    check_own(directory, [name for name in WRITTEN if name != FAILURE_FILE])  # with that note alone, it is tried again


def load_task(settings: FinetuneSettings) -> TaskData:
    """Load the records of the task, with as many of the training labels as asked for."""
    labels = LabelBudget(settings.label_fraction, settings.labels_per_class, settings.seed)
    limits = {"min_class_records": settings.min_class_records, "split_seed": settings.split_seed}
    return TaskData.load(settings.data_dir, settings.task, settings.database, labels=labels, **limits)


def open_run(settings: FinetuneSettings, accelerator: Accelerator) -> FinetuningRun:
    """
    Load the records of the task and build a classifier for them, whose head depends on the seed. Raise `FileNotFoundError` or
    `ValueError` if model, records and task do not fit together, or no class could be scored.
    """
    share_of_batch(settings.batch_size, accelerator.num_processes)
    set_seed(settings.seed)
    data = load_task(settings)
    records = data.database.info
    for split in ("validation", "test"):
        labels = data.task.labels[data.splits[split]]
        if not (labels.any(axis=0) & (labels == 0).any(axis=0)).any():
            remedy = "add records, or split them otherwise (a column split in the table of own records, --split_seed)"
            held = f"the {len(labels)} {split} records of {data.database.name}"
            raise ValueError(f"No class has both positives and negatives among {held}: {remedy}.")
    start = find_start(settings.model_name_or_path, records.sampling_rate, records.amplitude_free)
    return FinetuningRun(settings, accelerator, data, start, build_classifier(settings, start, data))


def train(run: FinetuningRun, validation: Scorer) -> tuple[int, int]:
    """Train the classifier and leave it at its best validation. Return the number of steps to that, and of all steps."""
    settings, accelerator, model = run.settings, run.accelerator, run.model
    optimizer = adamw([model], settings.learning_rate, (settings.adam_beta1, settings.adam_beta2))
    send_no_constants(model)
    network, optimizer = accelerator.prepare(model, optimizer)
    seed = settings.seed * accelerator.num_processes + accelerator.process_index
    batches = run.data.training_batches(settings.batch_size // accelerator.num_processes, run.crop_length, seed)
    best_step, best_score, best_weights = 0, -1.0, copy.deepcopy(model.state_dict())
    bar = progress_bar(total=settings.max_steps, unit="step")
    since, logged_step, skipped = time.perf_counter(), 0, 0  # skipped in a row

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
            skipped = 0
        else:
            skipped += 1
            logger.warning(f"step {step + 1}/{settings.max_steps}: gradients are not finite, the step is skipped.")
            if skipped >= MOST_SKIPPED_IN_A_ROW:
                remedy = "lower the learning rate, or use --mixed_precision no to see whether precision is the cause"
                raise FloatingPointError(f"Gradients were not finite in {skipped} steps in a row, to step {step + 1}: {remedy}.")
        optimizer.zero_grad()
        bar.update()
        if (step + 1) % settings.eval_steps == 0 or step + 1 == settings.max_steps:
            # In the run's precision, except for a frozen encoder, whose output is kept for the final scores.
            with contextlib.nullcontext() if settings.frozen else accelerator.autocast():
                score = macro_auroc(run.predict(validation))
            if score > best_score:
                best_step, best_score, best_weights = step + 1, score, copy.deepcopy(model.state_dict())
            seconds = (time.perf_counter() - since) / (step + 1 - logged_step)  # per step, validation included
            remaining = tqdm.format_interval((settings.max_steps - step - 1) * seconds)
            logger.info(
                f"step {step + 1}/{settings.max_steps}: loss {loss.item():.4f}, gradient norm {norm:.3g}, validation AUROC "
                f"{score:.4f}, {settings.batch_size / seconds:.0f} records/s, {remaining} to go"
            )
            numbers = {"loss": loss.item(), "grad_norm": float(norm), "validation_macro_auroc": score}
            accelerator.log(numbers, step=step + 1)
            since, logged_step = time.perf_counter(), step + 1
            if step + 1 - best_step >= settings.patience:
                break
    bar.close()
    model.load_state_dict(best_weights)
    return best_step, step + 1


def macro_auroc(predictions: Predictions) -> float:
    """Return the mean AUROC over classes."""
    return measure(MacroAuroc, predictions.labels, predictions.logits)["macro_auroc"]


def run_protocol(run: FinetuningRun) -> FinetuningResult | None:
    """Train, score, and configure thresholds and temperature chosen on validation. Return `None` but on the main process."""
    encoder = run.start.describe_encoder()
    started = time.perf_counter()
    validation = run.scorer("validation")
    best_step, steps = train(run, validation)
    if not run.accelerator.is_main_process:
        return None
    seconds = time.perf_counter() - started
    test, checked = run.predict(run.scorer("test")), run.predict(validation)  # now in float32
    settings, data = run.settings, run.data
    groups = groups_of(*(data.database.column(name)[data.splits["test"]] for name in ("sex", "age")))
    summary = summarize(data.task, checked, test, calibrate=settings.calibrate, groups=groups)
    run.model.config.temperature = summary["calibration"]["temperature"]
    run.model.config.decision_thresholds = summary["decision_thresholds"]
    metrics = {
        **{name: getattr(settings, name) for name in ("task", "protocol", "label_fraction", "labels_per_class", "seed")},
        "configuration": settings.configuration(),
        "model": settings.model_name_or_path,
        "encoder": encoder,
        "database": data.database.name,
        "database_digest": data.database.info.content_digest,
        "settings": deciding_values(settings),
        "labels_too_rare": data.task.too_rare,
        "records": {split: len(indices) for split, indices in data.splits.items()},
        "best_step": best_step,
        "validation_macro_auroc": macro_auroc(checked),
        "training_seconds": seconds,
        **summary,
    }
    return FinetuningResult(metrics, test, steps * settings.batch_size, seconds)
