"""What follows from seconds, reckoned by hand."""

import pytest

from ecg_jepa.benchmarking.measuring import Measured, Measurements
from ecg_jepa.benchmarking.report import as_table, summarise
from ecg_jepa.pretraining.recipe import JepaRecipe

RECIPE = JepaRecipe(batch_size=100, max_steps=36_000, warmup_steps=1, logging_steps=10, save_steps=100, mixed_precision="no")
FACTS = {"gflop_per_record": 2.0, "parameters": 10, "records_per_batch": 10, "batches_per_step": 1, "not_measured": {}}


def measured(label, steps, **more):
    turns = [{"parts": {"forward": step / 2}, "step": step, "log": 0.5, "model_step": step / 2} for step in steps]
    checkpoint = {"seconds": 20.0, "bytes": 7}
    return Measured(label, {}, RECIPE, **{"facts": FACTS, "turns": turns, "memory": 10**9, "checkpoint": checkpoint, **more})


@pytest.fixture
def summary():
    loop = {"waits": [0.0, 0.2], "steps": [1.0, 1.0]}
    theirs = [{"model_step": 1.0}] * 3
    reference = Measured("reference", {}, RECIPE, True, facts=FACTS, turns=theirs, memory=1)
    variants = [measured("a", [1.0, 2.0, 1.0], loop=loop), measured("b", [0.5, 1.0, 1.0]), reference]
    return summarise(Measurements("tiny", variants, {"no": [{8: 30.0, 16: 40.0}, {8: 35.0}]}))


def test_rates_shares_and_hours(summary):
    first = summary["variants"][0]
    assert first["medians"]["step"] == {"median": 1.0, "smallest": 1.0, "largest": 2.0}
    assert first["records_per_second"] == 10
    assert first["gflop_per_second"] == 20
    assert first["share_of_peak"] == 0.5  # of 40
    assert first["loader_stall"] == pytest.approx(0.1)
    assert first["logging_share"] == pytest.approx(0.5 / (10 * 10))  # a step of the recipe takes 10 s
    assert first["checkpoint_share"] == pytest.approx(20 / (100 * 10))
    assert first["projected_hours"] == pytest.approx(100)


def test_ratios_are_of_the_same_round(summary):
    first, second, reference = summary["variants"]
    assert first["ratios"] == [1, 1, 1]
    assert second["ratios"] == [2, 2, 1]
    assert second["ratio"] == {"median": 2, "smallest": 1, "largest": 2}
    assert reference["share_of_peak"] == 0.5
    assert reference["ratios"] == [0.5, 1.0, 0.5]  # by steps of the model


def test_the_table_has_all_variants_and_what_is_missing_as_such(summary):
    table = as_table(summary)
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines() if "|" in line
    }
    assert lines["forward"] == ["500 (500 to 1,000)", "500 (250 to 500)", "-"]
    assert lines["times as fast as the first"][1] == "2.00 (1.00 to 2.00)"
    assert lines["waits for the loader"] == ["10.00%", "-", "-"]
    assert "float32 40 GFLOP/s" in table
