"""A run of a protocol on a task: train the head (and encoder), keep the best validation, score the test records once, save."""

import copy
import json
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from ..arguments import write_yaml
from ..configuration_ecg_jepa import SIZES, EcgJepaConfig
from ..cores import describe_hardware
from ..data.ptb_xl_tasks import describe_classes
from ..data.records import replace_file
from ..feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model_card import as_eval_results, classifier_results, write_model_card
from ..modeling_ecg_jepa import EcgJepaForSequenceClassification
from ..pretraining.optimization import parameter_groups, set_schedules
from ..self_contained import save_checkpoint
from .attention import plot_examples
from .classifier import Scorer, build_classifier
from .metrics import auroc
from .plots import plot_calibration, plot_precision_recall, plot_roc, save
from .protocols import ProtocolArguments
from .results import Predictions, probabilities, summarize
from .task_data import LabelBudget, TaskData

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.npz"
CONFIG_FILE = "training_config.yaml"
PLOTS_DIR = "plots"


def open_run(arguments: ProtocolArguments) -> tuple[TaskData, EcgJepaForSequenceClassification]:
    """
    The records of the task and a classifier for them, whose head depends on the seed.

    Raises:
        FileNotFoundError, ValueError: if model, records and task do not fit together.
    """
    set_seed(arguments.seed)
    data = load_task(arguments)
    return data, build_classifier(arguments, data)


def run_protocol(
    arguments: ProtocolArguments,
    accelerator: Accelerator,
    data: TaskData,
    model: EcgJepaForSequenceClassification,
) -> dict[str, Any] | None:
    """
    Train and score a classifier, and write its directory.

    Returns:
        The content of `metrics.json` on the main process, `None` on others.
    """
    model = model.to(accelerator.device)
    started = time.perf_counter()
    validation = make_scorer(arguments, data, model, "validation")
    best = train(arguments, accelerator, data, model, validation)
    if not accelerator.is_main_process:
        return None
    seconds = time.perf_counter() - started
    training = {**best, "training_seconds": seconds}
    return save_run(arguments, data, model, validation, training, describe_hardware(accelerator))


def encoder_of(model_name_or_path: str) -> dict[str, Any]:
    """Where an encoder comes from, its size and databases, as far as its directory tells; for tables of results."""
    if model_name_or_path.startswith("random:"):
        original = model_name_or_path.removeprefix("random:")
        size = original if original in SIZES else encoder_of(original)["size"]
        return {"path": model_name_or_path, "size": size, "databases": []}
    path = Path(model_name_or_path, CONFIG_FILE)
    settings = yaml.safe_load(path.read_text()) if path.is_file() else {}
    if "protocol" in settings:  # a probe: its encoder is that of the directory it started from
        return encoder_of(settings["model_name_or_path"])
    names = sorted(entry.partition("=")[0] for entry in settings.get("databases", []))
    is_published = not any(key in settings for key in SIZES["xs"])  # a number of the size that was overridden
    return {"path": model_name_or_path, "size": settings.get("size") if is_published else None, "databases": names}


def load_task(arguments: ProtocolArguments) -> TaskData:
    """The records and labels of the task, and of the latter no more than asked for."""
    return TaskData.load(
        arguments.data_dir,
        arguments.task,
        arguments.database,
        labels=LabelBudget(arguments.label_fraction, arguments.labels_per_class, arguments.seed),
        min_class_records=arguments.min_class_records,
        split_seed=arguments.split_seed,
    )


def samples(seconds: float, data: TaskData) -> int:
    """A duration in whole samples of the database."""
    return round(seconds * data.database.info.sampling_rate)


def make_scorer(arguments: ProtocolArguments, data: TaskData, model: EcgJepaForSequenceClassification, split: str) -> Scorer:
    """Scores the records of a split over strided crops."""
    length, stride = samples(arguments.crop_duration, data), samples(arguments.crop_stride, data)
    return Scorer(model, data, split, length, stride, arguments.frozen)


def train(
    arguments: ProtocolArguments,
    accelerator: Accelerator,
    data: TaskData,
    model: EcgJepaForSequenceClassification,
    validation: Scorer,
) -> dict[str, float]:
    """Train `model` in place and leave it at its best validation; return step and macro AUROC of that."""
    optimizer = torch.optim.AdamW(
        parameter_groups([model]),
        lr=arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
    )
    network, optimizer = accelerator.prepare(model, optimizer)
    share = arguments.batch_size // accelerator.num_processes
    seed = arguments.seed * accelerator.num_processes + accelerator.process_index
    batches = data.training_batches(share, samples(arguments.crop_duration, data), seed)
    best: dict[str, float] = {"best_step": 0, "validation_macro_auroc": -1.0}
    best_weights = copy.deepcopy(model.state_dict())

    bar = tqdm(range(arguments.max_steps), unit="step", disable=not accelerator.is_main_process)
    for step in bar:
        network.train()
        if arguments.frozen:
            model.ecg_jepa.eval()
        set_schedules(optimizer, arguments.learning_rate_at(step), arguments.weight_decay)
        crops, labels = next(batches)
        loss = network(crops.to(accelerator.device), labels=labels.to(accelerator.device)).loss
        accelerator.backward(loss)
        if arguments.max_grad_norm > 0:
            accelerator.clip_grad_norm_(network.parameters(), arguments.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % arguments.eval_steps == 0 or step + 1 == arguments.max_steps:
            score = auroc(data.task.labels[validation.indices], validation.logits(), data.task.class_names).macro
            if score > best["validation_macro_auroc"]:
                best = {"best_step": step + 1, "validation_macro_auroc": score}
                best_weights = copy.deepcopy(model.state_dict())
            accelerator.log({"loss": loss.item(), "validation_macro_auroc": score}, step=step + 1)
            bar.set_postfix_str(f"loss {loss.item():.4f}, validation AUROC {score:.4f}")
            if step + 1 - best["best_step"] >= arguments.patience:
                break
    bar.close()
    model.load_state_dict(best_weights)
    return best


def predict(data: TaskData, scorer: Scorer) -> Predictions:
    """The labels and logits of a split."""
    return Predictions(data.task.labels[scorer.indices], scorer.logits())


def save_plots(arguments: ProtocolArguments, data: TaskData, model: EcgJepaForSequenceClassification, test: Predictions) -> None:
    """ROC, precision over recall and calibration of the test records; with attentive pooling, where the model looks."""
    directory = Path(arguments.output_dir, PLOTS_DIR)
    names, scores = data.task.class_names, probabilities(test.logits, data.task.single_label)
    save(plot_roc(test.labels, test.logits, names), directory / "roc.png")
    save(plot_precision_recall(test.labels, test.logits, names), directory / "precision_recall.png")
    save(plot_calibration(test.labels, scores, names), directory / "calibration.png")
    if model.pooling is not None:
        length, stride = samples(arguments.crop_duration, data), samples(arguments.crop_stride, data)
        for name, figure in plot_examples(model, data, test, length, stride).items():
            save(figure, directory / f"ecg_{re.sub('[^A-Za-z0-9]+', '_', name)}.png")


def save_card(
    arguments: ProtocolArguments,
    data: TaskData,
    config: EcgJepaConfig,
    extractor: EcgJepaFeatureExtractor,
    metrics: dict[str, Any],
    hardware: str,
) -> None:
    """The card of a classifier, with its results for the Hub's index."""
    table = data.database.statement_table()
    results = classifier_results(metrics)
    directory = Path(arguments.output_dir)
    write_model_card(
        directory / "README.md",
        "classifier.md.jinja",
        directory.name,
        as_eval_results(results, arguments.task, data.database.name),
        arguments=asdict(arguments),
        metrics=metrics,
        results=results,
        config=config,
        extractor=extractor,
        database=data.database.info,
        descriptions={} if table is None else describe_classes(arguments.task, table),
        hardware=hardware,
    )


def save_run(
    arguments: ProtocolArguments,
    data: TaskData,
    model: EcgJepaForSequenceClassification,
    validation: Scorer,
    training: dict[str, float],
    hardware: str,
) -> dict[str, Any]:
    """Score the test records, once, and write the classifier directory; `metrics.json` last. Returns its content."""
    output_dir = Path(arguments.output_dir)
    test = predict(data, make_scorer(arguments, data, model, "test"))
    metrics = {
        "task": arguments.task,
        "protocol": arguments.protocol,
        "model": arguments.model_name_or_path,
        "encoder": encoder_of(arguments.model_name_or_path),
        "database": data.database.name,
        "label_fraction": arguments.label_fraction,
        "labels_per_class": arguments.labels_per_class,
        "seed": arguments.seed,
        "records": {split: len(indices) for split, indices in data.splits.items()},
        **training,
        **summarize(data.task, predict(data, validation), test),
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    extractor = EcgJepaFeatureExtractor.for_model(
        model.config,
        data.mean,
        data.std,
        crop_duration=arguments.crop_duration,
        crop_stride=arguments.crop_stride,
        highpass_cutoff=data.database.info.highpass_cutoff,
    )
    save_checkpoint(output_dir, model, extractor)
    write_yaml(arguments, output_dir / CONFIG_FILE)
    np.savez_compressed(
        output_dir / PREDICTIONS_FILE,
        record_id=data.database.column("record_id")[data.splits["test"]].astype(str),
        labels=test.labels,
        logits=test.logits,
        probabilities=probabilities(test.logits, data.task.single_label),
        class_names=np.array(data.task.class_names),
    )
    save_plots(arguments, data, model, test)
    save_card(arguments, data, model.config, extractor, metrics, hardware)
    replace_file(output_dir / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")
    return metrics
