import json

import pytest
import torch
from accelerate import Accelerator

from ecg_jepa import EcgJepaForPreTrainingOutput
from ecg_jepa.pretraining.monitoring import Monitor, collapse_measures, patch_errors


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


def output() -> EcgJepaForPreTrainingOutput:
    return EcgJepaForPreTrainingOutput(target=torch.randn(2, 5, 8))


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


def test_errors_of_patches():
    target_mask = torch.tensor([[0, 3], [1, 2]])
    output = EcgJepaForPreTrainingOutput(prediction=torch.ones(2, 2, 4), target=torch.arange(16.0).view(2, 2, 4))
    nan = float("nan")
    expected = torch.tensor([[1.0, nan, nan, 4.5], [nan, 8.5, 12.5, nan]])
    torch.testing.assert_close(patch_errors(output, target_mask, 4), expected, equal_nan=True)
