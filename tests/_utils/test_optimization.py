import pytest
import torch

from ecg_jepa import EcgJepaConfig, EcgJepaForPreTraining
from ecg_jepa._utils.optimization import (
    cosine_schedule,
    linear_schedule,
    parameter_groups,
    set_schedules,
    warmup_cosine_schedule,
)


def test_only_weights_of_linear_and_convolution_decay():
    config = EcgJepaConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_hidden_layers=1,
        use_bias=True,
        norm_bias=True,
        qkv_bias=True,
        layerscale_value=0.1,
    )
    model = EcgJepaForPreTraining(config)
    decayed, kept = parameter_groups([model.context_encoder, model.predictor])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed_names = {names[id(parameter)] for parameter in decayed["params"]}
    kept_names = {names[id(parameter)] for parameter in kept["params"]}
    assert {name.split(".")[-2] for name in decayed_names} == {
        *("patch_projection", "qkv", "projection", "up_projection", "down_projection"),
        *("input_projection", "output_projection"),
    }
    assert all(name.endswith("weight") for name in decayed_names)
    assert "predictor.mask_token" in kept_names
    assert "context_encoder.layers.0.attention_scale.weight" in kept_names
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert decayed_names | kept_names == trainable
    assert not any(name.startswith("ecg_jepa.") for name in trainable)


def test_set_schedules_leaves_the_second_group_without_decay():
    optimizer = torch.optim.AdamW(parameter_groups([torch.nn.Linear(3, 3)]), lr=1.0)
    set_schedules(optimizer, 0.5, 0.25)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.5, 0.25), (0.5, 0.0)]


def test_schedules_end_where_they_should():
    assert linear_schedule(0, 10, 1.0, 2.0) == 1.0
    assert linear_schedule(10, 10, 1.0, 2.0) == 2.0
    assert cosine_schedule(9, 10, 1.0, 2.0) == pytest.approx(2.0)
    assert warmup_cosine_schedule(0, 10, 1.0, 0.1, 5, 0.0) == 0.0
    assert warmup_cosine_schedule(5, 10, 1.0, 0.1, 5, 0.0) == 1.0
    assert warmup_cosine_schedule(9, 10, 1.0, 0.1, 5, 0.0) == pytest.approx(0.1)
    assert warmup_cosine_schedule(500, 10, 1.0, 1.0) == 1.0
