"""`ecg-jepa sweep`: many runs of protocols, each once."""

import errno
import logging
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError

from .._utils.hardware import set_up_cpu
from .._utils.logs import progress_bar
from .._utils.processes import start_accelerator
from .._utils.run_directory import own_directory
from ..data.records import find_database
from ..finetuning.classifier import find_start
from ..finetuning.protocols import FAILURE_FILE
from ..finetuning.sweep_plan import PlannedRun, SweepFolder, SweepSettings, plan, write_failure
from .finetune import train_and_export

logger = logging.getLogger(__name__)


def run(sweep: SweepSettings) -> None:
    """Run what is not finished; a run that cannot be scored does not end the others. Raises `ValueError` if none can."""
    runs = plan(sweep)
    accelerator = start_accelerator(mixed_precision=runs[0].mixed_precision)
    set_up_cpu(accelerator)
    find_database(sweep.data_dir, sweep.database)  # what is not there is found before anything is run
    for name in sweep.models:
        find_start(name)
    with own_directory(sweep.output_dir, accelerator):
        finished = sum(placed.finished for placed in map(SweepFolder().place, runs))
        logger.info(f"{len(runs)} runs, of which {finished} are finished, in {sweep.output_dir}")
        folder, failures = SweepFolder(), 0
        for planned in progress_bar(runs, unit="run"):
            placed = folder.place(planned)
            if not placed.finished:
                failures += not run_one(placed, accelerator)
    if failures and failures == len(runs) - finished:
        raise ValueError(f"None of the {failures} runs could be scored: each has its reason in {FAILURE_FILE} in its folder.")
    logger.info(f"Finished; {failures} runs could not be scored. Table: ecg-jepa evaluate {sweep.output_dir}")


def run_one(placed: PlannedRun, accelerator: Accelerator) -> bool:
    """Run a protocol, and return whether it could be scored; if not, write down why."""
    output_dir = placed.settings.output_dir
    for directory, differences in placed.passed_over.items():
        logger.info(f"{directory} is another run ({'; '.join(differences)}): this one is {output_dir}")
    accelerator.wait_for_everyone()  # all have looked before one writes
    try:
        metrics = train_and_export(placed.settings, accelerator)
    except (ValueError, OSError, FloatingPointError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):  # a full disk would end all, one after the other
            raise
        if accelerator.is_main_process and not isinstance(error, BlockingIOError):  # whose folder is another process's
            write_failure(placed.settings, error)
        logger.warning(f"{output_dir}: not scored: {error}")
        return False
    finally:
        accelerator.free_memory()
        accelerator.wait_for_everyone()
    if metrics is not None:
        Path(output_dir, FAILURE_FILE).unlink(missing_ok=True)
        logger.info(f"{output_dir}: macro AUROC {metrics['test_metrics']['macro']['auroc']['value']:.4f}")
    return True
