"""
`training_info.json`: what a directory's weights come from, written beside them by every run and never inferred afterwards.

Both kinds of runs record `settings` (all of them), `configuration` (the shipped one that they agree with, or null), `databases`
(name, digest of the prepared records, how many of them were trained on), `records_seen`, `versions`, `commit`, `hardware`,
`seconds`, `finished` (UTC) and `weights` (digest of what was saved).

Pre-training adds `objective`, `num_processes`, `changes` (of settings and records on the way: after how many steps, what it was
and what it is), `gflop_per_record` (of a training step, as counted) and `skipped_steps` (their gradients were not finite; their
records count as seen). Fine-tuning adds `protocol`, `task`, `start` (name, directory as seen from the run's, and digest of the
weights that it started from), `encoder` (as `metrics.json` has it) and `labels` (a digest).
"""

import dataclasses
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._utils.files import TRAINING_INFO_FILE, write_json
from .._utils.model_directory import weights_digest
from ..finetuning.finetuning_loop import FinetuningRun
from ..finetuning.run import FinetuningResult
from ..pretraining.monitoring import skipped_steps
from ..pretraining.pretraining_loop import PretrainingRun

_PACKAGES = ("ecg_jepa", "torch", "transformers", "accelerate", "datasets", "safetensors", "numpy", "scipy", "wfdb")


def pretraining_info(run: PretrainingRun, hardware: str, seconds: float) -> dict[str, Any]:
    """Of a finished pre-training run; `seconds` of training, interruptions not counted."""
    recipe, training = run.recipe, run.training()
    return {
        "kind": "pretraining",
        "objective": recipe.objective,
        "configuration": recipe.configuration(),
        "settings": dataclasses.asdict(recipe),
        "databases": [{"name": name, **database} for name, database in training["databases"].items()],
        "num_processes": training["num_processes"],
        "changes": run.changes,
        "records_seen": recipe.max_steps * recipe.batch_size * recipe.gradient_accumulation_steps,
        "gflop_per_record": run.gflop_per_record,
        "skipped_steps": skipped_steps(run.metrics_file),
        **_circumstances(hardware, seconds),
    }


def finetuning_info(run: FinetuningRun, result: FinetuningResult, hardware: str) -> dict[str, Any]:
    """Of a finished run of a protocol."""
    data = run.data
    return {
        "kind": "finetuning",
        "protocol": run.settings.protocol,
        "task": run.settings.task,
        "configuration": run.settings.configuration(),
        "settings": dataclasses.asdict(run.settings),
        "start": {
            "path": run.start.name,
            # As seen from this run's own folder: both may move together, and nobody is told where it was on this machine.
            "directory": None
            if run.start.directory is None
            else os.path.relpath(run.start.directory.resolve(), Path(run.settings.output_dir).resolve()),
            "digest": run.start.digest(),
        },
        "encoder": result.metrics["encoder"],
        "databases": [{"name": data.database.name, "records": len(data.splits["train"]), "digest": data.database.info.identity}],
        "labels": data.labels_digest(),
        "records_seen": result.records_seen,
        **_circumstances(hardware, result.seconds),
    }


def write_training_info(directory: str | Path, info: dict[str, Any]) -> None:
    """Write it beside the weights, whose digest is added."""
    write_json(Path(directory, TRAINING_INFO_FILE), {**info, "weights": weights_digest(directory)})


def _circumstances(hardware: str, seconds: float) -> dict[str, Any]:
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "commit": _commit(),
        "hardware": hardware,
        "seconds": seconds,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Of the checkout that this package runs from, with `+changes` if it has any; `None` where it is installed or git is not."""
    source = Path(__file__).parent
    try:
        tracked = subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=source, capture_output=True, timeout=10)
        if tracked.returncode:
            return None
        name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, timeout=10)
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=source, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return name.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
