"""
Records per second of a pre-training step on the CPU in several checkouts of this package, in turn, each measurement in a process
of its own.

    python tests/benchmarks/step_of_commits.py --checkouts BEFORE AFTER [--size xs] [--batch_size 128] [--steps 200]
"""

import inspect
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from ecg_jepa._utils.settings import option, parse_settings, settings


@settings
class Arguments:
    """Arguments of this script."""

    checkouts: list[str] = option(text="folders with src/ecg_jepa")
    size: str = option("xs", "of the model")
    position_encoding: str = option("sinusoidal", "or rotary")
    batch_size: int = option(128, "records")
    mixed_precision: str = option("no", "or bf16")
    num_threads: int = option(2, "of torch")
    steps: int = option(4, "of each process, the first of which is not timed")
    repeats: int = option(3, "processes of each, in turn")


def measure(size, position_encoding, batch_size, mixed_precision, num_threads, steps):  # type: ignore[no-untyped-def]
    """Print seconds and losses of steps; imports what is in its process, whichever commit that is."""
    import json
    import time

    import torch
    from accelerate import Accelerator

    from ecg_jepa._utils import hardware
    from ecg_jepa._utils.optimization import parameter_groups
    from ecg_jepa.pretraining.objective import BatchKey
    from ecg_jepa.pretraining.objectives.jepa import Jepa
    from ecg_jepa.pretraining.recipe import JepaRecipe

    torch.set_num_threads(num_threads)
    accelerator = Accelerator(cpu=True)
    keeps_memory = hasattr(hardware, "keep_memory")
    if keeps_memory:  # with it came the fused optimiser
        hardware.keep_memory(accelerator)
    if hasattr(hardware, "use_faster_products"):
        hardware.use_faster_products()
    torch.manual_seed(0)
    recipe = JepaRecipe(size=size, position_encoding=position_encoding)
    objective = Jepa(recipe.model_config(500), recipe)
    optimizer = torch.optim.AdamW(parameter_groups([objective]), lr=1e-4, **({"fused": True} if keeps_memory else {}))
    signal = torch.randn(batch_size, 12, 5000)
    seconds, losses = [], []
    for step in range(steps):
        drawn = objective.draw(BatchKey(0, step), batch_size)
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed_precision == "bf16"):
            loss = objective(signal, **drawn).loss
        loss.backward()
        optimizer.step()
        objective.after_step(step)
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        losses.append(loss.item())
    print(json.dumps([seconds[1:], losses]))  # the first warms up


def main() -> None:
    """Measure and print."""
    arguments = parse_settings(Arguments)
    names = ("size", "position_encoding", "batch_size", "mixed_precision", "num_threads", "steps")
    values = {name: getattr(arguments, name) for name in names}
    code = f"{inspect.getsource(measure)}\nmeasure(**{values!r})"
    rates: dict[str, list[float]] = {checkout: [] for checkout in arguments.checkouts}
    curves: dict[str, list[float]] = {}
    for _ in range(arguments.repeats):
        for checkout, found in rates.items():
            environment = {**os.environ, "PYTHONPATH": str(Path(checkout, "src").resolve())}
            output = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
            seconds, curves[checkout] = json.loads(output.stdout.splitlines()[-1])
            found.append(arguments.batch_size / statistics.median(seconds))
            print(
                f"{checkout}: {found[-1]:.1f} records/s, loss {curves[checkout][0]:.7f} to {curves[checkout][-1]:.7f}", flush=True
            )
    first, *others = rates.items()
    for checkout, found in others:
        apart = max(abs(a - b) for a, b in zip(curves[first[0]], curves[checkout], strict=True))
        ratio = statistics.median(found) / statistics.median(first[1])
        print(f"{checkout} over {first[0]}: {ratio:.2f}, losses of {arguments.steps} steps differ by at most {apart:.1e}")


if __name__ == "__main__":
    main()
