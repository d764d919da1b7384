import dataclasses
from pathlib import Path

import pytest

from ecg_jepa._utils.settings import parse_settings
from ecg_jepa.pretraining.objectives import recipe_class
from ecg_jepa.pretraining.objectives.jepa import JepaRecipe

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.mark.parametrize("size", ["xs", "s", "b"])
def test_published_recipe(size):
    recipe = parse_settings(JepaRecipe, ["--config", str(CONFIGS / f"vit_{size}_all.yaml")])
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
    recipe = parse_settings(JepaRecipe, ["--config", str(path)])
    rate = 100 if "100hz" in path.stem else 500
    assert recipe.model_config(rate).num_patches in (50, 200)


def test_seven_published_runs_have_configurations():
    assert {path.stem for path in CONFIGS.glob("vit_*.yaml") if not path.stem.endswith("_plus")} == {
        *("vit_xs_all", "vit_s_all", "vit_b_all", "vit_xs_mimic", "vit_s_mimic", "vit_xs_ptbxl", "vit_s_ptbxl")
    }


def test_the_same_is_changed_at_every_size():
    changes = []
    for size in ("xs", "s", "b"):
        ours, paper = (
            parse_settings(JepaRecipe, ["--config", str(CONFIGS / f"vit_{size}_{name}.yaml")]).training_settings()
            for name in ("plus", "all")
        )
        apart = {"size", "batch_size", "gradient_accumulation_steps"}
        changes.append({name: value for name, value in ours.items() if value != paper[name] and name not in apart})
        assert ours["batch_size"] == paper["batch_size"] * paper["gradient_accumulation_steps"]
    assert changes[0] == changes[1] == changes[2]
    short = parse_settings(JepaRecipe, ["--config", str(CONFIGS / "vit_xs_100hz_plus.yaml")]).training_settings()
    assert {name: short[name] for name in changes[0]} == changes[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"databases": ["ptb-xl"]}, "NAME=WEIGHT"),
        ({"databases": ["ptb-xl=0.5", "ptb-xl=0.5"]}, "each name once"),
        ({"databases": ["ptb-xl=0.5"]}, "sum to 0.5"),
        ({"min_keep_ratio": 0.5}, "no larger"),
        ({"warmup_steps": -1}, "at least 0"),
        ({"learning_rate": -1}, "learning_rate=-1.0 must be at least 0"),
        ({"ema_momentum": 1.5}, "ema_momentum=1.5 must lie between 0 and 1"),
        ({"max_grad_norm": -1}, "at least 0"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"max_steps": "many"}, "integer"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_raises(values, message):
    with pytest.raises(ValueError, match=message):
        JepaRecipe(**values)


def test_what_does_not_fit_the_model_is_said_at_the_rate_of_the_records():
    with pytest.raises(ValueError, match="use hidden_size=384 or 390"):
        JepaRecipe(hidden_size=385).model_config(500)
    recipe = JepaRecipe(patch_size=16)
    assert recipe.model_config(400).num_patches == 250
    with pytest.raises(ValueError, match="no whole number of patches"):
        recipe.model_config(500)


def test_recipes_of_the_paper_are_recognised():
    recipe = parse_settings(JepaRecipe, ["--config", "vit_s_ptbxl", "--output_dir", "elsewhere", "--seed", "4"])
    assert recipe.configuration() == "vit_s_ptbxl"
    assert dataclasses.replace(recipe, mixed_precision="no", logging_steps=7).configuration() == "vit_s_ptbxl"
    for changes in ({"patch_size": 50}, {"max_steps": 99_999}, {"databases": ["georgia=1.0"]}, {"uniform_mask_positions": True}):
        assert dataclasses.replace(recipe, **changes).configuration() is None


def test_objectives_choose_their_recipe():
    assert recipe_class({}) is JepaRecipe
    with pytest.raises(ValueError, match="no objective 'jeppa': did you mean 'jepa'"):
        recipe_class({"objective": "jeppa"})


def test_a_run_within_its_warmup_is_said(caplog):
    recipe = JepaRecipe(max_steps=10)
    assert "ends within its warm-up (warmup_steps=10000, max_steps=10), at a learning rate of 1.9e-06" in caplog.text
    assert recipe.learning_rate_at(9) == pytest.approx(1e-6 + 9 * (1e-3 - 1e-6) / 10_000)
