"""`ecg-jepa finetune`: an encoder and labelled records -> a classifier and its results."""

from functools import partial
from typing import Any

from accelerate import Accelerator

from .._utils.hardware import describe_hardware, set_up_cpu
from .._utils.processes import on_main_process, start_accelerator
from .._utils.run_directory import clear, own_directory
from ..finetuning.finetuning_loop import WRITTEN, check_directory, open_run, run_protocol
from ..finetuning.protocols import FinetuneSettings
from ..publishing.classifier_export import export_classifier


def run(settings: FinetuneSettings) -> None:
    """Run the protocol and print the results."""
    trackers: dict[str, Any] = {"log_with": settings.report_to or None, "project_dir": settings.output_dir}
    accelerator = start_accelerator(mixed_precision=settings.mixed_precision, **trackers)
    set_up_cpu(accelerator)
    accelerator.init_trackers("ecg_jepa", {k: str(v) for k, v in vars(settings).items()})
    metrics = train_and_export(settings, accelerator)
    if metrics is not None:
        report(settings, metrics)
    accelerator.end_training()


def train_and_export(settings: FinetuneSettings, accelerator: Accelerator) -> dict[str, Any] | None:
    """Run a protocol from its data to its folder; return `metrics.json` on the main process, `None` on others."""
    with own_directory(settings.output_dir, accelerator):
        on_main_process(accelerator, partial(check_directory, settings))
        opened = open_run(settings, accelerator)
        if accelerator.is_main_process and settings.overwrite_output_dir:
            clear(settings.output_dir, WRITTEN)  # only now: records, labels and weights are known to fit
        result = run_protocol(opened)
        if result is None:
            return None
        export_classifier(opened, result, describe_hardware(accelerator))
        return result.metrics


def report(settings: FinetuneSettings, metrics: dict[str, Any]) -> None:
    """Print the results."""
    macro, per_class = metrics["test_metrics"]["macro"], metrics["test_metrics"]["per_class"]
    bounds = macro["auroc"]["interval"]
    interval = "too few records for an interval" if bounds is None else "{:.4f} to {:.4f}".format(*bounds)
    scored = [name for name in per_class if name not in metrics["classes_left_out"]]
    print(
        f"{settings.task}, {settings.protocol}: test macro AUROC {macro['auroc']['value']:.4f} ({interval}) on "
        f"{metrics['records']['test']} records and {len(scored)} classes (validation "
        f"{metrics['validation_macro_auroc']:.4f} at step {metrics['best_step']}); saved in {settings.output_dir}"
    )
    print(f"  macro average precision {macro['average_precision']['value']:.4f}, macro F1 {macro['f1']['value']:.4f}")
    means = {name: macro[name]["value"] for name in ("sensitivity", "specificity", "ppv")}
    if None not in means.values():
        print("  at thresholds chosen on validation: " + ", ".join(f"macro {name} {value:.4f}" for name, value in means.items()))
    if metrics["calibration"]["temperature"] is not None:
        print(f"  temperature {metrics['calibration']['temperature']:.4f}")
    if "test_accuracy" in metrics:
        f1 = metrics["test_exclusive_macro_f1"]
        print(f"  accuracy {metrics['test_accuracy']:.4f}, macro F1 of the likeliest class {f1:.4f}")
    if left_out := metrics["classes_left_out"]:
        print(f"  left out of the mean, for want of positives or negatives in the test fold: {', '.join(left_out)}")
    if undecided := [name for name in scored if name not in metrics["decision_thresholds"]]:
        print(f"  without a threshold, for want of validation records: {', '.join(undecided)}")
