import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_jepa.pretraining.masking import draw_num_context, sample_block_masks


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    st.integers(2, 220).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))),
    st.integers(1, 30),
    st.integers(0, 10_000),
    st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_masks_part_the_patches(sizes, min_block_size, seed, uniform):
    num_patches, num_context = sizes
    context, target = sample_block_masks(5, num_patches, num_context, min_block_size, generator(seed), uniform)
    assert context.dtype == target.dtype == torch.long
    assert context.shape == (5, num_context)
    assert target.shape == (5, num_patches - num_context)
    assert (context.diff(dim=1) > 0).all()
    assert (target.diff(dim=1) > 0).all()
    both = torch.cat([context, target], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(num_patches).expand(5, -1))


def test_hidden_blocks_are_long_enough():
    _, target = sample_block_masks(500, 200, 40, 10, generator())
    for row in target:
        breaks = (row.diff() > 1).nonzero()[:, 0] + 1
        runs = torch.tensor_split(row, breaks.tolist())
        assert min(len(run) for run in runs) >= 10


def test_seed_decides():
    first, again, other = (sample_block_masks(8, 200, 40, 10, generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def visibility(uniform: bool) -> torch.Tensor:
    context, _ = sample_block_masks(20_000, 200, 40, 10, generator(), uniform)
    return torch.bincount(context.flatten(), minlength=200) / 20_000


@pytest.mark.parametrize(("uniform", "digest"), [(False, "6a8536afd859eafd"), (True, "2832f51b034f20e3")])
def test_masks_of_a_seed_stay_what_they_were(uniform, digest):
    """A run that is resumed with another version, or made again, sees the masks that it would have seen."""
    masks = sample_block_masks(256, 200, 40, 10, generator(0), uniform)
    assert hashlib.sha256(b"".join(mask.numpy().tobytes() for mask in masks)).hexdigest()[:16] == digest


def test_edges_are_favoured_unless_positions_are_uniform():
    default, uniform = visibility(False), visibility(True)
    assert default[0] > 0.7
    assert default[199] > 0.7
    assert default[100] < 0.12
    # 4.5 standard errors of a share of 0.2 in 20,000 masks
    assert (uniform - 0.2).abs().max() < 4.5 * (0.2 * 0.8 / 20_000) ** 0.5


@pytest.mark.parametrize(("num_context", "min_block_size"), [(0, 10), (200, 10), (40, 0)])
def test_impossible_sizes_raise(num_context, min_block_size):
    with pytest.raises(ValueError, match="must be"):
        sample_block_masks(2, 200, num_context, min_block_size, generator())


def test_number_of_visible_patches():
    g = generator()
    drawn = {draw_num_context(200, 0.15, 0.25, g) for _ in range(2000)}
    assert drawn == set(range(31, 51))
