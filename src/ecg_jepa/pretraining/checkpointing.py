"""The output directory of a run, and its checkpoints: `checkpoint-<step>` folders that are complete or passed over."""

import logging
import os
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

from .._utils.files import TRAINING_INFO_FILE, digest_files, digest_of, read_json, write_json
from .._utils.model_directory import weights_digest
from .._utils.processes import on_main_process
from .._utils.run_directory import MODEL_FILES, check_own, clear, left_in
from .._utils.settings import write_yaml
from ..data.records import find_database
from .recipe import PretrainingRecipe

logger = logging.getLogger(__name__)

METRICS_LOG = "metrics.jsonl"

# Key of `training` in runs whose processes hold parts of the weights: their checkpoints are other files.
SHARDED = "sharded"

_PROGRESS_FILE = "progress.json"

# Patterns of the files of a finished run.
_EXPORTED = (TRAINING_INFO_FILE, *(f"pretraining/{name}" for name in MODEL_FILES), "plots/*.png", *MODEL_FILES)


@dataclass
class Checkpoints:
    """
    Saves and restores what was given to `accelerator.prepare`, random states and the number of steps done. Accelerate writes the
    state, but no digests, and names folders before they are complete: `progress.json` holds `training`, changes of it on the way,
    the SHA-256 of every file and of itself.
    """

    accelerator: Accelerator
    output_dir: Path
    keep: int
    training: dict[str, Any]  # plain values that decide the weights: a checkpoint of another training is refused
    allow_changes: bool = False  # resume from it all the same, and record the changes
    changes: list[dict[str, Any]] = field(default_factory=list)
    resumed_from: Path | None = None

    def save(self, steps_done: int) -> bool:
        """Write `checkpoint-<steps_done>`; return whether that worked. Raise `FloatingPointError` if a weight is not finite."""
        weights = [named for model in self.accelerator._models for named in model.named_parameters()]
        if broken := [name for name, weight in weights if not isfinite(weight).all()]:
            kept, names = ", ".join(path.name for path in self.existing()) or "none", f"{broken[0]} and {len(broken) - 1} more"
            sentence = f"After {steps_done} steps, weights are not finite ({names}): nothing was saved"
            raise FloatingPointError(f"{sentence}. Checkpoints before: {kept}.")
        unfinished = self.output_dir / f"unfinished-checkpoint-{steps_done}"
        remove_unfinished = partial(shutil.rmtree, unfinished, ignore_errors=True)
        on_main_process(self.accelerator, remove_unfinished)
        faults = gather_object([_fault_of_writing(self.accelerator.save_state, str(unfinished))])
        finish = partial(_fault_of_writing, self._finish, unfinished, steps_done)
        if fault := next(filter(None, faults), "") or on_main_process(self.accelerator, finish):
            on_main_process(self.accelerator, remove_unfinished)
            logger.warning(f"checkpoint-{steps_done} could not be written, training goes on without it: {fault}")
        return not fault

    def _finish(self, unfinished: Path, steps_done: int) -> None:
        """Write `progress.json`, flush everything to the disk, rename the folder, and remove outdated checkpoints."""
        files = sorted(path for path in unfinished.rglob("*") if path.is_file())
        digests = {str(path.relative_to(unfinished)): {"sha256": digest_files([path])} for path in files}
        progress = {"steps_done": steps_done, "training": self.training, "changes": self.changes, "files": digests}
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
        found = [path for path in self.output_dir.glob("checkpoint-*") if path.name[11:].isdecimal() and path.is_dir()]
        return sorted(found, key=_steps_in_name)

    def _own(self) -> list[Path]:
        """Return the checkpoints that a run of ours wrote: others of such a name are somebody else's."""
        return [path for path in self.existing() if (path / _PROGRESS_FILE).is_file()]

    def clear(self, steps_done: int, remove: bool = False) -> None:
        """Rename checkpoints with more steps than the run resumes from, or `remove` all; remove unfinished ones."""
        clear(self.output_dir, ("unfinished-checkpoint-*",))
        for path in self._own():
            aside = path.with_name(f"abandoned-{path.name}")
            if remove:
                shutil.rmtree(path)
            elif _steps_in_name(path) > steps_done:
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                logger.warning(f"{path} is further than where this run goes on from: it is now {aside.name}.")

    def restore(self, name: str | None, max_steps: int) -> int:
        """Restore a checkpoint (a path, or "latest"); return its steps. Raise `ValueError` if it is damaged or does not fit."""
        path = on_main_process(self.accelerator, partial(self._find, name))
        if path is None:
            return 0
        progress = read_json(path / _PROGRESS_FILE)
        steps_done: int = progress["steps_done"]
        if steps_done > max_steps:
            remedy = "raise --max_steps, or resume from an earlier one"
            raise ValueError(f"{path} is {steps_done} steps far, more than max_steps={max_steps}: {remedy}.")
        changed = differences(progress["training"], self.training)
        if SHARDED in changed:
            was, now = ("in parts of each process" if value else "whole" for value in changed[SHARDED])
            raise ValueError(f"{path} holds weights {was}, but this run holds them {now}: launch it as it was begun.")
        if changed and not self.allow_changes:
            listing = "; ".join(f"{key} was {old}, is {new}" for key, (old, new) in changed.items())
            remedy = "Set these as they were, or go on with --allow_changes, which records them; or choose another --output_dir"
            raise ValueError(f"{path} is of another training: {listing}. {remedy}.")
        try:
            self.accelerator.load_state(str(path))
        except (RuntimeError, KeyError, CheckpointException) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} does not fit this run, whose model or optimiser is another: {reason}") from error
        new = {key: {"was": old, "is": new} for key, (old, new) in changed.items()}
        self.changes = progress["changes"] + ([{"after_steps": steps_done, "changed": new}] if new else [])
        self.resumed_from = path
        logger.info(f"Resumed from {path} after {steps_done} steps.")
        return steps_done

    def _find(self, name: str | None) -> Path | None:
        """Return the complete checkpoint to resume from; `None` if there is none yet."""
        if name is None:
            return None
        existing = self.existing()
        if name != "latest":
            if fault := fault_of(path := Path(name)):
                others = ", ".join(str(p) for p in existing if p != path and not fault_of(p)) or "none"
                raise ValueError(f"{path} is no complete checkpoint: {fault}. Whole ones: {others}.")
            return path
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
    try:
        progress = read_json(path / _PROGRESS_FILE)
        written = progress.pop("sha256") == digest_of(progress)
        changed = [name for name, file in progress["files"].items() if digest_files([path / name]) != file["sha256"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # a missing or damaged file
        return f"it cannot be read ({type(error).__name__}: {error})"
    faulty = changed if written else [_PROGRESS_FILE]
    return f"{faulty[0]} is not what was written (SHA-256)" if faulty else None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the differences of two nested mappings: dotted key -> (old, new), `None` for a missing key."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in differences(before, after).items()}
        elif before != after:
            found[key] = (before, after)
    return found


def _steps_in_name(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _fault_of_writing(action: Callable[..., Any], *arguments: Any) -> str:
    """Run an action that writes to the disk; return why it failed, or an empty string."""
    try:
        action(*arguments)
    # What Python, safetensors and torch (for files of one and of several processes) raise when a disk is full.
    except (OSError, SafetensorError, RuntimeError, CheckpointException) as error:
        return str(error) or type(error).__name__
    return ""


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_finished(recipe: PretrainingRecipe) -> bool:
    """Return whether the directory holds this very run, exported: a cluster may start it again after its end."""
    path = Path(recipe.output_dir, TRAINING_INFO_FILE)
    if recipe.resume_from_checkpoint != "latest" or not path.is_file():
        return False
    info = read_json(path)
    if not recipe.training_settings().items() <= info.get("settings", {}).items():
        return False
    try:
        weights = recipe.database_weights()
        records = {name: (weight, find_database(recipe.data_dir, name).info.content_digest) for name, weight in weights.items()}
        trained_on = {database["name"]: (database["weight"], database["digest"]) for database in info["databases"]}
        return records == trained_on and bool(info["weights"] == weights_digest(recipe.output_dir))
    except FileNotFoundError:  # records or weights are missing, which is reported where they are needed
        return False


def check_directory(recipe: PretrainingRecipe) -> None:
    """Raise `FileExistsError` if a run's directory holds another run, unless this one resumes from it or replaces it."""
    directory, resumed = Path(recipe.output_dir), recipe.resume_from_checkpoint
    if (directory / "metrics.json").is_file():
        raise FileExistsError(f"{directory} holds a classifier and its results: choose another --output_dir for pre-training.")
    check_own(directory, (*_EXPORTED, METRICS_LOG))
    if recipe.overwrite_output_dir:
        return
    if resumed == "latest":
        # A run that was killed before its first checkpoint starts again; a model without checkpoints is not replaced.
        is_free = any(directory.glob("checkpoint-*"))
        left = left_in(directory, ("*.safetensors", TRAINING_INFO_FILE, "config.json"))
        remedy = "it has no checkpoint to go on from: "
    else:
        is_free = resumed is not None and Path(resumed).resolve().parent == directory.resolve()
        left = left_in(directory, (*_EXPORTED, METRICS_LOG, "checkpoint-*", "unfinished-checkpoint-*", "abandoned-checkpoint-*"))
        remedy = "go on with --resume_from_checkpoint latest, "
    if left and not is_free:
        names = ", ".join(str(path.relative_to(directory)) for path in left[:3]) + (", ..." if len(left) > 3 else "")
        remedy += "replace it with --overwrite_output_dir, or choose another --output_dir"
        raise FileExistsError(f"{directory} holds a run ({names}): {remedy}.")


def prepare_directory(recipe: PretrainingRecipe, checkpoints: Checkpoints, start: int) -> None:
    """Write a run's configuration, remove what earlier runs exported or did after step `start`, and bring its log along."""
    directory = Path(recipe.output_dir)
    clear(directory, _EXPORTED[:-1])  # the last one, training_config.yaml, marks the directory as a run's until it is replaced
    if recipe.overwrite_output_dir:
        clear(directory, (METRICS_LOG, "abandoned-checkpoint-*"))
    checkpoints.clear(start, remove=recipe.overwrite_output_dir)
    # Whoever trains with this configuration again means neither this checkpoint nor this directory's old content.
    once = ("resume_from_checkpoint", "allow_changes", "overwrite_output_dir")
    write_yaml(recipe, directory / "training_config.yaml", leave_out=once)
    source = checkpoints.resumed_from and checkpoints.resumed_from.parent / METRICS_LOG
    if source and source.is_file() and not (directory / METRICS_LOG).is_file():
        shutil.copyfile(source, directory / METRICS_LOG)
