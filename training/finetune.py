"""
Judge a pre-trained encoder on a PTB-XL task: linear probe, attentive probe or fine-tuning.

    accelerate launch training/finetune.py --config training/configs/linear.yaml \\
        --model_name_or_path RUN --data_dir PREPARED --task superdiagnostic --output_dir OUT
"""

import copy
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from ecg_jepa import EcgJepaFeatureExtractor, EcgJepaForSequenceClassification
from ecg_jepa.arguments import inputs_of, parse_arguments, write_yaml
from ecg_jepa.cores import use_all_cores
from ecg_jepa.evaluation.classifier import Scorer, build_classifier
from ecg_jepa.evaluation.metrics import auroc
from ecg_jepa.evaluation.protocols import ProtocolArguments
from ecg_jepa.evaluation.results import Predictions, probabilities, summarize
from ecg_jepa.evaluation.task_data import LabelBudget, TaskData
from ecg_jepa.model_card import write_model_card
from ecg_jepa.pretraining.optimization import parameter_groups, set_schedules

CARD_TEMPLATE = Path(__file__).parents[1] / "model_cards" / "classifier.md.jinja"


def main() -> None:
    arguments = parse_arguments(ProtocolArguments, description=__doc__)
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision,
        log_with=arguments.report_to or None,
        project_dir=arguments.output_dir,
    )
    set_seed(arguments.seed)
    use_all_cores(accelerator)
    with inputs_of("finetune.py"):
        data = load_task(arguments)
        model = build_classifier(arguments, data).to(accelerator.device)
    accelerator.init_trackers("ecg_jepa", {k: str(v) for k, v in vars(arguments).items()})

    started = time.perf_counter()
    validation = make_scorer(arguments, data, model, "validation")
    best = train(arguments, accelerator, data, model, validation)
    if accelerator.is_main_process:
        seconds = time.perf_counter() - started
        save_run(Path(arguments.output_dir), arguments, data, model, validation, {**best, "training_seconds": seconds})
    accelerator.end_training()


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


def save_run(
    output_dir: Path,
    arguments: ProtocolArguments,
    data: TaskData,
    model: EcgJepaForSequenceClassification,
    validation: Scorer,
    training: dict[str, float],
) -> None:
    """Score the test fold, once, and write the classifier directory."""
    test = predict(data, make_scorer(arguments, data, model, "test"))
    metrics = {
        "task": arguments.task,
        "protocol": arguments.protocol,
        "model": arguments.model_name_or_path,
        "database": data.database.name,
        "label_fraction": arguments.label_fraction,
        "labels_per_class": arguments.labels_per_class,
        "seed": arguments.seed,
        "records": {split: len(indices) for split, indices in data.splits.items()},
        **training,
        **summarize(data.task, predict(data, validation), test),
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output_dir)
    extractor = EcgJepaFeatureExtractor.for_model(
        model.config,
        data.mean,
        data.std,
        crop_duration=arguments.crop_duration,
        crop_stride=arguments.crop_stride,
    )
    extractor.save_pretrained(output_dir)
    write_yaml(arguments, output_dir / "training_config.yaml")
    (output_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    np.savez_compressed(
        output_dir / "predictions.npz",
        record_id=data.database.column("record_id")[data.splits["test"]].astype(str),
        labels=test.labels,
        logits=test.logits,
        probabilities=probabilities(test.logits, data.task.single_label),
        class_names=np.array(data.task.class_names),
    )
    table = data.database.statement_table()
    write_model_card(
        output_dir,
        CARD_TEMPLATE,
        arguments=asdict(arguments),
        metrics=metrics,
        config=model.config,
        database=data.database.info,
        descriptions=table["description"].to_dict() if table is not None and "description" in table else {},
    )
    report(arguments, metrics)


def report(arguments: ProtocolArguments, metrics: dict) -> None:
    """Print what came out."""
    bounds = metrics["test_macro_auroc_interval"]
    interval = "too few records for an interval" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
    print(
        f"{arguments.task}, {arguments.protocol}: test macro AUROC {metrics['test_macro_auroc']:.4f} ({interval}) on "
        f"{metrics['records']['test']} records and {len(metrics['test_auroc'])} classes (validation "
        f"{metrics['validation_macro_auroc']:.4f} at step {metrics['best_step']}); saved in {arguments.output_dir}"
    )
    print(f"  macro average precision {metrics['test_macro_average_precision']:.4f}, macro F1 {metrics['test_macro_f1']:.4f}")
    if "test_accuracy" in metrics:
        exclusive = metrics["test_exclusive_macro_f1"]
        print(f"  accuracy {metrics['test_accuracy']:.4f}, macro F1 of the likeliest class {exclusive:.4f}")
    if metrics["classes_left_out"]:
        left_out = ", ".join(metrics["classes_left_out"])
        print(f"  left out of the mean, for want of positives or negatives in the test fold: {left_out}")


if __name__ == "__main__":
    main()
