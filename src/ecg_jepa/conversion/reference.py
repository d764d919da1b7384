"""The reference's networks, computed from the weights of its checkpoints independently of our models, to check conversions."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..model.modeling_ecg_jepa import EcgJepaForPreTraining, EcgJepaForSequenceClassification

Weights = Mapping[str, Tensor]
Settings = Mapping[str, Any]

TOLERANCE = 1e-4  # of hidden states and logits of order 1, in float32


@torch.no_grad()
def check_conversion(weights: Weights, config: Settings, model: Any) -> None:
    """
    Run source (`weights` and `config` of a checkpoint, a lone encoder without prefix) and target side by side on a random signal.
    Raises `ValueError` if they differ by more than `TOLERANCE`, relative to the source's largest value where that is above 1.
    """
    model.eval()
    random = torch.Generator().manual_seed(0)
    signal = torch.randn(2, len(config["channels"]), config["channel_size"], generator=random)
    if isinstance(model, EcgJepaForSequenceClassification):
        tokens = encode(_part(weights, "encoder."), config, signal)
        pairs = [(classify(weights, config, tokens, model), model(signal).logits)]
    elif isinstance(model, EcgJepaForPreTraining):
        num_patches = config["channel_size"] // config["patch_size"]
        num_context = max(1, num_patches // 4)
        order = torch.rand(len(signal), num_patches, generator=random).argsort(dim=1)
        context, hidden = order[:, :num_context].sort().values, order[:, num_context:].sort().values
        output = model(signal, context, hidden)
        target = encode(_part(weights, "target_encoder."), config, signal)[:, -num_patches:]
        visible = encode(_part(weights, "encoder."), config, signal, context)[:, -num_context:]
        prediction = predict(_part(weights, "predictor."), config, visible, context, hidden)
        pairs = [(target.take_along_dim(hidden[..., None], 1), output.target), (prediction, output.prediction)]
    else:
        pairs = [(encode(_part(weights, ""), config, signal), model(signal).last_hidden_state)]
    worst = torch.stack([(ours - theirs).abs().max() / theirs.abs().max().clamp(min=1.0) for theirs, ours in pairs]).max()
    if not worst <= TOLERANCE:  # also for NaN
        raise ValueError(f"Source and target differ by {worst:.1e} on one signal, more than rounding ({TOLERANCE:.0e}).")


def _part(weights: Weights, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor.float() for name, tensor in weights.items() if name.startswith(prefix)}


def _positions(count: int, width: int) -> Tensor:
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** ((channel - channel % 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _norm(weights: Weights, name: str, config: Settings, x: Tensor) -> Tensor:
    weight = weights[f"{name}.weight"]
    return functional.layer_norm(x, weight.shape, weight, weights.get(f"{name}.bias"), config.get("norm_eps", 1e-6))


def _attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    parts = zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True)
    return torch.cat([(q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v for q, k, v in parts], -1)


def _blocks(weights: Weights, config: Settings, x: Tensor, heads: int) -> Tensor:
    for number in range(len({name.split(".")[1] for name in weights if name.startswith("blocks.")})):
        block = _part(weights, f"blocks.{number}.")
        query, key, value = _linear(block, "attn.qkv", _norm(block, "norm1", config, x)).chunk(3, -1)
        x = x + _linear(block, "attn.proj", _attention(query, key, value, heads)) * block.get("attn_ls.weight", 1.0)
        inner = functional.gelu(_linear(block, "mlp.fc1", _norm(block, "norm2", config, x)))
        x = x + _linear(block, "mlp.fc2", inner) * block.get("mlp_ls.weight", 1.0)
    return _norm(weights, "norm", config, x)


def encode(weights: Weights, config: Settings, signal: Tensor, visible: Tensor | None = None) -> Tensor:
    """Encode (batch, leads, samples) as (batch, registers + patches, width); only the `visible` patches, if given."""
    patches = signal.unfold(2, config["patch_size"], config["patch_size"])  # (batch, leads, patches, samples)
    projection = weights["patch_embed.proj.weight"]
    x = torch.einsum("blps,wls->bpw", patches, projection) + weights.get("patch_embed.proj.bias", torch.zeros(()))
    x = x + _positions(x.shape[1], x.shape[2])
    if visible is not None:
        x = x.take_along_dim(visible[..., None], 1)
    registers = weights.get("registers", torch.zeros(1, 0, x.shape[2]))
    return _blocks(weights, config, torch.cat([registers.expand(len(x), -1, -1), x], 1), config["num_heads"])


def predict(weights: Weights, config: Settings, context: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
    """Predict (batch, hidden patches, width) from the context tokens of `visible` patches."""
    x = _linear(weights, "embed", context)
    positions = _positions(config["channel_size"] // config["patch_size"], x.shape[2])
    x = torch.cat([x + positions[visible], weights["mask_token"] + positions[hidden]], 1)
    x = _blocks(weights, config, x, config.get("pred_num_heads", config["num_heads"]))
    return _linear(weights, "proj", x[:, visible.shape[1] :])


def classify(weights: Weights, config: Settings, tokens: Tensor, model: EcgJepaForSequenceClassification) -> Tensor:
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
