"""ECG-JEPA models: the encoder, its pre-training pair with predictor, and a classifier."""

import shutil
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_ecg_jepa import EcgJepaConfig


@dataclass
class EcgJepaForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss: mean absolute error between `prediction` and `target`, a scalar.
        prediction: predicted latents of the hidden patches, (batch, hidden patches, hidden_size).
        target: the target encoder's latents of the same patches, same shape, without gradient.
        hidden_states, attentions: the context encoder's, when asked for.
        context: the context encoder's tokens of the visible patches, (batch, visible patches, hidden_size).
        context_prediction: predicted latents of the visible patches, when asked for; same shape as `context`.
    """

    loss: torch.Tensor | None = None
    prediction: torch.Tensor | None = None
    target: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    context: torch.Tensor | None = None
    context_prediction: torch.Tensor | None = None


def sinusoidal_positions(num_positions: int, width: int) -> torch.Tensor:
    """Return fixed 1-D positions, (num_positions, width): sine on even, cosine on odd channels, base 10000."""
    frequencies = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)
    angles = torch.arange(num_positions, dtype=torch.float64, device="cpu")[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


class MismatchedWeightsError(RuntimeError, ValueError):
    """Weights have other shapes than their configuration says; transformers raises `RuntimeError`."""


def rotary_angles(positions: torch.Tensor, width: int, num_heads: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return rotary positions (Su et al. 2021) for [`rotate`]: cosine and signed sine of the angles of pairs of channels, the same
    in every head, (batch, tokens, width). Positions (batch, tokens); base 10000, as for sinusoidal ones.
    """
    head_width = width // num_heads
    frequencies = 10000.0 ** -(torch.arange(0, head_width, 2, dtype=torch.float32, device=positions.device) / head_width)
    angles = positions[..., None].float() * frequencies
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat([cosine, cosine] * num_heads, dim=-1), torch.cat([-sine, sine] * num_heads, dim=-1)


def rotate(states: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], num_heads: int) -> torch.Tensor:
    """Rotate queries or keys (batch, tokens, width) by [`rotary_angles`]; pairs are channels half a head apart."""
    cosine, sine = (angles.to(states.dtype) for angles in rotation)
    heads = states.unflatten(-1, (num_heads, -1))
    # All heads at once: a CPU multiplies long rows several times as fast as those of one head.
    return torch.addcmul(states * cosine, heads.roll(heads.shape[-1] // 2, dims=-1).flatten(-2), sine)


def dtype_of_products(weight: torch.Tensor) -> torch.dtype:
    """Return the dtype in which a linear layer with such a weight computes: its own, or autocast's."""
    device = weight.device.type
    is_autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_autocast else weight.dtype


def gather_patches(tokens: torch.Tensor, patch_indices: torch.Tensor) -> torch.Tensor:
    """Pick patches (batch, kept) out of tokens (batch or 1, patches, width) -> (batch, kept, width)."""
    index = patch_indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    return tokens.expand(patch_indices.shape[0], -1, -1).gather(1, index)


def check_patch_indices(name: str, indices: torch.Tensor, batch_size: int) -> None:
    """Raise `ValueError` unless `indices` is a long tensor (batch_size, patches), of one patch or more."""
    if indices.dim() != 2 or indices.shape[0] != batch_size or not indices.shape[1] or indices.dtype != torch.long:
        raise ValueError(
            f"{name} must hold patch indices, a long tensor of shape (batch={batch_size}, patches) with a patch or more, but got "
            f"{indices.dtype} of shape {tuple(indices.shape)}."
        )


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute softmax attention over (batch, heads, tokens, head width); also return the weights."""
    weights = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1).to(query.dtype)  # summed in float32 also in narrower types
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rotation: tuple[torch.Tensor, torch.Tensor] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    Compute multi-head attention in the implementation that the configuration names.

    `query` (batch, queries, width), `key` and `value` (batch, keys, width) -> (batch, queries, width) and the weights,
    or `None` where the implementation does not return any. `module` holds `config`, `num_heads` and `attention_dropout`;
    queries and keys are rotated by `rotation`, of [`rotary_angles`].
    """
    batch, num_queries, width = query.shape
    if rotation is not None:
        query, key = (rotate(states, rotation, module.num_heads) for states in (query, key))
    query, key, value = (states.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for states in (query, key, value))
    interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager_attention_forward)
    dropout, scaling = module.attention_dropout if module.training else 0.0, (width // module.num_heads) ** -0.5
    output, weights = interface(module, query, key, value, None, dropout=dropout, scaling=scaling, **kwargs)
    return output.reshape(batch, num_queries, width), weights


class EcgJepaEmbeddings(nn.Module):
    """Signal -> patch tokens with positions, the kept ones only, with the registers in front."""

    position_embeddings: torch.Tensor

    def __init__(self, config: EcgJepaConfig):
        super().__init__()
        self.config = config
        leads, width, patch = len(config.lead_names), config.hidden_size, config.patch_size
        self.patch_projection = nn.Conv1d(leads, width, kernel_size=patch, stride=patch, bias=config.use_bias)
        registers = config.num_register_tokens
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        self.register_buffer("position_embeddings", sinusoidal_positions(config.num_patches, width), persistent=False)

    def forward(self, input_values: torch.Tensor, patch_indices: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, leads, samples) -> (batch, registers + kept patches, hidden_size)."""
        self._check_input(input_values, patch_indices)
        if patch_indices is not None:  # keep these patches only, side by side
            patches = input_values.unflatten(2, (-1, self.config.patch_size))
            index = patch_indices[:, None, :, None].expand(-1, patches.shape[1], -1, self.config.patch_size)
            input_values = patches.gather(2, index).flatten(2)
        dtype = self.patch_projection.weight.dtype
        # Under autocast the projection is bfloat16, but the residual stream stays float32: content is small beside positions.
        tokens = self.patch_projection(input_values.to(dtype)).transpose(1, 2).to(dtype)
        if self.config.position_encoding == "sinusoidal":
            positions = self.position_embeddings[None, : tokens.shape[1]]
            if patch_indices is not None:
                positions = gather_patches(self.position_embeddings[None], patch_indices)
            tokens = tokens + positions.to(dtype)
        if self.register_tokens is not None:
            registers = self.register_tokens.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([registers, tokens], dim=1)
        return tokens

    def rotation(self, tokens: torch.Tensor, patch_indices: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """
        Return the `rotation` for [`attend`] of tokens (batch, registers + kept patches, hidden_size); `None` without rotary
        positions. Registers are not rotated.
        """
        if self.config.position_encoding != "rotary":
            return None
        registers = self.config.num_register_tokens
        if patch_indices is None:
            patch_indices = torch.arange(tokens.shape[1] - registers, device=tokens.device)[None]
        positions = nn.functional.pad(patch_indices, (registers, 0))  # angle 0
        dtype = dtype_of_products(self.patch_projection.weight)
        angles = rotary_angles(positions, self.config.hidden_size, self.config.num_attention_heads, dtype)
        # A CPU takes twice as long to multiply by rows that all records share.
        cosine, sine = (part.expand(tokens.shape[0], -1, -1).contiguous() for part in angles)
        return cosine, sine

    def _check_input(self, input_values: torch.Tensor, patch_indices: torch.Tensor | None) -> None:
        config = self.config
        if input_values.dim() != 3 or input_values.shape[1] != len(config.lead_names):
            raise ValueError(
                f"input_values must be (batch, {len(config.lead_names)} leads, samples) with leads "
                f"{', '.join(config.lead_names)}, but its shape is {tuple(input_values.shape)}: use EcgJepaFeatureExtractor."
            )
        samples = input_values.shape[2]
        if samples == 0 or samples % config.patch_size or samples > config.signal_length:
            raise ValueError(
                f"input_values has {samples} samples, but the model takes 1 to {config.num_patches} whole patches of "
                f"{config.patch_size} samples (up to {config.signal_length} samples at {config.sampling_rate} Hz): crop it."
            )
        if patch_indices is not None:
            check_patch_indices("patch_indices", patch_indices, input_values.shape[0])


class EcgJepaResidualProjection(nn.Linear):
    """The last linear layer of a residual branch; `_init_weights` gives it a smaller standard deviation."""


class EcgJepaAttention(nn.Module):
    """Self-attention with one fused projection to queries, keys and values."""

    def __init__(self, config: EcgJepaConfig, width: int, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False  # for the attention implementations
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.projection = EcgJepaResidualProjection(width, width, bias=config.use_bias)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, tokens, width) -> the same shape, and attention weights if the implementation returns them."""
        query, key, value = self.qkv(hidden_states).chunk(3, dim=-1)
        output, weights = attend(self, query, key, value, **kwargs)
        return self.projection(output), weights


class EcgJepaMLP(nn.Module):
    """Two linear layers around the activation."""

    def __init__(self, config: EcgJepaConfig, width: int):
        super().__init__()
        inner = int(width * config.mlp_ratio)
        self.up_projection = nn.Linear(width, inner, bias=config.use_bias)
        self.activation = ACT2FN[config.hidden_act]
        self.down_projection = EcgJepaResidualProjection(inner, width, bias=config.use_bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) -> the same shape."""
        return self.down_projection(self.activation(self.up_projection(hidden_states)))


class EcgJepaLayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, config: EcgJepaConfig, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), float(config.layerscale_value)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) -> the same shape."""
        return hidden_states * self.weight


class EcgJepaLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block, with LayerScale only in the encoder (as in the reference)."""

    def __init__(self, config: EcgJepaConfig, width: int, num_heads: int, has_layerscale: bool = False):
        super().__init__()

        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.attention = EcgJepaAttention(config, width, num_heads)
        self.attention_scale = EcgJepaLayerScale(config, width) if has_layerscale else nn.Identity()
        self.mlp_norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.mlp = EcgJepaMLP(config, width)
        self.mlp_scale = EcgJepaLayerScale(config, width) if has_layerscale else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """(batch, tokens, width) -> the same shape."""
        attended, _ = self.attention(self.attention_norm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.dropout(self.attention_scale(attended))
        return hidden_states + self.dropout(self.mlp_scale(self.mlp(self.mlp_norm(hidden_states))))


class EcgJepaPredictor(nn.Module):
    """Predicts latents of hidden patches from context tokens and the positions of both."""

    position_embeddings: torch.Tensor

    def __init__(self, config: EcgJepaConfig):
        super().__init__()
        self.config = config
        width = config.pred_hidden_size
        self.input_projection = nn.Linear(config.hidden_size, width, bias=config.use_bias)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(
            EcgJepaLayer(config, width, config.pred_num_attention_heads) for _ in range(config.pred_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.output_projection = nn.Linear(width, config.hidden_size, bias=config.use_bias)
        self.register_buffer("position_embeddings", sinusoidal_positions(config.num_patches, width), persistent=False)

    def forward(
        self,
        context: torch.Tensor,
        context_mask: torch.Tensor,
        target_mask: torch.Tensor,
        with_context: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """`context` (batch, K, hidden_size) -> (batch, M, hidden_size); `with_context` (batch, K + M, hidden_size), K first."""
        context = self.input_projection(context).to(self.mask_token.dtype)
        hidden_states = torch.cat([context, self.mask_token.expand(*target_mask.shape, -1)], dim=1)
        positions = torch.cat([context_mask, target_mask], dim=1)
        if self.config.position_encoding == "rotary":
            dtype = dtype_of_products(self.input_projection.weight)
            rotation = rotary_angles(positions, self.config.pred_hidden_size, self.config.pred_num_attention_heads, dtype)
            kwargs["rotation"] = rotation
        else:
            hidden_states = hidden_states + gather_patches(self.position_embeddings[None].to(context.dtype), positions)
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        first = 0 if with_context else context.shape[1]
        return self.output_projection(self.norm(hidden_states[:, first:]))


class EcgJepaAttentivePooling(nn.Module):
    """Attention of one learned query over all tokens, with as many heads as the encoder."""

    def __init__(self, config: EcgJepaConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.first_token = 0 if config.classifier_pool_registers else config.num_register_tokens
        bias = config.qkv_bias if config.classifier_qkv_bias is None else config.classifier_qkv_bias
        self.query_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=bias)
        self.key_value = nn.Linear(config.hidden_size, 2 * config.hidden_size, bias=bias)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, tokens, hidden_size) -> pooled (batch, hidden_size) and attention weights, if the implementation has any."""
        query = self.query(self.query_token.to(hidden_states.dtype)).expand(hidden_states.shape[0], -1, -1)
        key, value = self.key_value(hidden_states[:, self.first_token :]).chunk(2, dim=-1)
        pooled, weights = attend(self, query, key, value)
        return pooled.squeeze(1), weights


class EcgJepaLayerMix(nn.Module):
    """A learned average of the last layers, equal shares at first (ELMo's, Peters et al. 2018)."""

    def __init__(self, config: EcgJepaConfig):
        super().__init__()
        self.layer_logits = nn.Parameter(torch.zeros(config.readout_layers))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, layers, tokens, hidden_size) -> (batch, tokens, hidden_size)."""
        return torch.einsum("l,bltw->btw", self.layer_logits.softmax(dim=0).to(hidden_states.dtype), hidden_states)


class EcgJepaPreTrainedModel(PreTrainedModel):
    """Initialisation and abilities shared by the models."""

    config: EcgJepaConfig
    config_class = EcgJepaConfig
    base_model_prefix = "ecg_jepa"
    main_input_name = "input_values"
    input_modalities = ("time",)  # type: ignore[assignment]  # a tuple in transformers' own models, too
    supports_gradient_checkpointing = True
    _no_split_modules = ["EcgJepaEmbeddings", "EcgJepaLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": EcgJepaLayer, "attentions": EcgJepaAttention}

    def get_input_embeddings(self) -> nn.Module:
        """Return the patch projection of the encoder."""
        encoder: Any = getattr(self, self.base_model_prefix, self)
        return encoder.embeddings.patch_projection

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Call `PreTrainedModel.from_pretrained`; damaged weights are errors that name where they are.

        Raises:
            ValueError: if the weights cannot be read, are not finite, have more of the encoder than their configuration says, or
                lack any of the encoder, or some but not all of another network (an absent head is a new one). With
                `output_loading_info`, missing and unexpected weights are returned instead.
            MismatchedWeightsError: if they have other shapes than the configuration says.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        ignores_sizes = kwargs.pop("ignore_mismatched_sizes", False)
        source = f"The weights in {pretrained_model_name_or_path} (model.safetensors)"
        # Mismatched sizes are reported below, with their names.
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        try:
            loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"{source} cannot be read: {error}. The file is damaged or was not copied as a whole.") from error
        model, info = loaded
        if info["mismatched_keys"] and not ignores_sizes:
            name, found, expected = min(info["mismatched_keys"])
            raise MismatchedWeightsError(
                f"{source} do not fit its config.json in {len(info['mismatched_keys'])} places, the first of them {name}: "
                f"{tuple(found)} instead of {tuple(expected)}. For a head of another size, pass ignore_mismatched_sizes=True."
            )
        if not wants_info:
            model._check_keys(source, info["missing_keys"], info["unexpected_keys"])
        for name, parameter in model.named_parameters():
            if not parameter.is_meta and not bool(parameter.isfinite().all()):
                raise ValueError(f"{source} have NaN or infinite values in {name}.")
        new = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
        if not hasattr(model, "classifier") or any(name.startswith("classifier.") for name in new):
            model.config.forget_decisions()
        return (model, info) if wants_info else model

    def _check_keys(self, source: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
        """Raise `ValueError` for weights of the encoder that were not built, and for networks that were loaded in part."""
        base = self.base_model_prefix
        is_alone = not hasattr(self, base)
        networks = {base, *(("embeddings", "layers", "norm") if is_alone else ())}
        if extra := sorted(name for name in unexpected if name.partition(".")[0] in networks):
            raise ValueError(
                f"{source} hold {len(extra)} parts that their config.json does not know, the first of them "
                f"{', '.join(extra[:3])}: they belong to another config.json."
            )

        def network(name: str) -> str:
            return base if is_alone else name.partition(".")[0]

        missing = set(missing)
        incomplete = {base} | {network(name) for name, _ in self.named_parameters() if name not in missing}
        if lacking := sorted(name for name in missing if network(name) in incomplete):
            raise ValueError(
                f"{source} lack {len(lacking)} of {type(self).__name__}, the first of them "
                f"{', '.join(lacking[:3])}: they are incomplete or belong to another config.json."
            )

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """
        Call `PreTrainedModel.save_pretrained`, which also writes the code, so that the directory works without this package.
        `AutoModel` reads the encoder of it, whatever is saved.
        """
        # transformers adds the saved class.
        self.config.auto_map = {"AutoModel": f"{__name__.rpartition('.')[2]}.{EcgJepaModel.__name__}"}
        super().save_pretrained(save_directory, *args, **kwargs)
        for weights in Path(save_directory).glob("*.safetensors"):
            # safetensors makes weights readable for the owner only.
            shutil.copymode(Path(save_directory, "config.json"), weights)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Only functions of transformers.initialization, which do not change loaded weights.
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            # The encoder's depth counts in both networks, as in the reference.
            depth_factor = (2 * self.config.num_hidden_layers) ** -0.5
            residual = isinstance(module, EcgJepaResidualProjection)
            init.trunc_normal_(module.weight, std=std * depth_factor if residual else std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, EcgJepaLayerScale):
            init.constant_(module.weight, float(self.config.layerscale_value))
        elif isinstance(module, EcgJepaEmbeddings):
            if module.register_tokens is not None:
                init.trunc_normal_(module.register_tokens, std=std)
        elif isinstance(module, EcgJepaPredictor):
            init.trunc_normal_(module.mask_token, std=std)
        elif isinstance(module, EcgJepaAttentivePooling):
            init.trunc_normal_(module.query_token, std=std)
        elif isinstance(module, EcgJepaLayerMix):
            init.zeros_(module.layer_logits)
        if isinstance(module, (EcgJepaEmbeddings, EcgJepaPredictor)):
            # from_pretrained builds on the meta device, where a buffer without saved values has none.
            init.copy_(module.position_embeddings, sinusoidal_positions(*module.position_embeddings.shape))


class EcgJepaModel(EcgJepaPreTrainedModel):
    """One ECG-JEPA encoder; from any checkpoint of this package it loads the encoder meant for use (the target encoder)."""

    # Other parts of a pre-training or classifier checkpoint are no reason to warn.
    _keys_to_ignore_on_load_unexpected = [r"^(context_encoder|predictor|mixing|pooling|classifier)\."]

    def __init__(self, config: EcgJepaConfig):
        super().__init__(config)
        self.embeddings = EcgJepaEmbeddings(config)
        self.layers = nn.ModuleList(
            EcgJepaLayer(config, config.hidden_size, config.num_attention_heads, bool(config.layerscale_value))
            for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor,
        patch_indices: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        r"""
        Args:
            input_values (`torch.Tensor` of shape `(batch, leads, samples)`): Normalised signals, leads in the order of
                `config.lead_names`, a whole number of patches up to `config.signal_length` samples, else `ValueError`.
            patch_indices (`torch.LongTensor` of shape `(batch, kept)`, *optional*): Encode these patches only.

        Returns:
            `last_hidden_state` (batch, registers + patches, hidden_size), registers first, and `pooler_output`
            (batch, hidden_size), the mean over patches.
        """
        hidden_states = self.layer_outputs(input_values, patch_indices, **kwargs)[0]
        pooled = hidden_states[:, self.config.num_register_tokens :].mean(dim=1)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def layer_outputs(
        self, input_values: torch.Tensor, patch_indices: torch.Tensor | None = None, num_layers: int = 1, **kwargs: Any
    ) -> list[torch.Tensor]:
        """Return the outputs of the last `num_layers` layers, in order, each through the final norm; see `forward`."""
        hidden_states = self.embeddings(input_values, patch_indices)
        rotation = self.embeddings.rotation(hidden_states, patch_indices)
        outputs = deque([hidden_states], maxlen=num_layers)
        for layer in self.layers:
            outputs.append(layer(outputs[-1], rotation=rotation, **kwargs))
        return [self.norm(hidden_states) for hidden_states in outputs]


class EcgJepaContextEncoder(EcgJepaModel):
    """The trained encoder; a class of its own, because transformers takes the first `EcgJepaModel` of a network for its base."""


class EcgJepaEncoderPair(EcgJepaPreTrainedModel):
    """
    A trained `.context_encoder` and its exponential moving average `.ecg_jepa`, which never takes gradients; a training loop
    calls `update_target_encoder` once per optimiser step.
    """

    def __init__(self, config: EcgJepaConfig):
        super().__init__(config)
        self.context_encoder = EcgJepaContextEncoder(config)
        self._add_networks(config)
        self.ecg_jepa = EcgJepaModel(config)
        self.post_init()
        self.ecg_jepa.requires_grad_(False)

    def _add_networks(self, config: EcgJepaConfig) -> None:
        """Add what is trained beside the encoder. The order of networks decides their random initialisation."""

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Initialise the weights that were not loaded; both encoders start equal."""
        super().initialize_weights()
        for target, context in zip(self.ecg_jepa.parameters(), self.context_encoder.parameters(), strict=True):
            # From a checkpoint of the target encoder alone, the context encoder starts from it.
            if getattr(target, "_is_hf_initialized", False):
                init.copy_(context, target)
            else:
                init.copy_(target, context)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Call `PreTrainedModel.from_pretrained`, then freeze the target encoder, which transformers unfreezes."""
        result = super().from_pretrained(*args, **kwargs)
        (result[0] if isinstance(result, tuple) else result).ecg_jepa.requires_grad_(False)
        return result

    def train(self, mode: bool = True) -> "EcgJepaEncoderPair":
        """Set the training mode; the target encoder stays in evaluation mode (no dropout)."""
        super().train(mode)
        self.ecg_jepa.eval()
        return self

    @torch.no_grad()
    def update_target_encoder(self, momentum: float) -> None:
        """
        Do one EMA step: target = momentum * target + (1 - momentum) * context.

        The reference does this at the start of every forward; here it is done once after every optimiser step, which is the
        same without gradient accumulation.
        """
        targets = [parameter.data for parameter in self.ecg_jepa.parameters()]
        sources = [parameter.data for parameter in self.context_encoder.parameters()]
        torch._foreach_lerp_(targets, sources, 1.0 - momentum)

    def without_registers(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the patches of tokens (batch, registers + patches, hidden_size)."""
        return hidden_states[:, self.config.num_register_tokens :]

    @torch.no_grad()
    def encode_targets(self, input_values: torch.Tensor, num_layers: int = 1) -> list[torch.Tensor]:
        """
        Return the target encoder's outputs for all patches of signals (batch, leads, samples), (batch, patches, hidden_size) from
        each of its last `num_layers` layers, in order, through the final norm.
        """
        return [self.without_registers(output) for output in self.ecg_jepa.layer_outputs(input_values, num_layers=num_layers)]


class EcgJepaForPreTraining(EcgJepaEncoderPair):
    """Context encoder, its moving average, which is the target encoder, and predictor."""

    def _add_networks(self, config: EcgJepaConfig) -> None:
        self.predictor = EcgJepaPredictor(config)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        context_mask: torch.Tensor,
        target_mask: torch.Tensor,
        targets: torch.Tensor | None = None,
        predict_context: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgJepaForPreTrainingOutput:
        r"""
        Args:
            input_values (`torch.Tensor` of shape `(batch, leads, samples)`): Normalised signals.
            context_mask (`torch.LongTensor` of shape `(batch, K)`): Indices of the visible patches.
            target_mask (`torch.LongTensor` of shape `(batch, M)`): Indices of the hidden patches to predict.
            targets (`torch.Tensor` of shape `(batch, patches, hidden_size)`, *optional*):
                What is predicted of every patch; default: the output of the target encoder.
            predict_context (`bool`, *optional*): Predict visible patches as well, as `context_prediction`.

        Returns:
            [`EcgJepaForPreTrainingOutput`] with the L1 `loss`, `prediction` and `target` (batch, M, hidden_size).
        """
        check_patch_indices("context_mask", context_mask, input_values.shape[0])
        check_patch_indices("target_mask", target_mask, input_values.shape[0])
        target = gather_patches(self.encode_targets(input_values)[0] if targets is None else targets, target_mask)
        encoded = self.context_encoder(input_values, patch_indices=context_mask, **kwargs)
        context = self.without_registers(encoded.last_hidden_state)
        prediction = self.predictor(context, context_mask, target_mask, with_context=predict_context)
        visible = prediction.shape[1] - target_mask.shape[1]
        return EcgJepaForPreTrainingOutput(
            loss=nn.functional.l1_loss(prediction[:, visible:].float(), target.float()),
            prediction=prediction[:, visible:],
            target=target,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            context=context,
            context_prediction=prediction[:, :visible] if predict_context else None,
        )


class EcgJepaForSequenceClassification(EcgJepaPreTrainedModel):
    """ECG-JEPA encoder with a classifier over its tokens (see `config.classifier_pooling`)."""

    _keys_to_ignore_on_load_unexpected = [r"^context_encoder\.", r"^predictor\."]

    def __init__(self, config: EcgJepaConfig):
        super().__init__(config)
        self.num_labels: int = config.num_labels or 2
        self.ecg_jepa = EcgJepaModel(config)
        self.mixing = EcgJepaLayerMix(config) if config.readout_layers > 1 else None
        self.pooling = EcgJepaAttentivePooling(config) if config.classifier_pooling == "attentive" else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        bias = config.use_bias if config.classifier_bias is None else config.classifier_bias
        self.classifier = nn.Linear(config.hidden_size, self.num_labels, bias=bias)
        self.post_init()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save as the other models do, and so that `pipeline("ecg-classification")` works with the directory."""
        # Imported here, so that transformers copies that file, too.
        from .pipeline_ecg_jepa import EcgClassificationPipeline

        implementation = f"{EcgClassificationPipeline.__module__.rpartition('.')[2]}.{EcgClassificationPipeline.__name__}"
        pipeline = {"impl": implementation, "pt": ["AutoModelForSequenceClassification"]}
        self.config.custom_pipelines = {"ecg-classification": pipeline}
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            del self.config.custom_pipelines

    def reset_classifier(self, num_labels: int | None = None, id2label: dict[int, str] | None = None) -> None:
        """
        Replace the head (classifier and attentive pooling) by an untrained one, without thresholds, temperature and descriptions.

        Args:
            num_labels: number of labels; may be left out if `id2label` is given.
            id2label: index -> name of each label; default: `LABEL_0`, `LABEL_1`, ...
        """
        count = len(id2label or ()) if num_labels is None else num_labels
        if count < 1:
            raise ValueError("Give num_labels (at least 1) or id2label for the new classifier.")
        names = {index: f"LABEL_{index}" for index in range(count)} if id2label is None else dict(id2label)
        if sorted(names) != list(range(count)):
            raise ValueError(f"id2label must name every label from 0 to {count - 1} once, but has {sorted(names)}.")
        self.num_labels = count
        self.config.forget_decisions()
        self.config.label_descriptions = None
        self.config.id2label, self.config.label2id = names, {name: index for index, name in names.items()}
        old = self.classifier
        self.classifier = nn.Linear(old.in_features, count, bias=old.bias is not None).to(old.weight)
        for module in (self.classifier, *(self.pooling.modules() if self.pooling is not None else ())):
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # or _init_weights would keep the loaded values
            self._init_weights(module)

    def encode(self, input_values: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """
        Return the input of the head for signals (batch, leads, samples): tokens (batch, registers + patches, hidden_size), or
        with `readout_layers` those of each layer, (batch, layers, registers + patches, hidden_size).
        """
        if self.mixing is None:
            return self.ecg_jepa.layer_outputs(input_values, **kwargs)[0]
        return torch.stack(self.ecg_jepa.layer_outputs(input_values, num_layers=self.config.readout_layers, **kwargs), dim=1)

    def mix_layers(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Average the layers of `encode`'s output -> tokens (batch, registers + patches, hidden_size)."""
        return hidden_states if self.mixing is None else self.mixing(hidden_states)

    def classify_tokens(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Apply the head to `encode`'s output -> logits (batch, labels)."""
        hidden_states = self.mix_layers(hidden_states)
        if self.pooling is not None:
            pooled, _ = self.pooling(hidden_states)
        elif self.config.classifier_pooling == "register":
            pooled = hidden_states[:, 0]
        else:
            pooled = hidden_states[:, self.config.num_register_tokens :].mean(dim=1)
        return self.classifier(self.dropout(pooled))

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        r"""
        Args:
            input_values (`torch.Tensor` of shape `(batch, leads, samples)` or `(batch, crops, leads, samples)`): Normalised
                signals; logits are averaged over crops.
            labels (`torch.Tensor`, *optional*): For `problem_type="multi_label_classification"` floats of shape
                `(batch, num_labels)`, for `"single_label_classification"` class indices of shape `(batch,)`.

        Returns:
            `SequenceClassifierOutput` with `logits` (batch, num_labels) and, given labels, the `loss`.
        """
        num_crops = 1
        if input_values.dim() == 4:
            num_crops, input_values = input_values.shape[1], input_values.flatten(0, 1)
        logits = self.classify_tokens(self.encode(input_values, **kwargs))
        logits = logits.view(-1, num_crops, self.num_labels).mean(dim=1)
        if labels is None:
            return SequenceClassifierOutput(logits=logits)
        if self.config.problem_type == "multi_label_classification" and labels.shape != logits.shape:
            raise ValueError(
                f"labels must be one 0 or 1 per class, of shape {tuple(logits.shape)}, but got {tuple(labels.shape)}."
            )
        loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)
