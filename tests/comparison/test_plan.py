import pytest

from ecg_jepa.common.settings import make_settings
from ecg_jepa.comparison.plan import ComparisonPlan, Entry
from ecg_jepa.comparison.settings import ComparisonSettings

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


@pytest.fixture
def make_plan(prepared_dir, tmp_path):
    def make(**values):
        given = {"objectives": ["jepa", "mae-random=mae", "simclr", "random"], "settings": SETTINGS, "max_steps": 100}
        given |= {"data_dir": str(prepared_dir), "output_dir": str(tmp_path), **values}
        return ComparisonPlan(make_settings(ComparisonSettings, given))

    return make


def test_all_have_what_the_first_costs(make_plan):
    plan = make_plan()
    steps = {entry.label: plan.steps(entry) for entry in plan.entries}
    assert steps["jepa"] == 100
    for label in ("mae-random", "simclr"):
        spent, budget = steps[label] * plan.costs[label], 100 * plan.costs["jepa"]
        assert abs(spent - budget) <= plan.costs[label] / 2
    assert steps["mae-random"] > 100  # without a target encoder
    equal = make_plan(match="steps")
    assert {equal.steps(entry) for entry in equal.entries} == {100}


def test_recipes_differ_in_what_is_theirs(make_plan):
    plan = make_plan()
    jepa, mae, simclr, random = (plan.recipe(entry, 3, {"learning_rate": "0.003"}) for entry in plan.entries)
    assert [recipe.objective for recipe in (jepa, mae, simclr, random)] == ["jepa", "mae", "simclr", "random"]
    assert (mae.mask, simclr.view_duration, jepa.min_block_size) == ("random", 1.25, 5)
    assert {recipe.seed for recipe in (jepa, mae, simclr, random)} == {3}
    assert {recipe.learning_rate for recipe in (jepa, mae, simclr)} == {0.003}
    assert random.max_steps == 0
    assert mae.output_dir.endswith("pretraining/mae-random-3")
    assert jepa.warmup_steps == 10


def test_each_chooses_from_the_same_and_its_own(make_plan):
    plan = make_plan(tuning=["learning_rate=1e-3,3e-3", "simclr.temperature=0.1,0.5"])
    tried = {}
    for candidate in plan.tuning():
        tried.setdefault(candidate.entry.label, []).append(candidate.tried)
        assert candidate.recipe.max_steps == max(1, round(0.1 * plan.steps(candidate.entry)))
    assert tried["jepa"] == tried["mae-random"] == [{"learning_rate": "1e-3"}, {"learning_rate": "3e-3"}]
    assert len(tried["simclr"]) == 4
    assert "random" not in tried
    assert len({candidate.recipe.output_dir for candidate in plan.tuning()}) == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objectives": ["jepa", "simclair"]}, "there is no objective 'simclair': did you mean 'simclr'"),
        ({"objectives": ["jepa", "jepa=mae"]}, "labels must differ"),
        ({"objectives": ["a/b=mae"], "settings": []}, "no dot and no slash"),
        ({"settings": ["seed=3"]}, "the comparison itself gives each run its seed"),
        ({"settings": ["temperature=0.1"]}, "jepa, mae-random, random have no temperature"),
        ({"settings": ["byol.batch_size=3"]}, "labels are jepa, mae-random, simclr, random"),
        ({"settings": ["batch_size"]}, "neither KEY=VALUE nor LABEL.KEY=VALUE"),
        ({"tuning": ["simclr.tempreature=1"]}, "simclr have no tempreature"),
        ({"seeds": [0, 0]}, "name at least one, and each once"),
        ({"tuning_share": 1.5}, "tuning_share=1.5 must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_compared_is_said_at_once(make_plan, values, message):
    with pytest.raises(ValueError, match=message):
        make_plan(**values)


def test_labels(make_plan):
    assert Entry.parse("mae-random=mae") == Entry("mae-random", "mae")
    assert Entry.parse("jepa") == Entry("jepa", "jepa")
