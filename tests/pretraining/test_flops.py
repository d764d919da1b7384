import pytest
import torch

from ecg_jepa.pretraining.flops import count_flops


def by_hand(config, tokens, width, layers):
    """Forward: projections of attention and MLP, and attention itself; a multiplication and an addition are two."""
    return layers * (2 * tokens * width**2 * (4 + 2 * config.mlp_ratio) + 4 * tokens**2 * width)


def test_count_is_that_of_the_products_by_hand(make_objective):
    objective = make_objective("mae", min_block_size=5, min_keep_ratio=0.2, max_keep_ratio=0.2)
    config = objective.config
    projection = 2 * 10 * 120 * config.hidden_size  # of the visible patches alone
    encoder = by_hand(config, 10 + config.num_register_tokens, config.hidden_size, config.num_hidden_layers)
    predictor = by_hand(config, 50, config.pred_hidden_size, config.pred_num_hidden_layers)
    between = 2 * 50 * config.hidden_size * config.pred_hidden_size
    decoder = 2 * 40 * config.hidden_size * 120
    # Backward takes each product twice, but for the inputs of the first one, which need no gradient.
    expected = 3 * (projection + encoder + predictor + between + decoder) - projection
    assert count_flops(objective) == pytest.approx(expected, rel=0.02)


def test_counting_leaves_the_objective_as_it_was(make_objective):
    objective = make_objective("byol")
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    implementation = objective.config._attn_implementation
    assert count_flops(objective) > 0
    assert objective.config._attn_implementation == implementation
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_no_training_costs_nothing(make_objective):
    assert count_flops(make_objective("random")) == 0
