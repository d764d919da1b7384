import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from comparison.kept import Outcome
from comparison.plan import Candidate, Entry
from comparison.report import (
    compare_pairs,
    count_tests,
    describe_results,
    describe_tests,
    holm,
    mean_over_tasks,
    plot_over_cost,
    spread_over_seeds,
)


@pytest.fixture
def results():
    """A good, an equally good and a useless encoder with three seeds each."""
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 3)) < 0.3).astype(int)
    rows = []
    for label, use in (("jepa", 1.0), ("same", 1.0), ("useless", 0.0)):
        for seed in range(3):
            scores = use * labels + rng.normal(size=labels.shape)
            row = {"label": label, "seed": seed, "finetune_seed": 0, "protocol": "linear", "task": "form", "label_fraction": 0.1}
            rows.append({**row, "auroc": 0.5 + 0.25 * use + 0.01 * seed, "labels": labels, "ranks": scores})
    return pd.DataFrame(rows)


PLAN = SimpleNamespace(
    entries=[Entry.parse(name) for name in ("jepa", "useless=random", "same=mae")],
    baselines=["jepa"],
    comparison=SimpleNamespace(tasks=["form"]),
)


def test_spread_is_over_seeds_of_pretraining(results):
    table = spread_over_seeds(pd.concat([results, results.assign(finetune_seed=1, auroc=results["auroc"] + 0.02)]))
    row = table[table["label"] == "jepa"].iloc[0]
    assert row["auroc"] == pytest.approx(0.77)
    assert row["auroc_std"] == pytest.approx(0.01)
    assert row["seeds"] == 3


def test_a_difference_is_found_and_none_is_not(results):
    tests = compare_pairs(PLAN, results)
    assert list(tests["second"]) == ["useless", "same"]
    useless, same = tests.to_dict("records")
    assert useless["difference"] == pytest.approx(0.26, abs=0.05)
    assert useless["low"] > 0.15
    assert useless["p_holm"] == pytest.approx(2 * useless["p"])
    assert same["low"] < 0 < same["high"]
    assert same["p_holm"] >= same["p"] > 0.05
    assert {row["seeds"] for row in (useless, same)} == {3}


def test_seeds_that_one_side_lacks_are_left_out(results):
    fewer = results[(results["label"] != "useless") | (results["seed"] > 0)]
    assert list(compare_pairs(PLAN, fewer)["seeds"]) == [2, 3]
    alone = results[results["label"] == "jepa"]
    assert compare_pairs(PLAN, alone).empty


def test_every_pair_with_a_baseline_is_tested_once(results):
    plan = SimpleNamespace(entries=PLAN.entries, baselines=["jepa", "useless"])
    tests = compare_pairs(plan, results)
    assert list(zip(tests["first"], tests["second"], strict=True)) == [("jepa", "useless"), ("jepa", "same"), ("useless", "same")]
    assert tests["difference"].iloc[2] == pytest.approx(-tests["difference"].iloc[0], abs=0.05)


def test_what_tests_found_is_counted(results):
    """Of two tasks, in one of which the encoders have changed places."""
    places = results["label"].map({"jepa": "useless", "useless": "jepa", "same": "same"})
    tests = compare_pairs(PLAN, pd.concat([results, results.assign(label=places, task="rhythm")]))
    assert count_tests(tests).to_dict("records") == [
        {"first": "jepa", "second": "useless", "linear": "1 above, 1 below, of 2"},
        {"first": "jepa", "second": "same", "linear": "0 above, 1 below, of 2"},
    ]


def test_means_are_over_tasks_that_all_have(results):
    other = results[results["label"] != "same"].assign(task="rhythm", auroc=results["auroc"] + 0.1)
    means = mean_over_tasks(pd.concat([results, other]), 2)
    assert set(means["label"]) == {"jepa", "useless"}
    assert means.loc[means["label"] == "jepa", "auroc"].tolist() == pytest.approx([0.8, 0.81, 0.82])
    text = describe_results(PLAN, pd.concat([results, other]))
    assert "| same    | 0.760 (0.010, 3) | –                |" in text
    assert mean_over_tasks(results, 2).empty
    plan = SimpleNamespace(comparison=SimpleNamespace(tasks=["form", "rhythm"]))
    assert "No encoder was evaluated on all of them yet." in describe_results(plan, results)


def test_tables_in_words(results):
    text = describe_results(PLAN, results)
    assert "**linear, 10% of the labels**" in text
    assert text.count("| jepa    | 0.760 (0.010, 3)") == 2  # of the one task, and as the mean of all
    assert "test records (400 of form)" in text
    text = describe_tests(compare_pairs(PLAN, results))
    assert "First minus second" in text
    assert "same protocol and share of the labels" in text
    assert json.dumps("useless")[1:-1] in text


def test_what_did_best_is_chosen_and_what_failed_is_not():
    entries = [Entry.parse(name) for name in ("jepa", "mae", "byol", "random")]
    plan = SimpleNamespace(entries=entries, comparison=SimpleNamespace(seeds=[0, 1]))
    recipe = SimpleNamespace(output_dir="tuning/mae-0-of-number-0")
    outcome = Outcome(plan)
    for label, scores in {
        "jepa": (0.6, 0.7, 0.7),
        "mae": (math.nan, 0.5, math.nan),
        "byol": (math.nan, math.nan, math.nan),
    }.items():
        for number, score in enumerate(scores):
            outcome.tuned.append((Candidate(Entry.parse(label), {"learning_rate": str(number)}, recipe), score))
    assert outcome.chosen == {"jepa": {"learning_rate": "1"}, "mae": {"learning_rate": "1"}, "random": {}}
    assert [(entry.label, seed) for entry, seed in outcome.runs()][:3] == [("jepa", 0), ("mae", 0), ("random", 0)]
    outcome.missing.append("tuning-mae-0-of-number-0")
    assert outcome.chosen == {"random": {}}  # what is tried of others has the same name here


def test_holm_is_the_step_down_procedure():
    """Worked through by hand: 0.01 * 4, then 0.02 * 3, then 0.03 * 2 (held up by the one before), then 0.5."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.5, 0.02])), [0.06, 0.04, 0.5, 0.06])
    assert holm(np.array([])).size == 0
    assert holm(np.array([0.9, 0.8])).max() == 1.0


def test_course_over_cost():
    rows = [
        {"label": label, "seed": seed, "TFLOP": cost * (label == "_jepa"), "eval_probe_auroc": 0.6 + seed / 10 + cost / 100}
        for label in ("_jepa", "random")
        for seed in (0, 1)
        for cost in (0, 10)
    ]
    figure = plot_over_cost(pd.DataFrame(rows), "TFLOP", "rhythm")
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["_jepa", "random"]
    *seeds, mean, untrained = figure.axes[0].get_lines()
    np.testing.assert_allclose([line.get_ydata() for line in seeds], [[0.6, 0.7], [0.7, 0.8]])
    np.testing.assert_allclose(mean.get_ydata(), [0.65, 0.75])
    assert untrained.get_linestyle() == "--"
    assert "thick: mean over seeds; thin: each seed" in figure.axes[0].get_title()
