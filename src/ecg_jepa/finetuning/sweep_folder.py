"""Which runs of a sweep have been run, and where the others go."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._utils.files import TRAINING_INFO_FILE, read_json, write_json
from .._utils.settings import field_names, make_settings
from ..data.records import find_database
from ..data.task_data import TaskData
from ..evaluation.results import METRICS_FILE
from .encoders import find_start
from .protocols import ADDED_SINCE, ProtocolSettings
from .run import FAILURE_FILE, load_task
from .sweep_settings import SweepSettings


@dataclass(frozen=True)
class PlannedRun:
    """
    A run of a sweep with a folder that is its own.

    Args:
        settings: with the folder to write to, or that of the finished run.
        finished: whether it has been run, on the same encoder, records and labels.
        passed_over: folder of an earlier run that differs -> in what.
    """

    settings: ProtocolSettings
    finished: bool
    passed_over: dict[str, list[str]]


def check_sources(sweep: SweepSettings) -> None:
    """Raise `FileNotFoundError` or `ValueError` if a model or the database is not there, before anything is run."""
    find_database(sweep.data_dir, sweep.database)
    for name in sweep.models:
        find_start(name)


class SweepFolder:
    """
    Finds for each planned run the finished one that it would repeat, or a folder that is free.

    A finished run counts only if settings, encoder, database and labels are the same. Otherwise it stays where it is, and the run
    goes into the next folder: `seed-0`, `seed-0-run2`, `seed-0-run3`, ...
    """

    def __init__(self) -> None:
        self._probes: dict[str, str] = {}  # planned folder of a probe -> where it really is
        self._tasks: dict[tuple[Any, ...], TaskData] = {}  # the last one that was opened

    def place(self, planned: ProtocolSettings) -> PlannedRun:
        """Where a run is, or is to go. Call it when the runs before it are finished: it may start from one of them."""
        values = {name: getattr(planned, name) for name in field_names(ProtocolSettings)}
        if planned.protocol == "finetune_after_probe":
            values["model_name_or_path"] = self._probes.get(planned.model_name_or_path, planned.model_name_or_path)
        passed_over: dict[str, list[str]] = {}
        for number in itertools.count(1):
            directory = planned.output_dir if number == 1 else f"{planned.output_dir}-run{number}"
            settings = make_settings(ProtocolSettings, {**values, "output_dir": directory})
            recorded = _read_info(Path(directory))
            differences = [] if recorded is None else self._differences(recorded, settings)
            if not differences:
                break
            passed_over[directory] = differences
        if planned.protocol == "attentive":
            self._probes[planned.output_dir] = directory
        return PlannedRun(settings, recorded is not None, passed_over)

    def _differences(self, recorded: dict[str, Any], run: ProtocolSettings) -> list[str]:
        """In what a recorded run differs from the one that is wanted, in words."""
        if not recorded:
            return ["it does not say what it was trained from"]
        old, new = {**ADDED_SINCE, **recorded.get("settings", {})}, {**ADDED_SINCE, **run.what_counts()}
        found = [f"{name}: {old.get(name)!r}, now {value!r}" for name, value in new.items() if old.get(name) != value]
        data = self._open_task(run)
        try:
            records = data.database.info
            digest = find_start(run.model_name_or_path, records.sampling_rate, records.amplitude_free).digest()
        except FileNotFoundError:  # a probe of this sweep that is still to be run
            return [*found, f"{run.model_name_or_path} is not there yet"]
        if recorded.get("start", {}).get("digest") != digest:
            found.append(f"{run.model_name_or_path} has other weights")
        if [database.get("digest") for database in recorded.get("databases", [])] != [data.database.info.identity]:
            found.append(f"{data.database.name} was prepared anew")
        elif recorded.get("labels") != data.labels_digest():
            found.append("records or labels of the task differ")
        return found

    def _open_task(self, run: ProtocolSettings) -> TaskData:
        """Opened once for all runs on the same labels."""
        key = (run.task, run.label_fraction, run.labels_per_class, run.seed, run.min_class_records, run.split_seed)
        if key not in self._tasks:
            self._tasks = {key: load_task(run)}
        return self._tasks[key]


def _read_info(directory: Path) -> dict[str, Any] | None:
    """What a finished run recorded, `None` if there is none; a run of before anything was recorded differs in everything."""
    if not (directory / METRICS_FILE).is_file():
        return None
    path = directory / TRAINING_INFO_FILE
    return read_json(path) if path.is_file() else {}


def write_failure(run: ProtocolSettings, error: Exception) -> None:
    """Note beside a run why it cannot be scored."""
    path = Path(run.output_dir)
    path.mkdir(parents=True, exist_ok=True)
    note = {"task": run.task, "protocol": run.protocol, "model": run.model_name_or_path, "reason": str(error)}
    write_json(path / FAILURE_FILE, note)
