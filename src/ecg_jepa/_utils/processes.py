"""The processes of a run: how they connect, share a batch or weights (FSDP2), act on the main one's result, and stop."""

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from packaging.version import Version
from torch.nn.parallel import DistributedDataParallel

logger = logging.getLogger(__name__)

T = TypeVar("T")

# FSDP of earlier versions found fewer tensors in the outputs of networks, and is untested.
_FIRST_TORCH = Version("2.13")

# SIGTERM: sent by kill, systemd, Kubernetes, SLURM; SIGUSR1: SLURM's usual warning before the time is over; SIGINT: Ctrl-C.
_STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def are_several_on_cpus() -> bool:
    """Return whether to tell Accelerate to use CPUs: it connects processes on CPUs only if asked for them."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.accelerator.is_available()


def start_accelerator(may_shard: bool = False, **options: Any) -> Accelerator:
    """
    Return the accelerator of a training command and connect its processes, which end with their launcher. Raises `ValueError` if
    the launcher was asked for FSDP, and the command (unless it `may_shard`) or this machine cannot do it.
    """
    # Launchers, and benchmarks/compare.py, leave at least one of these in the environment of what they start.
    launched = any(name in os.environ for name in ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", "ECG_JEPA_STARTED"))
    if launched and ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM) != 0:  # PR_SET_PDEATHSIG
        logger.warning("This process will not notice if its launcher dies: stop it by hand then.")
    requested = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    version = os.environ.get("FSDP_VERSION", "1")
    if requested and not may_shard:
        raise ValueError("Only pre-training shares weights out among processes: launch this command without FSDP.")
    if requested and version != "2":
        raise ValueError(f"fsdp_version: {version} is not supported: set 2, as training/accelerate/fsdp2.yaml does.")
    if requested and Version(torch.__version__).release < _FIRST_TORCH.release:  # allows builds before the release (NVIDIA's)
        raise ValueError(f"FSDP needs torch {_FIRST_TORCH} or newer, but this is {torch.__version__}.")
    accelerator = Accelerator(cpu=are_several_on_cpus(), **options)
    if requested and not is_sharded(accelerator):
        silent = "on CPUs and in a single process Accelerate trains without it and does not say so"
        raise ValueError(f"FSDP was asked for, but {silent}: launch without FSDP, or on several GPUs.")
    return accelerator


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether prepared networks are sharded."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def shard(accelerator: Accelerator, network: torch.nn.Module, optimizer: torch.optim.Optimizer, methods: list[str]) -> Any:
    """Prepare a network with sharded weights, and its optimiser; `methods` of the network are called beside its forward."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    # Precision is autocast's, as everywhere; FSDP's own would round norms and losses, too, and Accelerate leaves it to FSDP.
    accelerator.state.fsdp_plugin.mixed_precision_policy = None
    network.forward = accelerator.autocast()(network.forward)
    sharded, optimizer = accelerator.prepare(network, optimizer)
    # Otherwise weights that are gathered for a method would go stale when the optimiser updates the shards.
    sharded.set_reshard_after_forward(True, recurse=False)
    for method in methods:
        register_fsdp_forward_method(sharded, method)
    return sharded, optimizer


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


class StopSignals:
    """A context in which signals that ask a process to stop are noted instead of ending it at once; a second SIGINT ends it."""

    def __init__(self, accelerator: Accelerator):
        self.received = 0
        self._before: dict[int, Any] = {}
        # On the CPU, so that asking does not wait for a GPU.
        self._group = torch.distributed.new_group(backend="gloo") if accelerator.num_processes > 1 else None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # Python handles signals there only
            self._before = {number: signal.signal(number, self._receive) for number in _STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: Any) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def agreed(self) -> int:
        """Return the signal that this or another process has received, the same on all of them; 0 for none."""
        if self._group is None:
            return self.received
        number = torch.tensor(self.received)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(number.item())
