"""
Run protocols x tasks x encoders x shares of the labels x seeds; what is finished is not run again.

    accelerate launch training/sweep.py --config training/configs/sweep_demo.yaml
"""

from accelerate import Accelerator
from tqdm.auto import tqdm

from ecg_jepa.arguments import inputs_of, parse_arguments
from ecg_jepa.cores import use_all_cores
from ecg_jepa.evaluation.probing import open_run, run_protocol
from ecg_jepa.evaluation.sweep import SweepArguments, plan, unfinished, write_failure


def main() -> None:
    sweep = parse_arguments(SweepArguments, description=__doc__)
    accelerator = Accelerator()
    use_all_cores(accelerator)
    with inputs_of("sweep.py"):
        runs = plan(sweep)
    remaining = list(unfinished(runs))
    accelerator.print(f"{len(runs)} runs, of which {len(runs) - len(remaining)} are finished, in {sweep.output_dir}")
    failures = 0
    for arguments in tqdm(remaining, unit="run", disable=not accelerator.is_main_process):
        try:
            data, model = open_run(arguments)
            metrics = run_protocol(arguments, accelerator, data, model)
        except ValueError as error:  # a task that cannot be scored must not end the others
            failures += 1
            if accelerator.is_main_process:
                write_failure(arguments, error)
                tqdm.write(f"{arguments.output_dir}: not scored: {error}")
            continue
        finally:
            accelerator.free_memory()
        if metrics is not None:
            tqdm.write(f"{arguments.output_dir}: macro AUROC {metrics['test_macro_auroc']:.4f}")
    accelerator.print(f"Finished; {failures} runs could not be scored. Table: python training/evaluate.py {sweep.output_dir}")


if __name__ == "__main__":
    main()
