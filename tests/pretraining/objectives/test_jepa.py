import pytest
import torch

from ecg_jepa import EcgJepaConfig, EcgJepaForPreTrainingOutput
from ecg_jepa.pretraining.objective import BatchKey
from ecg_jepa.pretraining.objectives.jepa import Jepa, patch_errors
from ecg_jepa.pretraining.recipe import JepaRecipe


@pytest.fixture
def objective(tiny_config):
    def make(**settings):
        torch.manual_seed(0)
        return Jepa(EcgJepaConfig(**{**tiny_config.to_dict(), "signal_length": 5000}), JepaRecipe(**settings))

    return make


def test_masks_are_a_function_of_seed_and_batch(objective):
    jepa = objective(min_keep_ratio=0.2, max_keep_ratio=0.2)
    mask = jepa.draw(BatchKey(3, 5), 4)["context_mask"]
    assert mask.shape == (4, 40)
    assert torch.equal(mask, jepa.draw(BatchKey(3, 5), 4)["context_mask"])
    for key in (BatchKey(3, 6), BatchKey(4, 5), BatchKey.held_out(3, 5)):
        assert not torch.equal(mask, jepa.draw(key, 4)["context_mask"])


def test_as_many_patches_are_visible_in_all_records_of_a_batch_but_not_in_all_batches(objective):
    jepa = objective()
    shapes = {jepa.draw(BatchKey(3, index), 4)["context_mask"].shape for index in range(30)}
    assert all(30 <= visible <= 50 for _, visible in shapes)
    assert len(shapes) > 5


def test_loss_and_latents_are_those_of_the_model(objective):
    jepa = objective(min_block_size=5).eval()
    signal = torch.randn(3, 12, 5000)
    drawn = jepa.draw(BatchKey(0, 0), 3)
    output, expected = jepa(signal, **drawn), jepa.model(signal, **drawn)
    assert torch.equal(output.loss, expected.loss)
    assert torch.equal(output.latents, expected.target)


def test_the_target_encoder_follows_after_a_step(objective):
    jepa = objective(max_steps=4, ema_momentum=0.5, final_ema_momentum=0.9, warmup_steps=1)
    with torch.no_grad():
        jepa.model.context_encoder.norm.weight.fill_(3.0)
    jepa.after_step(1)  # momentum 0.5 + 0.4 * 2 / 4
    torch.testing.assert_close(jepa.encoder.norm.weight, torch.full((32,), 0.7 * 1 + 0.3 * 3))


def test_checkpoints_of_before_there_were_objectives_load(objective):
    jepa, other = objective(), objective()
    with torch.no_grad():
        other.model.predictor.mask_token.fill_(5.0)
    jepa.load_state_dict(other.model.state_dict())
    assert (jepa.model.predictor.mask_token == 5).all()
    jepa.load_state_dict(objective().state_dict())
    assert not (jepa.model.predictor.mask_token == 5).any()


def test_errors_of_patches():
    target_mask = torch.tensor([[0, 3], [1, 2]])
    output = EcgJepaForPreTrainingOutput(prediction=torch.ones(2, 2, 4), target=torch.arange(16.0).view(2, 2, 4))
    nan = float("nan")
    expected = torch.tensor([[1.0, nan, nan, 4.5], [nan, 8.5, 12.5, nan]])
    torch.testing.assert_close(patch_errors(output, target_mask, 4), expected, equal_nan=True)
