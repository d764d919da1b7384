"""The runs of a sweep: protocols x tasks x encoders x shares of the labels x seeds."""

import itertools
from pathlib import Path

from .._utils.files import RANDOM_PREFIX, shipped
from .._utils.settings import field_names, make_settings, option, read_yaml, settings
from ..data.task_names import TASKS, parts_of
from .protocols import PROTOCOLS, FinetuneSettings

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
        unknown = [value for value in self.protocols if value not in PROTOCOLS]
        if unknown:
            raise ValueError(f"protocols: {', '.join(unknown)} unknown; choose among {', '.join(PROTOCOLS)}.")
        for task in self.tasks:
            parts_of(task)
        for name in ("models", "protocols", "tasks", "label_fractions", "seeds"):
            if not getattr(self, name):
                hint = ": name pre-trained directories or random:xs, random:s, random:b" if name == "models" else ""
                raise ValueError(f"{name} is empty{hint}.")
        if "finetune_after_probe" in self.protocols and "attentive" not in self.protocols:
            raise ValueError("finetune_after_probe starts from the sweep's own attentive probe: add attentive to protocols.")
        if len(precisions := {run.mixed_precision for run in plan(self)}) > 1:
            raise ValueError(f"settings: a sweep has one mixed_precision, not {' and '.join(sorted(precisions))}.")

    def overrides(self, protocol: str) -> dict[str, str]:
        """Return `settings` as keys and values for a protocol; its own win. Raises `ValueError` if one is malformed."""
        known = [name for name in field_names(FinetuneSettings) if name not in _OF_THE_SWEEP]
        found: dict[str, dict[str, str]] = {"": {}, protocol: {}}
        for entry in self.settings:
            name, sign, value = entry.partition("=")
            scope, dot, key = name.rpartition(".")
            if key in _OF_THE_SWEEP:
                raise ValueError(f"settings: {entry!r}: the sweep itself gives each run its {key}.")
            if not sign or key not in known or (dot and scope not in PROTOCOLS):
                raise ValueError(
                    f"settings: {entry!r} is neither KEY=VALUE nor PROTOCOL.KEY=VALUE with a protocol among "
                    f"{', '.join(PROTOCOLS)} and a key among {', '.join(known)}."
                )
            found.setdefault(scope, {})[key] = value
        return {**found[""], **found[protocol]}


def plan(sweep: SweepSettings) -> list[FinetuneSettings]:
    """
    Return the runs in an order in which each finds what it starts from: probes before the fine-tuning of them.

    Raises:
        ValueError: if two models have the same folder name, or settings do not fit the runs.
    """
    names = {model: _folder_name(model) for model in sweep.models}
    if len(set(names.values())) < len(names):
        raise ValueError(f"Models must differ in the last part of their paths: {', '.join(sweep.models)}.")
    config_dir = shipped("configs") if sweep.config_dir is None else Path(sweep.config_dir)
    runs = []
    for protocol in (protocol for protocol in PROTOCOLS if protocol in sweep.protocols):
        values = read_yaml(str(config_dir / f"{protocol}.yaml"))
        for model, task, fraction, seed in itertools.product(sweep.models, sweep.tasks, sweep.label_fractions, sweep.seeds):
            place = Path(task, f"labels-{fraction:g}", f"seed-{seed}")
            folder = Path(sweep.output_dir, names[model])
            run = {
                "protocol": protocol,
                "model_name_or_path": str(folder / "attentive" / place) if protocol == "finetune_after_probe" else model,
                "task": task,
                "label_fraction": fraction,
                "seed": seed,
                "data_dir": sweep.data_dir,
                "database": sweep.database,
                "output_dir": str(folder / protocol / place),
            }
            runs.append(make_settings(FinetuneSettings, {**values, **run, **sweep.overrides(protocol)}))
    return runs


def _folder_name(model: str) -> str:
    path = Path(model.removeprefix(RANDOM_PREFIX))
    name = path.resolve().name if path.is_dir() else path.name  # . and .. have no name of their own
    return f"random-{name}" if model.startswith(RANDOM_PREFIX) else name
