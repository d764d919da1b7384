import json

import pytest
import torch
from accelerate import Accelerator

from ecg_jepa.pretraining.monitoring import Monitor, collapse_measures, last_metrics, training_seconds
from ecg_jepa.pretraining.objective import StepOutput


def test_collapsed_targets_show():
    measures = collapse_measures(torch.ones(4, 50, 16))
    assert measures["target_std"] == 0
    assert measures["target_effective_rank"] < 1.01


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_effective_rank_counts_directions(rank):
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 16)).Q[:rank]
    measures = collapse_measures(torch.randn(40, 500, rank) @ basis)
    assert measures["target_effective_rank"] == pytest.approx(rank, rel=0.03)


def test_standard_deviation_is_over_tokens():
    assert collapse_measures(3 * torch.randn(10, 1000, 8))["target_std"] == pytest.approx(3, rel=0.05)


def output(**figures) -> StepOutput:
    return StepOutput(loss=torch.tensor(0.0), latents=torch.randn(2, 5, 8), figures=figures)


def test_lines_average_the_steps_and_outlive_an_interruption(tmp_path):
    path = tmp_path / "metrics.jsonl"
    monitor = Monitor(Accelerator(cpu=True), path, 0, 10)
    for step, loss in enumerate((1.0, 3.0, 5.0)):
        monitor.update(step, torch.tensor(loss), 8)
        if step >= 1:
            monitor.log(step, output(), learning_rate=0.1)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(2, 2.0), (3, 5.0)]
    assert lines[0]["learning_rate"] == 0.1
    assert lines[0]["records_per_second"] > 0
    Monitor(Accelerator(cpu=True), path, 2, 10)  # resumed after two steps
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    monitor = Monitor(Accelerator(cpu=True), tmp_path / "metrics.jsonl", 0, 10)
    monitor.update(0, torch.tensor(float("nan")), 8)
    with pytest.raises(FloatingPointError, match="nan after 1 steps"):
        monitor.log(0, output())


def test_evaluations_have_lines_of_their_own_and_take_no_training_time(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    path = tmp_path / "metrics.jsonl"
    monitor = Monitor(Accelerator(cpu=True), path, 0, 10)
    for step in range(2):
        monitor.update(step, torch.tensor(1.0), 8)
        now += 2
        with monitor.paused():
            now += 50
            monitor.log_evaluation(step, {"eval_loss": 0.5})
    monitor.log(1, output(invariance=torch.tensor(0.25)))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[:2] == [{"step": 1, "eval_loss": 0.5}, {"step": 2, "eval_loss": 0.5}]
    assert lines[2]["seconds"] == training_seconds(path) == 4
    assert lines[2]["invariance"] == 0.25  # what an objective reports
    assert last_metrics(path) == lines[2]


def test_a_log_line_reads_like_one(tmp_path, monkeypatch, caplog):
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    monitor = Monitor(Accelerator(cpu=True), tmp_path / "metrics.jsonl", 0, 1000)
    for step in range(10):
        monitor.update(step, torch.tensor(0.5), 64)
    now = 20.0
    with caplog.at_level("INFO", logger="ecg_jepa"):
        monitor.log(9, StepOutput(torch.tensor(0.5), torch.zeros(4, 8)), grad_norm=1.25)
    (line,) = caplog.messages
    assert line == ("step 10/1000: loss 0.5000, gradient norm 1.25, target std 0.000, rank 1.0, records/s 32, 33:00 to go")
