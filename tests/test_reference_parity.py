"""
Numbers of the reference implementation, reproduced: every case in the folder named by ECG_JEPA_REFERENCE_DIR.

Float32 agreement to 1e-5 in hidden states, predictions, logits and trained weights, and to 1e-6 in losses, as that folder's
README asks; schedules are compared in float64.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecg_jepa import EcgJepaForPreTraining, EcgJepaForSequenceClassification
from ecg_jepa._utils.optimization import (
    cosine_schedule,
    linear_schedule,
    parameter_groups,
    set_schedules,
    warmup_cosine_schedule,
)
from ecg_jepa.conversion import convert_reference_checkpoint
from ecg_jepa.model.signal_processing_ecg_jepa import highpass, interpolate_nans, normalize, resample
from ecg_jepa.pretraining.masking import sample_block_masks

DEFAULT_DIR = Path(__file__).parents[2] / "shared" / "reference"
REFERENCE_DIR = Path(os.environ.get("ECG_JEPA_REFERENCE_DIR", DEFAULT_DIR))

pytestmark = pytest.mark.skipif(not REFERENCE_DIR.is_dir(), reason="no folder with the reference's numbers")


def cases(kind: str) -> pytest.MarkDecorator:
    paths = sorted(REFERENCE_DIR.glob(f"{kind}_*.json"))
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def load_case(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    return json.loads(path.read_text()), load_file(path.with_suffix(".safetensors"))


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5, what: str = "") -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0, msg=lambda text: f"{what}: {text}")


def assert_same_weights(model: torch.nn.Module, expected: torch.nn.Module, noise: dict[str, torch.Tensor] | None = None) -> None:
    """`noise` marks elements of which only rounding decides (see `key_biases`): they are left out of the comparison."""
    theirs = dict(expected.named_parameters())
    assert theirs
    for name, parameter in model.named_parameters():
        signal = ~(noise or {}).get(name, torch.zeros_like(parameter, dtype=torch.bool))
        assert_close(parameter.detach()[signal], theirs[name].detach()[signal], what=name)


def key_biases(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """
    Where the biases of attention keys are.

    A key bias adds the same to all scores of a query, which softmax ignores: its gradient is zero but for rounding
    (1e-10 here). AdamW with eps 1e-8 divides that noise by its own size and moves the bias by up to 2e-5 in the four steps
    of a case, differently with every number of threads.
    """
    found = {}
    for name, parameter in model.named_parameters():
        if name.endswith("qkv.bias"):
            third = len(parameter) // 3
            found[name] = torch.arange(len(parameter)) // third == 1
    return found


def assert_only_noise(model: torch.nn.Module, noise: dict[str, torch.Tensor]) -> None:
    for name, elements in noise.items():
        gradient = model.get_parameter(name).grad
        if gradient is not None:
            assert gradient[elements].abs().max() < 1e-8 < 1e-5 < gradient[~elements].abs().max(), name


def adamw(model: torch.nn.Module, config: dict, **options: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameter_groups([model]),
        lr=config["learning_rate"],
        betas=tuple(config["opt_betas"]),
        weight_decay=config["weight_decay"],
        **options,
    )


@cases("pretrain")
def test_pretraining(path: Path) -> None:
    case, tensors = load_case(path)
    config = case["config"]
    model = convert_reference_checkpoint({"model": part(tensors, "weights."), "config": config})
    assert isinstance(model, EcgJepaForPreTraining)
    model.train()
    optimizer = adamw(model, config, eps=config["opt_eps"])
    total = config["steps"]
    for step in range(case["steps"]):
        # The reference moves the target encoder before each forward, also before the first.
        model.update_target_encoder(linear_schedule(step, total, config["encoder_momentum"], config["final_encoder_momentum"]))
        learning_rate = warmup_cosine_schedule(
            step,
            total,
            config["learning_rate"],
            config["final_learning_rate"],
            config["learning_rate_warmup_steps"],
        )
        weight_decay = cosine_schedule(step, total, config["weight_decay"], config["final_weight_decay"])
        assert learning_rate == pytest.approx(case["learning_rates"][step], rel=1e-12)
        assert weight_decay == pytest.approx(case["weight_decays"][step], rel=1e-12)
        set_schedules(optimizer, learning_rate, weight_decay)

        inputs = part(tensors, f"step{step}.")
        output = model(inputs["signal"], inputs["context_mask"], inputs["target_mask"])
        output.loss.backward()
        assert output.loss.item() == pytest.approx(case["losses"][step], abs=1e-6)
        if step == 0:
            check_first_step(model, output, inputs, config)
        if config["gradient_clip"]:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["gradient_clip"])
        optimizer.step()
        optimizer.zero_grad()
    final = convert_reference_checkpoint({"model": part(tensors, "final."), "config": config})
    assert_same_weights(model, final)


def check_first_step(model: EcgJepaForPreTraining, output, inputs: dict[str, torch.Tensor], config: dict) -> None:
    registers = model.config.num_register_tokens
    signal = inputs["signal"]
    with torch.no_grad():
        context = model.context_encoder(signal, patch_indices=inputs["context_mask"]).last_hidden_state
        target = model.ecg_jepa(signal).last_hidden_state
    assert_close(context[:, registers:], inputs["context_hidden"], what="context")
    assert_close(target[:, registers:], inputs["target_hidden_all_patches"], what="target")
    assert_close(output.prediction.detach(), inputs["prediction"], what="prediction")

    gradients = part(inputs, "grad.")
    absent = {f"target_encoder.{name.removeprefix('encoder.')}": g for name, g in gradients.items() if name[0] == "e"}
    expected = convert_reference_checkpoint({"model": gradients | absent, "config": config})
    compared = 0
    for name, parameter in expected.named_parameters():
        actual = model.get_parameter(name).grad
        if name.startswith("ecg_jepa."):
            assert actual is None, f"{name} took a gradient"
        else:
            assert_close(actual, parameter.detach(), what=f"gradient of {name}")
            compared += 1
    assert compared == len(gradients)


@cases("classify")
def test_classification(path: Path) -> None:
    case, tensors = load_case(path)
    configs = {"config": case["encoder_config"], "eval_config": case["eval_config"]}
    recipe = case["eval_config"]
    model = convert_reference_checkpoint({"model": part(tensors, "weights."), **configs})
    assert isinstance(model, EcgJepaForSequenceClassification)
    model.config.problem_type = "single_label_classification" if case["single_label"] else "multi_label_classification"
    model.train()
    model.ecg_jepa.requires_grad_(not recipe["frozen"])
    optimizer = adamw(model, recipe)
    for step in range(case["steps"]):
        learning_rate = warmup_cosine_schedule(
            step,
            recipe["steps"],
            recipe["learning_rate"],
            recipe["final_learning_rate"],
            recipe["learning_rate_warmup_steps"],
        )
        set_schedules(optimizer, learning_rate, recipe["weight_decay"])
        inputs = part(tensors, f"step{step}.")
        labels = inputs["labels"].argmax(1) if case["single_label"] else inputs["labels"]  # stored one-hot
        output = model(inputs["signal"], labels=labels)
        output.loss.backward()
        assert_only_noise(model, key_biases(model))
        assert output.loss.item() == pytest.approx(case["losses"][step], abs=1e-6)
        if step == 0:
            assert_close(output.logits.detach(), inputs["logits"], what="logits")
        if recipe["gradient_clip"] > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe["gradient_clip"])
        optimizer.step()
        optimizer.zero_grad()
    final = convert_reference_checkpoint({"model": part(tensors, "final."), **configs})
    assert_same_weights(model, final, noise=key_biases(model))
    with torch.no_grad():
        short = final(tensors["short.signal"]).logits
    assert_close(short, tensors["short.logits_final_weights"], what="logits of a short record")


@cases("preprocess")
def test_preprocessing(path: Path) -> None:
    case, tensors = load_case(path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    rate, target_rate = case["sampling_frequency"], case["target_sampling_frequency"]

    signal = interpolate_nans(arrays["signal"].T)
    np.testing.assert_allclose(signal, arrays["interpolated"].T, atol=1e-5, rtol=0)
    if case["highpass"]:
        signal = highpass(signal, rate)
        np.testing.assert_allclose(signal, arrays["highpassed"].T, atol=1e-5, rtol=0)
    if rate != target_rate:
        signal = resample(signal, rate, target_rate)
        np.testing.assert_allclose(signal, arrays["resampled"].T, atol=1e-5, rtol=0)
    signal = normalize(signal, arrays["mean"], arrays["std"])
    assert signal.dtype == np.float32
    np.testing.assert_allclose(signal, arrays["normalised_clipped"].T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["lr", "wd", "momentum"])
def test_schedules(name: str) -> None:
    reference = json.loads((REFERENCE_DIR / "schedules.json").read_text())[name]
    total, start, final = reference["total_steps"], reference["start_value"], reference["final_value"]
    assert reference["values"]
    for step, expected in reference["values"].items():
        if name == "lr":
            warmup = reference["warmup_steps"], reference["warmup_start_value"]
            value = warmup_cosine_schedule(int(step), total, start, final, *warmup)
        elif name == "wd":
            value = cosine_schedule(int(step), total, start, final)
        else:
            value = linear_schedule(int(step), total, start, final)
        assert value == pytest.approx(expected, rel=1e-12), step


def test_masks() -> None:
    """Visibility by position within 4.5 standard errors and run lengths as the reference's, from as many masks."""
    reference = json.loads((REFERENCE_DIR / "mask_statistics.json").read_text())
    samples, num_patches, num_keep = reference["samples"], reference["num_patches"], reference["num_keep"]
    generator = torch.Generator().manual_seed(0)
    context_mask, _ = sample_block_masks(samples, num_patches, num_keep, reference["min_block_size"], generator)
    visible = torch.zeros(samples, num_patches, dtype=torch.bool).scatter_(1, context_mask, True).numpy()

    expected = np.array(reference["visible_probability_by_position"])
    # Both sides are samples of the same size. 4.5 sigma: a chance of 1 in 700 that any of 200 positions is beyond it.
    standard_error = np.sqrt(2 * expected * (1 - expected) / samples)
    assert (np.abs(visible.mean(axis=0) - expected) < 4.5 * standard_error).all()

    for key, hidden in (("context", False), ("target", True)):
        edges = np.diff(np.pad((visible ^ hidden).astype(int), ((0, 0), (1, 1))), axis=1)
        rows, begins = np.nonzero(edges == 1)
        lengths, runs = np.nonzero(edges == -1)[1] - begins, np.bincount(rows, minlength=samples)
        for values, statistics in (
            (lengths, reference[f"{key}_run_length"]),
            (runs, reference[f"{key}_runs_per_mask"]),
        ):
            standard_error = statistics["std"] * np.sqrt(2 / len(values))
            assert values.mean() == pytest.approx(statistics["mean"], abs=4.5 * standard_error)
            deciles = np.percentile(values, range(10, 100, 10))
            # Lengths are whole patches: a decile may fall on the neighbour.
            np.testing.assert_allclose(deciles, statistics["deciles"], atol=1)
        assert lengths.min() == reference[f"{key}_run_length"]["min"]
        assert lengths.max() == reference[f"{key}_run_length"]["max"]
