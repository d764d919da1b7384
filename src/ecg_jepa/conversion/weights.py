"""Conversion of checkpoints of the reference implementation (github kweimann/ECG-JEPA) into models of this package."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.modeling_ecg_jepa import (
    EcgJepaForPreTraining,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
    EcgJepaPreTrainedModel,
    sinusoidal_positions,
)
from ..model.signal_processing_ecg_jepa import STANDARD_LEADS
from .reference import check_conversion

# Parts of names within a network, replaced in this order.
KEYS = (
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

# Wrappers of torch that end up in saved names.
_WRAPPER_PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+")


def convert_reference_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> EcgJepaPreTrainedModel:
    """
    Convert a checkpoint of the reference implementation.

    Args:
        checkpoint: a path, loaded with `weights_only=True`, or the dictionary itself: `model` (weights), `config`, and
            for classifiers `eval_config`. Full checkpoints (context encoder, target encoder and predictor) and minified
            ones (one encoder), with and without biases in the LayerNorms.

    Returns:
        `EcgJepaForPreTraining`, `EcgJepaModel` (minified) or `EcgJepaForSequenceClassification`, in evaluation mode.

    Raises:
        ValueError: if a file cannot be read or would run code, a part is missing, the weights do not fit the configuration, or
            the model computes something else than the checkpoint.
    """
    if not isinstance(checkpoint, Mapping):
        checkpoint = load_reference_checkpoint(checkpoint)
    for part in ("model", "config"):
        if not isinstance(checkpoint.get(part), Mapping):
            raise ValueError(
                f"No {part!r} in the checkpoint (found: {', '.join(map(str, checkpoint)) or 'nothing'}): expected a "
                "checkpoint of the ECG-JEPA reference with 'model' and 'config'."
            )
    weights = {_WRAPPER_PREFIXES.sub("", name): tensor for name, tensor in checkpoint["model"].items()}
    eval_config = checkpoint.get("eval_config")
    prefix = ""  # of a lone encoder
    model_class: type[EcgJepaPreTrainedModel]
    if eval_config is not None:
        model_class, networks = EcgJepaForSequenceClassification, _CLASSIFIER_NETWORKS
    elif any(name.startswith("predictor.") for name in weights):
        model_class, networks = EcgJepaForPreTraining, _PRETRAINING_NETWORKS
    else:
        prefix = _encoder_prefix(weights)
        model_class, networks = EcgJepaModel, {prefix: ""}
    weights = _drop_fixed_positions(weights)
    converted = {_rename(name, networks): tensor for name, tensor in weights.items()}
    config = _convert_config(checkpoint["config"], eval_config, converted)
    model = model_class(config)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in converted.items()})
    except RuntimeError as error:
        raise ValueError(f"The weights do not fit the configuration: {error}") from error
    check_conversion(weights, checkpoint["config"], model, prefix)
    return model.eval()


def load_reference_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a checkpoint's tensors and plain values. Raises `ValueError` if it cannot be read, or would run code."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"No checkpoint at {path}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of pickle, zip and torch alike
        raise ValueError(
            f"{path} could not be read as tensors and plain values ({type(error).__name__}: {error}). "
            "Checkpoints that would run code are refused."
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, expected a dictionary with 'model' and 'config'.")
    return checkpoint


def _encoder_prefix(weights: Mapping[str, Any]) -> str:
    """Return the prefix of the names of a minified checkpoint's only encoder."""
    prefixes = {name.split("patch_embed.")[0] for name in weights if "patch_embed." in name}
    if len(prefixes) != 1:
        raise ValueError(
            f"Expected the weights of one encoder or of encoder, target_encoder and predictor, but found patch "
            f"embeddings under {sorted(prefixes) or 'no name'}."
        )
    return prefixes.pop()


def _drop_fixed_positions(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Leave out stored sine-cosine positions, after checking that they are the ones that we compute."""
    kept = {}
    for name, tensor in weights.items():
        if not name.endswith("pos_embed"):
            kept[name] = tensor
            continue
        expected = sinusoidal_positions(*tensor.shape[-2:])
        if not torch.allclose(tensor.float().reshape(expected.shape), expected, atol=1e-5):
            raise ValueError(f"{name} holds other positions than the fixed sine-cosine ones.")
    return kept


def _rename(name: str, networks: Mapping[str, str]) -> str:
    """Return our name of a weight. Raises `ValueError` if it belongs to no network."""
    prefix = next((prefix for prefix in networks if name.startswith(prefix)), None)
    if prefix is None:
        raise ValueError(f"Unexpected weight {name!r}: expected names that start with {', '.join(map(repr, networks))}.")
    renamed = name.removeprefix(prefix)
    for pattern, replacement in KEYS:
        renamed = re.sub(pattern, replacement, renamed)
    return networks[prefix] + renamed


def _convert_config(
    config: Mapping[str, Any], eval_config: Mapping[str, Any] | None, weights: Mapping[str, torch.Tensor]
) -> EcgJepaConfig:
    """Return our configuration. The weights show which biases and LayerScales exist: the reference's defaults changed."""
    required = ("channels", "sampling_frequency", "channel_size", "patch_size", "dim", "depth", "num_heads")
    missing = [key for key in required if key not in config]
    if missing:
        raise ValueError(f"The checkpoint's 'config' lacks {', '.join(missing)}.")

    def has(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in weights)

    spelling = {name.lower(): name for name in STANDARD_LEADS}
    registers = next((w for name, w in weights.items() if name.endswith("register_tokens")), None)
    values: dict[str, Any] = {
        "lead_names": [spelling.get(name.lower(), name) for name in config["channels"]],
        "sampling_rate": config["sampling_frequency"],
        "signal_length": config["channel_size"],
        "patch_size": config["patch_size"],
        "hidden_size": config["dim"],
        "num_hidden_layers": config["depth"],
        "num_attention_heads": config["num_heads"],
        "mlp_ratio": config.get("mlp_ratio", 4.0),
        "qkv_bias": has(r"\.attention\.qkv\.bias$"),
        "use_bias": has(r"\.mlp\.up_projection\.bias$"),
        "norm_bias": has(r"norm\.bias$"),
        "layer_norm_eps": config.get("norm_eps", 1e-6),
        "hidden_dropout_prob": config.get("dropout", 0.0),
        "attention_probs_dropout_prob": config.get("attn_dropout", 0.0),
        "num_register_tokens": 0 if registers is None else registers.shape[1],
        "pred_hidden_size": config.get("pred_dim", config["dim"] // 2),
        "pred_num_hidden_layers": config.get("pred_depth", config["depth"]),
        "pred_num_attention_heads": config.get("pred_num_heads", config["num_heads"]),
    }
    if has(r"_scale\.weight$"):
        epsilon = config.get("layer_scale_eps") or (eval_config or {}).get("layer_scale_eps")
        values["layerscale_value"] = epsilon or 1.0  # any number: the weights hold the scales
    if eval_config is not None:
        values |= _convert_eval_config(eval_config, weights)
    return EcgJepaConfig(**values)


def _convert_eval_config(eval_config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    if "classifier.weight" not in weights:
        raise ValueError("The checkpoint has an 'eval_config' but no classifier weights.")
    num_labels = weights["classifier.weight"].shape[0]
    if num_labels != eval_config.get("num_classes", num_labels):
        raise ValueError(
            f"'eval_config' says num_classes={eval_config['num_classes']}, but the classifier has {num_labels} outputs."
        )
    uses_register = bool(eval_config.get("use_register"))
    token_pooling = "register" if uses_register else "mean"
    return {
        "num_labels": num_labels,
        "classifier_pooling": "attentive" if "pooling.query_token" in weights else token_pooling,
        "classifier_pool_registers": uses_register,
        "classifier_bias": "classifier.bias" in weights,
        "classifier_qkv_bias": "pooling.query.bias" in weights,
        "hidden_dropout_prob": eval_config.get("dropout", 0.0),
    }
