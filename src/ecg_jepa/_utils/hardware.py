"""CPU threads of a training process, and what machine it runs on."""

import ctypes
import logging
import os
import platform
import time

import torch
from accelerate import Accelerator

from .matmul import use_faster_products

logger = logging.getLogger(__name__)

THREADS = "OMP_NUM_THREADS"

# A precision that is faster by less than this is not worth its rounding, nor the luck of a measurement.
_WORTHWHILE = 1.1

# mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def set_up_cpu(accelerator: Accelerator) -> None:
    """
    What a command that computes on the CPU does first: [`set_threads`], [`speed_up_cpu`], [`warn_of_slow_precision`].
    """
    set_threads(accelerator)
    speed_up_cpu(accelerator)
    warn_of_slow_precision(accelerator.device, accelerator.mixed_precision)


def speed_up_cpu(accelerator: Accelerator) -> None:
    """[`keep_memory`] and [`use_faster_products`], where the accelerator is the CPU."""
    keep_memory(accelerator)
    if accelerator.device.type == "cpu":
        use_faster_products()


def set_threads(accelerator: Accelerator) -> None:
    """
    Use as many CPU threads as the user says, or else the cores that this process may use, shared with the other processes on the
    machine. Nothing is changed where training is not on the CPU.

    The user's word is OMP_NUM_THREADS, or `--num_cpu_threads_per_process` of `accelerate launch`. What launchers set unasked,
    mostly 1, which leaves all cores but one idle, is not.

    Raises:
        ValueError: if OMP_NUM_THREADS is no number of threads.
    """
    if accelerator.device.type != "cpu":
        return
    cores = len(os.sched_getaffinity(0))
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    threads = threads_asked_for()
    if threads is None:
        threads = max(1, cores // processes)
    elif threads * processes > cores:
        each = f" in each of {processes} processes" if processes > 1 else ""
        logger.warning(f"{THREADS} asks for {threads} threads{each}, more than the {cores} cores that they may use.")
    torch.set_num_threads(threads)


def threads_asked_for() -> int | None:
    """
    How many threads the user wants in each process; `None` if nothing was said.

    Raises:
        ValueError: if OMP_NUM_THREADS is no number of threads.
    """
    value = os.environ.get(THREADS)
    if value is None:
        return None
    first = value.split(",")[0].strip()  # OpenMP takes a list: what follows is for threads within threads
    if not first.isdecimal() or int(first) == 0:
        raise ValueError(f"{THREADS}={value!r} is no number of threads: unset it, or set it to 1 or more.")
    return int(first)


def describe_hardware(accelerator: Accelerator) -> str:
    """The devices that a run trains on, for its card."""
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} x {torch.cuda.get_device_name(accelerator.device)}"
    if accelerator.device.type == "cpu":
        return f"CPU, {len(os.sched_getaffinity(0))} cores ({platform.machine()})"
    return f"{accelerator.num_processes} x {accelerator.device.type}"


def keep_memory(accelerator: Accelerator) -> None:
    """
    Have the allocator keep the memory that tensors on the CPU let go of.

    By default glibc gives blocks of more than 32 MB back to the system at once, and gets them anew for the next tensor, page by
    page, each of them cleared first: a third of a step's time with batches of 128 records. How much a process needs at most does
    not change, only that it holds on to it.
    """
    if accelerator.device.type == "cpu":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other libraries of C have none, and do not need it
        # From the heap up to 1 GB, and never trimmed.
        if mallopt is not None and not (mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, -1)):
            logger.debug("The allocator gives memory back at once, which costs time.")


def crops_at_once(device: torch.device) -> int:
    """How many crops are encoded together where nobody says: on a CPU so few that what a layer computes stays in its caches."""
    return 16 if device.type == "cpu" else 256


def fastest_precision(device: torch.device) -> str:
    """
    The faster of "bf16" and "no" for training on a device: GPUs say whether they have the former; a CPU is measured for a quarter
    of a second, since without instructions for it, it takes much longer than float32.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if device.type != "cpu":
        return "no"
    use_faster_products()  # as training will
    half, single = _seconds_of_both(rounds=5)
    return "bf16" if half * _WORTHWHILE < single else "no"


def warn_of_slow_precision(device: torch.device, precision: str) -> None:
    """Tell who asks for bfloat16 ("bf16") on a CPU without instructions for it what that costs."""
    if device.type == "cpu" and precision == "bf16":
        half, single = _seconds_of_both(rounds=2)
        if half > single * _WORTHWHILE:
            logger.warning(
                f"bfloat16 takes {half / single:.1f} times as long as float32 on this CPU: --mixed_precision no is faster."
            )


def _seconds_of_both(rounds: int) -> tuple[float, float]:
    """The least time of a layer in bfloat16 and in float32, measured in turn."""
    times = [(_seconds_of_a_layer(torch.bfloat16), _seconds_of_a_layer(torch.float32)) for _ in range(rounds)]
    half, single = map(min, zip(*times, strict=True))
    return half, single


def _seconds_of_a_layer(dtype: torch.dtype) -> float:
    """Forward and backward of what most of a transformer's time goes to, at the width of the smallest, on the CPU."""
    layer = torch.nn.Sequential(torch.nn.LayerNorm(192), torch.nn.Linear(192, 768), torch.nn.GELU(), torch.nn.Linear(768, 192))
    tokens = torch.ones(1600, 192)
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        layer(tokens).sum().backward()
    return time.perf_counter() - started
