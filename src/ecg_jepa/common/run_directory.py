"""The folder of a run: one process at a time writes to it, and nothing of another run is left in it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from filelock import FileLock, Timeout

from .processes import on_main_process

LOCK_FILE = ".lock"

# What a saved model consists of, in patterns; what says that it is finished comes first, and goes first.
MODEL_FILES = (
    *("training_info.json", "README.md", "training_config.yaml", "config.json", "preprocessor_config.json"),
    *("*.safetensors", "*.safetensors.index.json", "*_ecg_jepa.py"),
)


@contextmanager
def own_directory(directory: str | Path, accelerator: Accelerator) -> Iterator[None]:
    """
    Make a folder and keep other runs out of it until this one ends; the system lets go of the lock when its process dies.

    Args:
        directory: of the run.
        accelerator: of the run, whose main process holds the lock for all of them.

    Raises:
        BlockingIOError: if another run writes to it.
        OSError: if it cannot be written to.
    """
    lock = FileLock(Path(directory, LOCK_FILE), blocking=False)

    def acquire() -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"Another run is writing to {directory}: wait for it, stop it, or choose another --output_dir."
            ) from None

    on_main_process(accelerator, acquire)
    try:
        yield
    finally:
        lock.release()


def left_in(directory: str | Path, patterns: Sequence[str]) -> list[Path]:
    """What a run has left in a folder: everything that fits the patterns, in their order."""
    return list(dict.fromkeys(path for pattern in patterns for path in sorted(Path(directory).glob(pattern))))


def clear(directory: str | Path, patterns: Sequence[str]) -> None:
    """Remove what a run has left in a folder, and nothing else."""
    for path in left_in(directory, patterns):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
