"""Weights of which every process holds a part (FSDP2), and what must be done otherwise for them."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from packaging.version import Version
from torch import nn

# Before it, what FSDP finds in the outputs of networks was less, and nobody has tried these runs with it.
_FIRST_TORCH = Version("2.13")


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether networks that are prepared are shared out."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def _is_asked_for() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_wish(may_shard: bool) -> None:
    """
    See what the launcher was told about FSDP, before an accelerator is made.

    Raises:
        ValueError: if the command cannot shard, or for FSDP's first version and versions of torch in which it was not tried.
    """
    if not _is_asked_for():
        return
    if not may_shard:
        raise ValueError("Only pre-training shares weights out among processes: launch this command without FSDP.")
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ValueError(
            f"fsdp_version: {version} is not supported: set 2, as the repository's training/accelerate/fsdp2.yaml does."
        )
    if Version(torch.__version__).release < _FIRST_TORCH.release:  # builds before the release, as in NVIDIA's containers, too
        raise ValueError(f"FSDP needs torch {_FIRST_TORCH} or newer, but this is {torch.__version__}.")


def check_fulfilled(accelerator: Accelerator) -> None:
    """Raise `ValueError` if FSDP was asked for, but Accelerate would train without it."""
    if _is_asked_for() and not is_sharded(accelerator):
        raise ValueError(
            "FSDP was asked for, but on CPUs and in a single process Accelerate trains without it and does not say so: launch "
            "without FSDP, or on several GPUs."
        )


def share_out(accelerator: Accelerator, network: nn.Module, optimizer: torch.optim.Optimizer, methods: list[str]) -> Any:
    """
    Prepare a network whose weights are shared out, and its optimiser.

    Args:
        methods: of the network that are called beside its forward.
    """
    from torch.distributed.fsdp import register_fsdp_forward_method

    # Precision is autocast's, as everywhere; that of FSDP would round norms and losses, too. Accelerate leaves it to FSDP.
    accelerator.state.fsdp_plugin.mixed_precision_policy = None
    network.forward = accelerator.autocast()(network.forward)
    sharded, optimizer = accelerator.prepare(network, optimizer)
    # Else weights that are gathered for a method would stay while the optimiser moves those that they were gathered from.
    sharded.set_reshard_after_forward(True, recurse=False)
    for method in methods:
        register_fsdp_forward_method(sharded, method)
    return sharded, optimizer


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the parts that other processes hold, which must ask for it, too."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
