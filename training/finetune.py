"""
Judge a pre-trained encoder on a task: linear probe, attentive probe or fine-tuning.

    accelerate launch training/finetune.py --config training/configs/linear.yaml \\
        --model_name_or_path RUN --data_dir PREPARED --task superdiagnostic --output_dir OUT
"""

from accelerate import Accelerator

from ecg_jepa.arguments import inputs_of, parse_arguments
from ecg_jepa.cores import use_all_cores
from ecg_jepa.evaluation.probing import open_run, run_protocol
from ecg_jepa.evaluation.protocols import ProtocolArguments


def main() -> None:
    arguments = parse_arguments(ProtocolArguments, description=__doc__)
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision,
        log_with=arguments.report_to or None,
        project_dir=arguments.output_dir,
    )
    use_all_cores(accelerator)
    accelerator.init_trackers("ecg_jepa", {k: str(v) for k, v in vars(arguments).items()})
    with inputs_of("finetune.py"):
        data, model = open_run(arguments)
    metrics = run_protocol(arguments, accelerator, data, model)
    if metrics is not None:
        report(arguments, metrics)
    accelerator.end_training()


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
