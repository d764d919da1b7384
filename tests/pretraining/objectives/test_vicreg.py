import pytest
import torch

from ecg_jepa.pretraining.objective import BatchKey


def test_loss_is_the_sum_of_its_terms(make_objective):
    objective = make_objective("vicreg")
    first, second = torch.randn(8, 12, 250), torch.randn(8, 12, 250)
    output = objective.compare(first, second)
    rows = [objective.projector(objective.embed(objective.model.context_encoder, view)) for view in (first, second)]
    invariance = (rows[0] - rows[1]).square().mean()
    variance = torch.stack([(1 - (r.var(0, correction=0) + 1e-6).sqrt()).relu().mean() for r in rows]).mean()
    covariances = [torch.cov(r.T, correction=0) for r in rows]
    shared = sum((c - c.diag().diag()).square().sum() / 16 for c in covariances)
    assert output.loss.item() == pytest.approx((25 * invariance + 25 * variance + shared).item(), rel=1e-4)


def test_same_embeddings_cost_variance_alone(make_objective):
    objective = make_objective("vicreg")
    objective.projector = torch.nn.Identity()
    view = torch.zeros(8, 12, 250)
    metrics = objective.compare(view, view).metrics
    assert metrics["invariance_loss"] == 0
    assert metrics["variance_loss"] == pytest.approx(1.0, abs=0.01)
    objective(torch.randn(8, 12, 500), **objective.draw(BatchKey(0, 0), 8)).loss.backward()
