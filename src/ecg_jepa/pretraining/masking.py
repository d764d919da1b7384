"""Block masks: which patches the context encoder sees, and which ones are predicted."""

import math

import numpy as np
import torch

from .._utils.settings import check_at_least, option, settings
from .objective import BatchKey
from .recipe import PretrainingRecipe


@settings
class BlockMaskRecipe(PretrainingRecipe):
    """Settings of objectives that hide blocks of patches, as the paper's does."""

    min_keep_ratio: float = option(0.15, "smallest share of visible patches")
    max_keep_ratio: float = option(0.25, "largest share of visible patches")
    min_block_size: int = option(10, "shortest hidden block, in patches")
    uniform_mask_positions: bool = option(False, "hide all positions equally often, unlike the paper")

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.min_keep_ratio, self.max_keep_ratio
        if not 0 < low <= high < 1:
            raise ValueError(f"min_keep_ratio={low} must be no larger than max_keep_ratio={high}, and both lie between 0 and 1.")
        check_at_least(self, 1, "min_block_size")


def draw_block_masks(key: BatchKey, recipe: BlockMaskRecipe, num_patches: int, batch_size: int) -> dict[str, torch.Tensor]:
    """Draw `context_mask` and `target_mask` of a batch as [`sample_block_masks`] does: a pure function of its arguments."""
    visible = draw_num_context(num_patches, recipe.min_keep_ratio, recipe.max_keep_ratio, key.generator())
    uniform = recipe.uniform_mask_positions
    masks = sample_block_masks(batch_size, num_patches, visible, recipe.min_block_size, key.generator(1), uniform)
    return dict(zip(("context_mask", "target_mask"), masks, strict=True))


def draw_num_context(num_patches: int, min_keep_ratio: float, max_keep_ratio: float, generator: torch.Generator) -> int:
    """Draw the number of visible patches of a batch: ceil(ratio * num_patches) with ratio uniform in [min, max)."""
    ratio = min_keep_ratio + (max_keep_ratio - min_keep_ratio) * torch.rand((), generator=generator).item()
    return math.ceil(ratio * num_patches)


def sample_block_masks(
    batch_size: int, num_patches: int, num_context: int, min_block_size: int, generator: torch.Generator, uniform: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Hide blocks of patches until `num_context` patches are left, for a whole batch at once.

    Per record: pick one of the intervals still visible with probability proportional to its length; draw a block length uniformly
    from `min_block_size` to what is still to hide; place it uniformly in the interval, or swallow the interval if it is no longer
    than the block. A rest shorter than `min_block_size` is attached to an end of the interval that borders a hidden block.

    This is the reference's distribution, including its flaw: patches near the ends of the record are visible far more often than
    those in the middle (78% against 9% for 40 of 200).

    Args:
        num_context: visible patches, the same for every record, so that no padding is needed.
        min_block_size: shortest block, in patches (10 in the paper).
        generator: CPU generator, the only source of randomness.
        uniform: rotate each mask by a random offset, so that every patch is visible equally often.

    Returns:
        `context_mask` (batch_size, num_context) and `target_mask` (batch_size, num_patches - num_context): sorted patch indices.
    """
    if not 0 < num_context < num_patches or min_block_size < 1:
        limits = f"between 1 and num_patches - 1 = {num_patches - 1}"
        raise ValueError(f"num_context={num_context} must be {limits}, and min_block_size={min_block_size} at least 1.")
    visible = _visible_patches(batch_size, num_patches, num_context, min_block_size, generator)
    if uniform:
        offset = torch.randint(num_patches, (batch_size, 1), generator=generator)
        visible = visible.gather(1, (torch.arange(num_patches) + offset) % num_patches)
    return _indices(visible), _indices(~visible)


def _indices(mask: torch.Tensor) -> torch.Tensor:
    """Return the columns where each row of a boolean (rows, columns) is True, equally often in all rows: (rows, times)."""
    rows, columns = mask.shape
    indices = np.flatnonzero(mask.numpy()).reshape(rows, -1)  # four times as fast as torch.nonzero
    indices -= columns * np.arange(rows)[:, None]
    return torch.from_numpy(indices)


def _visible_patches(
    batch_size: int, num_patches: int, num_context: int, min_block_size: int, generator: torch.Generator
) -> torch.Tensor:
    """Return a boolean (batch_size, num_patches) that is True where a patch is visible."""
    # Only records with patches left to hide are kept. The right part of an interval that a block splits goes into a new column.
    records = np.arange(batch_size)
    starts = np.zeros((batch_size, 1), dtype=np.int64)
    lengths = np.full((batch_size, 1), num_patches)
    to_hide = np.full(batch_size, num_patches - num_context)
    # +1 where an interval starts, -1 where it ends; between two intervals lies a block, so that no two meet.
    edges = np.zeros((batch_size, num_patches + 1), dtype=np.int8)

    def draw(dtype: torch.dtype = torch.float64) -> np.ndarray:
        # For finished records too: the mask of a record must not depend on when others are finished.
        return torch.rand(batch_size, generator=generator, dtype=dtype).numpy()[records]

    def uniform_below(limit: np.ndarray) -> np.ndarray:
        return np.minimum((draw() * limit).astype(np.int64), limit - 1)  # the product may round up to the limit

    while len(records):
        # A patch drawn uniformly among the visible ones lies in an interval with probability proportional to its length.
        ends = lengths.cumsum(axis=1)
        patch = uniform_below(ends[:, -1])
        picked = np.arange(len(records)), (ends <= patch[:, None]).sum(axis=1)
        start, length = starts[picked], lengths[picked]

        is_rest = to_hide < min_block_size
        block = min_block_size + uniform_below(np.maximum(to_hide - min_block_size, 0) + 1)
        block = np.minimum(np.where(is_rest, to_hide, block), length)

        room = length - block
        offset = uniform_below(room + 1)
        # The rest goes to an end that borders a hidden block; the ends of the record do not count as such.
        at_left, at_right = start > 0, start + length < num_patches
        prefer_left = draw(torch.float32) < 0.5
        attached = np.where(at_left & (prefer_left | ~at_right), 0, room)
        offset = np.where(is_rest & (at_left | at_right), attached, offset)

        lengths[picked] = offset
        starts = np.column_stack([starts, start + offset + block])
        lengths = np.column_stack([lengths, room - offset])
        to_hide = to_hide - block

        row, column = np.nonzero((to_hide == 0)[:, None] & (lengths > 0))
        first = starts[row, column]
        edges[records[row], first] = 1
        edges[records[row], first + lengths[row, column]] = -1
        records, starts, lengths, to_hide = (each[to_hide > 0] for each in (records, starts, lengths, to_hide))

    # The running sum is 1 inside an interval.
    return torch.from_numpy(edges).cumsum(1, dtype=torch.int8)[:, :num_patches] > 0
