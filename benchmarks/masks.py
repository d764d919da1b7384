"""
Measure the time per block mask: a batch at once, as in training, against one record after the other in plain Python.

    python benchmarks/masks.py [--batch_size 2048] [--num_threads 1]
"""

import random
import statistics
import time

import torch

from ecg_jepa._utils.hardware import keep_memory
from ecg_jepa._utils.settings import option, parse_settings, settings
from ecg_jepa.pretraining.masking import draw_block_masks, draw_num_context
from ecg_jepa.pretraining.objective import BatchKey
from ecg_jepa.pretraining.objectives.jepa import JepaRecipe


@settings
class Arguments:
    """Arguments of this script."""

    batch_size: int = option(2048, "masks of a batch")
    num_patches: int = option(200, "of a record")
    num_threads: int = option(1, "of torch")
    repeats: int = option(7, "measurements of each, in turn")


def mask_of_one(num_patches: int, num_context: int, min_block_size: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """Return a mask of the same distribution as `sample_block_masks`, in plain Python."""
    visible = [(0, num_patches)]
    to_hide = num_patches - num_context
    while to_hide:
        number = rng.choices(range(len(visible)), [end - start for start, end in visible])[0]
        start, end = visible.pop(number)
        block, offset = to_hide, None
        if to_hide >= min_block_size:
            block = rng.randint(min_block_size, to_hide)
        else:
            ends = [0] * (start > 0) + [end - start - block] * (end < num_patches)
            offset = max(0, rng.choice(ends)) if ends else None
        block = min(block, end - start)
        first = start + (rng.randint(0, end - start - block) if offset is None else offset)
        visible += [part for part in ((start, first), (first + block, end)) if part[0] < part[1]]
        to_hide -= block
    seen = sorted(index for start, end in visible for index in range(start, end))
    return seen, sorted(set(range(num_patches)) - set(seen))


def one_after_the_other(index: int, recipe: JepaRecipe, arguments: Arguments) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the masks of a batch, one record after the other."""
    rng = random.Random(index)
    kept = draw_num_context(arguments.num_patches, recipe.min_keep_ratio, recipe.max_keep_ratio, BatchKey(0, index).generator())
    masks = [mask_of_one(arguments.num_patches, kept, recipe.min_block_size, rng) for _ in range(arguments.batch_size)]
    context, target = zip(*masks, strict=True)
    return torch.tensor(context), torch.tensor(target)


def main() -> None:
    """Measure and print."""
    arguments = parse_settings(Arguments)
    torch.set_num_threads(arguments.num_threads)
    keep_memory()  # as in training
    recipe = JepaRecipe()
    kinds = {
        "at once": lambda i: draw_block_masks(BatchKey(0, i), recipe, arguments.num_patches, arguments.batch_size),
        "one after the other": lambda i: one_after_the_other(i, recipe, arguments),
    }
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(arguments.repeats + 1):
        for name, draw in kinds.items():
            started = time.perf_counter()
            draw(turn)
            if turn:  # the first warms up
                taken[name].append(1e6 * (time.perf_counter() - started) / arguments.batch_size)
    for name, values in taken.items():
        print(f"{name}: {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) microseconds per record")
    ratios = sorted(b / a for a, b in zip(*taken.values(), strict=True))
    print(f"ratio: {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})")


if __name__ == "__main__":
    main()
