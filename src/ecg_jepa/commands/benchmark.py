"""`ecg-jepa benchmark`: where the time of a pre-training step goes on this machine, for variants of it in turn."""

import dataclasses
import logging
import tempfile
from pathlib import Path

from accelerate import Accelerator

from ..benchmarking.machine import describe_machine, take_threads
from ..benchmarking.measuring import measure
from ..benchmarking.reference import check_checkout
from ..benchmarking.report import as_table, summarise
from ..benchmarking.settings import BenchmarkSettings
from ..benchmarking.variants import variants_of
from ..common.files import write_json
from ..common.products import use_faster_products
from ..data.records import find_database

logger = logging.getLogger(__name__)


def run(settings: BenchmarkSettings) -> None:
    """
    Measure one configuration after the other, print a table of each, and write all measurements.

    Raises:
        ValueError: under a launcher of several processes, and for a checkout that is none.
    """
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise ValueError(f"a benchmark measures one process, not {accelerator.num_processes}: start it without a launcher.")
    if settings.against is not None:
        check_checkout(settings.against)
    check_records(settings)
    take_threads(accelerator, settings.num_threads)
    if accelerator.device.type == "cpu":
        use_faster_products()  # as steps do: the peak is that of the same library
    path = Path(settings.output_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    machine, summaries = describe_machine(accelerator), []
    print(f"{machine['hardware']}, {machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}")
    print(f"products of float32: {machine['float32_products']}")
    for config in settings.configs:
        # Beside the results, for the checkpoint that is written is to meet a disk, and not memory.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".benchmark-") as scratch_dir:
            measurements = measure(settings, config, accelerator.device, Path(scratch_dir))
        summary = summarise(measurements)
        summaries.append(summary)
        results = {"machine": machine, "settings": dataclasses.asdict(settings), "configurations": summaries}
        write_json(path, results)  # what is there outlives what follows
        print(f"\n{as_table(summary)}")
    logger.info(f"All measurements are in {path}.")


def check_records(settings: BenchmarkSettings) -> None:
    """Raise `FileNotFoundError` for a database that is not there, before the first configuration has taken its time."""
    for config in settings.configs if settings.data_dir is not None else ():
        for variant in variants_of(config, settings.settings, settings.variants):
            for name in variant.recipe.database_weights():
                find_database(settings.data_dir or "", name)
