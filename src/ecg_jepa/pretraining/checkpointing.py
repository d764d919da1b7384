"""Resumable state of a run: `checkpoint-<step>` folders that are whole or passed over."""

import logging
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch.distributed.checkpoint import CheckpointException

from .._utils.files import digest_files, digest_of, read_json, write_json
from .._utils.processes import on_main_process

logger = logging.getLogger(__name__)

# Of a training whose processes hold parts of weights: their checkpoints are other files.
SHARDED = "sharded"

_NAME = re.compile(r"checkpoint-(\d+)")
_PROGRESS_FILE = "progress.json"

# What writing raises when a disk is full: from Python, from safetensors, and from torch (whose writer raises nothing better),
# which has another one for what several processes write.
_CANNOT_WRITE = (OSError, SafetensorError, RuntimeError, CheckpointException)


class Checkpoints:
    """
    Saves and restores what was given to `accelerator.prepare`, random states and the number of steps done.

    Beside them, `progress.json` holds what is trained, what of it was changed on the way, size and SHA-256 of every file, and a
    digest of itself.

    Args:
        accelerator: of the run.
        output_dir: where the `checkpoint-<step>` folders are.
        keep: how many to keep.
        training: what decides what comes out, as plain values: a checkpoint of another training is refused.
        allow_changes: go on from it all the same, and record what was changed.
        defaults: of the settings under `recipe` in `training`, for checkpoints of before there were all of them.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        output_dir: Path,
        keep: int,
        training: Mapping[str, Any],
        allow_changes: bool = False,
        defaults: Mapping[str, Any] | None = None,
    ):
        self.accelerator = accelerator
        self.output_dir = output_dir
        self.keep = keep
        self.training = dict(training)
        self.allow_changes = allow_changes
        self.defaults = dict(defaults or {})
        self.changes: list[dict[str, Any]] = []
        self.resumed_from: Path | None = None

    def save(self, steps_done: int) -> bool:
        """
        Write `checkpoint-<steps_done>`, which gets its name only when it is whole and on disk. Returns whether it was written: a
        full disk costs the checkpoint, not the run, and says so.

        Raises:
            FloatingPointError: if a weight is not finite; the checkpoints before stay.
        """
        self._check_weights(steps_done)
        unfinished = self.output_dir / f"unfinished-checkpoint-{steps_done}"
        if self.accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        fault = ""
        try:
            self.accelerator.save_state(str(unfinished))
        except _CANNOT_WRITE as error:
            fault = str(error)
        failures = self.accelerator.reduce(torch.tensor(int(bool(fault)), device=self.accelerator.device)).item()
        if self.accelerator.is_main_process:
            try:
                if failures:
                    raise OSError(fault or "another process could not write its part")
                self._finish(unfinished, steps_done)
            except _CANNOT_WRITE as error:
                failures = 1
                shutil.rmtree(unfinished, ignore_errors=True)
                logger.warning(f"checkpoint-{steps_done} could not be written, training goes on without it: {error}")
        self.accelerator.wait_for_everyone()
        return not failures

    def _check_weights(self, steps_done: int) -> None:
        for model in self.accelerator._models:
            broken = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
            if broken:
                kept = ", ".join(path.name for path in self.existing()) or "none"
                raise FloatingPointError(
                    f"After {steps_done} steps, weights are not finite ({broken[0]} and {len(broken) - 1} more): nothing was "
                    f"saved. Checkpoints before: {kept}."
                )

    def _finish(self, unfinished: Path, steps_done: int) -> None:
        """Describe what was written, see that it is on disk, give it its name, and remove outdated ones."""
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
            try:
                _remove(outdated)
            except OSError as error:
                logger.warning(f"{outdated}, which is outdated, cannot be removed: {error}")

    def existing(self) -> list[Path]:
        """Checkpoint folders, from the fewest steps to the most."""
        found = [
            (int(match[1]), path) for path in self.output_dir.glob("*") if (match := _NAME.fullmatch(path.name)) and path.is_dir()
        ]
        return [path for _, path in sorted(found)]

    def _own(self) -> list[Path]:
        """Those that a run of ours wrote: what has such a name alone is somebody else's."""
        return [path for path in self.existing() if (path / _PROGRESS_FILE).is_file()]

    def remove(self) -> None:
        """Remove all checkpoints of a run, and nothing that only has such a name."""
        for path in self.output_dir.glob("*checkpoint-*"):
            if (path / _PROGRESS_FILE).is_file() or path.name.startswith("unfinished-"):
                _remove(path)

    def restore(self, name: str | None, max_steps: int) -> int:
        """
        Restore `"latest"` (the newest that is whole; others are named) or the folder of that path, and return the number of steps
        done; 0 for `None`, and for `"latest"` where there is none yet.

        Args:
            name: of the checkpoint.
            max_steps: of the run.

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
        except (RuntimeError, SafetensorError, CheckpointException, pickle.UnpicklingError, EOFError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{path} does not fit this run, whose model or optimiser is another, or is damaged: {reason}"
            ) from error
        self.changes = self._changes_since(progress)
        self.resumed_from = path
        logger.info(f"Resumed from {path} after {progress['steps_done']} steps.")
        return int(progress["steps_done"])

    def _find(self, name: str | None, max_steps: int) -> Path | None:
        """The checkpoint to go on from, if there is one; it is whole, and of this training."""
        if name is None:
            return None
        path = self._latest() if name == "latest" else Path(name)
        if path is None:
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
        if "training" not in progress:
            logger.warning(f"{path} was written by an older version: whether it is of the same training cannot be checked.")
            return path
        changed = self._changed(progress)
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
        """The newest whole checkpoint; `None` if there is none yet."""
        existing = self.existing()
        for path in reversed(existing):
            if not (fault := fault_of(path)):
                return path
            logger.warning(f"{path} is passed over: {fault}.")
        if existing:
            raise ValueError(f"None of the checkpoints in {self.output_dir} is whole: start anew with --overwrite_output_dir.")
        logger.info(f"No checkpoint in {self.output_dir} yet: starting from the beginning.")
        return None

    def _changed(self, progress: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """
        What is trained otherwise than a checkpoint says; nothing if it does not say. Settings that there were not yet were what
        is their default now.
        """
        if "training" not in progress:
            return {}
        training = progress["training"]
        # What a checkpoint of before does not say of its records is taken to be as it is now.
        records = {
            name: {**self.training.get("databases", {}).get(name, {}), **said}
            for name, said in training.get("databases", {}).items()
        }
        before = {**training, "recipe": {**self.defaults, **training.get("recipe", {})}}
        if records:
            before["databases"] = records
        return differences(before, self.training)

    def leave_behind(self, steps_done: int) -> None:
        """Set aside checkpoints that are further than where the run goes on from, and remove what was never finished."""
        for path in self.output_dir.glob("unfinished-checkpoint-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._own():
            if int(path.name.rpartition("-")[2]) > steps_done:
                aside = path.with_name(f"abandoned-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                logger.warning(f"{path} is further than where this run goes on from: it is now {aside.name}.")

    def _changes_since(self, progress: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What was changed on the way here, and what is changed now."""
        before = list(progress.get("changes", []))
        changed = self._changed(progress)
        if not changed:
            return before
        now = {key: {"was": old, "is": new} for key, (old, new) in changed.items()}
        return [*before, {"after_steps": progress["steps_done"], "changed": now}]


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, in words; `None` if it is whole. Those of before there were digests are trusted."""
    if not (path / _PROGRESS_FILE).is_file():
        return f"it has no {_PROGRESS_FILE}"
    try:
        progress = read_json(path / _PROGRESS_FILE)
        stated = progress.pop("sha256", None)  # those of before there were digests are trusted
        if stated is not None and stated != digest_of(progress):
            return f"{_PROGRESS_FILE} is not what was written (SHA-256)"
        kinds = {"steps_done": int, "training": dict, "changes": list, "files": dict}
        if wrong := [name for name, kind in kinds.items() if name in progress and not isinstance(progress[name], kind)]:
            return f"{_PROGRESS_FILE} holds no {', '.join(wrong)}"
        if (named := _NAME.fullmatch(path.name)) and progress["steps_done"] != int(named[1]):
            return f"{_PROGRESS_FILE} says that {progress['steps_done']} steps were done"
        for name, expected in progress.get("files", {}).items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["size"]:
                return f"{name} has {file.stat().st_size} bytes instead of {expected['size']}"
            if digest_files([file]) != expected["sha256"]:
                return f"{name} is not what was written (SHA-256)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # of a disk, or a damaged file
        return f"it cannot be read ({type(error).__name__}: {error})"
    return None


def _remove(path: Path) -> None:
    """A folder, or the link to one alone."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two nested mappings of plain values do not share: dotted key -> (old, new); `None` where one has no such key."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in differences(before, after).items()}
        elif before != after:
            found[key] = (before, after)
    return found


def _flush(path: Path) -> None:
    """See a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
