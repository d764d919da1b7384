"""Which runs of a sweep are finished, and where the others go."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from .._utils.files import TRAINING_INFO_FILE, read_json, write_json
from .._utils.settings import deciding_values
from ..data.records import find_database
from ..data.task_data import TaskData
from ..evaluation.results import METRICS_FILE
from .encoders import find_start
from .protocols import FinetuneSettings
from .run import FAILURE_FILE, load_task
from .sweep_settings import SweepSettings


class PlannedRun(NamedTuple):
    """
    A run of a sweep with a folder of its own.

    Args:
        settings: with that folder.
        finished: whether the folder holds this run, of the same encoder, records and labels.
        passed_over: folder of an earlier, other run -> in what it differs.
    """

    settings: FinetuneSettings
    finished: bool
    passed_over: dict[str, list[str]]


def check_sources(sweep: SweepSettings) -> None:
    """Raise `FileNotFoundError` or `ValueError` if a model or the database is not there, before anything is run."""
    find_database(sweep.data_dir, sweep.database)
    for name in sweep.models:
        find_start(name)


class SweepFolder:
    """
    Finds for each planned run the finished one that it would repeat, or a free folder.

    A finished run counts only if settings, encoder, database and labels are the same. Otherwise it stays where it is, and the run
    goes into the next folder: `seed-0`, `seed-0-run2`, `seed-0-run3`, ...
    """

    def __init__(self) -> None:
        self._probes: dict[str, str] = {}  # planned folder of a probe -> its real one
        self._tasks: dict[tuple[Any, ...], TaskData] = {}  # the last one that was loaded

    def place(self, planned: FinetuneSettings) -> PlannedRun:
        """Find the folder of a run. Call it when the runs before it are finished: it may start from one of them."""
        start = self._probes.get(planned.model_name_or_path, planned.model_name_or_path)
        passed_over: dict[str, list[str]] = {}
        for number in itertools.count(1):
            directory = planned.output_dir if number == 1 else f"{planned.output_dir}-run{number}"
            settings = replace(planned, model_name_or_path=start, output_dir=directory)
            is_finished = Path(directory, METRICS_FILE).is_file()
            differences = self._differences(settings) if is_finished else []
            if not differences:
                break
            passed_over[directory] = differences
        if planned.protocol == "attentive":
            self._probes[planned.output_dir] = directory
        return PlannedRun(settings, is_finished, passed_over)

    def _differences(self, run: FinetuneSettings) -> list[str]:
        """Return in what the finished run in the folder differs from the one that is planned."""
        path = Path(run.output_dir, TRAINING_INFO_FILE)
        if not path.is_file():
            return ["it does not say what it was trained from"]
        recorded = read_json(path)
        old = {"calibrate": False, **recorded["settings"]}  # was recorded only if it was set
        found = [
            f"{key}: {old.get(key)!r}, now {value!r}" for key, value in deciding_values(run).items() if old.get(key) != value
        ]
        data = self._load_task(run)
        records = data.database.info
        try:
            digest = find_start(run.model_name_or_path, records.sampling_rate, records.amplitude_free).digest()
        except FileNotFoundError:  # a probe of this sweep that is still to be run
            return [*found, f"{run.model_name_or_path} is not there yet"]
        if recorded["start"]["digest"] != digest:
            found.append(f"{run.model_name_or_path} has other weights")
        if [database["digest"] for database in recorded["databases"]] != [records.identity]:
            found.append(f"{data.database.name} was prepared anew")
        elif recorded["labels"] != data.labels_digest():
            found.append("records or labels of the task differ")
        return found

    def _load_task(self, run: FinetuneSettings) -> TaskData:
        """Load the task once for consecutive runs on the same labels."""
        key = (run.task, run.label_fraction, run.labels_per_class, run.seed, run.min_class_records, run.split_seed)
        if key not in self._tasks:
            self._tasks = {key: load_task(run)}
        return self._tasks[key]


def write_failure(run: FinetuneSettings, error: Exception) -> None:
    """Write beside a run why it cannot be scored."""
    path = Path(run.output_dir)
    path.mkdir(parents=True, exist_ok=True)
    note = {"task": run.task, "protocol": run.protocol, "model": run.model_name_or_path, "reason": str(error)}
    write_json(path / FAILURE_FILE, note)
