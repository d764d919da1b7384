"""Which patches the context encoder sees and which ones the predictor must fill in."""

import math

import torch

from .objective import BatchKey
from .recipe import BlockMaskRecipe


def draw_block_masks(
    key: BatchKey, recipe: BlockMaskRecipe, num_patches: int, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The masks of a batch, as [`sample_block_masks`] returns them; equally many patches are visible in all of them. A pure function
    of its arguments.
    """
    num_context = draw_num_context(num_patches, recipe.min_keep_ratio, recipe.max_keep_ratio, key.generator())
    return sample_block_masks(
        batch_size, num_patches, num_context, recipe.min_block_size, key.generator(1), recipe.uniform_mask_positions
    )


def draw_num_context(num_patches: int, min_keep_ratio: float, max_keep_ratio: float, generator: torch.Generator) -> int:
    """Number of visible patches of a batch: ceil(ratio * num_patches) with ratio uniform in [min, max)."""
    ratio = min_keep_ratio + (max_keep_ratio - min_keep_ratio) * torch.rand((), generator=generator).item()
    return math.ceil(ratio * num_patches)


def sample_block_masks(
    batch_size: int,
    num_patches: int,
    num_context: int,
    min_block_size: int,
    generator: torch.Generator,
    uniform_positions: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Hide blocks of patches until `num_context` patches are left, for a whole batch at once.

    Per record: pick one of the intervals still visible with probability proportional to its length; draw a block length
    uniformly from `min_block_size` to what is still to hide; place it uniformly in the interval, or swallow the interval
    if it is no longer than the block. A rest shorter than `min_block_size` is attached to an end of the interval that
    borders a hidden block.

    This is the reference's distribution, including its flaw: patches near the ends of the record are visible far more
    often than those in the middle (78% against 9% for 40 of 200). `uniform_positions=True` rotates each mask by a random
    offset, so that every patch is visible equally often; a block may then run over the end into the beginning.

    Args:
        batch_size: number of masks.
        num_patches: patches of a record.
        num_context: visible patches, the same for every record, so that no padding is needed.
        min_block_size: shortest block, in patches (10 in the paper).
        generator: CPU generator, the only source of randomness.
        uniform_positions: see above.

    Returns:
        `context_mask` (batch_size, num_context) and `target_mask` (batch_size, num_patches - num_context): long tensors
        of patch indices, each row sorted.

    Raises:
        ValueError: if `num_context` leaves nothing visible or nothing hidden, or `min_block_size` is below 1.
    """
    if not 0 < num_context < num_patches:
        raise ValueError(
            f"num_context={num_context} must be between 1 and num_patches - 1 = {num_patches - 1}, "
            "so that something is visible and something hidden."
        )
    if min_block_size < 1:
        raise ValueError(f"min_block_size={min_block_size} must be at least 1.")
    visible = _visible_patches(batch_size, num_patches, num_context, min_block_size, generator)
    if uniform_positions:
        offset = torch.randint(num_patches, (batch_size, 1), generator=generator)
        visible = visible.gather(1, (torch.arange(num_patches) + offset) % num_patches)
    context_mask = visible.nonzero()[:, 1].view(batch_size, num_context)
    target_mask = (~visible).nonzero()[:, 1].view(batch_size, num_patches - num_context)
    return context_mask, target_mask


def _visible_patches(
    batch_size: int, num_patches: int, num_context: int, min_block_size: int, generator: torch.Generator
) -> torch.Tensor:
    """Boolean (batch_size, num_patches): True where visible."""
    # Visible intervals of each record, one column each: a block splits one interval into two, the right part of which
    # goes into a new column. Empty intervals have length 0 and are never picked.
    starts = torch.zeros(batch_size, 1, dtype=torch.long)
    lengths = torch.full((batch_size, 1), num_patches)
    to_hide = torch.full((batch_size,), num_patches - num_context)

    def uniform_below(limit: torch.Tensor) -> torch.Tensor:
        draw = torch.rand(limit.shape, generator=generator, dtype=torch.float64)
        return (draw * limit).long().minimum(limit - 1)  # the product may round up to the limit

    while bool(to_hide.any()):
        # A patch drawn uniformly among the visible ones lies in an interval with probability proportional to its length.
        ends = lengths.cumsum(1)
        patch = uniform_below(ends[:, -1])
        column = (ends <= patch[:, None]).sum(1, keepdim=True)
        start, length = starts.gather(1, column).squeeze(1), lengths.gather(1, column).squeeze(1)

        is_rest = to_hide < min_block_size
        block = min_block_size + uniform_below((to_hide - min_block_size).clamp(min=0) + 1)
        block = torch.where(is_rest, to_hide, block).minimum(length)

        room = length - block
        offset = uniform_below(room + 1)
        # The rest goes to an end that borders a hidden block; the ends of the record do not count as such.
        at_left, at_right = start > 0, start + length < num_patches
        prefer_left = torch.rand(batch_size, generator=generator) < 0.5
        attached = torch.where(at_left & (prefer_left | ~at_right), torch.zeros_like(room), room)
        offset = torch.where(is_rest & (at_left | at_right), attached, offset)

        # Finished records have a block of length 0, which changes nothing but the bookkeeping of intervals.
        lengths = lengths.scatter(1, column, offset[:, None])
        starts = torch.cat([starts, (start + offset + block)[:, None]], dim=1)
        lengths = torch.cat([lengths, (room - offset)[:, None]], dim=1)
        to_hide = to_hide - block

    # +1 where an interval starts, -1 where it ends; the running sum is 1 inside. An empty interval cancels itself.
    edges = torch.zeros(batch_size, num_patches + 1, dtype=torch.long)
    edges.scatter_add_(1, starts, torch.ones_like(starts))
    edges.scatter_add_(1, starts + lengths, -torch.ones_like(starts))
    return edges.cumsum(1)[:, :num_patches] > 0
