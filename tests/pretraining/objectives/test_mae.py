import numpy as np
import pytest
import torch

from ecg_jepa.model.modeling_ecg_jepa import gather_patches
from ecg_jepa.pretraining.objective import BatchKey

SIGNAL = torch.randn(8, 12, 500, generator=torch.Generator().manual_seed(0))


def test_block_masks_are_those_of_the_jepa(make_objective):
    shape = {"min_block_size": 5, "min_keep_ratio": 0.2, "max_keep_ratio": 0.3}
    ours, theirs = (make_objective(name, **shape).draw(BatchKey(3, 5), 8) for name in ("mae", "jepa"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_random_masks_hide_patches_here_and_there(make_objective):
    drawn = make_objective("mae", mask="random").draw(BatchKey(0, 0), 2000)
    hidden, visible = drawn["target_mask"], drawn["context_mask"]
    assert hidden.shape == (2000, 38)
    assert torch.equal(torch.cat([hidden, visible], dim=1).sort(dim=1).values, torch.arange(50).expand(2000, -1))
    np.testing.assert_allclose(np.bincount(hidden.flatten(), minlength=50) / 2000, 0.76, atol=0.04)


def test_loss_is_the_error_of_hidden_samples(make_objective):
    mae = make_objective("mae", min_block_size=5)
    drawn = mae.draw(BatchKey(0, 0), 8)
    made = mae.reconstruct(SIGNAL, **drawn).unflatten(2, (12, 10))
    total, count = 0.0, 0
    for record in range(8):
        for number, patch in enumerate(drawn["target_mask"][record].tolist()):
            truth = SIGNAL[record, :, 10 * patch : 10 * patch + 10]
            total += (made[record, number] - truth).square().sum().item()
            count += truth.numel()
    assert mae(SIGNAL, **drawn).loss.item() == pytest.approx(total / count, rel=1e-4)


def test_normalised_patches_have_no_amplitude(make_objective):
    mae = make_objective("mae", min_block_size=5, normalize_patches=True)
    drawn = mae.draw(BatchKey(0, 0), 8)
    with torch.no_grad():
        mae.to_samples.weight.zero_()
        mae.to_samples.bias.zero_()
    loss = mae(100 * SIGNAL, **drawn).loss  # of nothing but zeros against patches of variance 1
    assert loss.item() == pytest.approx(119 / 120, rel=1e-3)


def test_the_picture_shows_hidden_patches_where_they_were(make_objective, monkeypatch):
    mae = make_objective("mae", min_block_size=5).eval()
    drawn = mae.draw(BatchKey(0, 0), 2)
    truth = gather_patches(mae.patches(SIGNAL[:1]), drawn["target_mask"][:1])
    monkeypatch.setattr(mae, "reconstruct", lambda *_, **__: truth)
    seen = {}
    monkeypatch.setattr(
        "ecg_jepa.pretraining.progress_plots.plot_reconstruction", lambda signal, made, *_: seen.update(signal=signal, made=made)
    )
    with torch.no_grad():
        mae.plots(SIGNAL[:2], SIGNAL[:2], drawn)
    hidden = ~np.isnan(seen["made"])
    assert hidden[0].sum() == 10 * drawn["target_mask"].shape[1]
    np.testing.assert_array_equal(seen["made"][hidden], seen["signal"][hidden])
