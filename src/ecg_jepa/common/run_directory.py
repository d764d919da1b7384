"""The folder of a run: one process at a time writes to it, and nothing of another run is left in it."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"

# What a saved model consists of, in patterns.
MODEL_FILES = (
    *("README.md", "training_config.yaml", "training_info.json", "config.json", "preprocessor_config.json"),
    *("*.safetensors", "*.safetensors.index.json", "*_ecg_jepa.py"),
)


@contextmanager
def own_directory(directory: str | Path, wanted: bool = True) -> Iterator[None]:
    """
    Make a folder and keep other runs out of it until this one ends; the system lets go of the lock when its process dies.

    Args:
        directory: of the run.
        wanted: False does nothing, for processes other than the main one.

    Raises:
        BlockingIOError: if another run writes to it.
        OSError: if it cannot be written to.
    """
    if not wanted:
        yield
        return
    Path(directory).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(directory, LOCK_FILE), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(
            f"Another run is writing to {directory}: wait for it, stop it, or choose another --output_dir."
        ) from None
    try:
        yield
    finally:
        lock.release()


def left_in(directory: str | Path, patterns: Sequence[str]) -> list[Path]:
    """What a run has left in a folder: everything that fits the patterns."""
    return sorted({path for pattern in patterns for path in Path(directory).glob(pattern)})


def clear(directory: str | Path, patterns: Sequence[str]) -> None:
    """Remove what a run has left in a folder, and nothing else."""
    for path in left_in(directory, patterns):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
