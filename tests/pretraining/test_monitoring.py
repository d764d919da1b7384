import json
import math

import pytest
import torch
from accelerate import Accelerator

from ecg_jepa._utils.files import read_lines
from ecg_jepa.pretraining.monitoring import Monitor, collapse_measures, run_summary, signs_of_collapse

LATENTS = torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(5))


def test_collapsed_targets_show():
    measures = collapse_measures(torch.ones(4, 50, 16))
    assert measures["target_std"] == 0
    assert measures["target_effective_rank"] < 1.01


def test_nothing_is_told_of_one_record():
    measures = collapse_measures(torch.randn(1, 50, 16))
    assert all(math.isnan(value) for value in measures.values())
    assert signs_of_collapse(measures, measures) == {}


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_effective_rank_counts_directions(rank):
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 16)).Q[:rank]
    measures = collapse_measures(torch.randn(40, 500, rank) @ basis)
    assert measures["target_effective_rank"] == pytest.approx(rank, rel=0.03)


def test_standard_deviation_is_over_tokens():
    assert collapse_measures(3 * torch.randn(10, 1000, 8))["target_std"] == pytest.approx(3, rel=0.05)


def test_lines_average_the_steps_and_outlive_an_interruption(tmp_path):
    path = tmp_path / "metrics.jsonl"
    monitor = Monitor(Accelerator(cpu=True), path, 0, 10)
    monitor.write({"step": 0, **collapse_measures(LATENTS), "gflop_per_record": 1.5})
    for step, loss in enumerate((1.0, 3.0, 5.0)):
        monitor.update(torch.tensor(loss), 8)
        if step >= 1:
            monitor.log(step, LATENTS, learning_rate=0.1)
    untrained, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert untrained == {"step": 0, **collapse_measures(LATENTS), "gflop_per_record": 1.5}
    assert [(line["step"], line["loss"]) for line in lines] == [(2, 2.0), (3, 5.0)]
    assert lines[0]["learning_rate"] == 0.1
    assert lines[0]["records_per_second"] > 0
    resumed = Monitor(Accelerator(cpu=True), path, 2, 10)  # after two steps
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 2]
    assert resumed.lines[0] == untrained
    Monitor(Accelerator(cpu=True), path, 0, 10)  # anew
    assert path.read_text() == ""


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    monitor = Monitor(Accelerator(cpu=True), tmp_path / "metrics.jsonl", 0, 10)
    monitor.update(torch.tensor(float("nan")), 8)
    with pytest.raises(FloatingPointError, match="nan after 1 steps"):
        monitor.log(0, LATENTS)


def test_evaluations_have_lines_of_their_own_and_take_no_training_time(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def evaluate():
        nonlocal now
        now += 50
        return {"loss": 0.5, **collapse_measures(LATENTS)}

    path = tmp_path / "metrics.jsonl"
    monitor = Monitor(Accelerator(cpu=True), path, 0, 10)
    for step in range(2):
        monitor.update(torch.tensor(1.0), 8)
        now += 2
        monitor.log_evaluation(step, evaluate)
    monitor.log(1, LATENTS, invariance=torch.tensor(0.25))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    measures = {f"eval_{name}": value for name, value in collapse_measures(LATENTS).items()}
    assert lines[:2] == [{"step": step, "eval_loss": 0.5, **measures} for step in (1, 2)]
    assert lines[2]["seconds"] == run_summary(read_lines(path))["seconds"] == 4
    assert lines[2]["invariance"] == 0.25  # what an objective reports
    assert run_summary(read_lines(path))["metrics"] == lines[2]


def test_a_log_line_reads_like_one(tmp_path, monkeypatch, caplog):
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    monitor = Monitor(Accelerator(cpu=True), tmp_path / "metrics.jsonl", 0, 1000)
    for _ in range(10):
        monitor.update(torch.tensor(0.5), 64)
    now = 20.0
    with caplog.at_level("INFO", logger="ecg_jepa"):
        monitor.log(9, torch.zeros(4, 5, 8), grad_norm=1.25)
    (line,) = caplog.messages
    shown = "target std 0.000, effective rank 1.0, position share 1.000, embedding std 0.000"
    assert line == (f"step 10/1000: loss 0.5000, gradient norm 1.25, {shown}, records/s 32, 33:00 to go")


def tokens(position: float, content: float, num_records: int = 64) -> torch.Tensor:
    """50 tokens of width 16 for each record, whose position and content have these standard deviations."""
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(1, 50, 16, generator=generator)
    return position * positions + content * torch.randn(num_records, 50, 16, generator=generator)


def test_content_is_what_differs_between_records_at_a_position():
    measures = collapse_measures(tokens(position=3.0, content=1.0))
    assert measures["position_share"] == pytest.approx(0.9, abs=0.02)
    assert measures["content_std"] == pytest.approx(1.0, rel=0.02)
    assert measures["content_effective_rank"] == pytest.approx(16, rel=0.02)
    assert measures["embedding_std"] == pytest.approx(50**-0.5, rel=0.1)
    assert collapse_measures(tokens(0.0, 1.0))["position_share"] == pytest.approx(0.0, abs=0.02)


def test_rank_of_content_is_not_that_of_positions():
    line = torch.randn(64, 50, 1, generator=torch.Generator().manual_seed(1)) * torch.ones(16)
    measures = collapse_measures(tokens(3.0, 0.0) + line)
    assert measures["target_effective_rank"] > 10
    assert measures["content_effective_rank"] < 1.1
    assert measures["embedding_effective_rank"] < 1.1


def test_signs_of_collapse():
    healthy = {**collapse_measures(tokens(3.0, 1.0)), "probe_auroc": 0.7}
    assert signs_of_collapse(healthy, {**healthy, "probe_auroc": 0.71}) == {}
    blind = collapse_measures(tokens(3.0, 0.01))
    assert "where a patch is" in signs_of_collapse(healthy, blind)["position_share"]
    faded = collapse_measures(tokens(3.0, 0.4))
    assert "is being lost" in signs_of_collapse(healthy, faded)["embedding_std"]
    line = torch.randn(64, 50, 1, generator=torch.Generator().manual_seed(1)) * torch.ones(16)
    assert "1.0 dimensions" in signs_of_collapse(healthy, collapse_measures(line))["content_effective_rank"]
    assert "0.700, no more than in the untrained encoder, 0.700" in signs_of_collapse(healthy, healthy)["probe_auroc"]


def test_a_collapse_is_warned_of_when_it_shows_and_at_the_end(tmp_path, caplog):
    monitor = Monitor(Accelerator(cpu=True), tmp_path / "metrics.jsonl", 0, 10)
    for step, content in enumerate((1.0, 0.4, 0.4, 0.4)):
        if step == 0:
            monitor.write({"step": 0, **collapse_measures(tokens(3.0, content)), "gflop_per_record": 1.5})
        monitor.update(torch.tensor(0.5), 8)
        monitor.log(step, tokens(3.0, content))
    monitor.close()
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert warnings[0].startswith("step 2/10: a sign of collapse. Embeddings of records differ by")
    assert warnings[1].startswith("The run ends with a sign of collapse. Embeddings")
