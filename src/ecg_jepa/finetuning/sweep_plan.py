"""The runs of a sweep: protocols x tasks x encoders x shares of the labels x seeds; which are finished, where the others go."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._utils.files import RANDOM_PREFIX, TRAINING_INFO_FILE, read_json, shipped, write_json
from .._utils.settings import deciding_values, field_names, make_settings, option, read_yaml, settings
from ..data.tasks import TASKS, parts_of
from .protocols import FAILURE_FILE, PROTOCOLS, FinetuneSettings

if TYPE_CHECKING:
    from ..data.task_data import TaskData

# Settings that the sweep gives its runs itself.
_OF_THE_SWEEP = (
    *("protocol", "model_name_or_path", "task", "label_fraction", "labels_per_class", "seed"),
    *("data_dir", "database", "output_dir", "overwrite_output_dir", "report_to"),
)


@settings
class SweepSettings:
    """Settings of `ecg-jepa sweep`. Raises `ValueError` for unknown protocols, tasks and settings."""

    models: list[str] = option([], "pre-trained directories, Hub repositories, random:xs|s|b, random:DIRECTORY")
    protocols: list[str] = option(list(PROTOCOLS), "finetune_after_probe starts from the sweep's own attentive probe")
    tasks: list[str] = option(list(TASKS), "tasks, or several joined: superdiagnostic+rhythm")
    label_fractions: list[float] = option([1.0], "shares of the training labels")
    seeds: list[int] = option([0], "seeds")
    data_dir: str = option("data/prepared", "prepared database, or a folder of several")
    database: str | None = option(None, "which one, if data_dir has several")
    output_dir: str = option("runs/sweep", "folder of all runs; those that are finished are not run again")
    config_dir: str | None = option(None, "folder with a YAML file of settings per protocol; default: those that ship")
    settings: list[str] = option([], "KEY=VALUE of finetune for all runs, or PROTOCOL.KEY=VALUE for one's")

    def __post_init__(self) -> None:
        if unknown := [value for value in self.protocols if value not in PROTOCOLS]:
            raise ValueError(f"protocols: {', '.join(unknown)} unknown; choose among {', '.join(PROTOCOLS)}.")
        for task in self.tasks:
            parts_of(task)
        for name in ("models", "protocols", "tasks", "label_fractions", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: name one or several.")
        if "finetune_after_probe" in self.protocols and "attentive" not in self.protocols:
            raise ValueError("finetune_after_probe starts from the sweep's own attentive probe: add attentive to protocols.")
        if len(precisions := {run.mixed_precision for run in plan(self)}) > 1:
            raise ValueError(f"settings: a sweep has one mixed_precision, not {' and '.join(sorted(precisions))}.")

    def overrides(self, protocol: str) -> dict[str, str]:
        """Return `settings` as keys and values for a protocol; its own win. Raises `ValueError` if one is malformed."""
        known = [name for name in field_names(FinetuneSettings) if name not in _OF_THE_SWEEP]
        found: dict[str, dict[str, str]] = {"": {}, **{name: {} for name in PROTOCOLS}}
        for entry in self.settings:
            name, _, value = entry.partition("=")
            scope, _, key = name.rpartition(".")
            if key in _OF_THE_SWEEP:
                raise ValueError(f"settings: {entry!r}: the sweep itself gives each run its {key}.")
            if "=" not in entry or key not in known or scope not in found:
                raise ValueError(
                    f"settings: {entry!r} is neither KEY=VALUE nor PROTOCOL.KEY=VALUE with a protocol among "
                    f"{', '.join(PROTOCOLS)} and a key among {', '.join(known)}."
                )
            found[scope][key] = value
        return {**found[""], **found[protocol]}


def plan(sweep: SweepSettings) -> list[FinetuneSettings]:
    """Return the runs, probes before the fine-tuning of them. Raise `ValueError` for folder names or settings that do not fit."""
    names = {}
    for model in sweep.models:
        path = Path(model.removeprefix(RANDOM_PREFIX))
        name = path.resolve().name if path.is_dir() else path.name  # . and .. have no name of their own
        names[model] = f"random-{name}" if model.startswith(RANDOM_PREFIX) else name
    if len(set(names.values())) < len(names):
        raise ValueError(f"Models must differ in the last part of their paths: {', '.join(sweep.models)}.")
    config_dir = shipped("configs") if sweep.config_dir is None else Path(sweep.config_dir)
    runs = []
    for protocol in (protocol for protocol in PROTOCOLS if protocol in sweep.protocols):
        values = read_yaml(str(config_dir / f"{protocol}.yaml"))
        for model, task, fraction, seed in itertools.product(sweep.models, sweep.tasks, sweep.label_fractions, sweep.seeds):
            place = Path(task, f"labels-{fraction:g}", f"seed-{seed}")
            folder = Path(sweep.output_dir, names[model])
            start = str(folder / "attentive" / place) if protocol == "finetune_after_probe" else model
            run = {"protocol": protocol, "model_name_or_path": start, "task": task, "label_fraction": fraction, "seed": seed}
            run |= {"data_dir": sweep.data_dir, "database": sweep.database, "output_dir": str(folder / protocol / place)}
            runs.append(make_settings(FinetuneSettings, {**values, **run, **sweep.overrides(protocol)}))
    return runs


class PlannedRun(NamedTuple):
    """A run of a sweep in a folder of its own."""

    settings: FinetuneSettings
    finished: bool  # whether the folder holds it already
    passed_over: dict[str, list[str]]  # folders of earlier, other runs -> in what they differ


class SweepFolder:
    """
    Finds for each planned run the finished one that it would repeat, with the same settings, encoder, database and labels, or a
    free folder: `seed-0`, `seed-0-run2`, `seed-0-run3`, ...
    """

    def __init__(self) -> None:
        self._probes: dict[str, str] = {}  # planned folder of a probe -> its real one
        self._tasks: dict[tuple[Any, ...], TaskData] = {}  # the last one that was loaded

    def place(self, planned: FinetuneSettings) -> PlannedRun:
        """Find the folder of a run. Call it when the runs before it are finished: it may start from one of them."""
        from ..evaluation.results import METRICS_FILE

        start = self._probes.get(planned.model_name_or_path, planned.model_name_or_path)
        passed_over: dict[str, list[str]] = {}
        for number in itertools.count(1):
            directory = planned.output_dir + (f"-run{number}" if number > 1 else "")
            settings = replace(planned, model_name_or_path=start, output_dir=directory)
            is_finished = Path(directory, METRICS_FILE).is_file()
            if not is_finished or not (differences := self._differences(settings)):
                break
            passed_over[directory] = differences
        if planned.protocol == "attentive":
            self._probes[planned.output_dir] = directory
        return PlannedRun(settings, is_finished, passed_over)

    def _differences(self, run: FinetuneSettings) -> list[str]:
        """Return in what the finished run in the folder differs from the one that is planned."""
        from .classifier import find_start
        from .finetuning_loop import load_task

        if not (path := Path(run.output_dir, TRAINING_INFO_FILE)).is_file():
            return ["it does not say what it was trained from"]
        recorded, new = read_json(path), deciding_values(run)
        old = recorded["settings"]
        found = [f"{key}: {old.get(key)!r}, now {value!r}" for key, value in new.items() if old.get(key) != value]
        # Consecutive runs share the labels.
        key = (run.task, run.label_fraction, run.labels_per_class, run.seed, run.min_class_records, run.split_seed)
        if key not in self._tasks:
            self._tasks = {key: load_task(run)}
        data = self._tasks[key]
        records = data.database.info
        try:
            digest = find_start(run.model_name_or_path, records.sampling_rate, records.amplitude_free).digest()
        except FileNotFoundError:  # a probe of this sweep that is still to be run
            return [*found, f"{run.model_name_or_path} is not there yet"]
        if recorded["start"]["digest"] != digest:
            found.append(f"{run.model_name_or_path} has other weights")
        if [database["digest"] for database in recorded["databases"]] != [records.content_digest]:
            found.append(f"{data.database.name} was prepared anew")
        elif recorded["labels"] != data.labels_digest():
            found.append("records or labels of the task differ")
        return found


def write_failure(run: FinetuneSettings, error: Exception) -> None:
    """Write beside a run why it cannot be scored."""
    Path(run.output_dir).mkdir(parents=True, exist_ok=True)
    note = {"task": run.task, "protocol": run.protocol, "model": run.model_name_or_path, "reason": str(error)}
    write_json(Path(run.output_dir, FAILURE_FILE), note)
