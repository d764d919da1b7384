"""Resumable state of a run: `checkpoint-<step>` folders that are complete or absent."""

import json
import logging
import re
import shutil
from pathlib import Path

from accelerate import Accelerator

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")
_PROGRESS_FILE = "progress.json"


class Checkpoints:
    """
    Saves and restores what was given to `accelerator.prepare`, random states and the number of steps done.

    Args:
        accelerator: of the run.
        output_dir: where the `checkpoint-<step>` folders are.
        keep: how many to keep.
    """

    def __init__(self, accelerator: Accelerator, output_dir: Path, keep: int):
        self.accelerator = accelerator
        self.output_dir = output_dir
        self.keep = keep

    def save(self, steps_done: int) -> None:
        """Write `checkpoint-<steps_done>`; it gets its name only when it is complete, so a kill leaves no half of one."""
        unfinished = self.output_dir / f"unfinished-checkpoint-{steps_done}"
        if self.accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(unfinished))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (unfinished / _PROGRESS_FILE).write_text(json.dumps({"steps_done": steps_done}) + "\n")
            final = self.output_dir / f"checkpoint-{steps_done}"
            shutil.rmtree(final, ignore_errors=True)
            unfinished.rename(final)
            for outdated in self.existing()[: -self.keep]:
                shutil.rmtree(outdated)
        self.accelerator.wait_for_everyone()

    def existing(self) -> list[Path]:
        """Checkpoint folders, from the fewest steps to the most."""
        found = [(int(match[1]), path) for path in self.output_dir.glob("*") if (match := _NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def restore(self, name: str | None) -> int:
        """
        Restore `"latest"` or the folder of that path, and return the number of steps done; 0 for `None`, and for `"latest"`
        where there is none yet.

        Raises:
            FileNotFoundError: if the folder is no complete checkpoint.
            ValueError: if it is of another model.
        """
        if name is None:
            return 0
        if name == "latest":
            existing = self.existing()
            if not existing:
                logger.info(f"No checkpoint in {self.output_dir} yet: starting from the beginning.")
                return 0
            path = existing[-1]
        else:
            path = Path(name)
        if not (path / _PROGRESS_FILE).is_file():
            available = ", ".join(str(p) for p in self.existing()) or "none"
            raise FileNotFoundError(f"{path} is no complete checkpoint (no {_PROGRESS_FILE}); available: {available}.")
        try:
            self.accelerator.load_state(str(path))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} does not fit this run, whose model or optimiser is another: {reason}") from error
        steps_done = int(json.loads((path / _PROGRESS_FILE).read_text())["steps_done"])
        logger.info(f"Resumed from {path} after {steps_done} steps.")
        return steps_done
