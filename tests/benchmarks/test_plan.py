from types import SimpleNamespace

import pytest
from comparison.plan import ComparisonPlan, ComparisonSettings, Entry

from ecg_jepa._utils.settings import make_settings
from ecg_jepa.data.records import find_database

SETTINGS = [
    *(
        "databases=synthetic=1.0",
        "size=xs",
        "hidden_size=32",
        "num_hidden_layers=1",
        "num_attention_heads=4",
        "crop_duration=2.5",
    ),
    *("pred_hidden_size=16", "pred_num_hidden_layers=1", "pred_num_attention_heads=2", "batch_size=16", "jepa.min_block_size=5"),
    *("mae-random.mask=random", "simclr.view_duration=1.25"),
]


@pytest.fixture(autouse=True)
def _quick_costs(monkeypatch, request):
    """Stand in for counting operations, which takes seconds a plan, in all tests but the slow ones."""

    def count(objective):
        return float(sum(p.numel() for p in objective.parameters())) if objective.recipe.max_steps else 0.0

    if "slow" not in request.keywords:
        monkeypatch.setattr("comparison.plan.count_flops", count)


@pytest.fixture
def make_plan(prepared_dir, tmp_path):
    def make(**values):
        given = {"objectives": ["jepa", "mae-random=mae", "simclr", "random"], "settings": SETTINGS, "max_steps": 100}
        given |= {"data_dir": str(prepared_dir), "output_dir": str(tmp_path), **values}
        return ComparisonPlan(make_settings(ComparisonSettings, given))

    return make


@pytest.mark.slow
def test_all_have_what_the_first_costs(make_plan):
    plan = make_plan()
    steps = {entry.label: plan.steps(entry, {}) for entry in plan.entries}
    assert steps["jepa"] == 100
    budget = 100 * plan.cost_per_step(plan.entries[0], {})
    for entry in plan.entries[1:3]:
        each = plan.cost_per_step(entry, {})
        assert abs(steps[entry.label] * each - budget) <= each / 2
    assert steps["mae-random"] > 100  # without a target encoder
    equal = make_plan(match="steps")
    assert {equal.steps(entry, {}) for entry in equal.entries} == {100}


@pytest.mark.slow
def test_what_costs_more_has_fewer_steps(make_plan):
    larger, usual = make_plan(settings=[*SETTINGS, "simclr.batch_size=32"]), make_plan()
    assert larger.steps(larger.entries[2], {}) == pytest.approx(usual.steps(usual.entries[2], {}) / 2, abs=1)
    jepa = usual.entries[0]
    assert usual.steps(jepa, {"masks_per_record": "4"}) < 60


def test_counted_costs_are_kept(make_plan, monkeypatch, tmp_path):
    plan = make_plan()
    plan.keep_costs()
    steps = [plan.steps(entry, {}) for entry in plan.entries]
    folder = plan.recipe(plan.entries[1], 0, {}).output_dir
    with monkeypatch.context() as patched:
        patched.setattr("comparison.plan.count_flops", lambda objective: float(len(objective.recipe.objective)))
        later = make_plan()
        assert [later.steps(entry, {}) for entry in later.entries] == steps
        assert later.recipe(later.entries[1], 0, {}).output_dir == folder
        (tmp_path / "counted.json").unlink()
        anew = make_plan()
        assert [anew.steps(entry, {}) for entry in anew.entries] != steps


@pytest.mark.slow
def test_records_of_another_rate_are_counted_anew(make_plan, monkeypatch):
    plan = make_plan()
    plan.keep_costs()
    usual = plan.cost_per_step(plan.entries[1], {})
    found = find_database(plan.comparison.data_dir).info
    faster = SimpleNamespace(info=SimpleNamespace(sampling_rate=2 * found.sampling_rate, amplitude_free=False))
    monkeypatch.setattr("comparison.plan.find_database", lambda *_: faster)
    later = make_plan()
    assert later.cost_per_step(later.entries[1], {}) > 1.5 * usual


def test_a_report_writes_no_costs(make_plan, tmp_path):
    plan = make_plan()
    plan.steps(plan.entries[1], {})
    assert not (tmp_path / "counted.json").exists()


def test_costs_of_tuning_are_counted_in_advance(make_plan, monkeypatch):
    plan = make_plan(tuning=["learning_rate=1e-3,1e-4"])
    plan.keep_costs()
    monkeypatch.setattr("comparison.plan.count_flops", lambda objective: pytest.fail("counted late"))
    for candidate in plan.tuning():
        plan.recipe(candidate.entry, 1, candidate.tried)
    for entry in plan.entries:
        plan.recipe(entry, 1, {})


def test_runs_of_other_settings_have_other_folders(make_plan):
    folders = set()
    changed = ({}, {"settings": [*SETTINGS, "weight_decay=0.5"]}, {"probe_task": "rhythm"}, {"max_steps": 99}, {"evaluations": 5})
    for values in changed:
        plan = make_plan(**values)
        folders |= {plan.recipe(plan.entries[0], seed, {}).output_dir for seed in (0, 1)}
    assert len(folders) == 10
    again = make_plan(seeds=[5])
    assert again.recipe(again.entries[0], 0, {}).output_dir in folders


def test_recipes_differ_in_what_is_theirs(make_plan):
    plan = make_plan()
    jepa, mae, simclr, random = (plan.recipe(entry, 3, {"learning_rate": "0.003"}) for entry in plan.entries)
    assert [recipe.objective for recipe in (jepa, mae, simclr, random)] == ["jepa", "mae", "simclr", "random"]
    assert (mae.mask, simclr.view_duration, jepa.min_block_size) == ("random", 1.25, 5)
    assert {recipe.seed for recipe in (jepa, mae, simclr, random)} == {3}
    assert {recipe.learning_rate for recipe in (jepa, mae, simclr)} == {0.003}
    assert random.max_steps == 0
    assert "pretraining/mae-random-3-" in mae.output_dir
    assert jepa.warmup_steps == 10


def test_each_chooses_from_the_same_and_its_own(make_plan):
    plan = make_plan(tuning=["learning_rate=1e-3,3e-3", "simclr.temperature=0.1,0.5"])
    tried = {}
    for candidate in plan.tuning():
        tried.setdefault(candidate.entry.label, []).append(candidate.tried)
        assert candidate.recipe.max_steps == max(1, round(0.1 * plan.steps(candidate.entry, candidate.tried)))
    assert tried["jepa"] == tried["mae-random"] == [{"learning_rate": "1e-3"}, {"learning_rate": "3e-3"}]
    assert len(tried["simclr"]) == 4
    assert "random" not in tried
    assert len({candidate.recipe.output_dir for candidate in plan.tuning()}) == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objectives": ["jepa", "simclair"]}, "there is no objective 'simclair': did you mean 'simclr'"),
        ({"objectives": ["jepa", "jepa=mae"]}, "labels must differ"),
        ({"objectives": ["a/b=mae"], "settings": []}, "no dot, slash or bar"),
        ({"settings": ["seed=3"]}, "the comparison itself gives each run its seed"),
        ({"settings": ["temperature=0.1"]}, "jepa, mae-random, random have no temperature"),
        ({"settings": ["byol.batch_size=3"]}, "labels are jepa, mae-random, simclr, random"),
        ({"settings": ["batch_size"]}, "neither KEY=VALUE nor LABEL.KEY=VALUE"),
        ({"tuning": ["simclr.tempreature=1"]}, "simclr have no tempreature"),
        ({"seeds": [0, 0]}, "name at least one, and each once"),
        ({"settings": ["simclr.hidden_size=8"]}, "hidden_size must be the same for all objectives"),
        ({"tuning": ["patch_size=10,25"]}, "patch_size must be the same for all objectives"),
        ({"finetune_settings": ["linear.max_step=3"]}, "neither KEY=VALUE nor PROTOCOL.KEY=VALUE"),
        ({"tasks": ["superdiagnostics"]}, "superdiagnostics"),
        ({"baselines": ["random", "random"]}, "name each once"),
        ({"baselines": ["random", "maw"]}, "maw are not among the labels jepa, mae-random, simclr, random"),
        ({"tuning_share": 1.5}, "tuning_share=1.5 must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_compared_is_said_at_once(make_plan, values, message):
    with pytest.raises(ValueError, match=message):
        make_plan(**values)


def test_its_own_settings_win_in_any_order(make_plan):
    plan = make_plan(tuning=["simclr.learning_rate=1e-2", "learning_rate=1e-3,3e-3"])
    tried = [candidate.tried for candidate in plan.tuning() if candidate.entry.label == "simclr"]
    assert tried == [{"learning_rate": "1e-2"}]
    several = make_plan(settings=[*SETTINGS[1:], "databases=synthetic=0.5 ptb-xl=0.5"])
    assert several.first_recipe().databases == ["synthetic=0.5", "ptb-xl=0.5"]


def test_labels(make_plan):
    assert Entry.parse("mae-random=mae") == Entry("mae-random", "mae")
    assert Entry.parse("jepa") == Entry("jepa", "jepa")
