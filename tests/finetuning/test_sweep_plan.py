from pathlib import Path

import pytest

from ecg_jepa.finetuning.sweep_plan import SweepSettings, plan

CONFIG_DIR = str(Path(__file__).parents[2] / "training" / "configs")


def sweep(**options):
    return SweepSettings(**{"models": ["runs/vit", "random:xs"], "config_dir": CONFIG_DIR, **options})


def test_every_combination_once_with_the_protocols_own_settings():
    runs = plan(sweep(tasks=["all", "ST-MEM"], seeds=[0, 1, 2], label_fractions=[0.1, 1.0], settings=["max_steps=7"]))
    assert len(runs) == 4 * 2 * 2 * 3 * 2
    assert len({run.output_dir for run in runs}) == len(runs)
    tuned = next(run for run in runs if run.protocol == "finetune")
    assert (tuned.max_steps, tuned.final_learning_rate, tuned.dropout) == (7, 1e-5, 0.05)
    assert {(run.label_fraction, run.seed) for run in runs} == {(f, s) for f in (0.1, 1.0) for s in (0, 1, 2)}


def test_fine_tuning_goes_on_from_the_probe_of_the_same_task_seed_and_encoder():
    runs = plan(sweep(tasks=["all", "form"], seeds=[0, 1]))
    places = {run.output_dir: index for index, run in enumerate(runs)}
    for index, run in enumerate(runs):
        if run.protocol == "finetune_after_probe":
            assert run.model_name_or_path == run.output_dir.replace("finetune_after_probe", "attentive")
            assert places[run.model_name_or_path] < index
    with pytest.raises(ValueError, match="add attentive"):
        sweep(protocols=["finetune_after_probe"])


def test_settings_of_a_protocol_win_over_those_of_all():
    settings = ["linear.max_steps=9", "max_steps=7", "finetune.dropout=0.3"]
    runs = {run.protocol: run for run in plan(sweep(tasks=["all"], models=["random:xs"], settings=settings))}
    assert {name: run.max_steps for name, run in runs.items()} == {
        **dict.fromkeys(("attentive", "finetune", "finetune_after_probe"), 7),
        "linear": 9,
    }
    assert (runs["finetune"].dropout, runs["linear"].dropout) == (0.3, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": []}, "models is empty"),
        ({"tasks": ["rythm"]}, "Unknown task .rythm."),
        ({"settings": ["max_step=3"]}, "'max_step=3' is neither KEY=VALUE"),
        ({"settings": ["max_steps"]}, "is neither KEY=VALUE"),
        ({"settings": ["lineal.max_steps=3"]}, "nor PROTOCOL.KEY=VALUE"),
        ({"settings": ["learning_rate=fast"]}, "invalid learning_rate='fast': should be a valid number"),
        ({"settings": ["learning_rate=-1"]}, "learning_rate=-1.0 must be at least 0"),
        ({"settings": ["output_dir=x"]}, "the sweep itself gives each run its output_dir"),
        ({"settings": ["protocol=lineal"]}, "the sweep itself gives each run its protocol"),
        ({"protocols": ["lineal"]}, "lineal unknown"),
        ({"seeds": []}, "seeds is empty"),
        ({"models": ["a/run", "b/run"]}, "differ in the last part"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sweep(**options)


def test_settings_are_typed_like_flags():
    runs = plan(sweep(settings=["learning_rate=1e-3", "linear.max_steps=5"], config_dir=None))
    assert {run.learning_rate for run in runs} == {0.001}
    assert {run.max_steps for run in runs if run.protocol == "linear"} == {5}
