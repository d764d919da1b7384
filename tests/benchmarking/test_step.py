"""The step that is measured is the one that trains."""

import dataclasses

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import set_seed

from ecg_jepa.benchmarking.step import OF_FORWARD, PARTS, Case, MeasuredStep, RandomSignals
from ecg_jepa.pretraining.loop import PretrainingRun, train
from ecg_jepa.pretraining.objectives import objective_class, recipe_class

STEPS = 3

SIZES = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"pred_hidden_size": 16, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
}


@pytest.fixture
def case(tmp_path, prepared_dir):
    def make(objective="jepa", **changes):
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
        numbers = {"max_steps": STEPS, "warmup_steps": 1, "batch_size": 8, "crop_duration": 2.5, "ema_momentum": 0.5}
        options = {"databases": ["synthetic=1.0"], "min_block_size": 5, "mixed_precision": "no", "objective": objective}
        recipe = recipe_class(options)(**{**SIZES, **numbers, **options, **changes})
        return Case(recipe, str(tmp_path / "scratch"), str(prepared_dir), num_threads=1)

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
        {"objective": "data2vec", "target_layers": 2},
        {"objective": "mae"},
    ],
)
def test_trains_what_the_loop_trains(case, changes, tmp_path):
    """Whatever marks and hooks stand around its parts."""
    made = case(**changes)
    measured = MeasuredStep(made)
    for number in range(STEPS):
        measured.step_in_parts(number)
    recipe = made.recipe
    set_seed(recipe.seed)
    corpus = made.corpus()
    objective = objective_class(recipe.objective)(recipe.model_config(500), recipe)
    output_dir = tmp_path / "run"
    output_dir.mkdir()
    train(PretrainingRun(recipe, Accelerator(mixed_precision="no"), corpus, objective, output_dir))
    for (name, ours), theirs in zip(measured.objective.state_dict().items(), objective.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_parts_are_told_apart_and_forgotten(case):
    measured = MeasuredStep(case())
    turn = measured.turn(0, with_model_step=True)
    assert set(turn) == {"parts", "step", "log", "model_step"}
    assert set(turn["parts"]) == set(PARTS)
    assert min(*turn["parts"].values(), turn["step"], turn["log"], turn["model_step"]) > 0
    assert sum(turn["parts"][name] for name in OF_FORWARD) < turn["parts"]["forward"]
    objective = measured.objective
    assert not {"draw", "encode_targets"} & set(vars(objective))
    for module in (objective.model.context_encoder, objective.model.predictor):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_the_loader_is_waited_for_in_every_step_but_the_first(case):
    measured = MeasuredStep(case(max_steps=100))
    loop = measured.follow(2)
    assert len(loop["waits"]) == len(loop["steps"]) == 2
    assert all(0 < wait < step for wait, step in zip(loop["waits"], loop["steps"], strict=True))


def test_more_steps_than_the_recipe_has_can_be_measured(case):
    measured = MeasuredStep(case(max_steps=2))
    assert measured.turn(7)["step"] > 0


def test_a_checkpoint_is_written_whole(case):
    measured = MeasuredStep(case())
    written = measured.write_checkpoint()
    assert written["seconds"] > 0
    weights = sum(p.numel() for p in measured.objective.parameters())
    assert written["bytes"] > 4 * weights


def test_random_signals_stand_for_records(case):
    made = dataclasses.replace(case(), data_dir=None, sampling_rate=100)
    made = dataclasses.replace(made, recipe=dataclasses.replace(made.recipe, patch_size=10))
    corpus = made.corpus()
    assert isinstance(corpus, RandomSignals)
    batch = next(corpus.batches())
    assert batch.signal.shape == (8, 12, 250)
    assert batch.signal.dtype == torch.int16
    assert 900 < batch.signal.float().std() < 1100  # uV
    assert torch.equal(corpus.batch(3).signal, batch.signal)
    measured = MeasuredStep(made)
    normalised = measured.run.normalize(batch)
    assert 0.9 < normalised.std() < 1.1
    assert "loader" not in measured.turn(0)["parts"]
    assert set(measured.describe()["not_measured"]) == {"loader"}
    assert measured.write_checkpoint()["bytes"] > 0
