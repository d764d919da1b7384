"""ECG-JEPA models: the encoder, its pre-training pair with predictor, and a classifier."""

import shutil
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
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

    loss: Tensor | None = None
    prediction: Tensor | None = None
    target: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    context: Tensor | None = None
    context_prediction: Tensor | None = None


class MismatchedWeightsError(RuntimeError, ValueError):
    """Weights have other shapes than their configuration says; transformers raises `RuntimeError`."""


def sinusoidal_positions(num_positions: int, width: int) -> Tensor:
    """Return fixed 1-D positions, (num_positions, width): sine on even, cosine on odd channels, base 10000."""
    frequencies = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)
    angles = torch.arange(num_positions, dtype=torch.float64, device="cpu")[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def rotary_angles(positions: Tensor, num_heads: int, weight: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return rotary positions (Su et al. 2021) for [`rotate`]: cosine and signed sine of the angles of pairs of channels, the same
    in every head, (batch, tokens, width). Positions (batch, tokens); base 10000, as for sinusoidal ones. `weight` (width, ...) is
    that of a layer, in whose dtype, or autocast's, the angles are.
    """
    head_width, device = weight.shape[0] // num_heads, weight.device.type
    is_autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_autocast else weight.dtype
    frequencies = 10000.0 ** -(torch.arange(0, head_width, 2, dtype=torch.float32, device=positions.device) / head_width)
    angles = positions[..., None].float() * frequencies
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat([cosine, cosine] * num_heads, dim=-1), torch.cat([-sine, sine] * num_heads, dim=-1)


def rotate(states: Tensor, rotation: Sequence[Tensor], num_heads: int) -> Tensor:
    """Rotate queries or keys (batch, tokens, width) by [`rotary_angles`]; pairs are channels half a head apart."""
    cosine, sine = (angles.to(states.dtype) for angles in rotation)
    heads = states.unflatten(-1, (num_heads, -1))
    # All heads at once: a CPU multiplies long rows several times as fast as those of one head.
    return torch.addcmul(states * cosine, heads.roll(heads.shape[-1] // 2, dims=-1).flatten(-2), sine)


def gather_patches(tokens: Tensor, patch_indices: Tensor) -> Tensor:
    """Pick patches (batch, kept) out of tokens (batch, patches, width) -> (batch, kept, width)."""
    return torch.take_along_dim(tokens, patch_indices[..., None], dim=1)


def check_patch_indices(name: str, indices: Tensor, batch_size: int) -> None:
    """Raise `ValueError` unless `indices` is a long tensor (batch_size, patches), of one patch or more."""
    if indices.dim() != 2 or indices.shape[0] != batch_size or not indices.shape[1] or indices.dtype != torch.long:
        found = f"{indices.dtype} of shape {tuple(indices.shape)}"
        raise ValueError(f"{name} must hold patch indices, torch.int64 of shape ({batch_size}, patches), but got {found}.")


def eager_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Compute softmax attention over (batch, heads, tokens, head width); also return the weights."""
    weights = torch.matmul(query * scaling, key.transpose(2, 3))
    if mask is not None:
        weights = weights + mask
    weights = nn.functional.softmax(weights, dim=-1).to(query.dtype)  # summed in float32 also in narrower types
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class EcgJepaEmbeddings(nn.Module):
    """Signal -> patch tokens with positions, the kept ones only, with the registers in front."""

    position_embeddings: Tensor

    def __init__(self, config: EcgJepaConfig):
        super().__init__()
        self.config = config
        leads, width, patch = len(config.lead_names), config.hidden_size, config.patch_size
        self.patch_projection = nn.Conv1d(leads, width, kernel_size=patch, stride=patch, bias=config.use_bias)
        registers = config.num_register_tokens
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        self.register_buffer("position_embeddings", sinusoidal_positions(config.num_patches, width), persistent=False)

    def forward(self, input_values: Tensor, patch_indices: Tensor | None = None) -> Tensor:
        """(batch, leads, samples) -> (batch, registers + kept patches, hidden_size)."""
        config, leads, shape = self.config, self.config.lead_names, tuple(input_values.shape)
        if len(shape) != 3 or shape[1] != len(leads) or shape[2] % config.patch_size or not 0 < shape[2] <= config.signal_length:
            size = f"in whole patches of {config.patch_size} samples, at most {config.signal_length} samples"
            expected = f"(batch, {len(leads)} leads, samples) {size} at {config.sampling_rate} Hz, leads {', '.join(leads)}"
            raise ValueError(f"input_values must be {expected}, but its shape is {shape}: use EcgJepaFeatureExtractor.")
        if patch_indices is not None:  # keep these patches only, side by side
            check_patch_indices("patch_indices", patch_indices, shape[0])
            patches = input_values.unflatten(2, (-1, config.patch_size))
            input_values = torch.take_along_dim(patches, patch_indices[:, None, :, None], dim=2).flatten(2)
        dtype = self.patch_projection.weight.dtype
        # Under autocast the projection is bfloat16, but the residual stream stays float32: content is small beside positions.
        tokens = self.patch_projection(input_values.to(dtype)).transpose(1, 2).to(dtype)
        if config.position_encoding == "sinusoidal":
            positions = self.position_embeddings.to(dtype)
            tokens = tokens + (positions[: tokens.shape[1]] if patch_indices is None else positions[patch_indices])
        if self.register_tokens is not None:
            registers = self.register_tokens.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([registers, tokens], dim=1)
        return tokens


class EcgJepaResidualProjection(nn.Linear):
    """The last linear layer of a residual branch; `_init_weights` gives it a smaller standard deviation."""


class EcgJepaMultiHeadAttention(nn.Module):
    """Attention in the implementation that the configuration names, without projections."""

    is_causal = False  # for the implementations

    def __init__(self, config: EcgJepaConfig, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.attention_dropout = config.attention_probs_dropout_prob

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, rotation: Sequence[Tensor] | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """
        Attend with `query` (batch, queries, width) to `key` and `value` (batch, keys, width) -> (batch, queries, width), and
        attention weights, if the implementation has any. Queries and keys are rotated by `rotation`, of [`rotary_angles`].
        """
        if rotation is not None:
            query, key = (rotate(states, rotation, self.num_heads) for states in (query, key))
        heads = [states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for states in (query, key, value)]
        interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout, scaling = self.attention_dropout if self.training else 0.0, heads[0].shape[-1] ** -0.5
        output, weights = interface(self, *heads, None, dropout=dropout, scaling=scaling, **kwargs)
        return output.reshape(query.shape), weights


class EcgJepaAttention(EcgJepaMultiHeadAttention):
    """Self-attention with one fused projection to queries, keys and values."""

    def __init__(self, config: EcgJepaConfig, width: int, num_heads: int):
        super().__init__(config, num_heads)
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.projection = EcgJepaResidualProjection(width, width, bias=config.use_bias)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """(batch, tokens, width) -> the same shape, and attention weights, if the implementation has any."""
        output, weights = self.attend(*self.qkv(hidden_states).chunk(3, dim=-1), **kwargs)
        return self.projection(output), weights


class EcgJepaLayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, config: EcgJepaConfig, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), float(config.layerscale_value)))

    def forward(self, hidden_states: Tensor) -> Tensor:
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
        inner = int(width * config.mlp_ratio)
        up = nn.Linear(width, inner, bias=config.use_bias)
        down = EcgJepaResidualProjection(inner, width, bias=config.use_bias)
        self.mlp = nn.Sequential(OrderedDict(up_projection=up, activation=ACT2FN[config.hidden_act], down_projection=down))
        self.mlp_scale = EcgJepaLayerScale(config, width) if has_layerscale else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        attended, _ = self.attention(self.attention_norm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.dropout(self.attention_scale(attended))
        return hidden_states + self.dropout(self.mlp_scale(self.mlp(self.mlp_norm(hidden_states))))


class EcgJepaPredictor(nn.Module):
    """Predicts latents of hidden patches from context tokens and the positions of both."""

    position_embeddings: Tensor

    def __init__(self, config: EcgJepaConfig):
        super().__init__()
        self.config = config
        width, heads = config.pred_hidden_size, config.pred_num_attention_heads
        self.input_projection = nn.Linear(config.hidden_size, width, bias=config.use_bias)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(EcgJepaLayer(config, width, heads) for _ in range(config.pred_num_hidden_layers))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.output_projection = nn.Linear(width, config.hidden_size, bias=config.use_bias)
        self.register_buffer("position_embeddings", sinusoidal_positions(config.num_patches, width), persistent=False)

    def forward(self, context: Tensor, context_mask: Tensor, target_mask: Tensor, with_context: bool = False) -> Tensor:
        """`context` (batch, K, hidden_size) -> (batch, M, hidden_size); `with_context` (batch, K + M, hidden_size), K first."""
        context = self.input_projection(context).to(self.mask_token.dtype)
        hidden_states = torch.cat([context, self.mask_token.expand(*target_mask.shape, -1)], dim=1)
        positions = torch.cat([context_mask, target_mask], dim=1)
        rotation = None
        if self.config.position_encoding == "rotary":
            rotation = rotary_angles(positions, self.config.pred_num_attention_heads, self.input_projection.weight)
        else:
            hidden_states = hidden_states + self.position_embeddings.to(context.dtype)[positions]
        for layer in self.layers:
            hidden_states = layer(hidden_states, rotation=rotation)
        first = 0 if with_context else context.shape[1]
        return self.output_projection(self.norm(hidden_states[:, first:]))


class EcgJepaAttentivePooling(EcgJepaMultiHeadAttention):
    """Attention of one learned query over all tokens, with as many heads as the encoder."""

    def __init__(self, config: EcgJepaConfig):
        super().__init__(config, config.num_attention_heads)
        self.first_token = 0 if config.classifier_pool_registers else config.num_register_tokens
        bias = config.qkv_bias if config.classifier_qkv_bias is None else config.classifier_qkv_bias
        self.query_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=bias)
        self.key_value = nn.Linear(config.hidden_size, 2 * config.hidden_size, bias=bias)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor | None]:
        """(batch, tokens, hidden_size) -> pooled (batch, hidden_size) and attention weights, if the implementation has any."""
        query = self.query(self.query_token.to(hidden_states.dtype)).expand(hidden_states.shape[0], -1, -1)
        key, value = self.key_value(hidden_states[:, self.first_token :]).chunk(2, dim=-1)
        pooled, weights = self.attend(query, key, value)
        return pooled.squeeze(1), weights


class EcgJepaLayerMix(nn.Module):
    """A learned average of the last layers, equal shares at first (ELMo's, Peters et al. 2018)."""

    def __init__(self, config: EcgJepaConfig):
        super().__init__()
        self.layer_logits = nn.Parameter(torch.zeros(config.readout_layers))

    def forward(self, hidden_states: Tensor) -> Tensor:
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
    _input_embed_layer = "patch_projection"
    _no_split_modules = ["EcgJepaEmbeddings", "EcgJepaLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": EcgJepaLayer, "attentions": EcgJepaAttention}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Call `PreTrainedModel.from_pretrained`. Raises `ValueError` if weights cannot be read, are not finite, have other shapes
        than their configuration says or more of the encoder, or lack any of the encoder, or some but not all of another network
        (an absent head is a new one). With `output_loading_info`, missing and unexpected weights are returned instead.
        """
        wants_info, ignores_sizes = (kwargs.pop(name, False) for name in ("output_loading_info", "ignore_mismatched_sizes"))
        source = f"The weights in {pretrained_model_name_or_path} (model.safetensors)"
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # which are reported below, with names
        try:
            loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"{source} cannot be read: {error}. Is the file damaged, or not copied as a whole?") from error
        model, info = loaded
        mismatched = sorted(info["mismatched_keys"])
        if mismatched and not ignores_sizes:
            name, found, expected = mismatched[0]
            which = f"{len(mismatched)} places, first {name}: {tuple(found)} instead of {tuple(expected)}"
            hint = "For a head of another size, pass ignore_mismatched_sizes=True."
            raise MismatchedWeightsError(f"{source} do not fit its config.json in {which}. {hint}")
        if not wants_info:
            model._check_keys(source, info["missing_keys"], info["unexpected_keys"])
        for name, parameter in model.named_parameters():
            if not parameter.is_meta and not bool(parameter.isfinite().all()):
                raise ValueError(f"{source} have NaN or infinite values in {name}.")
        new = {*info["missing_keys"], *(name for name, *_ in mismatched)}
        if not hasattr(model, "classifier") or any(name.startswith("classifier.") for name in new):
            model.config.forget_decisions()
        return (model, info) if wants_info else model

    def _check_keys(self, source: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
        """Raise `ValueError` for weights of the encoder that were not built, and for networks that were loaded in part."""
        encoder, parameters = self.base_model_prefix, [name for name, _ in self.named_parameters()]
        network = {name: name.partition(".")[0] if hasattr(self, encoder) else encoder for name in parameters}
        loaded = {encoder, *(network[name] for name in set(parameters).difference(missing))}
        extra = sorted(name for name in unexpected if name.startswith((f"{encoder}.", "embeddings.", "layers.", "norm.")))
        lacking = sorted(name for name in missing if network.get(name) in loaded)
        if extra:
            raise ValueError(f"{source} hold {len(extra)} parts that their config.json does not know: {', '.join(extra[:3])}.")
        if lacking:
            raise ValueError(f"{source} lack {len(lacking)} of {type(self).__name__}: {', '.join(lacking[:3])}.")

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Call `PreTrainedModel.save_pretrained`, which writes the code, too: the directory works without this package."""
        # `AutoModel` reads the encoder, whatever is saved; transformers adds the saved class.
        self.config.auto_map = {"AutoModel": f"{__name__.rpartition('.')[2]}.{EcgJepaModel.__name__}"}
        super().save_pretrained(save_directory, *args, **kwargs)
        for weights in Path(save_directory).glob("*.safetensors"):
            shutil.copymode(Path(save_directory, "config.json"), weights)  # safetensors lets the owner alone read them

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Only functions of transformers.initialization, which do not change loaded weights.
        std = self.config.initializer_range
        match module:
            case nn.Linear() | nn.Conv1d():
                # The encoder's depth counts in both networks, as in the reference.
                residual = isinstance(module, EcgJepaResidualProjection)
                init.trunc_normal_(module.weight, std=std * (2 * self.config.num_hidden_layers) ** -0.5 if residual else std)
                if module.bias is not None:
                    init.zeros_(module.bias)
            case nn.LayerNorm():
                super()._init_weights(module)
            case EcgJepaLayerScale():
                init.constant_(module.weight, float(self.config.layerscale_value))
            case EcgJepaLayerMix():
                init.zeros_(module.layer_logits)
            case EcgJepaEmbeddings() | EcgJepaPredictor() | EcgJepaAttentivePooling():
                for token in module.parameters(recurse=False):
                    init.trunc_normal_(token, std=std)
                # from_pretrained builds on the meta device, where a buffer without saved values has none.
                for positions in module.buffers(recurse=False):
                    init.copy_(positions, sinusoidal_positions(*positions.shape))


class EcgJepaModel(EcgJepaPreTrainedModel):
    """One ECG-JEPA encoder; from any checkpoint of this package it loads the encoder meant for use (the target encoder)."""

    # Other parts of a pre-training or classifier checkpoint are no reason to warn.
    _keys_to_ignore_on_load_unexpected = [r"^(context_encoder|predictor|mixing|pooling|classifier)\."]

    def __init__(self, config: EcgJepaConfig):
        super().__init__(config)
        width, heads = config.hidden_size, config.num_attention_heads
        self.embeddings = EcgJepaEmbeddings(config)
        self.layers = nn.ModuleList(
            EcgJepaLayer(config, width, heads, bool(config.layerscale_value)) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.norm_bias)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, input_values: Tensor, patch_indices: Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
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
        self, input_values: Tensor, patch_indices: Tensor | None = None, num_layers: int = 1, **kwargs: Any
    ) -> list[Tensor]:
        """Return the outputs of the last `num_layers` layers, in order, each through the final norm; see `forward`."""
        config, hidden_states, rotation = self.config, self.embeddings(input_values, patch_indices), None
        if config.position_encoding == "rotary":
            if patch_indices is None:
                num_patches = hidden_states.shape[1] - config.num_register_tokens
                patch_indices = torch.arange(num_patches, device=hidden_states.device)[None]
            positions = nn.functional.pad(patch_indices, (config.num_register_tokens, 0))  # registers have angle 0
            angles = rotary_angles(positions, config.num_attention_heads, self.embeddings.patch_projection.weight)
            # A CPU takes twice as long to multiply by rows that all records share.
            rotation = [part.expand(hidden_states.shape[0], -1, -1).contiguous() for part in angles]
        outputs = deque([hidden_states], maxlen=num_layers)
        for layer in self.layers:
            outputs.append(layer(outputs[-1], rotation=rotation, **kwargs))
        return [self.norm(hidden_states) for hidden_states in outputs]


class EcgJepaContextEncoder(EcgJepaModel):
    """The trained encoder; a class of its own, because transformers takes the first `EcgJepaModel` of a network for its base."""


class EcgJepaEncoderPair(EcgJepaPreTrainedModel):
    """A trained `.context_encoder` and its moving average `.ecg_jepa`, which takes no gradients, but `update_target_encoder`."""

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
        """Initialise the weights that were not loaded; both encoders start equal. Freeze the target encoder, also when loaded."""
        super().initialize_weights()
        self.ecg_jepa.requires_grad_(False)
        for target, context in zip(self.ecg_jepa.parameters(), self.context_encoder.parameters(), strict=True):
            # From a checkpoint of the target encoder alone, the context encoder starts from it.
            source, copy = (target, context) if getattr(target, "_is_hf_initialized", False) else (context, target)
            init.copy_(copy, source)

    def train(self, mode: bool = True) -> "EcgJepaEncoderPair":
        """Set the training mode; the target encoder stays in evaluation mode (no dropout)."""
        super().train(mode)
        self.ecg_jepa.eval()
        return self

    @torch.no_grad()
    def update_target_encoder(self, momentum: float) -> None:
        """
        Do one EMA step: target = momentum * target + (1 - momentum) * context; a training loop does it after each optimiser step.
        """
        # The reference does it at the start of every forward, which is the same without gradient accumulation.
        targets = [parameter.data for parameter in self.ecg_jepa.parameters()]
        sources = [parameter.data for parameter in self.context_encoder.parameters()]
        torch._foreach_lerp_(targets, sources, 1.0 - momentum)

    def without_registers(self, hidden_states: Tensor) -> Tensor:
        """Return the patches of tokens (batch, registers + patches, hidden_size)."""
        return hidden_states[:, self.config.num_register_tokens :]

    @torch.no_grad()
    def encode_targets(self, input_values: Tensor, num_layers: int = 1) -> list[Tensor]:
        """Return the target encoder's last `num_layers` layers through the final norm, each (batch, patches, hidden_size)."""
        return [self.without_registers(output) for output in self.ecg_jepa.layer_outputs(input_values, num_layers=num_layers)]


class EcgJepaForPreTraining(EcgJepaEncoderPair):
    """Context encoder, its moving average, which is the target encoder, and predictor."""

    def _add_networks(self, config: EcgJepaConfig) -> None:
        self.predictor = EcgJepaPredictor(config)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        context_mask: Tensor,
        target_mask: Tensor,
        targets: Tensor | None = None,
        predict_context: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgJepaForPreTrainingOutput:
        r"""
        Args:
            input_values (`torch.Tensor` of shape `(batch, leads, samples)`): Normalised signals.
            context_mask (`torch.LongTensor` of shape `(batch, K)`): Indices of the visible patches.
            target_mask (`torch.LongTensor` of shape `(batch, M)`): Indices of the hidden patches to predict.
            targets (`torch.Tensor` of shape `(batch, patches, hidden_size)`, *optional*): Default: the target encoder's output.
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

    _keys_to_ignore_on_load_unexpected = [r"^(context_encoder|predictor)\."]

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
        from .pipeline_ecg_jepa import EcgClassificationPipeline as Task  # here, so that transformers copies that file, too

        task = {"impl": f"{Task.__module__.rpartition('.')[2]}.{Task.__name__}", "pt": ["AutoModelForSequenceClassification"]}
        self.config.custom_pipelines = {"ecg-classification": task}
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            del self.config.custom_pipelines

    def reset_classifier(self, num_labels: int | None = None, id2label: dict[int, str] | None = None) -> None:
        """
        Replace the head (classifier and attentive pooling) by an untrained one, without thresholds, temperature and descriptions,
        for `num_labels` labels named `LABEL_0`, `LABEL_1`, ..., or as `id2label` (index -> name) names them.
        """
        names = {index: f"LABEL_{index}" for index in range(num_labels or 0)} if id2label is None else dict(id2label)
        if not names or sorted(names) != list(range(len(names) if num_labels is None else num_labels)):
            raise ValueError(f"num_labels={num_labels}, id2label={id2label}: give a number, or a name for each label from 0.")
        self.num_labels = len(names)
        self.config.forget_decisions()
        self.config.label_descriptions = None
        self.config.id2label, self.config.label2id = names, {name: index for index, name in names.items()}
        old = self.classifier
        self.classifier = nn.Linear(old.in_features, self.num_labels, bias=old.bias is not None).to(old.weight)
        for module in (self.classifier, *(self.pooling.modules() if self.pooling is not None else ())):
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # or _init_weights would keep the loaded values
            self._init_weights(module)

    def encode(self, input_values: Tensor, **kwargs: Any) -> Tensor:
        """Return the input of the head: tokens (batch, registers + patches, hidden_size), of several layers stacked in dim 1."""
        outputs = self.ecg_jepa.layer_outputs(input_values, num_layers=self.config.readout_layers, **kwargs)
        return outputs[0] if self.mixing is None else torch.stack(outputs, dim=1)

    def mix_layers(self, hidden_states: Tensor) -> Tensor:
        """Average the layers of `encode`'s output -> tokens (batch, registers + patches, hidden_size)."""
        return hidden_states if self.mixing is None else self.mixing(hidden_states)

    def classify_tokens(self, hidden_states: Tensor) -> Tensor:
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
        self, input_values: Tensor, labels: Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
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
        crops = input_values.flatten(0, 1) if input_values.dim() == 4 else input_values
        logits = self.classify_tokens(self.encode(crops, **kwargs))
        logits = logits.view(input_values.shape[0], -1, self.num_labels).mean(dim=1)
        if labels is None:
            return SequenceClassifierOutput(logits=logits)
        if self.config.problem_type == "multi_label_classification" and labels.shape != logits.shape:
            raise ValueError(f"labels must be one 0 or 1 per class, {tuple(logits.shape)}, but got {tuple(labels.shape)}.")
        loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)
