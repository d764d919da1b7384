"""Configuration of the ECG-JEPA models."""

import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.utils import logging

from .signal_processing_ecg_jepa import STANDARD_LEADS

logger = logging.get_logger(__name__)

# Width, depth and heads of encoder and predictor (Weimann & Conrad 2024, section 3).
SIZES: dict[str, dict[str, int]] = {
    "xs": {
        "hidden_size": 192,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "pred_hidden_size": 96,
        "pred_num_hidden_layers": 8,
        "pred_num_attention_heads": 4,
    },
    "s": {
        "hidden_size": 384,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "pred_hidden_size": 192,
        "pred_num_hidden_layers": 8,
        "pred_num_attention_heads": 6,
    },
    "b": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "pred_hidden_size": 384,
        "pred_num_hidden_layers": 12,
        "pred_num_attention_heads": 12,
    },
}

# Keys that transformers and its companions write into config.json without declaring them as fields.
_FOREIGN_KEYS = {
    "attn_implementation",
    "auto_map",
    "custom_pipelines",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "quantization_config",
    "tie_word_embeddings",
    "torch_dtype",
    "use_cache",
}

# What values can be. The upper ends are far beyond any model; a file that was damaged asks for memory and time without end.
_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("sampling_rate", "patch_size"), (1, 1_000_000)),
    "signal_length": (1, 100_000_000),
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
_MOST_PATCHES = 1_000_000
_UNNAMED_LABELS = {0: "LABEL_0", 1: "LABEL_1"}  # what transformers makes of no labels at all
_OF_DECISIONS = ("decision_thresholds", "temperature")
_OF_LABELS = (*_OF_DECISIONS, "label_descriptions")
_MOST_LEADS = 1_000


@strict
class EcgJepaConfig(PreTrainedConfig):
    r"""
    Architecture of an ECG-JEPA vision transformer. The defaults are ViT-S; see [`EcgJepaConfig.from_size`] for the others.

    Args:
        lead_names (`list[str]`, defaults to the twelve standard leads):
            Leads in the order in which the model expects them.
        sampling_rate (`int`, defaults to 500): Samples per second of `input_values`, in Hz.
        signal_length (`int`, defaults to 5000): Longest input in samples; a multiple of `patch_size`.
        patch_size (`int`, defaults to 25): Samples per patch; a patch spans all leads.
        hidden_size, num_hidden_layers, num_attention_heads (`int`): Width, depth and heads of the encoder.
        mlp_ratio (`float`, defaults to 4.0): Width of the MLP relative to `hidden_size`.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the MLP (exact GELU).
        qkv_bias (`bool`, defaults to `False`): Bias in the query, key and value projections.
        use_bias (`bool`, defaults to `False`): Bias in all other linear and convolutional layers.
        norm_bias (`bool`, defaults to `False`): Bias in the LayerNorms.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of the LayerNorms.
        layerscale_value (`float`, defaults to 0.0): Initial LayerScale of the encoder; 0 means no LayerScale.
        hidden_dropout_prob (`float`, defaults to 0.0): Dropout on both residual branches and before the classifier.
        attention_probs_dropout_prob (`float`, defaults to 0.0): Dropout on attention weights.
        num_register_tokens (`int`, defaults to 1): Learned tokens in front of the patches.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the truncated normal initialisation.
        position_encoding (`"sinusoidal"` or `"rotary"`, defaults to `"sinusoidal"`):
            Fixed positions added to patch tokens, or attention that turns with the distance of patches, so that tokens need not
            carry where they are.
        amplitude_free (`bool`, defaults to `False`):
            Whether signals are band-passed and each lead of each record is divided by its own standard deviation: what the model
            was trained on, and all that it may be given. Otherwise they are in mV.
        pred_hidden_size, pred_num_hidden_layers, pred_num_attention_heads (`int`): The same for the predictor.
        classifier_pooling (`"attentive"`, `"register"` or `"mean"`, defaults to `"attentive"`):
            What the classifier sees: a learned query's view of all tokens, the first register, or the mean patch.
        classifier_pool_registers (`bool`, defaults to `True`): Whether the attentive query also sees the registers.
        readout_layers (`int`, defaults to 1): Last layers of which the classifier sees a learned average.
        classifier_bias (`bool`, *optional*): Bias of the classifier; `None` means as `use_bias`.
        classifier_qkv_bias (`bool`, *optional*): Bias of the attentive pooling's projections; `None` means as `qkv_bias`.
        label_descriptions (`dict[str, str]`, *optional*): Label -> what it means.
        decision_thresholds (`dict[str, float]`, *optional*):
            Label -> probability (0 to 1) from which on it is decided for, chosen on validation records. They belong to the head.
        temperature (`float`, *optional*):
            What logits are divided by before sigmoid or softmax, so that probabilities fit validation records; `None` means 1.
            It belongs to the head; the models' `logits` are not divided by it.

    Raises:
        ValueError: for values that do not fit together or an unknown key; the message names the fix.

    Example:

    ```python
    >>> from ecg_jepa import EcgJepaConfig, EcgJepaModel

    >>> config = EcgJepaConfig.from_size("xs")
    >>> model = EcgJepaModel(config)
    >>> model.num_parameters()
    3600000
    ```"""

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
        self._reject_unknown_keys(kwargs)
        if not __name__.startswith("transformers_modules."):
            # Where transformers finds this key, it asks to trust the checkpoint's own pipeline code, even if the package is
            # installed and its pipeline registered. Only the checkpoint's copy of this file keeps it.
            kwargs.pop("custom_pipelines", None)
        self.lead_names = list(self.lead_names)
        self.validate_architecture()
        super().__post_init__(**kwargs)
        self._check_decisions()  # again: only now are there labels, if num_labels was given

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> "EcgJepaConfig":
        """The published size `"xs"`, `"s"` or `"b"`, with any field overridden by keyword."""
        if size not in SIZES:
            raise ValueError(f"Unknown size {size!r}: choose one of {', '.join(map(repr, SIZES))}.")
        return cls(**{**SIZES[size], **overrides})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """
        As `PreTrainedConfig.from_pretrained`, but a folder without a configuration is an error: transformers takes the defaults.
        """
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
        As `PreTrainedConfig.from_dict`, but the configuration of another kind of model is an error, not a warning.

        Raises:
            ValueError: for that, and for values that are no configuration; the message names the file, if there is one.
        """
        source = kwargs.get("name_or_path")  # AutoConfig says it here
        where = f"{source} (config.json): this" if source else "This"
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(
                f"{where} is the configuration of a {model_type!r} model, but {cls.__name__} reads {cls.model_type!r} only: "
                "check the path, or load it with AutoConfig."
            )
        dtype = config_dict.get("dtype")
        if dtype is not None and str(dtype).removeprefix("torch.") not in _DTYPES:
            raise ValueError(f"{where} has dtype={dtype!r}, expected one of {', '.join(_DTYPES)}.")
        # A misspelt keyword is an error, but a file may have been written by a later version or another tool.
        unknown = cls._unknown_keys(config_dict)
        if unknown:
            logger.warning(f"{where} has keys that EcgJepaConfig does not use: {', '.join(unknown)}.")
        known = {key: value for key, value in config_dict.items() if key not in unknown}
        if cls._asks_for_other_labels(known, kwargs):
            logger.info(f"{where} is asked for with other labels: thresholds and temperature of the old ones are left out.")
            known = {key: value for key, value in known.items() if key not in _OF_LABELS}
        try:
            result = super().from_dict(known, **kwargs)
            (result[0] if isinstance(result, tuple) else result)._check_decisions()  # what keywords have changed
        except (ValueError, StrictDataclassError, TypeError, AttributeError, KeyError) as error:  # what transformers runs into
            raise ValueError(f"{where} is no configuration of ECG-JEPA: {error}") from error
        config = result[0] if isinstance(result, tuple) else result
        for key in unknown:
            setattr(config, key, config_dict[key])
        return result

    @property
    def num_patches(self) -> int:
        """Patches of the longest input."""
        return self.signal_length // self.patch_size

    def forget_decisions(self) -> None:
        """Drop thresholds and temperature: what they were chosen for, a head, is no longer the same."""
        self.decision_thresholds = None
        self.temperature = None

    def validate_architecture(self) -> None:
        """Check that the values fit together; transformers calls this again before saving. Raises `ValueError`."""
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}.")
            if not value <= most:
                raise ValueError(f"{name}={value} must be at most {most}: is the file damaged?")
        for prefix in ("", "pred_"):
            width, heads = getattr(self, f"{prefix}hidden_size"), getattr(self, f"{prefix}num_attention_heads")
            if width % 2:
                raise ValueError(
                    f"{prefix}hidden_size={width} is odd, but sine and cosine positions take pairs of channels: use {width + 1}."
                )
            if self.position_encoding == "rotary" and width % (2 * heads) and not width % heads:
                raise ValueError(
                    f"{prefix}hidden_size={width} gives {prefix}num_attention_heads={heads} heads of odd width {width // heads}, "
                    f"but rotary positions take pairs of channels: use {prefix}hidden_size={(width // heads + 1) * heads}."
                )
            if width % heads:
                raise ValueError(
                    f"{prefix}hidden_size={width} is not divisible by {prefix}num_attention_heads={heads}: "
                    f"use {prefix}hidden_size={width - width % heads or heads} or a number of heads that divides {width}."
                )
        if self.signal_length % self.patch_size:
            shorter = self.signal_length - self.signal_length % self.patch_size
            raise ValueError(
                f"signal_length={self.signal_length} is no whole number of patches of patch_size={self.patch_size} "
                f"samples: use {shorter or self.patch_size}."
            )
        if not 1 <= self.readout_layers <= self.num_hidden_layers:
            raise ValueError(f"readout_layers={self.readout_layers} must be 1 to num_hidden_layers={self.num_hidden_layers}.")
        if self.num_patches > _MOST_PATCHES or len(self.lead_names) > _MOST_LEADS:
            raise ValueError(
                f"{self.num_patches} patches of {len(self.lead_names)} leads are more than the {_MOST_PATCHES} and {_MOST_LEADS} "
                "that are possible."
            )
        from transformers.activations import ACT2FN  # here, because it imports torch

        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is no activation of transformers: use one such as 'gelu'.")
        if not self.lead_names:
            raise ValueError("lead_names is empty: name at least one lead.")
        names = [name.lower() for name in self.lead_names]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"lead_names repeats {', '.join(repeated)} (case does not count): name each lead once.")
        if self.classifier_pooling == "register" and self.num_register_tokens == 0:
            raise ValueError(
                'classifier_pooling="register" needs a register token: set num_register_tokens=1 or classifier_pooling="mean".'
            )
        self._check_decisions()

    def _check_decisions(self) -> None:
        """Check thresholds and temperature, and that what is said of labels is of such as there are. Raises `ValueError`."""
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
                raise ValueError(
                    f"{name} has {', '.join(map(repr, unknown))}, but id2label has no such label "
                    f"({', '.join(map(repr, labels.values()))}): name those, or set {name}=None for a new head."
                )

    @staticmethod
    def _asks_for_other_labels(values: dict[str, Any], keywords: dict[str, Any]) -> bool:
        """Whether the keywords of a call replace the labels of a configuration, and with them its head."""
        labels = values.get("id2label")
        if not isinstance(labels, dict) or any(keywords.get(name) is not None for name in _OF_LABELS):
            return False
        wanted, count = keywords.get("id2label"), keywords.get("num_labels")
        return (wanted is not None and list(wanted.values()) != list(labels.values())) or count not in (None, len(labels))

    @classmethod
    def _unknown_keys(cls, keys: Iterable[str]) -> list[str]:
        known = set(cls.__dataclass_fields__) | set(PreTrainedConfig.__dataclass_fields__) | _FOREIGN_KEYS
        return [key for key in keys if not (key.startswith("_") or key in known or hasattr(PreTrainedConfig, key))]

    @classmethod
    def _reject_unknown_keys(cls, keys: dict[str, Any]) -> None:
        # transformers sets whatever it does not know as an attribute, so a misspelt key would be ignored in silence.
        for key in cls._unknown_keys(keys):
            nearest = difflib.get_close_matches(key, cls.__dataclass_fields__, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"EcgJepaConfig has no key {key!r}.{hint}")


__all__ = ["EcgJepaConfig"]
