import pytest
import torch

from ecg_jepa.pretraining.objective import BatchKey


def train(objective, steps=60):
    """A few steps on the same records; the standard deviation of normalised targets after each."""
    torch.manual_seed(1)
    signal = torch.randn(32, 12, 500) + 2 * torch.randn(32, 12, 1)
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=2e-3)
    spreads = []
    for step in range(steps):
        output = objective(signal, **objective.draw(BatchKey(0, step), 32))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step)
        spreads.append(output.metrics["target_projection_std"].item())
    return spreads


def test_loss_is_two_minus_twice_the_cosine(make_objective):
    objective = make_objective("byol").eval()
    objective.predictor = torch.nn.Identity()
    view = torch.randn(8, 12, 250)
    assert objective.compare(view, view).loss.item() == pytest.approx(0.0, abs=1e-5)  # encoder and average begin the same
    with torch.no_grad():
        objective.target_projector[-1].weight.neg_()
        objective.target_projector[-1].bias.neg_()
    assert objective.compare(view, view).loss.item() == pytest.approx(4.0, abs=1e-5)


def test_targets_take_no_gradient_and_follow_slowly(make_objective):
    objective = make_objective("byol", ema_momentum=0.9, final_ema_momentum=0.9)
    signal = torch.randn(8, 12, 500)
    objective(signal, **objective.draw(BatchKey(0, 0), 8)).loss.backward()
    followers = (objective.model.ecg_jepa, objective.target_projector)
    assert all(p.grad is None for network in followers for p in network.parameters())
    before = objective.target_projector[0].weight.clone()
    with torch.no_grad():
        objective.projector[0].weight.add_(1.0)
    objective.after_step(0)
    torch.testing.assert_close(objective.target_projector[0].weight, before + 0.1)


@pytest.mark.slow
def test_without_its_predictor_it_collapses(make_objective):
    fast = {"ema_momentum": 0.9, "final_ema_momentum": 0.9}
    with_predictor = train(make_objective("byol", **fast))
    without = make_objective("byol", **fast)
    without.predictor = torch.nn.Identity()
    collapsed = train(without)
    assert collapsed[-1] < 0.5 * with_predictor[-1]
