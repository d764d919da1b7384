"""What the main process does for all of them."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


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
