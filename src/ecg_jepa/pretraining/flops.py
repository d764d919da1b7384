"""What a record costs in pre-training, so that recipes can be compared at equal cost whatever machine they run on."""

from ..configuration_ecg_jepa import EcgJepaConfig
from .recipe import JepaRecipe

# Backward takes the products of forward twice: for inputs and for weights.
_FORWARD_AND_BACKWARD = 3


def jepa_flops(config: EcgJepaConfig, recipe: JepaRecipe) -> float:
    """
    Floating-point operations per record and step of the objective `jepa`: matrix products and attention, a multiplication and an
    addition counted as two. Normalisation, activations and the optimiser are left out; they are a few percent.
    """
    patches = config.num_patches
    visible = patches * (recipe.min_keep_ratio + recipe.max_keep_ratio) / 2
    width, narrow, registers = config.hidden_size, config.pred_hidden_size, config.num_register_tokens
    per_patch = 2.0 * len(config.lead_names) * config.patch_size * width

    def encoder(tokens: float) -> float:
        return _layers(tokens + registers, width, config.num_hidden_layers, config.mlp_ratio) + patches * per_patch

    predictor = _layers(patches, narrow, config.pred_num_hidden_layers, config.mlp_ratio) + 2.0 * patches * width * narrow
    each_mask = encoder(visible) + predictor
    return encoder(patches) + recipe.masks_per_record * _FORWARD_AND_BACKWARD * each_mask


def _layers(tokens: float, width: int, depth: int, mlp_ratio: float) -> float:
    """Forward through transformer layers."""
    projections = 2.0 * tokens * width**2 * (4 + 2 * mlp_ratio)
    attention = 4.0 * tokens**2 * width
    return depth * (projections + attention)
