import pytest
import torch

from ecg_jepa import EcgJepaConfig
from ecg_jepa.model.modeling_ecg_jepa import gather_patches
from ecg_jepa.pretraining.monitoring import collapse_measures
from ecg_jepa.pretraining.objective import BatchKey
from ecg_jepa.pretraining.objectives.jepa import Jepa, JepaRecipe, patch_errors
from ecg_jepa.pretraining.objectives.vicreg import vicreg_penalties


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
    assert torch.equal(gather_patches(output.latents, drawn["target_mask"]), expected.target)


def targets_of(jepa, signal):
    return jepa.encode_targets(signal)[1]


def test_normalized_targets_have_mean_0_and_variance_1(objective):
    signal = torch.randn(3, 12, 5000)
    targets = targets_of(objective(normalize_targets=True), signal)
    torch.testing.assert_close(targets.mean(-1), torch.zeros(3, 200), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(-1, unbiased=False), torch.ones(3, 200), atol=1e-3, rtol=0)


def test_targets_of_several_layers_are_the_normalised_average_of_normalised_layers(objective):
    jepa, signal = objective(target_layers=2), torch.randn(3, 12, 5000)
    hidden_states = jepa.encoder(signal, output_hidden_states=True).hidden_states
    inputs_of_last_layer = torch.nn.functional.layer_norm(jepa.encoder.norm(hidden_states[-2][:, 1:]), (32,))
    last = torch.nn.functional.layer_norm(jepa.encoder(signal).last_hidden_state[:, 1:], (32,))
    expected = torch.nn.functional.layer_norm((inputs_of_last_layer + last) / 2, (32,))
    torch.testing.assert_close(targets_of(jepa, signal), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="target_layers=3, but the encoder has 2"):
        objective(target_layers=3)


def test_centred_targets_say_nothing_about_position(objective):
    signal = torch.randn(5, 12, 5000)
    targets = targets_of(objective(center_targets=True), signal)
    torch.testing.assert_close(targets.mean(0), torch.zeros(200, 32), atol=1e-6, rtol=0)
    assert (
        collapse_measures(targets)["position_share"] < 1e-6 < collapse_measures(targets_of(objective(), signal))["position_share"]
    )


def test_the_loss_of_several_masks_is_the_mean_of_their_losses(objective):
    jepa, signal = objective(masks_per_record=3).eval(), torch.randn(2, 12, 5000)
    drawn = jepa.draw(BatchKey(0, 0), 2)
    assert drawn["context_mask"].shape[:2] == (2, 3)
    calls = []
    jepa.encoder.embeddings.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    loss = jepa(signal, **drawn).loss
    assert calls == [2]  # one pass of the target encoder for all
    each = [jepa.model(signal, drawn["context_mask"][:, i], drawn["target_mask"][:, i]).loss for i in range(3)]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_masks_of_several_are_those_of_more_records(objective):
    several, single = (objective(masks_per_record=count).draw(BatchKey(1, 2), 6 // count) for count in (3, 1))
    assert torch.equal(several["target_mask"].flatten(0, 1), single["target_mask"])


def test_visible_patches_are_predicted_too(objective):
    jepa, signal = objective(context_loss_weight=0.5).eval(), torch.randn(2, 12, 5000)
    drawn = jepa.draw(BatchKey(0, 0), 2)
    output = jepa(signal, **drawn)
    hidden = jepa.model(signal, **drawn).loss
    torch.testing.assert_close(output.loss, hidden + 0.5 * output.metrics["context_loss"])
    context = jepa.model.context_encoder(signal, patch_indices=drawn["context_mask"]).last_hidden_state[:, 1:]
    predicted = jepa.model.predictor(context, *drawn.values(), with_context=True)[:, : context.shape[1]]
    expected = (predicted - gather_patches(output.latents, drawn["context_mask"])).abs().mean()
    torch.testing.assert_close(output.metrics["context_loss"], expected)


def test_channels_that_do_not_vary_are_penalised():
    torch.manual_seed(0)
    rows = 0.05 * torch.randn(5000, 16)
    assert vicreg_penalties(rows, 0.2)[0].item() == pytest.approx(0.15, abs=0.003)
    assert vicreg_penalties(rows, 0.02)[0] == 0
    same = torch.zeros(8, 16, requires_grad=True)
    vicreg_penalties(same + 1e-3 * torch.randn(8, 16), 0.2)[0].backward()
    assert same.grad.abs().max() > 0


def test_channels_that_say_the_same_are_penalised():
    torch.manual_seed(0)
    rows = torch.randn(5000, 4)
    assert vicreg_penalties(rows, 1.0)[1] < 0.01
    copies = rows[:, :1].expand(-1, 4)
    expected = 12 * copies[:, 0].var().item() ** 2 / 4  # twelve covariances of the four channels
    assert vicreg_penalties(copies, 1.0)[1].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("of", ["tokens", "records"])
def test_the_penalties_add_to_the_loss(objective, of):
    jepa = objective(variance_weight=2.0, covariance_weight=3.0, variance_floor=5.0, spread_of=of).eval()
    signal = torch.randn(4, 12, 5000)
    drawn = jepa.draw(BatchKey(0, 0), 4)
    output, hidden = jepa(signal, **drawn), jepa.model(signal, **drawn).loss
    context = jepa.model.context_encoder(signal, patch_indices=drawn["context_mask"]).last_hidden_state[:, 1:]
    variance, covariance = vicreg_penalties(context.flatten(0, 1) if of == "tokens" else context.mean(1), 5.0)
    assert variance > 1
    torch.testing.assert_close(output.loss, hidden + 2 * variance + 3 * covariance)


@pytest.mark.parametrize("count", [1, 2])
def test_the_mean_of_what_is_visible_is_drawn_to_the_mean_of_everything(objective, count):
    jepa, signal = objective(invariance_weight=4.0, masks_per_record=count).eval(), torch.randn(2, 12, 5000)
    drawn = jepa.draw(BatchKey(0, 0), 2)
    output = jepa(signal, **drawn)
    masks = drawn["context_mask"].view(2, count, -1)
    whole = output.latents.mean(dim=1)
    apart = [
        jepa.model.context_encoder(signal, patch_indices=masks[:, i]).last_hidden_state[:, 1:].mean(dim=1) - whole
        for i in range(count)
    ]
    torch.testing.assert_close(output.metrics["invariance_loss"], torch.stack(apart).square().mean())
    hidden = objective(masks_per_record=count)
    hidden.load_state_dict(jepa.state_dict())
    torch.testing.assert_close(output.loss, hidden.eval()(signal, **drawn).loss + 4 * output.metrics["invariance_loss"])


@pytest.mark.parametrize("setting", [{"center_targets": True}, {"variance_weight": 1.0}, {"covariance_weight": 1.0}])
def test_what_couples_records_refuses_accumulation(setting):
    with pytest.raises(ValueError, match="use a larger batch_size"):
        JepaRecipe(gradient_accumulation_steps=2, **setting)


@pytest.mark.slow
def test_all_switches_compile_as_one_graph(tiny_config):
    config = EcgJepaConfig(**{**tiny_config.to_dict(), "position_encoding": "rotary"})
    switches = {"normalize_targets": True, "center_targets": True, "target_layers": 2, "masks_per_record": 2}
    switches |= {"context_loss_weight": 0.5, "variance_weight": 1.0, "covariance_weight": 0.1, "min_block_size": 3}
    switches |= {"invariance_weight": 2.0}
    jepa, signal = Jepa(config, JepaRecipe(**switches)), torch.randn(3, 12, 500)
    compiled = torch.compile(jepa.forward, fullgraph=True, backend="aot_eager", dynamic=True)
    for index in range(3):
        drawn = jepa.draw(BatchKey(0, index), 3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(compiled(signal, **drawn).loss, jepa(signal, **drawn).loss)


def test_rotary_encoders_train(objective, tiny_config):
    config = EcgJepaConfig(**{**tiny_config.to_dict(), "position_encoding": "rotary"})
    torch.manual_seed(0)
    jepa = Jepa(config, JepaRecipe(crop_duration=1, min_block_size=3))
    signal = torch.randn(4, 12, 500)
    drawn = jepa.draw(BatchKey(0, 0), 4)
    jepa(signal, **drawn).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in jepa.parameters() if p.requires_grad)


def test_the_target_encoder_follows_after_a_step(objective):
    jepa = objective(max_steps=4, ema_momentum=0.5, final_ema_momentum=0.9, warmup_steps=1)
    with torch.no_grad():
        jepa.model.context_encoder.norm.weight.fill_(3.0)
    jepa.after_step(1)  # momentum 0.5 + 0.4 * 2 / 4
    torch.testing.assert_close(jepa.encoder.norm.weight, torch.full((32,), 0.7 * 1 + 0.3 * 3))


def test_errors_of_patches():
    target_mask = torch.tensor([[0, 3], [1, 2]])
    prediction, target, nan = torch.ones(2, 2, 4), torch.arange(16.0).view(2, 2, 4), float("nan")
    expected = torch.tensor([[1.0, nan, nan, 4.5], [nan, 8.5, 12.5, nan]])
    torch.testing.assert_close(patch_errors(prediction, target, target_mask, 4), expected, equal_nan=True)
