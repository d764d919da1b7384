import numpy as np
import pytest
import torch

from ecg_jepa import EcgJepaConfig, EcgJepaForSequenceClassification
from ecg_jepa.evaluation.ecg_plot import attention_over_time
from ecg_jepa.model.signal_processing_ecg_jepa import crop_starts, cut_crops


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_labels=5)
    return EcgJepaForSequenceClassification(config)


def attend(model, signal, crop_length, crop_stride):
    crops = torch.from_numpy(cut_crops(signal, crop_length, crop_stride))
    return attention_over_time(model, crops, crop_starts(signal.shape[1], crop_length, crop_stride))


def look_at_size(model):
    """A head whose query likes large signals: tokens are the mean of their patch, keys the same."""
    with torch.no_grad():
        model.ecg_jepa.layers = torch.nn.ModuleList()
        model.ecg_jepa.norm = torch.nn.Identity()
        model.ecg_jepa.embeddings.position_embeddings.zero_()
        model.ecg_jepa.embeddings.register_tokens.zero_()
        model.ecg_jepa.embeddings.patch_projection.weight.fill_(1 / 300)
        model.pooling.query_token.fill_(1.0)
        model.pooling.query.weight.copy_(torch.eye(32))
        model.pooling.key_value.weight.copy_(torch.cat([torch.eye(32), torch.eye(32)]))


def test_attention_is_where_the_query_looks(model):
    look_at_size(model)
    signal = np.zeros((12, 5000), np.float32)
    signal[:, 2000:2025] = 4.0  # patch 80
    attention = attend(model, signal, 1250, 625)
    assert attention.shape == (200,)
    assert attention.sum() == pytest.approx(1)
    assert attention.argmax() == 80
    # Elsewhere, crops without the peak spread their attention over all patches and so count more than those with it.
    assert attention[10] > attention[70] > 0
    assert model.config._attn_implementation == "sdpa"


def test_equal_tokens_get_equal_attention(model):
    look_at_size(model)
    attention = attend(model, np.zeros((12, 2110), np.float32), 1250, 333)  # crops start within patches
    np.testing.assert_allclose(attention, np.full(84, 1 / 84), rtol=1e-6)


@pytest.mark.parametrize(("registers", "sees_registers"), [(0, True), (1, False), (3, True)])
def test_registers_are_left_out(model, registers, sees_registers):
    changes = {"num_register_tokens": registers, "classifier_pool_registers": sees_registers}
    model = EcgJepaForSequenceClassification(EcgJepaConfig(**{**model.config.to_dict(), **changes}))
    with torch.no_grad():
        model.ecg_jepa.layers = torch.nn.ModuleList()
        if registers:
            model.ecg_jepa.embeddings.register_tokens.fill_(10.0)
    signal = np.random.default_rng(0).normal(size=(12, 1250)).astype(np.float32)
    attention = attend(model, signal, 1250, 625)
    tokens = model.ecg_jepa(torch.from_numpy(signal)[None]).last_hidden_state
    model.set_attn_implementation("eager")
    weights = model.pooling(tokens)[1].mean(dim=1)[0, 0].detach()[-50:]
    np.testing.assert_allclose(attention, weights / weights.sum(), rtol=1e-5)


def test_only_attentive_pooling_has_a_query(model):
    config = EcgJepaConfig(**{**model.config.to_dict(), "classifier_pooling": "mean"})
    with pytest.raises(ValueError, match="no query"):
        attend(EcgJepaForSequenceClassification(config), np.zeros((12, 1250), np.float32), 1250, 625)
