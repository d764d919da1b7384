"""The processes of a run: how they start, what each takes, and what the main one does for all of them."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch.nn.parallel import DistributedDataParallel

from .fsdp import check_fulfilled, check_wish

T = TypeVar("T")


def connect_processes() -> PartialState:
    """Let the processes of a training command find each other: on the CPU, too, where that is all there is."""
    return PartialState(cpu=_are_several_on_cpus())


def _are_several_on_cpus() -> bool:
    """Accelerate connects processes on CPUs only if it is told that they are meant: others would each train all of it."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.accelerator.is_available()


def start_accelerator(may_shard: bool = False, **options: Any) -> Accelerator:
    """
    The accelerator of a training command, whose processes have found each other.

    Args:
        may_shard: whether the command can share weights out among processes (FSDP2).
        options: of `Accelerator`.

    Raises:
        ValueError: if a launcher was to start several processes, but this one is alone, or to shard, and that is not done.
    """
    check_wish(may_shard)
    accelerator = Accelerator(cpu=_are_several_on_cpus(), **options)
    check_fulfilled(accelerator)
    return accelerator


def send_no_constants(network: torch.nn.Module) -> None:
    """
    Before a network is prepared for data-parallel training: buffers that no checkpoint holds, such as positions, are constants,
    which the main process need not send to the others at every forward. Others, such as running statistics, it still sends.
    """
    saved = network.state_dict().keys()
    constants = [name for name, _ in network.named_buffers() if name not in saved]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, constants)


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
