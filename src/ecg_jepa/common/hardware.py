"""CPU threads of a training process, and what machine it runs on."""

import os
import platform

import torch
from accelerate import Accelerator


def use_all_cores(accelerator: Accelerator) -> None:
    """
    Share the machine's cores among its processes when training on the CPU.

    `accelerate launch` sets OMP_NUM_THREADS to 1 unless told otherwise, which leaves all cores but one idle.
    """
    if accelerator.device.type == "cpu":
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))


def describe_hardware(accelerator: Accelerator) -> str:
    """The devices that a run trains on, for its card."""
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} x {torch.cuda.get_device_name(accelerator.device)}"
    if accelerator.device.type == "cpu":
        return f"CPU, {len(os.sched_getaffinity(0))} cores ({platform.machine()})"
    return f"{accelerator.num_processes} x {accelerator.device.type}"
