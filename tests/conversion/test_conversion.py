"""Conversion on small checkpoints in the reference's naming; its numbers are compared in test_reference_parity.py."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import pipeline

from ecg_jepa import (
    EcgJepaFeatureExtractor,
    EcgJepaForPreTraining,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
)
from ecg_jepa.conversion import convert_reference_checkpoint, weights
from ecg_jepa.conversion.export import export_conversion, normalization
from ecg_jepa.model.modeling_ecg_jepa import sinusoidal_positions
from ecg_jepa.model.signal_processing_ecg_jepa import STANDARD_LEADS

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
    with pytest.raises(ValueError, match=r"(?s)do not fit the configuration: .*Missing key.*predictor\.mask_token"):
        convert_reference_checkpoint(without(full(), "predictor.mask_token"))
    with pytest.raises(ValueError, match=r"(?s)do not fit the configuration: .*size mismatch"):
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


def test_what_differs_from_its_source_is_refused(monkeypatch):
    """Two weights of one shape that have changed places, as a wrong key map would have it."""
    kept = [key for key in weights.KEYS if "norm" not in key[0]]
    swapped = [(r"\.norm1\.", ".mlp_norm."), (r"\.norm2\.", ".attention_norm.")]
    monkeypatch.setattr(weights, "KEYS", (*kept, *swapped))
    with pytest.raises(ValueError, match="Source and target differ by"):
        convert_reference_checkpoint({"model": encoder(), "config": CONFIG})


def run(*words):
    command = [sys.executable, "-m", "ecg_jepa.conversion", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_command_line(tmp_path):
    torch.save(full() | {"config": CONFIG | {"datasets": {"mimic-iv-ecg": 0.75, "code-15": 0.25}}}, tmp_path / "in.pt")
    result = run(tmp_path / "in.pt", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "EcgJepaForPreTraining" in result.stdout
    saved, direct = EcgJepaModel.from_pretrained(tmp_path / "out"), convert_reference_checkpoint(tmp_path / "in.pt")
    signal = torch.randn(1, 12, 500)
    assert torch.equal(saved(signal).pooler_output, direct.ecg_jepa(signal).pooler_output)
    extractor = EcgJepaFeatureExtractor.from_pretrained(tmp_path / "out")
    # Lead I: mean 0.023 and 0, standard deviation 0.155 and 0.488; only one of the two was high-passed.
    assert extractor.mean[0] == pytest.approx(0.75 * 0.023)
    assert extractor.std[0] ** 2 == pytest.approx(0.75 * 0.155**2 + 0.25 * 0.488**2 + 0.75 * 0.25 * 0.023**2)
    assert extractor.highpass_cutoff is None
    assert "mimic-iv-ecg, code-15, mixed by weight" in (tmp_path / "out" / "README.md").read_text()
    result = run(tmp_path / "no.pt", tmp_path / "out")
    assert result.returncode == 1
    assert "No checkpoint at" in result.stderr
    assert "Traceback" not in result.stderr


def save(checkpoint, tmp_path):
    torch.save(checkpoint, tmp_path / "in.pt")
    return tmp_path / "in.pt"


def test_classifiers_get_labels_crops_and_statistics(tmp_path):
    checkpoint = classifier(num_classes=5, crop_duration=0.5, crop_stride=0.25)
    checkpoint["model"]["fc.weight"] = torch.randn(5, WIDTH)
    path = save(checkpoint, tmp_path)
    export_conversion(path, tmp_path / "out", task="ST-MEM")
    classify = pipeline("ecg-classification", model=str(tmp_path / "out"))
    result = classify(np.random.default_rng(0).normal(size=(12, 600)), sampling_rate=500, unit="mV")
    assert {entry["label"] for entry in result} == {"CD", "HYP", "MI", "NORM", "STTC"}
    assert sum(entry["score"] for entry in result) == pytest.approx(1)
    extractor = EcgJepaFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (extractor.crop_duration, extractor.crop_stride) == (0.5, 0.25)
    assert extractor.std[0] == pytest.approx(0.191)  # of PTB-XL
    assert "no names" not in (tmp_path / "out" / "README.md").read_text()
    model = export_conversion(path, tmp_path / "unnamed")
    assert model.config.problem_type is None
    assert "The outputs have no names" in (tmp_path / "unnamed" / "README.md").read_text()
    with pytest.raises(ValueError, match=r"scp_statements\.csv, which is needed"):
        export_conversion(path, tmp_path / "no", task="all")
    (tmp_path / "scp.csv").write_text(",diagnostic,form,rhythm\nSR,,,1\nAFIB,,,1\nNORM,1,,\n")
    with pytest.raises(ValueError, match="Task rhythm has 2 classes, but the classifier has 5 outputs"):
        export_conversion(path, tmp_path / "no", task="rhythm", scp_statements=tmp_path / "scp.csv")
    assert not (tmp_path / "no").exists()


def test_statistics_must_be_known(tmp_path):
    path = save({"model": encoder(), "config": CONFIG}, tmp_path)
    with pytest.raises(ValueError, match="databases that it does not name"):
        export_conversion(path, tmp_path / "out")
    export_conversion(path, tmp_path / "out", normalize_as="code-15")
    assert EcgJepaFeatureExtractor.from_pretrained(tmp_path / "out").highpass_cutoff == 0.5
    with pytest.raises(ValueError, match="outputs of a classifier"):
        export_conversion(path, tmp_path / "out", task="all")
    with pytest.raises(ValueError, match="trained on secret"):
        export_conversion(save({"model": encoder(), "config": CONFIG | {"datasets": {"secret": 1}}}, tmp_path), tmp_path / "out")
    assert normalization({"channels": ["V1"]}, {"cpsc-extra": 1.0})[1] == [pytest.approx(0.336)]  # CPSC's, as in the reference
