"""Set-up of CPUs (threads, memory, matrix products, attention), choice of precision, and descriptions of the hardware."""

import ctypes
import logging
import os
import platform
import time
from typing import Any

import torch
from accelerate import Accelerator

logger = logging.getLogger(__name__)

# A precision must be faster by this factor: less is not worth its rounding, and may be an accident of the measurement.
_WORTHWHILE = 1.1


def set_up_cpu(accelerator: Accelerator) -> None:
    """Set threads, allocator and matrix products of a process that computes on the CPU, and warn of a slow precision."""
    if accelerator.device.type == "cpu":
        set_threads()
        keep_memory()
        use_faster_matmul()
        warn_of_slow_precision(accelerator.device, accelerator.mixed_precision)


def set_threads() -> None:
    """Use OMP_NUM_THREADS, or else the cores that this process may use, shared with the other processes on the machine."""
    cores, processes = len(os.sched_getaffinity(0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fair = max(1, cores // processes)
    value = os.environ.get("OMP_NUM_THREADS", str(fair))
    first = value.split(",")[0].strip()  # OpenMP takes a list: what follows is for threads within threads
    if not first.isdecimal() or int(first) == 0:
        raise ValueError(f"OMP_NUM_THREADS={value!r} is no number of threads: unset it, or set it to 1 or more.")
    threads = int(first)
    is_launched = "LOCAL_WORLD_SIZE" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ
    each = f" in each of {processes} processes" if processes > 1 else ""
    if threads * processes > cores:
        logger.warning(f"OMP_NUM_THREADS asks for {threads} threads{each}, more than the {cores} cores that they may use.")
    elif threads == 1 < fair and is_launched:
        logger.warning(
            f"OMP_NUM_THREADS=1, which launchers set by default, uses 1 thread{each} and leaves cores idle: set "
            f"OMP_NUM_THREADS={fair}, or --num_cpu_threads_per_process {fair} of accelerate launch."
        )
    torch.set_num_threads(threads)


def keep_memory() -> None:
    """
    Let the allocator keep the memory of tensors on the CPU that are freed. By default glibc returns blocks of more than 32 MB to
    the system at once, and fetches them anew for the next tensor, page by page and cleared: a third of a step's time with batches
    of 128 records. The peak of memory does not change.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if mallopt is not None:
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, -1)  # M_TRIM_THRESHOLD


def use_faster_matmul() -> bool:
    """
    Let oneDNN multiply float32 matrices on the CPU where that is faster than PyTorch's default and as exact; return whether.

    PyTorch's default is MKL, which uses AVX-512 on Intel's CPUs only. On AMD's, oneDNN takes less than half the time
    (BENCHMARKS.md). PyTorch's only switch for it, `fp32_precision = "bf16"`, also allows rounding to bfloat16, which oneDNN does
    in AMX units: CPUs with AMX are left out, and products are checked. A setting of the user stays.
    """
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if setting.fp32_precision == "none" and onednn_is_faster():
        setting.fp32_precision = "bf16"
        if not matmul_is_exact():
            setting.fp32_precision = "none"
    return bool(setting.fp32_precision == "bf16")


def onednn_is_faster() -> bool:
    """Return whether this is an AMD CPU with AVX-512 and without AMX, and PyTorch has both libraries."""
    cpu = torch.cpu.get_capabilities()
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    amx = cpu.get("amx_tile") or cpu.get("amx_bf16")
    return both and bool(cpu.get("avx512_f")) and not amx and "AMD" in cpu.get("cpu_name", "")


def matmul_is_exact() -> bool:
    """Return whether products of a layer, its gradients and attention are exact to float32."""
    generator = torch.Generator().manual_seed(0)
    tokens, weight, queries = (torch.randn(shape, generator=generator) for shape in ((1600, 192), (192, 768), (48, 200, 64)))
    pairs = [(tokens, weight), (tokens.T, tokens), (tokens, weight[:, :192].T), (queries, queries.transpose(1, 2))]
    return all(_is_exact(left, right, left @ right) for left, right in pairs)


def _is_exact(left: torch.Tensor, right: torch.Tensor, product: torch.Tensor) -> bool:
    # Sums of a few hundred products in float32 are exact to 1e-6 of the largest; of numbers rounded to bfloat16, to 1e-3.
    expected = left.double() @ right.double()
    return bool((product - expected).abs().max() <= 1e-5 * expected.abs().max())


def use_faster_attention(model: Any, num_tokens: int, mixed_precision: str | None = None) -> None:
    """
    Let a model of transformers on the CPU compute plain attention where that is faster than PyTorch's fused one.

    It takes half to two thirds of the time (torch 2.13) in bfloat16, and in float32 where oneDNN multiplies, which the fused one
    calls for every small block. An implementation other than transformers' default stays.
    """
    onednn_multiplies = torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]
    is_slow = model.device.type == "cpu" and (mixed_precision == "bf16" or onednn_multiplies)
    fits = num_tokens <= 1024  # the weights of plain attention fit into memory with ease
    if is_slow and fits and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def crops_at_once(device: torch.device) -> int:
    """Return how many crops to encode together by default: on a CPU, what a layer computes for them must fit into its caches."""
    return 16 if device.type == "cpu" else 256


def fastest_precision(device: torch.device) -> str:
    """Return the faster of "bf16" and "no" for training on a device. A CPU is measured for a quarter of a second."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if device.type != "cpu":
        return "no"
    use_faster_matmul()  # as training will
    return "bf16" if _relative_time_of_bf16(rounds=5) * _WORTHWHILE < 1 else "no"


def warn_of_slow_precision(device: torch.device, precision: str) -> None:
    """Warn if `precision` is "bf16" on a CPU on which bfloat16 takes longer than float32, for want of instructions for it."""
    if device.type == "cpu" and precision == "bf16" and (times := _relative_time_of_bf16(rounds=2)) > _WORTHWHILE:
        logger.warning(f"bfloat16 takes {times:.1f} times as long as float32 on this CPU: --mixed_precision no is faster.")


def _relative_time_of_bf16(rounds: int) -> float:
    """Return the least time of a layer in bfloat16 divided by that in float32, measured in turn."""
    times = [(_seconds_of_a_layer(torch.bfloat16), _seconds_of_a_layer(torch.float32)) for _ in range(rounds)]
    half, single = map(min, zip(*times, strict=True))
    return half / single


def _seconds_of_a_layer(dtype: torch.dtype) -> float:
    """Measure forward and backward of a transformer's MLP on the CPU, at the smallest width."""
    layer = torch.nn.Sequential(torch.nn.LayerNorm(192), torch.nn.Linear(192, 768), torch.nn.GELU(), torch.nn.Linear(768, 192))
    tokens = torch.ones(1600, 192)
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        layer(tokens).sum().backward()
    return time.perf_counter() - started


def describe_hardware(accelerator: Accelerator) -> str:
    """Return the devices that a run trains on, for its card."""
    if accelerator.device.type == "cpu":
        return f"CPU, {len(os.sched_getaffinity(0))} cores ({platform.machine()})"
    is_cuda = accelerator.device.type == "cuda"
    name = torch.cuda.get_device_name(accelerator.device) if is_cuda else accelerator.device.type
    return f"{accelerator.num_processes} x {name}"
