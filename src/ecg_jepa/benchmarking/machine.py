"""The machine that something is measured on: what it is, how fast it multiplies matrices, how much memory a process took."""

import datetime
import os
import platform
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..common.hardware import describe_hardware, set_threads
from ..common.products import onednn_multiplies

# What decides how fast a CPU multiplies matrices, in the words of /proc/cpuinfo.
_TOLD_OF_CPUS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")

# Rows of square matrices: the largest take a fraction of a second.
_SIZES = {"cuda": (4096, 8192, 16384)}
_SIZES_OF_OTHERS = (512, 1024, 2048)

_SECONDS = 0.2  # of products of one size, at least

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16}  # by `mixed_precision`


def describe_machine(accelerator: Accelerator) -> dict[str, Any]:
    """What whoever reads figures has to know of the machine that they are from, as plain values."""
    cpu = _cpu_info()
    return {
        "hardware": describe_hardware(accelerator),
        "device": accelerator.device.type,
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cpu_features": [name for name in _TOLD_OF_CPUS if name in cpu.get("flags", cpu.get("Features", "")).split()],
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],  # before anything is measured: of what else runs here
        "float32_products": "oneDNN" if onednn_multiplies() else "as PyTorch does by itself",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "system": platform.platform(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _cpu_info() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    text = path.read_text().partition("\n\n")[0] if path.is_file() else ""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def take_threads(accelerator: Accelerator, num_threads: int | None) -> None:
    """Use so many threads of the CPU; `None`: as many as a training command would."""
    set_threads(accelerator)
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def matmul_rates(device: torch.device, precision: str, sizes: Sequence[int] = ()) -> dict[int, float]:
    """
    How fast square matrices are multiplied: rows -> GFLOP/s, of the fastest product.

    Args:
        device: to compute on.
        precision: `"no"` for float32, or `"bf16"`.
        sizes: rows; default: some that suit the device.
    """
    rates = {}
    for size in sizes or _SIZES.get(device.type, _SIZES_OF_OTHERS):
        left, right = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
        left @ right  # the first of its kind chooses how it is computed
        synchronize(device)
        fastest, begun = float("inf"), time.perf_counter()
        while time.perf_counter() - begun < _SECONDS:
            started = time.perf_counter()
            left @ right
            synchronize(device)
            fastest = min(fastest, time.perf_counter() - started)
        rates[size] = 2 * size**3 / fastest / 1e9
        del left, right
    release(device)
    return rates


def synchronize(device: torch.device) -> None:
    """Wait for what a device was asked to do; a CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give the memory of a GPU back that PyTorch keeps for what comes next: the turn is another process's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU since the process began, or of the process itself on a CPU, at most at any time."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # The same as ru_maxrss of this program alone: that one counts what the process was before it became this program, too.
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
