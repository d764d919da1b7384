import math

import torch

from ecg_jepa.pretraining.objective import BatchKey
from ecg_jepa.pretraining.objectives.simclr import nt_xent


def test_loss_is_nt_xent_written_out():
    """Of four records, term by term as in the paper's equation 1."""
    torch.manual_seed(0)
    first, second = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    rows = [list(map(float, row)) for row in torch.cat([first, second])]

    def similarity(a, b):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    total = 0.0
    for i, row in enumerate(rows):
        partner = (i + 4) % 8
        others = sum(math.exp(similarity(row, rows[k]) / 0.1) for k in range(8) if k != i)
        total -= math.log(math.exp(similarity(row, rows[partner]) / 0.1) / others)
    loss, similarities = nt_xent(first, second, 0.1)
    assert abs(loss.item() - total / 8) < 1e-5
    assert torch.isinf(similarities.diagonal()).all()


def test_same_views_are_found_and_the_loss_compares_registers(make_objective):
    objective = make_objective("simclr")
    signal = torch.randn(8, 12, 500)
    output = objective.compare(signal[..., :250], signal[..., :250])
    assert output.metrics["share_found"] == 1
    drawn = objective.draw(BatchKey(0, 0), 8)
    output = objective(signal, **drawn)
    output.loss.backward()
    assert objective.projector[0].weight.grad.abs().sum() > 0
    assert objective.model.context_encoder.embeddings.register_tokens.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in objective.model.ecg_jepa.parameters())
