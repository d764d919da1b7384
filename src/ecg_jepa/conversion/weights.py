"""Conversion of checkpoints of the reference implementation (github kweimann/ECG-JEPA) into models of this package."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.modeling_ecg_jepa import EcgJepaForPreTraining, EcgJepaForSequenceClassification, EcgJepaModel, sinusoidal_positions
from ..model.signal_processing_ecg_jepa import lead_name
from .reference import check_conversion

Converted = EcgJepaForPreTraining | EcgJepaForSequenceClassification | EcgJepaModel

KEYS = (  # parts of names within a network, replaced in this order
    (r"^patch_embed\.proj\.", "embeddings.patch_projection."),
    (r"^registers$", "embeddings.register_tokens"),
    (r"^blocks\.", "layers."),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.projection."),
    (r"\.attn_ls\.weight$", ".attention_scale.weight"),
    (r"\.mlp_ls\.weight$", ".mlp_scale.weight"),
    (r"\.mlp\.fc1\.", ".mlp.up_projection."),
    (r"\.mlp\.fc2\.", ".mlp.down_projection."),
    # of the predictor
    (r"^embed\.", "input_projection."),
    (r"^proj\.", "output_projection."),
    # of classifiers
    (r"^attn_pool\.query_token$", "pooling.query_token"),
    (r"^attn_pool\.cross_attention_block\.q\.", "pooling.query."),
    (r"^attn_pool\.cross_attention_block\.kv\.", "pooling.key_value."),
    (r"^attn_pool\.cross_attention_block\.proj\.", "classifier."),
    (r"^fc\.", "classifier."),
)

# Networks of a checkpoint: prefix there -> prefix here.
_PRETRAINING_NETWORKS = {"encoder.": "context_encoder.", "target_encoder.": "ecg_jepa.", "predictor.": "predictor."}
_CLASSIFIER_NETWORKS = {"encoder.": "ecg_jepa.", "": ""}

# The reference's settings -> ours. Defaults of those that a checkpoint may lack are ours, too.
_SIZES = {"dim": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads"}
_INPUT = {"channels": "lead_names", "sampling_frequency": "sampling_rate", "channel_size": "signal_length"}
_REQUIRED = {**_INPUT, "patch_size": "patch_size", **_SIZES}
_DROPOUT = {"dropout": "hidden_dropout_prob", "attn_dropout": "attention_probs_dropout_prob"}
_OPTIONAL = {f"pred_{key}": f"pred_{field}" for key, field in _SIZES.items()}
_OPTIONAL |= {**_DROPOUT, "mlp_ratio": "mlp_ratio", "norm_eps": "layer_norm_eps"}


def convert_reference_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> Converted:
    """
    Convert a checkpoint of the reference implementation to a model in evaluation mode.

    Args:
        checkpoint: a path, loaded with `weights_only=True`, or the dictionary itself: `model` (weights), `config`, and for
            classifiers `eval_config`. Full (context encoder, target encoder and predictor) or minified (one encoder).

    Raises:
        ValueError: if a file cannot be read or would run code, a part is missing, the weights do not fit the configuration, or
            the model computes something else than the checkpoint.
    """
    if isinstance(checkpoint, (str, Path)):
        checkpoint = load_reference_checkpoint(checkpoint)
    for part in ("model", "config"):
        if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get(part), Mapping):
            raise ValueError(f"No {part!r} in the checkpoint, expected a dictionary with 'model' and 'config' of the reference.")
    # Wrappers of torch end up in names.
    weights = {re.sub(r"^(?:module\.|_orig_mod\.)+", "", name): tensor for name, tensor in checkpoint["model"].items()}
    model_class: type[Converted]
    if checkpoint.get("eval_config") is not None:
        model_class, networks = EcgJepaForSequenceClassification, _CLASSIFIER_NETWORKS
    elif any(name.startswith("predictor.") for name in weights):
        model_class, networks = EcgJepaForPreTraining, _PRETRAINING_NETWORKS
    else:
        prefixes = {name.split("patch_embed.")[0] for name in weights if "patch_embed." in name}
        if len(prefixes) != 1:
            names = sorted(prefixes)
            raise ValueError(f"Expected one encoder, or also target_encoder and predictor; found patch embeddings under {names}.")
        (prefix,) = prefixes
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        model_class, networks = EcgJepaModel, {"": ""}
    for name in [name for name in weights if name.endswith("pos_embed")]:
        stored = weights.pop(name).float()
        expected = sinusoidal_positions(*stored.shape[-2:])
        if not torch.allclose(stored.reshape(expected.shape), expected, atol=1e-5):
            raise ValueError(f"{name} holds other positions than the fixed sine-cosine ones.")
    converted = {_rename(name, networks): tensor.float() for name, tensor in weights.items()}
    model = model_class(_convert_config(checkpoint["config"], checkpoint.get("eval_config"), converted))
    try:
        model.load_state_dict(converted)
    except RuntimeError as error:
        raise ValueError(f"The weights do not fit the configuration: {error}") from error
    check_conversion(weights, checkpoint["config"], model)
    return model.eval()


def load_reference_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a checkpoint's tensors and plain values. Raises `ValueError` if it cannot be read, or would run code."""
    if not Path(path).is_file():
        raise ValueError(f"No checkpoint at {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of pickle, zip and torch alike
        raise ValueError(f"{path} could not be read ({error!r}). Checkpoints that would run code are refused.") from error


def _rename(name: str, networks: Mapping[str, str]) -> str:
    """Return our name of a weight. Raises `ValueError` if it belongs to no network."""
    prefix = next((prefix for prefix in networks if name.startswith(prefix)), None)
    if prefix is None:
        raise ValueError(f"Unexpected weight {name!r}: expected names that start with {', '.join(map(repr, networks))}.")
    name = name.removeprefix(prefix)
    for pattern, replacement in KEYS:
        name = re.sub(pattern, replacement, name)
    return networks[prefix] + name


def _convert_config(
    config: Mapping[str, Any], eval_config: Mapping[str, Any] | None, weights: Mapping[str, Any]
) -> EcgJepaConfig:
    """Return our configuration. The weights show which biases and LayerScales exist: the reference's defaults changed."""
    if missing := [key for key in _REQUIRED if key not in config]:
        raise ValueError(f"The checkpoint's 'config' lacks {', '.join(missing)}.")

    def has(ending: str) -> bool:
        return any(name.endswith(ending) for name in weights)

    config = {"pred_dim": config["dim"] // 2, "pred_depth": config["depth"], "pred_num_heads": config["num_heads"], **config}
    values = {field: config[key] for key, field in {**_REQUIRED, **_OPTIONAL}.items() if key in config} | {
        "lead_names": [lead_name(name) for name in config["channels"]],
        "qkv_bias": has(".attention.qkv.bias"),
        "use_bias": has(".mlp.up_projection.bias"),
        "norm_bias": has("norm.bias"),
        "num_register_tokens": max((w.shape[1] for name, w in weights.items() if name.endswith("register_tokens")), default=0),
    }
    if has("_scale.weight"):
        # Any number will do: the weights hold the scales.
        values["layerscale_value"] = {**(eval_config or {}), **config}.get("layer_scale_eps") or 1.0
    if eval_config is not None:
        if "classifier.weight" not in weights:
            raise ValueError("The checkpoint has an 'eval_config' but no classifier weights.")
        num_labels, expected = len(weights["classifier.weight"]), eval_config.get("num_classes")
        if expected not in (None, num_labels):
            raise ValueError(f"'eval_config' says num_classes={expected}, but the classifier has {num_labels} outputs.")
        uses_register = bool(eval_config.get("use_register"))
        values |= {
            "num_labels": num_labels,
            "classifier_pooling": "attentive" if has("pooling.query_token") else "register" if uses_register else "mean",
            "classifier_pool_registers": uses_register,
            "classifier_bias": has("classifier.bias"),
            "classifier_qkv_bias": has("pooling.query.bias"),
            "hidden_dropout_prob": eval_config.get("dropout", 0.0),
        }
    return EcgJepaConfig(**values)
