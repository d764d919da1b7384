"""Many runs from one file: protocols x tasks x encoders x shares of the labels x seeds."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ..arguments import option
from ..data.ptb_xl_tasks import TASKS
from .probing import METRICS_FILE
from .protocols import PROTOCOLS, ProtocolArguments


@dataclass
class SweepArguments:
    """Arguments of `training/sweep.py`. Raises `ValueError` for unknown protocols, tasks and settings."""

    models: list[str] = option([], "pre-trained directories, random:xs|s|b, random:DIRECTORY")
    protocols: list[str] = option(list(PROTOCOLS), "finetune_after_probe starts from the sweep's own attentive probe")
    tasks: list[str] = option(list(TASKS), "tasks")
    label_fractions: list[float] = option([1.0], "shares of the training labels")
    seeds: list[int] = option([0], "seeds")
    data_dir: str = option("data/prepared", "prepared database, or a folder of several")
    database: str | None = option(None, "which one, if data_dir has several")
    output_dir: str = option("runs/sweep", "folder of all runs; those that are finished are not run again")
    config_dir: str = option("training/configs", "folder with a YAML file of settings per protocol")
    settings: list[str] = option([], "KEY=VALUE of finetune.py for all runs, or PROTOCOL.KEY=VALUE for one's")

    def __post_init__(self) -> None:
        for name, values, known in (("protocols", self.protocols, PROTOCOLS), ("tasks", self.tasks, TASKS)):
            unknown = [value for value in values if value not in known]
            if unknown:
                raise ValueError(f"{name}: {', '.join(unknown)} unknown; choose among {', '.join(known)}.")
        if not self.models:
            raise ValueError("models is empty: name pre-trained directories or random:xs, random:s, random:b.")
        for protocol in PROTOCOLS:
            self.overrides(protocol)

    def overrides(self, protocol: str) -> dict[str, Any]:
        """`settings` as values of `ProtocolArguments` for a protocol; its own win. Raises `ValueError` if one is malformed."""
        known = {field.name for field in fields(ProtocolArguments)}
        for_all: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for entry in self.settings:
            name, sign, value = entry.partition("=")
            scope, dot, key = name.rpartition(".")
            if not sign or key not in known or (dot and scope not in PROTOCOLS):
                raise ValueError(
                    f"settings: {entry!r} is neither KEY=VALUE nor PROTOCOL.KEY=VALUE with a key of finetune.py and a protocol "
                    f"among {', '.join(PROTOCOLS)}."
                )
            if scope in ("", protocol):
                (own if scope else for_all)[key] = yaml.safe_load(value)
        return {**for_all, **own}


def plan(sweep: SweepArguments) -> list[ProtocolArguments]:
    """
    The runs in an order in which each finds what it starts from: probes before the fine-tuning that goes on from them.

    Raises:
        ValueError: if finetune_after_probe is asked for without attentive, or two models have the same folder name.
    """
    if "finetune_after_probe" in sweep.protocols and "attentive" not in sweep.protocols:
        raise ValueError("finetune_after_probe starts from the attentive probe of the same sweep: add attentive to protocols.")
    names = {model: _folder_name(model) for model in sweep.models}
    if len(set(names.values())) < len(names):
        raise ValueError(f"Models must differ in the last part of their paths: {', '.join(sweep.models)}.")
    ordered = [protocol for protocol in PROTOCOLS if protocol in sweep.protocols]
    choices = itertools.product(ordered, sweep.models, sweep.tasks, sweep.label_fractions, sweep.seeds)
    return [_run(sweep, names[model], protocol, model, task, fraction, seed) for protocol, model, task, fraction, seed in choices]


def _run(
    sweep: SweepArguments, name: str, protocol: str, model: str, task: str, label_fraction: float, seed: int
) -> ProtocolArguments:
    settings = yaml.safe_load(Path(sweep.config_dir, f"{protocol}.yaml").read_text())

    def directory(of_protocol: str) -> str:
        return str(Path(sweep.output_dir, name, of_protocol, task, f"labels-{label_fraction:g}", f"seed-{seed}"))

    settings |= {
        "protocol": protocol,
        "model_name_or_path": directory("attentive") if protocol == "finetune_after_probe" else model,
        "task": task,
        "label_fraction": label_fraction,
        "seed": seed,
        "data_dir": sweep.data_dir,
        "database": sweep.database,
        "output_dir": directory(protocol),
    }
    return ProtocolArguments(**{**settings, **sweep.overrides(protocol)})


def _folder_name(model: str) -> str:
    return f"random-{Path(model.removeprefix('random:')).name}" if model.startswith("random:") else Path(model).name


def unfinished(runs: list[ProtocolArguments]) -> Iterator[ProtocolArguments]:
    """Those without `metrics.json`, which is written last."""
    return (run for run in runs if not Path(run.output_dir, METRICS_FILE).is_file())


def write_failure(arguments: ProtocolArguments, error: ValueError) -> None:
    """Note beside a run why it cannot be scored."""
    path = Path(arguments.output_dir)
    path.mkdir(parents=True, exist_ok=True)
    note = {"task": arguments.task, "protocol": arguments.protocol, "model": arguments.model_name_or_path, "reason": str(error)}
    (path / "not_scored.json").write_text(json.dumps(note, indent=2) + "\n")
