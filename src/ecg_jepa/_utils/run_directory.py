"""The folder of a run: one process at a time writes to it, and files of another run are removed from it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from filelock import FileLock, Timeout

from .files import TRAINING_INFO_FILE
from .processes import on_main_process

LOCK_FILE = ".lock"

# Patterns of a saved model's files. Removed in this order: first what marks it as finished, last what marks it as a run of ours.
MODEL_FILES = (
    *(TRAINING_INFO_FILE, "README.md", "config.json", "preprocessor_config.json"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *(path.name for path in sorted(Path(__file__).parents[1].glob("model/*_ecg_jepa.py"))),
    "training_config.yaml",
)


@contextmanager
def own_directory(directory: str | Path, accelerator: Accelerator | None = None, timeout: float = 0.0) -> Iterator[None]:
    """
    Make a folder and lock other runs out of it, after up to `timeout` s; the system releases the lock of a process that dies. The
    main process of an accelerator holds it for all. Raises `BlockingIOError` if another run writes to it.
    """
    lock = FileLock(Path(directory, LOCK_FILE), timeout=timeout)

    def acquire() -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            exception = f"On disks without locks, {LOCK_FILE} of a run that died on another machine must be removed by hand."
            advice = "wait for it, stop it, or choose another --output_dir"
            raise BlockingIOError(f"Another run is writing to {directory}: {advice}. ({exception})") from None

    acquire() if accelerator is None else on_main_process(accelerator, acquire)
    try:
        yield
    finally:
        lock.release()


def left_in(directory: str | Path, patterns: Sequence[str]) -> list[Path]:
    """Return everything in a folder that fits the patterns, in their order."""
    return list(dict.fromkeys(path for pattern in patterns for path in sorted(Path(directory).glob(pattern))))


def check_own(directory: str | Path, patterns: Sequence[str]) -> None:
    """Raise `FileExistsError` if a folder holds files that fit the patterns of a run's, but no mark of a run: whose are they?"""
    if not left_in(directory, (TRAINING_INFO_FILE, "training_config.yaml")) and (foreign := left_in(directory, patterns)):
        names = ", ".join(path.name for path in foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise FileExistsError(f"{directory} holds files that are no run's ({names}): choose another --output_dir, or move them.")


def clear(directory: str | Path, patterns: Sequence[str]) -> None:
    """Remove what fits the patterns from a folder, and nothing else."""
    for path in left_in(directory, patterns):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
