"""Conversion on small checkpoints in the reference's naming; its numbers are compared in test_reference_parity.py."""

import subprocess
import sys

import pytest
import torch

from ecg_jepa import EcgJepaForPreTraining, EcgJepaForSequenceClassification, EcgJepaModel
from ecg_jepa.configuration_ecg_jepa import STANDARD_LEADS
from ecg_jepa.conversion import convert_reference_checkpoint
from ecg_jepa.modeling_ecg_jepa import sinusoidal_positions

WIDTH, PRED_WIDTH, CLASSES = 16, 8, 3
CONFIG = {
    "sampling_frequency": 500,
    "channels": [name.upper() for name in STANDARD_LEADS],
    "channel_size": 500,
    "patch_size": 25,
    "dim": WIDTH,
    "depth": 2,
    "num_heads": 2,
    "pred_dim": PRED_WIDTH,
    "pred_depth": 1,
    "pred_num_heads": 2,
}


def block(width: int, prefix: str, norm_bias: bool) -> dict[str, torch.Tensor]:
    shapes = {
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc2.weight": (width, 4 * width),
        "norm1.weight": (width,),
        "norm2.weight": (width,),
    }
    if norm_bias:
        shapes |= {"norm1.bias": (width,), "norm2.bias": (width,)}
    return {f"{prefix}{name}": torch.randn(shape) for name, shape in shapes.items()}


def encoder(prefix: str = "", norm_bias: bool = False) -> dict[str, torch.Tensor]:
    weights = {
        f"{prefix}patch_embed.proj.weight": torch.randn(WIDTH, 12, 25),
        f"{prefix}registers": torch.randn(1, 1, WIDTH),
        f"{prefix}norm.weight": torch.randn(WIDTH),
    }
    if norm_bias:
        weights[f"{prefix}norm.bias"] = torch.randn(WIDTH)
    for layer in range(2):
        weights |= block(WIDTH, f"{prefix}blocks.{layer}.", norm_bias)
    return weights


def full(norm_bias: bool = False) -> dict:
    predictor = {
        "predictor.embed.weight": torch.randn(PRED_WIDTH, WIDTH),
        "predictor.mask_token": torch.randn(1, 1, PRED_WIDTH),
        "predictor.norm.weight": torch.randn(PRED_WIDTH),
        "predictor.proj.weight": torch.randn(WIDTH, PRED_WIDTH),
        **block(PRED_WIDTH, "predictor.blocks.0.", norm_bias),
    }
    if norm_bias:
        predictor["predictor.norm.bias"] = torch.randn(PRED_WIDTH)
    model = encoder("encoder.", norm_bias) | encoder("target_encoder.", norm_bias) | predictor
    return {"model": model, "config": CONFIG}


def classifier(**eval_config: object) -> dict:
    head = {"fc.weight": torch.randn(CLASSES, WIDTH)}
    return {
        "model": encoder("encoder.") | head,
        "config": CONFIG,
        "eval_config": {"num_classes": CLASSES, "use_register": True, "attn_pooling": False, **eval_config},
    }


@pytest.mark.parametrize("norm_bias", [False, True])
def test_full_checkpoints(norm_bias):
    checkpoint = full(norm_bias)
    model = convert_reference_checkpoint(checkpoint)
    assert isinstance(model, EcgJepaForPreTraining)
    assert model.config.norm_bias is norm_bias
    assert not model.config.use_bias
    assert model.config.lead_names == list(STANDARD_LEADS)
    weights = checkpoint["model"]
    assert torch.equal(model.ecg_jepa.layers[1].attention.qkv.weight, weights["target_encoder.blocks.1.attn.qkv.weight"])
    assert torch.equal(model.context_encoder.norm.weight, weights["encoder.norm.weight"])
    assert torch.equal(model.predictor.output_projection.weight, weights["predictor.proj.weight"])
    assert not any(parameter.requires_grad for parameter in model.ecg_jepa.parameters())


@pytest.mark.parametrize("prefix", ["", "encoder.", "target_encoder.", "module.encoder.", "_orig_mod."])
def test_minified_checkpoints(prefix):
    checkpoint = {"model": encoder(prefix), "config": CONFIG}
    model = convert_reference_checkpoint(checkpoint)
    assert type(model) is EcgJepaModel
    expected = checkpoint["model"][f"{prefix}blocks.0.mlp.fc2.weight"]
    assert torch.equal(model.layers[0].mlp.down_projection.weight, expected)


@pytest.mark.parametrize(("use_register", "pooling"), [(True, "register"), (False, "mean")])
def test_classifiers(use_register, pooling):
    checkpoint = classifier(use_register=use_register)
    model = convert_reference_checkpoint(checkpoint)
    assert isinstance(model, EcgJepaForSequenceClassification)
    assert model.config.classifier_pooling == pooling
    assert torch.equal(model.classifier.weight, checkpoint["model"]["fc.weight"])


def test_attentive_classifier_without_registers():
    checkpoint = classifier(use_register=False, attn_pooling=True)
    del checkpoint["model"]["fc.weight"]
    part = "attn_pool.cross_attention_block."
    checkpoint["model"] |= {
        "attn_pool.query_token": torch.randn(1, 1, WIDTH),
        f"{part}q.weight": torch.randn(WIDTH, WIDTH),
        f"{part}kv.weight": torch.randn(2 * WIDTH, WIDTH),
        f"{part}proj.weight": torch.randn(CLASSES, WIDTH),
    }
    model = convert_reference_checkpoint(checkpoint)
    tokens = torch.randn(2, 21, WIDTH)
    changed = tokens.clone()
    changed[:, 0] = 0  # the register, which this head does not look at
    assert torch.equal(model.classify_tokens(tokens), model.classify_tokens(changed))


def test_stored_positions_are_checked():
    checkpoint = {"model": encoder(), "config": CONFIG}
    checkpoint["model"]["pos_embed"] = sinusoidal_positions(20, WIDTH)[None]
    convert_reference_checkpoint(checkpoint)
    checkpoint["model"]["pos_embed"] = torch.randn(1, 20, WIDTH)
    with pytest.raises(ValueError, match="other positions"):
        convert_reference_checkpoint(checkpoint)


def without(checkpoint: dict, name: str) -> dict:
    return checkpoint | {"model": {key: value for key, value in checkpoint["model"].items() if key != name}}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"1 places.*\n.*predictor.mask_token: absent"):
        convert_reference_checkpoint(without(full(), "predictor.mask_token"))
    with pytest.raises(ValueError, match="instead of"):
        convert_reference_checkpoint(full() | {"config": CONFIG | {"dim": 32}})
    strange = full()
    strange["model"]["decoder.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="Unexpected weight"):
        convert_reference_checkpoint(strange)
    with pytest.raises(ValueError, match="num_classes=7"):
        convert_reference_checkpoint(classifier(num_classes=7))
    with pytest.raises(ValueError, match="No 'config'"):
        convert_reference_checkpoint({"model": {}})
    with pytest.raises(ValueError, match="lacks dim"):
        convert_reference_checkpoint({"model": encoder(), "config": {k: v for k, v in CONFIG.items() if k != "dim"}})
    with pytest.raises(ValueError, match="one encoder"):
        convert_reference_checkpoint({"model": {"bert.weight": torch.zeros(1)}, "config": CONFIG})


class Payload:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_files_that_would_run_code_are_refused(tmp_path, capsys):
    torch.save({"model": {}, "config": Payload()}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="run code are refused"):
        convert_reference_checkpoint(tmp_path / "bad.pt")
    assert "must not run" not in capsys.readouterr().out
    (tmp_path / "garbage.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="could not be read"):
        convert_reference_checkpoint(tmp_path / "garbage.pt")
    with pytest.raises(ValueError, match="No checkpoint at"):
        convert_reference_checkpoint(tmp_path / "missing.pt")


def test_command_line(tmp_path):
    torch.save(full(), tmp_path / "in.pt")
    command = [sys.executable, "-m", "ecg_jepa.conversion"]
    result = subprocess.run([*command, tmp_path / "in.pt", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "EcgJepaForPreTraining" in result.stdout
    saved, direct = EcgJepaModel.from_pretrained(tmp_path / "out"), convert_reference_checkpoint(tmp_path / "in.pt")
    signal = torch.randn(1, 12, 500)
    assert torch.equal(saved(signal).pooler_output, direct.ecg_jepa(signal).pooler_output)
    result = subprocess.run([*command, tmp_path / "no.pt", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "No checkpoint at" in result.stderr
    assert "Traceback" not in result.stderr
