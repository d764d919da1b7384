"""
Measure a pre-training step: records/s, the share of each of its parts, and GFLOP/s against a matrix product of this machine.

    python benchmarks/step.py --config vit_xs_ptbxl --batch_size 32 --mixed_precision bf16 --data_dir PREPARED
    python benchmarks/step.py --config demo

Takes all settings of `ecg-jepa pretrain`, and the number of --steps. Without prepared databases, use
`--synthetic_records 200 --databases synthetic=1.0`.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile, record_function

from ecg_jepa._utils.hardware import describe_hardware, fastest_precision, set_up_cpu
from ecg_jepa._utils.optimization import gradient_norm, set_schedules
from ecg_jepa._utils.settings import check_at_least, option, parse_settings, settings
from ecg_jepa.cli.pretrain import make_synthetic_database
from ecg_jepa.data.corpus import CorpusBatch
from ecg_jepa.pretraining.objective import BatchKey
from ecg_jepa.pretraining.objectives import recipe_class
from ecg_jepa.pretraining.pretraining_loop import PretrainingRun, prepare

PARTS = ("loader", "masks and normalisation", "forward", "backward", "gradient norm", "optimiser", "EMA")
WARM_UP = 3  # steps
OPERATIONS = 10  # in the second table


def settings_class(values: Mapping[str, Any]) -> type:
    """Return the recipe of the objective that the settings name, with the number of steps."""

    @settings
    class StepSettings(recipe_class(values)):  # type: ignore[misc]
        """Settings of pre-training and of this script."""

        steps: int = option(10, "that are measured")

        def __post_init__(self) -> None:
            super().__post_init__()
            check_at_least(self, 1, "steps", "max_steps")

    return StepSettings


class Step:
    """A run of pre-training whose steps are taken one by one, each as in `pretraining_loop.train` but for its log."""

    def __init__(self, recipe: Any, accelerator: Accelerator):
        self.recipe, self.accelerator = recipe, accelerator
        self.run = PretrainingRun(recipe, accelerator)
        self.network, self.optimizer = prepare(recipe, accelerator, self.run.objective)
        self.network.train()
        self.batches: Iterator[CorpusBatch] = self.run.corpus.batches()

    def __call__(self, step: int, part: Callable[[str], Any] = contextlib.nullcontext) -> None:
        """Take a step of one batch; `part(name)` is a context around each part."""
        set_schedules(self.optimizer, self.recipe.learning_rate_at(step), self.recipe.weight_decay_at(step))
        with part("loader"):
            batch = next(self.batches)
        with part("masks and normalisation"):
            inputs = self.run.inputs(batch, BatchKey(self.recipe.seed, step))
        with part("forward"):
            output = self.network(**inputs)
        with part("backward"):
            self.accelerator.backward(output.loss)
        with part("gradient norm"):
            gradient_norm(self.accelerator, self.network, self.recipe.max_grad_norm)
        with part("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        with part("EMA"):
            self.run.objective.after_step(step)

    def synchronize(self) -> None:
        """Wait for the GPU, if there is one."""
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    @contextlib.contextmanager
    def profiled_part(self, name: str) -> Iterator[None]:
        """Mark a part for the profiler, including what the GPU still does for it."""
        with record_function(name):
            yield
            self.synchronize()


def matmul_rate(step: Step) -> float:
    """Return the GFLOP/s of the fastest product of square matrices in the precision of the run."""
    device = step.accelerator.device
    dtype = torch.bfloat16 if step.recipe.mixed_precision == "bf16" else torch.float32
    best = 0.0
    for size in (4096, 8192) if device.type == "cuda" else (512, 1024, 2048):
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        for _ in range(10):
            started = time.perf_counter()
            left @ right
            step.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    return best


def main() -> None:
    """Measure and print."""
    recipe: Any = parse_settings(settings_class, description=__doc__)
    if recipe.mixed_precision == "auto":
        recipe = dataclasses.replace(recipe, mixed_precision=fastest_precision(Accelerator().device))
    accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
    set_seed(recipe.seed)
    set_up_cpu(accelerator)
    make_synthetic_database(recipe)
    step = Step(recipe, accelerator)
    for number in range(WARM_UP):
        step(number)
    step.synchronize()
    started = time.perf_counter()
    for number in range(WARM_UP, WARM_UP + recipe.steps):
        step(number)
    step.synchronize()
    rate = recipe.steps * recipe.batch_size / (time.perf_counter() - started)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as found:
        for number in range(recipe.steps):
            step(number, step.profiled_part)
    events = {event.key: event for event in found.key_averages()}
    seconds = {name: events[name].cpu_time_total / 1e6 / recipe.steps for name in PARTS}
    product, own = matmul_rate(step), rate * step.run.gflop_per_record
    print(
        f"{recipe.objective}, {step.run.objective.encoder.num_parameters():,} parameters, batches of {recipe.batch_size}, "
        f"{recipe.mixed_precision}; {describe_hardware(accelerator)}, {torch.get_num_threads()} threads\n"
        f"{rate:.1f} records/s, {own:.0f} GFLOP/s, {own / product:.2f} of the fastest matrix product ({product:.0f} GFLOP/s)\n"
    )
    rows = [[name, f"{1e3 * value:.1f}", f"{value / sum(seconds.values()):.1%}"] for name, value in seconds.items()]
    print(tabulate(rows, ["part", "ms a step", "share"], "github", disable_numparse=True), end="\n\n")
    kind = "self_device_time_total" if accelerator.device.type == "cuda" else "self_cpu_time_total"
    operations = sorted((e for e in events.values() if e.key not in PARTS), key=lambda event: -getattr(event, kind))
    total = sum(getattr(event, kind) for event in operations)
    top = [[e.key, e.count, f"{getattr(e, kind) / total:.1%}"] for e in operations[:OPERATIONS]]
    print(tabulate(top, ["operation", "calls", "share"], "github", disable_numparse=True))


if __name__ == "__main__":
    main()
