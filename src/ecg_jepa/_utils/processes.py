"""The processes of a run: how they connect, share a batch, and act on the result of the main one."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch.nn.parallel import DistributedDataParallel

from . import fsdp

T = TypeVar("T")


def connect_processes() -> PartialState:
    """Connect the processes of a training command."""
    return PartialState(cpu=_are_several_on_cpus())


def _are_several_on_cpus() -> bool:
    """Return whether to tell Accelerate to use CPUs: it connects processes on CPUs only if asked for them."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.accelerator.is_available()


def start_accelerator(may_shard: bool = False, **options: Any) -> Accelerator:
    """
    Return the accelerator of a training command and connect its processes.

    Args:
        may_shard: whether the command can shard weights (FSDP2).
        options: of `Accelerator`.

    Raises:
        ValueError: if the launcher was asked for FSDP, and the command or this machine cannot do it.
    """
    if fsdp.is_requested():
        fsdp.check_request(may_shard)
    accelerator = Accelerator(cpu=_are_several_on_cpus(), **options)
    if fsdp.is_requested() and not fsdp.is_sharded(accelerator):
        raise ValueError(
            "FSDP was asked for, but on CPUs and in a single process Accelerate trains without it and does not say so: launch "
            "without FSDP, or on several GPUs."
        )
    return accelerator


def send_no_constants(network: torch.nn.Module) -> None:
    """Let data-parallel training not broadcast constants (buffers that no checkpoint holds, such as positions) at every step."""
    saved = network.state_dict().keys()
    constants = [name for name, _ in network.named_buffers() if name not in saved]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, constants)


def share_of_batch(batch_size: int, num_processes: int) -> int:
    """Return how many records of a batch each process takes. Raises `ValueError` if they cannot all take the same number."""
    if batch_size % num_processes:
        raise ValueError(f"batch_size={batch_size} cannot be shared by {num_processes} processes: use a multiple.")
    return batch_size // num_processes


def on_main_process(accelerator: Accelerator | PartialState, action: Callable[[], T]) -> T:
    """Run an action on the main process, and return its result, or raise its exception, on all processes."""
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found = [action(), None]
        except Exception as error:  # sent to all, which would wait for ever, and raised below
            found = [None, error]
    result, fault = broadcast_object_list(found)
    if fault is not None:
        raise fault
    return result
