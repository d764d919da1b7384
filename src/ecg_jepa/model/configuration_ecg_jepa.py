"""Configuration of the ECG-JEPA models."""

import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import logging

from .signal_processing_ecg_jepa import STANDARD_LEADS

logger = logging.get_logger(__name__)


def _size(width: int, depth: int, heads: int) -> dict[str, int]:
    encoder = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    return encoder | {"pred_hidden_size": width // 2, "pred_num_hidden_layers": depth, "pred_num_attention_heads": heads}


# Weimann & Conrad 2024, section 3.
SIZES: dict[str, dict[str, int]] = {"xs": _size(192, 8, 4), "s": _size(384, 8, 6), "b": _size(768, 12, 12)}

# Keys that transformers and its companions write into config.json without declaring them as fields.
_FOREIGN_KEYS = {
    *("attn_implementation", "auto_map", "custom_pipelines", "experts_implementation", "model_type", "name_or_path"),
    *("num_labels", "output_attentions", "quantization_config", "tie_word_embeddings", "torch_dtype", "use_cache"),
}

# Least and largest values. The latter are far beyond any model: a damaged file would ask for memory and time without end.
_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("sampling_rate", "patch_size"), (1, 1_000_000)),
    "signal_length": (1, 10_000_000),
    **dict.fromkeys(("num_hidden_layers", "pred_num_hidden_layers"), (1, 1_000)),
    **dict.fromkeys(("hidden_size", "pred_hidden_size", "num_attention_heads", "pred_num_attention_heads"), (1, 16_384)),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), (0, 1)),
    "num_register_tokens": (0, 1_000),
    "mlp_ratio": (1e-3, 100),
    "layer_norm_eps": (0, 1),
    "layerscale_value": (-1e3, 1e3),
    "initializer_range": (0, 1e3),
}
_DTYPES = ("float32", "bfloat16", "float16", "float64")
_UNNAMED_LABELS = {0: "LABEL_0", 1: "LABEL_1"}  # transformers' default
_HEAD_FIELDS = ("decision_thresholds", "temperature", "label_descriptions")


@strict
class EcgJepaConfig(PreTrainedConfig):
    r"""
    Architecture of an ECG-JEPA vision transformer. The defaults are ViT-S; see [`EcgJepaConfig.from_size`] for the others.
    Raises `ValueError` for values that do not fit together or an unknown key; the message names the fix.

    Args:
        lead_names (`list[str]`): Leads in the order in which the model expects them.
        sampling_rate (`int`): Samples per second of `input_values`, in Hz.
        signal_length (`int`): Longest input in samples; a multiple of `patch_size`.
        patch_size (`int`): Samples per patch; a patch spans all leads.
        hidden_size, num_hidden_layers, num_attention_heads (`int`): Width, depth and heads of the encoder.
        pred_hidden_size, pred_num_hidden_layers, pred_num_attention_heads (`int`): The same for the predictor.
        mlp_ratio (`float`): Width of the MLP relative to `hidden_size`.
        hidden_act (`str`): Activation of the MLP; `"gelu"` is the exact GELU.
        qkv_bias, use_bias, norm_bias (`bool`): Bias in the query, key and value projections; in all other linear layers and the
            convolution; in the LayerNorms, whose epsilon is `layer_norm_eps`.
        layerscale_value (`float`): Initial LayerScale of the encoder; 0 means no LayerScale.
        hidden_dropout_prob, attention_probs_dropout_prob (`float`): Dropout on both residual branches and before the classifier;
            on attention weights.
        num_register_tokens (`int`): Learned tokens in front of the patches.
        initializer_range (`float`): Standard deviation of the truncated normal initialisation.
        position_encoding (`"sinusoidal"` or `"rotary"`): Fixed positions added to patch tokens, or rotary attention.
        amplitude_free (`bool`): Whether the model was trained on, and takes only, band-passed signals with each lead divided by
            its own standard deviation. Otherwise signals are in mV.
        classifier_pooling (`"attentive"`, `"register"` or `"mean"`): Input of the classifier: attention of a learned query over
            all tokens (registers only with `classifier_pool_registers`), the first register, or the mean patch.
        readout_layers (`int`): Number of last layers of which the classifier takes a learned average.
        classifier_bias, classifier_qkv_bias (`bool`, *optional*): Bias of the classifier, and of the attentive pooling's
            projections; `None` means as `use_bias` and `qkv_bias`.
        label_descriptions (`dict[str, str]`, *optional*): Label -> its meaning.
        decision_thresholds (`dict[str, float]`, *optional*): Label -> lowest probability (0 to 1) that counts as positive, chosen
            on validation records. They belong to the head.
        temperature (`float`, *optional*): Divisor of logits before sigmoid or softmax, fitted to validation records; `None` means
            1. It belongs to the head; the models' `logits` are not divided by it.
    """

    model_type = "ecg_jepa"

    lead_names: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int = 500
    signal_length: int = 5000
    patch_size: int = 25
    hidden_size: int = 384
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    mlp_ratio: float | int = 4.0
    hidden_act: str = "gelu"
    qkv_bias: bool = False
    use_bias: bool = False
    norm_bias: bool = False
    layer_norm_eps: float = 1e-6
    layerscale_value: float | int = 0.0
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    num_register_tokens: int = 1
    initializer_range: float | int = 0.02
    position_encoding: Literal["sinusoidal", "rotary"] = "sinusoidal"
    amplitude_free: bool = False
    pred_hidden_size: int = 192
    pred_num_hidden_layers: int = 8
    pred_num_attention_heads: int = 6
    classifier_pooling: Literal["attentive", "register", "mean"] = "attentive"
    classifier_pool_registers: bool = True
    readout_layers: int = 1
    classifier_bias: bool | None = None
    classifier_qkv_bias: bool | None = None
    label_descriptions: dict[str, str] | None = None
    decision_thresholds: dict[str, float | int] | None = None
    temperature: float | int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for key in self._unknown_keys(kwargs):  # transformers would set a misspelt key as an attribute
            hint = "".join(f" Did you mean {near!r}?" for near in difflib.get_close_matches(key, self.__dataclass_fields__, n=1))
            raise ValueError(f"EcgJepaConfig has no key {key!r}.{hint}")
        if not __name__.startswith("transformers_modules."):
            # With this key, transformers asks to trust the checkpoint's own pipeline code, even if the package is installed
            # and its pipeline registered. Only the checkpoint's copy of this file keeps it.
            kwargs.pop("custom_pipelines", None)
        self.lead_names = list(self.lead_names)
        self.validate_architecture()
        super().__post_init__(**kwargs)
        self._check_decisions()  # again: only now are there labels, if num_labels was given

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> "EcgJepaConfig":
        """Return the published size `"xs"`, `"s"` or `"b"`, with any field overridden by keyword."""
        if size not in SIZES:
            raise ValueError(f"Unknown size {size!r}: choose one of {', '.join(map(repr, SIZES))}.")
        return cls(**{**SIZES[size], **overrides})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Call `PreTrainedConfig.from_pretrained`; a folder without config.json raises, where transformers takes the defaults."""
        folder = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json: is it the directory of a model?")
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except ValueError as error:
            raise ValueError(f"{pretrained_model_name_or_path} (config.json): {error}") from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """
        Call `PreTrainedConfig.from_dict`. Raises `ValueError` for invalid values, and for the configuration of another kind of
        model; the message names the file, if there is one.
        """
        where = f"{kwargs['name_or_path']} (config.json): this" if kwargs.get("name_or_path") else "This"
        if (model_type := config_dict.get("model_type", cls.model_type)) != cls.model_type:
            raise ValueError(f"{where} is the configuration of a {model_type!r} model, expected {cls.model_type!r}.")
        if (dtype := config_dict.get("dtype")) is not None and str(dtype).removeprefix("torch.") not in _DTYPES:
            raise ValueError(f"{where} has dtype={dtype!r}, expected one of {', '.join(_DTYPES)}.")
        # Unlike a misspelt keyword, an unknown key in a file is no error: a later version or another tool may have written it.
        if unknown := cls._unknown_keys(config_dict):
            logger.warning(f"{where} has keys that EcgJepaConfig does not use: {', '.join(unknown)}.")
        known = {key: value for key, value in config_dict.items() if key not in unknown}
        labels, wanted, count = known.get("id2label"), kwargs.get("id2label"), kwargs.get("num_labels")
        others = isinstance(labels, dict) and (
            (wanted is not None and list(wanted.values()) != list(labels.values())) or count not in (None, len(labels))
        )
        if others and all(kwargs.get(name) is None for name in _HEAD_FIELDS):
            logger.info(f"{where} is loaded with other labels: thresholds and temperature of the old ones are dropped.")
            known = {key: value for key, value in known.items() if key not in _HEAD_FIELDS}
        try:
            result = super().from_dict(known, **kwargs)
            config = result[0] if isinstance(result, tuple) else result
            config._check_decisions()  # keywords may have changed them
        except (ValueError, StrictDataclassError, TypeError, AttributeError, KeyError) as error:  # as transformers raises
            raise ValueError(f"{where} is no configuration of ECG-JEPA: {error}") from error
        for key in unknown:
            setattr(config, key, config_dict[key])
        return result

    @property
    def num_patches(self) -> int:
        """Number of patches of the longest input."""
        return self.signal_length // self.patch_size

    def forget_decisions(self) -> None:
        """Drop thresholds and temperature, which were chosen for another head."""
        self.decision_thresholds = None
        self.temperature = None

    def validate_architecture(self) -> None:
        """Raise `ValueError` unless the values fit together; transformers calls this again before saving."""
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name}={value} must be at least {least} and at most {most}: is the file damaged?")
        for prefix in ("", "pred_"):
            width, heads = getattr(self, f"{prefix}hidden_size"), getattr(self, f"{prefix}num_attention_heads")
            # Sine and cosine positions take pairs of channels, rotary ones in every head.
            step = math.lcm(2, 2 * heads if self.position_encoding == "rotary" else heads)
            if width % step:
                lower, upper = width - width % step, width - width % step + step
                why = f"with {prefix}num_attention_heads={heads} and {self.position_encoding} positions"
                hint = f"use {prefix}hidden_size={lower or upper} or {upper}"
                raise ValueError(f"{prefix}hidden_size={width} must be a multiple of {step} {why}: {hint}.")
        if rest := self.signal_length % self.patch_size:
            length, patch = self.signal_length, self.patch_size
            raise ValueError(f"signal_length={length} is no whole number of patches of {patch}: use {length - rest or patch}.")
        if not 1 <= self.readout_layers <= self.num_hidden_layers:
            raise ValueError(f"readout_layers={self.readout_layers} must be 1 to num_hidden_layers={self.num_hidden_layers}.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is no activation of transformers: use one such as 'gelu'.")
        names = [name.lower() for name in self.lead_names]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated or not names:
            fault = f"repeats {', '.join(repeated)} (case does not count)" if names else "is empty"
            raise ValueError(f"lead_names {fault}: name at least one lead, and each once.")
        if self.classifier_pooling == "register" and self.num_register_tokens == 0:
            raise ValueError('classifier_pooling="register" needs num_register_tokens=1 or more; or take "mean".')
        self._check_decisions()

    def _check_decisions(self) -> None:
        """Raise `ValueError` for invalid thresholds or temperature, and for thresholds or descriptions of unknown labels."""
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be positive and finite, or None for no scaling of logits.")
        for name, value in (self.decision_thresholds or {}).items():
            if not 0 <= value <= 1:
                raise ValueError(f"decision_thresholds[{name!r}]={value} is no probability: use one of 0 to 1.")
        labels = {int(index): name for index, name in (self.id2label or {}).items()}
        if not labels or labels == _UNNAMED_LABELS:
            return
        for name in ("decision_thresholds", "label_descriptions"):
            if unknown := sorted(set(getattr(self, name) or {}) - set(labels.values())):
                known = ", ".join(map(repr, labels.values()))
                raise ValueError(f"{name} has {', '.join(map(repr, unknown))}, but id2label has no such label among {known}.")

    @classmethod
    def _unknown_keys(cls, keys: Iterable[str]) -> list[str]:
        known = set(cls.__dataclass_fields__) | set(PreTrainedConfig.__dataclass_fields__) | _FOREIGN_KEYS
        return [key for key in keys if not (key.startswith("_") or key in known or hasattr(PreTrainedConfig, key))]
