"""
Records per second of a pre-training step on the CPU, and what plain attention saves in bfloat16: all in turn.

    python tests/benchmarks/pretraining_step.py [--size xs] [--patch_sizes 5 10 20] [--position_encoding rotary] [--num_threads 1]
"""

import statistics
import time
from unittest.mock import patch

import torch

from ecg_jepa import modeling_ecg_jepa
from ecg_jepa._utils.settings import option, parse_settings, settings
from ecg_jepa.pretraining.objective import BatchKey
from ecg_jepa.pretraining.objectives.jepa import Jepa
from ecg_jepa.pretraining.recipe import JepaRecipe


@settings
class Arguments:
    """Arguments of this script."""

    size: str = option("xs", "of the model")
    position_encoding: str = option("sinusoidal", "or rotary")
    patch_sizes: list[int] = option([5, 10, 20], "samples per patch, of 1,000 at 100 Hz")
    batch_size: int = option(64, "records")
    num_threads: int = option(1, "of torch")
    repeats: int = option(5, "measurements of each, in turn")


def measure(step, plain: bool) -> float:
    """Seconds of a step, with plain attention or PyTorch's fused one."""
    with patch.object(modeling_ecg_jepa, "PLAIN_ATTENTION_TOKENS", modeling_ecg_jepa.PLAIN_ATTENTION_TOKENS if plain else 0):
        started = time.perf_counter()
        step()
        return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    arguments = parse_settings(Arguments)
    torch.set_num_threads(arguments.num_threads)
    for patch_size in arguments.patch_sizes:
        shape = {"size": arguments.size, "patch_size": patch_size, "position_encoding": arguments.position_encoding}
        recipe = JepaRecipe(**shape, min_block_size=max(2, 50 // patch_size))
        objective = Jepa(recipe.model_config(100), recipe)
        optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-4)
        signal = torch.randn(arguments.batch_size, 12, 1000)

        def step(precision: bool = True, objective=objective, optimizer=optimizer, signal=signal) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision):
                loss = objective(signal, **objective.draw(BatchKey(0, 0), len(signal))).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        kinds = {
            "float32": lambda step=step: measure(lambda: step(False), False),
            "bfloat16, fused attention": lambda step=step: measure(step, False),
            "bfloat16, plain attention": lambda step=step: measure(step, True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(arguments.repeats + 1):
            for name, timed in kinds.items():
                taken = timed()
                if turn:  # the first warms up
                    seconds[name].append(taken)
        rates = {name: sorted(arguments.batch_size / value for value in values) for name, values in seconds.items()}
        shown = "; ".join(f"{n} {statistics.median(r):.1f} ({r[0]:.1f} to {r[-1]:.1f})" for n, r in rates.items())
        print(f"{1000 // patch_size} patches, records/s: {shown}")


if __name__ == "__main__":
    main()
