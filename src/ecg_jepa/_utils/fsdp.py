"""Weights that are sharded over processes (FSDP2)."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from packaging.version import Version
from torch import nn

# Earlier versions found fewer tensors in the outputs of networks, and are untested.
_FIRST_TORCH = Version("2.13")


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether prepared networks are sharded."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def is_requested() -> bool:
    """Return whether the launcher was asked for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_request(may_shard: bool) -> None:
    """Raise `ValueError` if the command cannot shard, for FSDP's first version, and for versions of torch that are untested."""
    if not may_shard:
        raise ValueError("Only pre-training shares weights out among processes: launch this command without FSDP.")
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ValueError(
            f"fsdp_version: {version} is not supported: set 2, as the repository's training/accelerate/fsdp2.yaml does."
        )
    if Version(torch.__version__).release < _FIRST_TORCH.release:  # allows builds before the release, as in NVIDIA's containers
        raise ValueError(f"FSDP needs torch {_FIRST_TORCH} or newer, but this is {torch.__version__}.")


def shard(accelerator: Accelerator, network: nn.Module, optimizer: torch.optim.Optimizer, methods: list[str]) -> Any:
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


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the shards of all processes, which must all call this."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
