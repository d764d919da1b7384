"""How many processes there are, what each takes, and what the main one does for all of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


def was_launched() -> bool:
    """Whether `accelerate launch` or `torchrun` started this process."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ or "LOCAL_RANK" in os.environ


def words_of_launcher() -> list[str]:
    """The command line of the process that started this one."""
    return _read_words("cmdline")


def environment_of_launcher() -> dict[str, str]:
    """The environment that the process that started this one was given itself, without what it set since."""
    return dict(word.split("=", 1) for word in _read_words("environ") if "=" in word)


def _read_words(name: str) -> list[str]:
    try:
        return Path("/proc", str(os.getppid()), name).read_bytes().decode(errors="replace").split("\0")
    except OSError:  # on other systems, or somebody else's process
        return []


def check_num_processes(accelerator: Accelerator) -> None:
    """
    Raise `ValueError` if a launcher was asked for several processes, but this one is alone: on CPUs, `accelerate launch` starts
    one whatever `--num_processes` says, and those that `torchrun` starts do not look for each other unless they are told to.
    """
    if accelerator.num_processes > 1 or not was_launched():
        return
    words = " ".join(words_of_launcher()).replace("=", " ").split()
    asked = int(os.environ.get("WORLD_SIZE", 1))
    if "--num_processes" in words[:-1] and (number := words[words.index("--num_processes") + 1]).isdigit():
        asked = max(asked, int(number))
    if asked > 1:
        raise ValueError(
            f"{asked} processes were asked for, but this one is alone, on {accelerator.device}. On CPUs, start several with "
            f"ACCELERATE_USE_CPU=true torchrun --nproc_per_node {asked} training/pretrain.py ..., or leave out --num_processes: "
            "one process uses all cores."
        )


def share_of_batch(batch_size: int, num_processes: int) -> int:
    """How many records of a batch each process takes. Raises `ValueError` if they cannot all take the same number."""
    if batch_size % num_processes:
        raise ValueError(f"batch_size={batch_size} cannot be shared by {num_processes} processes: use a multiple.")
    return batch_size // num_processes


def on_main_process(accelerator: Accelerator | PartialState, action: Callable[[], T]) -> T:
    """
    What an action of the main process returns, on all processes. What it raises is raised on all of them: others would wait for
    ever for one that has found a fault.
    """
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found = [action(), None]
        except Exception as error:  # told to all, and raised below
            found = [None, error]
    result, fault = broadcast_object_list(found)
    if fault is not None:
        raise fault
    return result
