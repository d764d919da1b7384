"""Resumable checkpoints: `checkpoint-<step>` folders that are complete or passed over."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import isfinite
from torch.distributed.checkpoint import CheckpointException

from .._utils.files import digest_files, digest_of, read_json, write_json
from .._utils.processes import on_main_process

logger = logging.getLogger(__name__)

# Key of `training` in runs whose processes hold parts of the weights: their checkpoints are other files.
SHARDED = "sharded"

_NAME = re.compile(r"checkpoint-\d+")
_PROGRESS_FILE = "progress.json"

# What Python, safetensors and torch (for files of one and of several processes) raise when a disk is full.
_CANNOT_WRITE = (OSError, SafetensorError, RuntimeError, CheckpointException)


@dataclass
class Checkpoints:
    """
    Saves and restores what was given to `accelerator.prepare`, random states and the number of steps done.

    Accelerate writes the state. Its own naming and limit do not write digests, nor give a folder its name when it is complete:
    `progress.json` holds `training`, changes of it on the way, the SHA-256 of every file and of itself.

    Args:
        keep: how many checkpoints to keep.
        training: plain values that decide the weights: a checkpoint of another training is refused.
        allow_changes: resume from it all the same, and record the changes.
    """

    accelerator: Accelerator
    output_dir: Path
    keep: int
    training: dict[str, Any]
    allow_changes: bool = False
    changes: list[dict[str, Any]] = field(default_factory=list)
    resumed_from: Path | None = None

    def save(self, steps_done: int) -> bool:
        """
        Write `checkpoint-<steps_done>`; return whether that worked. A full disk costs the checkpoint, not the run.

        Raises:
            FloatingPointError: if a weight is not finite; earlier checkpoints stay.
        """
        self._check_weights(steps_done)
        unfinished = self.output_dir / f"unfinished-checkpoint-{steps_done}"
        remove_unfinished = partial(shutil.rmtree, unfinished, ignore_errors=True)
        on_main_process(self.accelerator, remove_unfinished)
        faults = gather_object([_fault_of_writing(lambda: self.accelerator.save_state(str(unfinished)))])
        finish = partial(_fault_of_writing, lambda: self._finish(unfinished, steps_done))
        fault = next(filter(None, faults), "") or on_main_process(self.accelerator, finish)
        if fault:
            on_main_process(self.accelerator, remove_unfinished)
            logger.warning(f"checkpoint-{steps_done} could not be written, training goes on without it: {fault}")
        return not fault

    def _check_weights(self, steps_done: int) -> None:
        for model in self.accelerator._models:
            broken = [name for name, p in model.named_parameters() if not isfinite(p).all()]
            if broken:
                kept = ", ".join(path.name for path in self.existing()) or "none"
                raise FloatingPointError(
                    f"After {steps_done} steps, weights are not finite ({broken[0]} and {len(broken) - 1} more): nothing was "
                    f"saved. Checkpoints before: {kept}."
                )

    def _finish(self, unfinished: Path, steps_done: int) -> None:
        """Write `progress.json`, flush everything to the disk, rename the folder, and remove outdated checkpoints."""
        files = sorted(path for path in unfinished.rglob("*") if path.is_file())
        contents = {
            str(path.relative_to(unfinished)): {"size": path.stat().st_size, "sha256": digest_files([path])} for path in files
        }
        progress = {"steps_done": steps_done, "training": self.training, "changes": self.changes, "files": contents}
        write_json(unfinished / _PROGRESS_FILE, {**progress, "sha256": digest_of(progress)})
        for path in [*files, unfinished / _PROGRESS_FILE, unfinished]:
            _flush(path)
        final = self.output_dir / f"checkpoint-{steps_done}"
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)
        _flush(self.output_dir)
        for outdated in self._own()[: -self.keep]:
            shutil.rmtree(outdated, ignore_errors=True)

    def existing(self) -> list[Path]:
        """Return checkpoint folders, from the fewest steps to the most."""
        found = [path for path in self.output_dir.glob("checkpoint-*") if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=_steps_in_name)

    def _own(self) -> list[Path]:
        """Return the checkpoints that a run of ours wrote: others of such a name are somebody else's."""
        return [path for path in self.existing() if (path / _PROGRESS_FILE).is_file()]

    def clear(self, steps_done: int, remove: bool = False) -> None:
        """Rename checkpoints with more steps than the run resumes from, or `remove` all; remove unfinished ones."""
        for path in self.output_dir.glob("unfinished-checkpoint-*"):
            shutil.rmtree(path)
        for path in self._own():
            aside = path.with_name(f"abandoned-{path.name}")
            if remove:
                shutil.rmtree(path)
            elif _steps_in_name(path) > steps_done:
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                logger.warning(f"{path} is further than where this run goes on from: it is now {aside.name}.")

    def restore(self, name: str | None, max_steps: int) -> int:
        """
        Restore a checkpoint (its path, or "latest" for the newest complete one); return the number of steps done, 0 without one.

        Raises:
            FileNotFoundError: if the folder is no checkpoint.
            ValueError: if it is damaged, of another training (unless changes are allowed), or further than `max_steps`.
        """
        path = on_main_process(self.accelerator, partial(self._find, name, max_steps))
        if path is None:
            return 0
        progress = read_json(path / _PROGRESS_FILE)
        try:
            self.accelerator.load_state(str(path))
        except (RuntimeError, KeyError, CheckpointException) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} does not fit this run, whose model or optimiser is another: {reason}") from error
        changed = {key: {"was": old, "is": new} for key, (old, new) in differences(progress["training"], self.training).items()}
        self.changes = progress["changes"] + ([{"after_steps": progress["steps_done"], "changed": changed}] if changed else [])
        self.resumed_from = path
        logger.info(f"Resumed from {path} after {progress['steps_done']} steps.")
        return int(progress["steps_done"])

    def _find(self, name: str | None, max_steps: int) -> Path | None:
        """Return the checkpoint to resume from, which is complete and of this training."""
        path = self._latest() if name == "latest" else name and Path(name)
        if not path:
            return None
        if fault := fault_of(path):
            others = ", ".join(str(p) for p in self.existing() if p != path and not fault_of(p)) or "none"
            kind = FileNotFoundError if not (path / _PROGRESS_FILE).is_file() else ValueError
            raise kind(f"{path} is no complete checkpoint: {fault}. Whole ones: {others}.")
        progress = read_json(path / _PROGRESS_FILE)
        if progress["steps_done"] > max_steps:
            raise ValueError(
                f"{path} is {progress['steps_done']} steps far, more than max_steps={max_steps}: raise --max_steps, or resume "
                "from an earlier checkpoint."
            )
        changed = differences(progress["training"], self.training)
        if SHARDED in changed:
            was, now = ("in parts of each process" if value else "whole" for value in changed[SHARDED])
            raise ValueError(f"{path} holds weights {was}, but this run holds them {now}: launch it as it was begun.")
        if changed and not self.allow_changes:
            listing = "; ".join(f"{key} was {old}, is {new}" for key, (old, new) in changed.items())
            raise ValueError(
                f"{path} is of another training: {listing}. Set these as they were, or go on with --allow_changes, which records "
                "them; a new training needs another --output_dir."
            )
        return path

    def _latest(self) -> Path | None:
        """Return the newest complete checkpoint; `None` if there is none yet."""
        existing = self.existing()
        for path in reversed(existing):
            if not (fault := fault_of(path)):
                return path
            logger.warning(f"{path} is passed over: {fault}.")
        if existing:
            raise ValueError(f"None of the checkpoints in {self.output_dir} is whole: start anew with --overwrite_output_dir.")
        logger.info(f"No checkpoint in {self.output_dir} yet: starting from the beginning.")
        return None


def fault_of(path: Path) -> str | None:
    """Return what is wrong with a checkpoint folder; `None` if it is complete."""
    if not (path / _PROGRESS_FILE).is_file():
        return f"it has no {_PROGRESS_FILE}"
    try:
        progress = read_json(path / _PROGRESS_FILE)
        if progress.pop("sha256") != digest_of(progress):
            return f"{_PROGRESS_FILE} is not what was written (SHA-256)"
        for name, expected in progress["files"].items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if digest_files([path / name]) != expected["sha256"]:
                return f"{name} is not what was written (SHA-256)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # of the disk, or a damaged progress.json
        return f"it cannot be read ({type(error).__name__}: {error})"
    return None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the differences of two nested mappings: dotted key -> (old, new), `None` for a missing key."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in differences(before, after).items()}
        elif before != after:
            found[key] = (before, after)
    return found


def _steps_in_name(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _fault_of_writing(action: Callable[[], Any]) -> str:
    """Run an action that writes to the disk; return why it failed, or an empty string."""
    try:
        action()
    except _CANNOT_WRITE as error:
        return str(error) or type(error).__name__
    return ""


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
