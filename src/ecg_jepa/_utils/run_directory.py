"""The folder of a run: one process at a time writes to it, and nothing of another run is left in it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from filelock import FileLock, Timeout

from .processes import on_main_process

LOCK_FILE = ".lock"

# What a saved model consists of, in patterns; what says that it is finished comes first and goes first, and last of all what says
# that it is a run of ours.
MODEL_FILES = (
    *("training_info.json", "README.md", "config.json", "preprocessor_config.json"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *(path.name for path in sorted(Path(__file__).parents[1].glob("*_ecg_jepa.py"))),
    "training_config.yaml",
)

# By which a folder is known to be a run's.
MARKS = ("training_info.json", "training_config.yaml")


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
                f"Another run is writing to {directory}: wait for it, stop it, or choose another --output_dir. (It holds "
                f"{LOCK_FILE} there; on disks without locks, that of a run that died on another machine must be removed by hand.)"
            ) from None

    on_main_process(accelerator, acquire)
    try:
        yield
    finally:
        lock.release()


def left_in(directory: str | Path, patterns: Sequence[str]) -> list[Path]:
    """What a run has left in a folder: everything that fits the patterns, in their order."""
    return list(dict.fromkeys(path for pattern in patterns for path in sorted(Path(directory).glob(pattern))))


def check_own(directory: str | Path, patterns: Sequence[str]) -> None:
    """
    Raise `FileExistsError` if what fits the patterns of a run's files is in a folder of which nothing says that a run of ours
    wrote it: it would be written over.
    """
    if not left_in(directory, MARKS) and (foreign := left_in(directory, patterns)):
        names = ", ".join(path.name for path in foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise FileExistsError(f"{directory} holds files that are no run's ({names}): choose another --output_dir, or move them.")


def clear(directory: str | Path, patterns: Sequence[str]) -> None:
    """Remove what a run has left in a folder, and nothing else."""
    for path in left_in(directory, patterns):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
