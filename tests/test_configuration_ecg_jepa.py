import json

import pytest
from transformers import AutoConfig

from ecg_jepa import EcgJepaConfig


def test_defaults_are_vit_s():
    assert EcgJepaConfig().to_dict() == EcgJepaConfig.from_size("s").to_dict()


def test_round_trip(tmp_path):
    config = EcgJepaConfig.from_size("xs", num_register_tokens=3, classifier_pooling="mean")
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is EcgJepaConfig
    assert loaded.to_diff_dict() == config.to_diff_dict()


def test_rotary_positions_need_even_heads():
    with pytest.raises(ValueError, match=r"4 heads of odd width 5, but rotary .* use hidden_size=24"):
        EcgJepaConfig(hidden_size=20, num_attention_heads=4, position_encoding="rotary")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 385}, "use 386"),
        ({"hidden_size": 384, "num_attention_heads": 7}, "hidden_size=378"),
        ({"pred_hidden_size": 100}, "pred_num_attention_heads=6"),
        ({"signal_length": 5010}, "use 5000"),
        ({"lead_names": ["I", "II", "i"]}, "repeats i"),
        ({"lead_names": []}, "at least one lead"),
        ({"num_register_tokens": 0, "classifier_pooling": "register"}, "num_register_tokens=1"),
        ({"patch_size": 0}, "at least 1"),
        ({"hiden_size": 384}, "Did you mean 'hidden_size'"),
        ({"nonsense": 1}, "no key 'nonsense'"),
    ],
)
def test_inconsistent_values_name_the_fix(values, message):
    with pytest.raises(ValueError, match=message):
        EcgJepaConfig(**values)


def test_wrong_type_raises():
    with pytest.raises(Exception, match="hidden_size"):
        EcgJepaConfig(hidden_size="wide")


def test_unknown_size_raises():
    with pytest.raises(ValueError, match="'xs', 's', 'b'"):
        EcgJepaConfig.from_size("xl")


def test_another_model_type_raises(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 384}))
    with pytest.raises(ValueError, match="'bert' model"):
        EcgJepaConfig.from_pretrained(tmp_path)


def test_files_may_have_more_keys(tmp_path, caplog):
    """Of a later version, or another tool; they are kept, and named."""
    EcgJepaConfig().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"hiden_size": 3}))
    with caplog.at_level("WARNING"):
        config = EcgJepaConfig.from_pretrained(tmp_path)
    assert "does not use: hiden_size" in caplog.text
    assert config.to_dict()["hiden_size"] == 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_hidden_layers", 10**6, "at most 1000: is the file damaged"),
        ("num_register_tokens", 10**12, "num_register_tokens=1000000000000"),
        ("hidden_size", 10**9, "hidden_size=1000000000"),
        ("attention_probs_dropout_prob", 1.5, "attention_probs_dropout_prob=1.5"),
        ("initializer_range", float("nan"), "initializer_range=nan"),
        ("hidden_act", "x", "no activation"),
        ("dtype", True, "dtype=True, expected one of float32"),
        ("id2label", False, "no configuration of ECG-JEPA"),
    ],
)
def test_values_of_a_damaged_file_are_refused(tmp_path, name, value, message):
    EcgJepaConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError, match=message):
        EcgJepaConfig.from_pretrained(tmp_path)
