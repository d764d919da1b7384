"""A run of a protocol on a task: open, train, and score the test records once."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.utils import set_seed

from .._utils.processes import share_of_batch
from .._utils.run_directory import MODEL_FILES, check_own, left_in
from .._utils.settings import deciding_values
from ..data.task_data import LabelBudget, TaskData
from ..evaluation.metrics import MacroAuroc, measure
from ..evaluation.results import METRICS_FILE, PREDICTIONS_FILE, Predictions, summarize
from ..evaluation.subgroups import groups_of
from .classifier import build_classifier
from .encoders import find_start
from .finetuning_loop import FinetuningRun, train
from .protocols import FinetuneSettings

PLOTS_DIR = "plots"

FAILURE_FILE = "not_scored.json"  # of a sweep, beside a run that it could not score

# Patterns of the files that a run writes; a folder may hold others, which are left alone.
_PLOTS = tuple(f"{PLOTS_DIR}/{name}.png" for name in ("roc", "precision_recall", "calibration", "ecg_[0-9]*"))
WRITTEN = ("training_info.json", METRICS_FILE, PREDICTIONS_FILE, FAILURE_FILE, *_PLOTS, *MODEL_FILES)


class FinetuningResult(NamedTuple):
    """
    What a run has measured.

    Args:
        metrics: content of `metrics.json`.
        test: predictions of the test records.
        records_seen: in training, over all processes.
        seconds: of training.
    """

    metrics: dict[str, Any]
    test: Predictions
    records_seen: int
    seconds: float


def check_directory(settings: FinetuneSettings) -> None:
    """
    Check that the folder of a run may be used, and touch nothing in it.

    Raises:
        FileExistsError: if it holds a finished run, unless `overwrite_output_dir`, or a model that is no classifier.
    """
    directory = Path(settings.output_dir)
    if (directory / METRICS_FILE).is_file() and not settings.overwrite_output_dir:
        raise FileExistsError(
            f"{directory} holds a finished run: choose another --output_dir, or replace it with --overwrite_output_dir."
        )
    if left_in(directory, ("checkpoint-*", "metrics.jsonl")):
        raise FileExistsError(f"{directory} holds a pre-training run: choose another --output_dir.")
    config = directory / "config.json"
    if config.is_file() and "EcgJepaForSequenceClassification" not in config.read_text():
        raise FileExistsError(f"{directory} holds a model that is no classifier: choose another --output_dir.")
    if Path(settings.model_name_or_path).is_dir() and Path(settings.model_name_or_path).resolve() == directory.resolve():
        raise FileExistsError(f"{directory} holds the weights to start from: choose another --output_dir.")
    check_own(directory, [name for name in WRITTEN if name != FAILURE_FILE])  # with that note alone, it is tried again


def load_task(settings: FinetuneSettings) -> TaskData:
    """Load the records of the task, with as many of the training labels as asked for."""
    return TaskData.load(
        settings.data_dir,
        settings.task,
        settings.database,
        labels=LabelBudget(settings.label_fraction, settings.labels_per_class, settings.seed),
        min_class_records=settings.min_class_records,
        split_seed=settings.split_seed,
    )


def open_run(settings: FinetuneSettings, accelerator: Accelerator) -> FinetuningRun:
    """
    Load the records of the task and build a classifier for them, whose head depends on the seed.

    Raises:
        FileNotFoundError, ValueError: if model, records and task do not fit together, or no class could be scored.
    """
    share_of_batch(settings.batch_size, accelerator.num_processes)
    set_seed(settings.seed)
    data = load_task(settings)
    for split in ("validation", "test"):
        labels = data.task.labels[data.splits[split]]
        if not (labels.any(axis=0) & (labels == 0).any(axis=0)).any():
            raise ValueError(
                f"No class has both positives and negatives among the {len(labels)} {split} records of {data.database.name}: add "
                "records, or split them otherwise (a column split in the table of own records, --split_seed)."
            )
    records = data.database.info
    start = find_start(settings.model_name_or_path, records.sampling_rate, records.amplitude_free)
    return FinetuningRun(settings, accelerator, data, start, build_classifier(settings, start, data))


def run_protocol(run: FinetuningRun) -> FinetuningResult | None:
    """
    Train and score the classifier, and put thresholds and temperature, chosen on validation, into its configuration.

    Returns the result on the main process, `None` on others.
    """
    encoder = run.start.describe_encoder()
    started = time.perf_counter()
    validation = run.scorer("validation")
    best, steps = train(run, validation)
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
        "task": settings.task,
        "protocol": settings.protocol,
        "configuration": settings.configuration(),
        "model": settings.model_name_or_path,
        "encoder": encoder,
        "database": data.database.name,
        "database_digest": data.database.info.identity,
        "label_fraction": settings.label_fraction,
        "labels_per_class": settings.labels_per_class,
        "seed": settings.seed,
        "settings": deciding_values(settings),
        "labels_too_rare": data.task.too_rare,
        "records": {split: len(indices) for split, indices in data.splits.items()},
        "best_step": best.step,
        "validation_macro_auroc": measure(MacroAuroc, checked.labels, checked.logits)["macro_auroc"],
        "training_seconds": seconds,
        **summary,
    }
    return FinetuningResult(metrics, test, steps * settings.batch_size, seconds)
