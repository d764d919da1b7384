from pathlib import Path

import pytest
import torch

from ecg_jepa.arguments import parse_arguments
from ecg_jepa.pretraining.recipe import PretrainingRecipe

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.mark.parametrize("size", ["xs", "s", "b"])
def test_published_recipe(size):
    recipe = parse_arguments(PretrainingRecipe, ["--config", str(CONFIGS / f"vit_{size}_all.yaml")])
    assert recipe.learning_rate_at(0) == 1e-6
    assert recipe.learning_rate_at(10_000) == 1e-3
    assert recipe.learning_rate_at(99_999) == 1e-6
    assert recipe.weight_decay_at(99_999) == pytest.approx(0.1)
    assert recipe.momentum_at(0) == 0.998
    assert recipe.momentum_at(100_000) == 0.9995
    weights = recipe.database_weights()
    assert len(weights) == 10
    assert sum(weights.values()) == pytest.approx(1)
    records = recipe.batch_size * recipe.gradient_accumulation_steps
    assert records == (1024 if size == "b" else 2048)


@pytest.mark.parametrize("path", [*sorted(CONFIGS.glob("vit_*.yaml")), CONFIGS / "demo.yaml"], ids=lambda path: path.stem)
def test_every_configuration_is_valid(path):
    recipe = parse_arguments(PretrainingRecipe, ["--config", str(path)])
    assert recipe.model_config(500).num_patches in (50, 200)


def test_seven_published_runs_have_configurations():
    assert {path.stem for path in CONFIGS.glob("vit_*.yaml")} == {
        *("vit_xs_all", "vit_s_all", "vit_b_all", "vit_xs_mimic", "vit_s_mimic", "vit_xs_ptbxl", "vit_s_ptbxl")
    }


def test_masks_depend_on_seed_batch_and_rank():
    recipe = PretrainingRecipe(seed=3, min_keep_ratio=0.2, max_keep_ratio=0.2)
    other_seed = PretrainingRecipe(seed=4, min_keep_ratio=0.2, max_keep_ratio=0.2)
    mask = recipe.masks(5, 0, 4, 200)[0]
    assert torch.equal(mask, recipe.masks(5, 0, 4, 200)[0])
    for other in (recipe.masks(6, 0, 4, 200), recipe.masks(5, 1, 4, 200), other_seed.masks(5, 0, 4, 200)):
        assert not torch.equal(mask, other[0])


def test_all_ranks_see_equally_many_patches():
    recipe = PretrainingRecipe(seed=3)
    sizes = {tuple(recipe.masks(batch, rank, 4, 200)[0].shape for rank in range(4)) for batch in range(30)}
    assert all(len(set(of_batch)) == 1 for of_batch in sizes)
    assert len(sizes) > 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"databases": ["ptb-xl"]}, "NAME=WEIGHT"),
        ({"databases": ["ptb-xl=0.5", "ptb-xl=0.5"]}, "each name once"),
        ({"databases": ["ptb-xl=0.5"]}, "sum to 0.5"),
        ({"min_keep_ratio": 0.5}, "no larger"),
        ({"warmup_steps": -1}, "not be negative"),
        ({"hidden_size": 385}, "use 386"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_raises(values, message):
    with pytest.raises(ValueError, match=message):
        PretrainingRecipe(**values)


def test_a_run_within_its_warmup_is_said():
    with pytest.warns(UserWarning, match="ends within its warm-up.*rate of 1.9e-06"):
        recipe = PretrainingRecipe(max_steps=10)
    assert recipe.learning_rate_at(9) == pytest.approx(1e-6 + 9 * (1e-3 - 1e-6) / 10_000)
