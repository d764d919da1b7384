import copy
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from ecg_jepa import EcgJepaConfig, EcgJepaForPreTraining, EcgJepaForSequenceClassification, EcgJepaModel
from ecg_jepa.model.modeling_ecg_jepa import EcgJepaLayer, rotary_angles, rotate, sinusoidal_positions

CONTEXT = torch.tensor([[0, 3, 4, 9], [1, 2, 18, 19]])
TARGET = torch.tensor([[1, 2], [5, 6]])


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Make all parameters different from their initial values, so that a lost weight shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(("size", "parameters"), [("xs", 3_600_000), ("s", 14_277_888), ("b", 85_185_024)])
def test_parameter_counts_are_exact(size, parameters):
    with torch.device("meta"):
        assert EcgJepaModel(EcgJepaConfig.from_size(size)).num_parameters() == parameters


def test_old_norm_biases_add_up():
    with torch.device("meta"):
        assert EcgJepaModel(EcgJepaConfig.from_size("s", norm_bias=True)).num_parameters() == 14_284_416


def test_shapes(tiny_config, signal):
    model = EcgJepaModel(tiny_config).eval()
    output = model(signal)
    assert output.last_hidden_state.shape == (2, 21, 32)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, 1:].mean(1))
    assert model(signal, patch_indices=CONTEXT).last_hidden_state.shape == (2, 5, 32)
    assert model(signal[..., :125]).last_hidden_state.shape == (2, 6, 32)


def test_only_visible_patches_run_through_the_encoder(tiny_config, signal):
    model = EcgJepaModel(tiny_config).eval()
    seen, projected = [], []
    model.layers[0].register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    model.embeddings.patch_projection.register_forward_hook(lambda module, args, output: projected.append(output.shape[2]))
    visible = model(signal, patch_indices=CONTEXT).last_hidden_state
    assert seen == [1 + CONTEXT.shape[1]]
    assert projected == [CONTEXT.shape[1]]
    hidden_changed = signal.clone().view(2, 12, 20, 25)
    for record, kept in enumerate(CONTEXT):
        others = [patch for patch in range(20) if patch not in kept]
        hidden_changed[record][:, others] = 100.0
    torch.testing.assert_close(model(hidden_changed.view(2, 12, 500), patch_indices=CONTEXT).last_hidden_state, visible)


@pytest.mark.parametrize("position_encoding", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("samples", [500, 250])
def test_tokens_of_visible_patches_are_those_of_whole_records(tiny_config, signal, position_encoding, samples):
    embeddings = EcgJepaModel(EcgJepaConfig(**{**tiny_config.to_dict(), "position_encoding": position_encoding})).embeddings
    everything, visible = embeddings(signal[..., :samples]), embeddings(signal[..., :samples], CONTEXT % 10)
    for record, kept in enumerate(CONTEXT % 10):
        torch.testing.assert_close(visible[record], everything[record, [0, *(1 + kept).tolist()]], atol=1e-6, rtol=0)


def test_patches_know_their_position(tiny_config, signal):
    model = EcgJepaModel(tiny_config).eval()
    everything = model(signal, patch_indices=torch.arange(20).expand(2, -1)).last_hidden_state
    torch.testing.assert_close(everything, model(signal).last_hidden_state)
    same_signal = signal[..., :25].repeat(1, 1, 20)
    tokens = model(same_signal).last_hidden_state[0, 1:]
    assert (tokens[0] - tokens[7]).abs().max() > 1e-3


@pytest.fixture
def rotary(tiny_config):
    return EcgJepaConfig(**{**tiny_config.to_dict(), "position_encoding": "rotary"})


def test_rotary_tokens_depend_on_distances_alone(rotary, signal):
    model = randomize(EcgJepaModel(rotary))
    first, last = torch.arange(0, 5).expand(2, -1), torch.arange(15, 20).expand(2, -1)
    shifted = signal.clone()
    shifted[..., 15 * 25 :] = signal[..., : 5 * 25]
    registers_aside = EcgJepaModel(EcgJepaConfig(**{**rotary.to_dict(), "num_register_tokens": 0}))
    registers_aside.load_state_dict(model.state_dict(), strict=False)
    here, there = (registers_aside.eval()(shifted, patch_indices=which).last_hidden_state for which in (first, last))
    torch.testing.assert_close(here, there, atol=1e-5, rtol=0)
    spread = registers_aside(shifted, patch_indices=3 * first).last_hidden_state
    reversed_signal = shifted.view(2, 12, 20, 25).flip(2).reshape(2, 12, 500)
    mirrored = registers_aside(reversed_signal, patch_indices=19 - 3 * first).last_hidden_state
    assert (spread - mirrored).abs().max() > 1e-3  # before and after are not the same


def test_rotary_context_is_that_of_whole_records(rotary, signal):
    model = randomize(EcgJepaModel(rotary))
    everything = model(signal, patch_indices=torch.arange(20).expand(2, -1)).last_hidden_state
    torch.testing.assert_close(everything, model(signal).last_hidden_state, atol=1e-5, rtol=0)


def test_rotary_predictions_know_where_they_are_to_be_made(rotary, signal):
    model = randomize(EcgJepaForPreTraining(rotary))
    prediction = model(signal, CONTEXT, TARGET).prediction
    assert (prediction[:, 0] - prediction[:, 1]).abs().max() > 1e-3
    swapped = model(signal, CONTEXT, TARGET.flip(1)).prediction
    torch.testing.assert_close(swapped.flip(1), prediction, atol=1e-5, rtol=0)


def test_layers_are_mixed_as_learned(tiny_config, signal):
    config = EcgJepaConfig(**{**tiny_config.to_dict(), "readout_layers": 2, "num_labels": 3})
    model = randomize(EcgJepaForSequenceClassification(config))
    outputs = model.ecg_jepa.layer_outputs(signal, num_layers=2)
    torch.testing.assert_close(outputs[-1], model.ecg_jepa(signal).last_hidden_state)
    with torch.no_grad():
        model.mixing.layer_logits.copy_(torch.tensor([-100.0, 100.0]))
        single = EcgJepaForSequenceClassification(EcgJepaConfig(**{**config.to_dict(), "readout_layers": 1})).eval()
        single.load_state_dict(model.state_dict(), strict=False)
        torch.testing.assert_close(model(signal).logits, single(signal).logits)
        model.mixing.layer_logits.zero_()
        expected = single.classify_tokens((outputs[0] + outputs[1]) / 2)
        torch.testing.assert_close(model(signal).logits, expected)


def test_what_layers_add_up_stays_float32_under_autocast(tiny_config, signal):
    model = EcgJepaForPreTraining(tiny_config)
    seen = []
    for layer in (model.context_encoder.layers[1], model.predictor.layers[0]):
        layer.register_forward_hook(lambda module, args, output: seen.append(args[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(signal, CONTEXT, TARGET).loss.backward()
    assert seen == [torch.float32, torch.float32]
    half = EcgJepaModel(tiny_config).bfloat16()
    assert half(signal).last_hidden_state.dtype == torch.bfloat16


def test_plain_and_fused_attention_agree(tiny_config, signal):
    model = EcgJepaModel(tiny_config).eval()
    assert model.config._attn_implementation == "sdpa"
    exact = model(signal).last_hidden_state
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = model(signal).last_hidden_state
        model.set_attn_implementation("eager")
        plain = model(signal).last_hidden_state
    torch.testing.assert_close(plain, fused, atol=0.05, rtol=0)
    torch.testing.assert_close(plain, exact, atol=0.05, rtol=0)
    torch.testing.assert_close(model(signal).last_hidden_state, exact, atol=1e-5, rtol=0)


def test_pairs_of_channels_are_turned_by_their_positions():
    positions, states = torch.tensor([[0, 3, 7]]), torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    heads = states.view(2, 3, 2, 2, 4)  # batch, tokens, heads, halves of a head, pairs
    frequencies = 10000.0 ** -(torch.arange(4) / 4)
    turned = torch.complex(heads[..., 0, :], heads[..., 1, :]) * torch.exp(1j * positions[..., None, None] * frequencies)
    expected = torch.stack([turned.real, turned.imag], dim=-2).reshape(2, 3, 16)
    torch.testing.assert_close(rotate(states, rotary_angles(positions, 2, torch.zeros(16, 1)), 2), expected)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 11, 500), "12 leads"), ((12, 500), "12 leads"), ((2, 12, 510), "whole patches"), ((2, 12, 525), "500 samples")],
)
def test_wrong_input_raises(tiny_config, shape, message):
    with pytest.raises(ValueError, match=message):
        EcgJepaModel(tiny_config)(torch.zeros(shape))


def test_wrong_patch_indices_raise(tiny_config, signal):
    with pytest.raises(ValueError, match="patch_indices"):
        EcgJepaModel(tiny_config)(signal, patch_indices=CONTEXT[:1])
    with pytest.raises(ValueError, match="target_mask must hold patch indices"):
        EcgJepaForPreTraining(tiny_config)(signal, CONTEXT, TARGET > 1)


def test_initialisation():
    config = EcgJepaConfig.from_size("xs")
    model = EcgJepaForPreTraining(config)
    residual = 0.02 / (2 * config.num_hidden_layers) ** 0.5
    for layer in (model.context_encoder.layers[3], model.predictor.layers[3]):
        assert layer.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.mlp.up_projection.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.attention.projection.weight.std().item() == pytest.approx(residual, rel=0.05)
        assert layer.mlp.down_projection.weight.std().item() == pytest.approx(residual, rel=0.05)
    assert model.context_encoder.embeddings.register_tokens.std() > 0.01
    assert model.predictor.mask_token.std() > 0.01
    for target, context in zip(model.ecg_jepa.parameters(), model.context_encoder.parameters(), strict=True):
        assert torch.equal(target, context)


def test_pretraining_step(tiny_config, signal):
    model = EcgJepaForPreTraining(tiny_config).train()
    output = model(signal, CONTEXT, TARGET)
    assert output.prediction.shape == output.target.shape == (2, 2, 32)
    torch.testing.assert_close(output.loss, (output.prediction - output.target).abs().mean())
    assert not output.target.requires_grad
    output.loss.backward()
    assert all(parameter.grad is None for parameter in model.ecg_jepa.parameters())
    for module in (model.context_encoder, model.predictor):
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_ema_moves_the_target_towards_the_context(tiny_config):
    model = randomize(EcgJepaForPreTraining(tiny_config))
    before = copy.deepcopy(model)
    model.update_target_encoder(0.9)
    for new, old, context in zip(
        model.ecg_jepa.parameters(), before.ecg_jepa.parameters(), before.context_encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * context)
    for new, old in zip(model.context_encoder.parameters(), before.context_encoder.parameters(), strict=True):
        assert torch.equal(new, old)


def test_target_encoder_has_no_dropout(signal):
    config = EcgJepaConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, signal_length=500, hidden_dropout_prob=0.5)
    model = EcgJepaForPreTraining(config).train()
    first, second = (model(signal, CONTEXT, TARGET) for _ in range(2))
    assert torch.equal(first.target, second.target)
    assert not torch.equal(first.prediction, second.prediction)


@pytest.mark.parametrize("pooling", ["attentive", "register", "mean"])
def test_classifier_averages_logits_over_crops(tiny_config, pooling):
    tiny_config.classifier_pooling = pooling
    tiny_config.num_labels = 5
    model = randomize(EcgJepaForSequenceClassification(tiny_config))
    crops = torch.randn(3, 4, 12, 125)
    logits = model(crops).logits
    assert logits.shape == (3, 5)
    torch.testing.assert_close(logits[1], model(crops[1]).logits.mean(0))


def test_classifier_losses(tiny_config, signal):
    tiny_config.num_labels = 3
    model = EcgJepaForSequenceClassification(tiny_config).eval()
    logits = model(signal).logits
    tiny_config.problem_type = "single_label_classification"
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0]))
    torch.testing.assert_close(model(signal, labels=torch.tensor([2, 0])).loss, expected)
    tiny_config.problem_type = "multi_label_classification"
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(model(signal, labels=labels).loss, expected)
    with pytest.raises(ValueError, match="one 0 or 1 per class"):
        model(signal, labels=labels[:, :2])


# --- what comes back from disk -----------------------------------------------------------------------------------------

SOURCES = [EcgJepaModel, EcgJepaForPreTraining, EcgJepaForSequenceClassification]


def positions_are_right(model: torch.nn.Module, config: EcgJepaConfig) -> bool:
    widths = {"predictor.position_embeddings": config.pred_hidden_size}
    buffers = {name: buffer for name, buffer in model.named_buffers() if name.endswith("position_embeddings")}
    assert buffers
    return all(
        torch.equal(buffer, sinusoidal_positions(config.num_patches, widths.get(name, config.hidden_size)))
        for name, buffer in buffers.items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification])
def test_every_class_loads_from_every_checkpoint(source, auto, dtype, tiny_config, signal, tmp_path):
    saved = randomize(source(tiny_config))
    saved.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path, dtype=dtype)
    assert not [name for name, tensor in loaded.state_dict().items() if tensor.is_meta]
    encoder = loaded if auto is AutoModel else loaded.ecg_jepa
    original = saved if source is EcgJepaModel else saved.ecg_jepa
    if dtype == torch.float32:
        assert positions_are_right(loaded, tiny_config)
        assert torch.equal(encoder(signal).last_hidden_state, original(signal).last_hidden_state)
    else:
        assert encoder(signal).last_hidden_state.dtype == torch.bfloat16
    if auto is AutoModelForPreTraining:
        assert not any(parameter.requires_grad for parameter in loaded.ecg_jepa.parameters())
        assert all(parameter.requires_grad for parameter in loaded.context_encoder.parameters())
        if source is not EcgJepaForPreTraining:  # pre-training goes on from the encoder that there is
            for target, context in zip(loaded.ecg_jepa.parameters(), loaded.context_encoder.parameters(), strict=True):
                assert torch.equal(target, context)


def test_loading_info_keeps_the_target_frozen(tiny_config, tmp_path):
    EcgJepaForPreTraining(tiny_config).save_pretrained(tmp_path)
    model, info = EcgJepaForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not any(parameter.requires_grad for parameter in model.ecg_jepa.parameters())


def test_residual_initialisation_of_new_parts_survives_loading(tmp_path):
    config = EcgJepaConfig.from_size("xs", num_hidden_layers=4, signal_length=500)
    EcgJepaModel(config).save_pretrained(tmp_path)
    predictor = EcgJepaForPreTraining.from_pretrained(tmp_path).predictor
    assert predictor.layers[0].mlp.down_projection.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.1)


@pytest.mark.slow
def test_whole_outputs_in_a_fresh_process(tiny_config, signal, tmp_path):
    models = {
        "AutoModel": randomize(EcgJepaModel(tiny_config)),
        "AutoModelForPreTraining": randomize(EcgJepaForPreTraining(tiny_config)),
        "AutoModelForSequenceClassification": randomize(EcgJepaForSequenceClassification(tiny_config)),
    }
    inputs = {"input_values": signal}
    masks = {"context_mask": CONTEXT, "target_mask": TARGET}
    expected = {}
    with torch.no_grad():
        for name, model in models.items():
            model.save_pretrained(tmp_path / name)
            arguments = inputs | masks if name == "AutoModelForPreTraining" else inputs
            expected[name] = (arguments, dict(model(**arguments)))
    torch.save(expected, tmp_path / "expected.pt")
    program = f"""
import torch, transformers, ecg_jepa
torch.set_num_threads(1)
for name, (arguments, outputs) in torch.load({str(tmp_path / "expected.pt")!r}).items():
    model = getattr(transformers, name).from_pretrained({str(tmp_path)!r} + "/" + name)
    with torch.no_grad():
        actual = dict(model(**arguments))
    assert actual.keys() == outputs.keys() and outputs
    for key in outputs:
        assert torch.equal(actual[key], outputs[key]), (name, key)
print("equal")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "equal", result.stderr


# --- the library's machinery --------------------------------------------------------------------------------------------


def test_eager_equals_sdpa(tiny_config, signal):
    model = randomize(EcgJepaForPreTraining(tiny_config))
    results = []
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        results.append(model(signal, CONTEXT, TARGET).prediction)
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)


def test_hidden_states_and_attentions_are_the_encoders(tiny_config, signal):
    model = EcgJepaForPreTraining(tiny_config)
    model.set_attn_implementation("eager")
    output = model(signal, CONTEXT, TARGET, output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in output.hidden_states] == [(2, 5, 32)] * 3
    assert [tuple(a.shape) for a in output.attentions] == [(2, 4, 5, 5)] * 2


def test_gradient_checkpointing_gives_equal_gradients(tiny_config, signal):
    plain = EcgJepaForPreTraining(tiny_config).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    assert any(isinstance(m, EcgJepaLayer) and m.gradient_checkpointing for m in checkpointed.modules())
    for model in (plain, checkpointed):
        model(signal, CONTEXT, TARGET).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, msg=name)


@pytest.mark.slow
def test_pretraining_compiles_as_one_graph(tiny_config, signal):
    model = randomize(EcgJepaForPreTraining(tiny_config))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for context in (CONTEXT, CONTEXT[:, :3]):
        with torch.no_grad():
            torch.testing.assert_close(compiled(signal, context, TARGET).loss, model(signal, context, TARGET).loss)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", [EcgJepaModel, EcgJepaForSequenceClassification])
def test_compiles_as_one_graph(model_class, tiny_config, signal):
    model = randomize(model_class(tiny_config))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for samples in (500, 250):
        with torch.no_grad():
            expected, actual = model(signal[..., :samples]), compiled(signal[..., :samples])
        torch.testing.assert_close(actual[0], expected[0])


def test_trainer_and_lora(tiny_config, tmp_path):
    from peft import LoraConfig, get_peft_model

    tiny_config.problem_type = "multi_label_classification"
    tiny_config.num_labels = 3
    model = EcgJepaForSequenceClassification(tiny_config)
    lora = get_peft_model(model, LoraConfig(target_modules=["qkv"], modules_to_save=["classifier", "pooling"]))
    dataset = [{"input_values": torch.randn(12, 500), "labels": torch.tensor([1.0, 0.0, 1.0])} for _ in range(8)]
    for name, network in (("lora", lora), ("full", EcgJepaForSequenceClassification(tiny_config))):
        arguments = TrainingArguments(
            str(tmp_path / name), max_steps=2, per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True
        )
        result = Trainer(network, arguments, train_dataset=dataset).train()
        assert result.global_step == 2
        assert result.training_loss > 0


def test_an_encoder_of_a_classifier_brings_no_thresholds(tmp_path):
    of_the_head = {"id2label": {0: "AF"}, "decision_thresholds": {"AF": 0.3}}
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, **of_the_head)
    EcgJepaForSequenceClassification(config).save_pretrained(tmp_path)
    assert EcgJepaForSequenceClassification.from_pretrained(tmp_path).config.decision_thresholds == {"AF": 0.3}
    encoder = EcgJepaModel.from_pretrained(tmp_path)
    assert EcgJepaForSequenceClassification(encoder.config).config.decision_thresholds is None
