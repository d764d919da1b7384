"""
The networks of the reference implementation, computed from the weights of its checkpoints, to check conversions.

Written against the outputs of the reference, and independent of our models: source and target must compute the same.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from ..model.modeling_ecg_jepa import EcgJepaForPreTraining, EcgJepaForSequenceClassification, EcgJepaPreTrainedModel

Weights = Mapping[str, torch.Tensor]

TOLERANCE = 1e-4  # of hidden states and logits of order 1, in float32


def check_conversion(weights: Weights, config: Mapping[str, Any], model: EcgJepaPreTrainedModel, prefix: str = "") -> float:
    """
    Run source and target side by side on a random signal, and return the largest difference, relative to the largest value of the
    source where that is above 1.

    Args:
        weights: of the checkpoint, under the reference's names.
        config: of the checkpoint.
        model: converted from them.
        prefix: of the encoder's names, for a checkpoint with one encoder only.

    Raises:
        ValueError: if it exceeds `TOLERANCE`.
    """
    model.eval()
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(2, len(config["channels"]), config["channel_size"], generator=generator)
    with torch.no_grad():
        source, target = _outputs(weights, config, model, prefix, signal)
    worst = max(
        ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1.0)).item()
        for ours, theirs in zip(target, source, strict=True)
    )
    if not worst <= TOLERANCE:  # also for NaN
        raise ValueError(
            f"Source and target differ by {worst:.1e} on the same signal, more than rounding ({TOLERANCE:.0e}): the checkpoint "
            "does not compute what its names and configuration say."
        )
    return worst


def _outputs(
    weights: Weights, config: Mapping[str, Any], model: Any, prefix: str, signal: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the outputs of source and target for a signal: lists of tensors that must be equal."""
    if isinstance(model, EcgJepaForSequenceClassification):
        tokens = encode(_part(weights, "encoder."), config, signal)
        return [classify(weights, config, tokens, model)], [model(signal).logits]
    if isinstance(model, EcgJepaForPreTraining):
        num_patches = config["channel_size"] // config["patch_size"]
        num_context = max(1, num_patches // 4)
        order = torch.stack([torch.randperm(num_patches, generator=torch.Generator().manual_seed(i)) for i in range(len(signal))])
        context, hidden = order[:, :num_context].sort().values, order[:, num_context:].sort().values
        output = model(signal, context, hidden)
        target = encode(_part(weights, "target_encoder."), config, signal, with_registers=False)
        visible = encode(_part(weights, "encoder."), config, signal, context, with_registers=False)
        prediction = predict(_part(weights, "predictor."), config, visible, context, hidden)
        return [_pick(target, hidden), prediction], [output.target, output.prediction]
    return [encode(_part(weights, prefix), config, signal)], [model(signal).last_hidden_state]


def _part(weights: Weights, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor.float() for name, tensor in weights.items() if name.startswith(prefix)}


def _pick(tokens: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    return torch.stack([row[index] for row, index in zip(tokens, indices, strict=True)])


def _positions(count: int, width: int) -> torch.Tensor:
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** ((channel - channel % 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def _linear(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _norm(weights: Weights, name: str, config: Mapping[str, Any], x: torch.Tensor) -> torch.Tensor:
    weight = weights[f"{name}.weight"]
    return functional.layer_norm(x, weight.shape, weight, weights.get(f"{name}.bias"), config.get("norm_eps", 1e-6))


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    parts = zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True)
    return torch.cat([(q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v for q, k, v in parts], -1)


def _blocks(weights: Weights, config: Mapping[str, Any], x: torch.Tensor, heads: int) -> torch.Tensor:
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    for number in range(depth):
        block = _part(weights, f"blocks.{number}.")
        query, key, value = _linear(block, "attn.qkv", _norm(block, "norm1", config, x)).chunk(3, -1)
        x = x + _linear(block, "attn.proj", _attention(query, key, value, heads)) * block.get("attn_ls.weight", 1.0)
        inner = functional.gelu(_linear(block, "mlp.fc1", _norm(block, "norm2", config, x)))
        x = x + _linear(block, "mlp.fc2", inner) * block.get("mlp_ls.weight", 1.0)
    return _norm(weights, "norm", config, x)


def encode(
    weights: Weights,
    config: Mapping[str, Any],
    signal: torch.Tensor,
    visible: torch.Tensor | None = None,
    with_registers: bool = True,
) -> torch.Tensor:
    """Encode (batch, leads, samples) as (batch, registers + patches, width); only the `visible` patches, if given."""
    patches = signal.unfold(2, config["patch_size"], config["patch_size"])  # (batch, leads, patches, samples)
    projection = weights["patch_embed.proj.weight"]
    x = torch.einsum("blps,wls->bpw", patches, projection) + weights.get("patch_embed.proj.bias", torch.zeros(()))
    x = x + _positions(x.shape[1], x.shape[2])
    if visible is not None:
        x = _pick(x, visible)
    registers = weights.get("registers", torch.zeros(1, 0, x.shape[2]))
    x = _blocks(weights, config, torch.cat([registers.expand(len(x), -1, -1), x], 1), config["num_heads"])
    return x if with_registers else x[:, registers.shape[1] :]


def predict(
    weights: Weights, config: Mapping[str, Any], context: torch.Tensor, visible: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Predict (batch, hidden patches, width) from the context tokens of `visible` patches."""
    x = _linear(weights, "embed", context)
    positions = _positions(config["channel_size"] // config["patch_size"], x.shape[2]).expand(len(x), -1, -1)
    x = torch.cat([x + _pick(positions, visible), weights["mask_token"] + _pick(positions, hidden)], 1)
    x = _blocks(weights, config, x, config.get("pred_num_heads", config["num_heads"]))
    return _linear(weights, "proj", x[:, visible.shape[1] :])


def classify(
    weights: Weights, config: Mapping[str, Any], tokens: torch.Tensor, model: EcgJepaForSequenceClassification
) -> torch.Tensor:
    """Return logits for tokens of [`encode`]. The model says whether registers are pooled, which no weight shows."""
    registers = weights["encoder.registers"].shape[1] if "encoder.registers" in weights else 0
    if "attn_pool.query_token" in weights:
        head = _part(weights, "attn_pool.cross_attention_block.")
        seen = tokens if model.config.classifier_pool_registers else tokens[:, registers:]
        key, value = _linear(head, "kv", seen).chunk(2, -1)
        query = _linear(head, "q", weights["attn_pool.query_token"].float()).expand(len(tokens), -1, -1)
        return _linear(head, "proj", _attention(query, key, value, config["num_heads"])[:, 0])
    pooled = tokens[:, 0] if model.config.classifier_pooling == "register" else tokens[:, registers:].mean(1)
    return _linear(_part(weights, ""), "fc", pooled)
