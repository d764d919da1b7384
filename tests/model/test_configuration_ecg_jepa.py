import json

import pytest
from huggingface_hub.errors import StrictDataclassError
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
    with pytest.raises(ValueError, match=r"multiple of 8 with num_attention_heads=4 and rotary .* use hidden_size=16 or 24"):
        EcgJepaConfig(hidden_size=20, num_attention_heads=4, position_encoding="rotary")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 385}, "use hidden_size=384 or 390"),
        ({"hidden_size": 384, "num_attention_heads": 7}, "hidden_size=378 or 392"),
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


LABELS = {0: "NORM", 1: "MI"}


def test_thresholds_and_temperature_round_trip(tmp_path):
    assert (EcgJepaConfig().decision_thresholds, EcgJepaConfig().temperature) == (None, None)
    config = EcgJepaConfig(id2label=LABELS, decision_thresholds={"MI": 0.12345678901, "NORM": 1}, temperature=1.7)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.decision_thresholds == {"MI": 0.12345678901, "NORM": 1}
    assert loaded.temperature == 1.7
    loaded.forget_decisions()
    assert (loaded.decision_thresholds, loaded.temperature) == (None, None)


def test_a_file_of_before_there_were_thresholds_is_read_as_ever(tmp_path):
    EcgJepaConfig(id2label=LABELS).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in values.items() if k not in ("decision_thresholds", "temperature")}))
    config = EcgJepaConfig.from_pretrained(tmp_path)
    assert (config.decision_thresholds, config.temperature) == (None, None)
    assert config.to_diff_dict().keys() <= values.keys()
    assert config.id2label == LABELS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decision_thresholds": {"MI": 1.5}}, r"\['MI'\]=1.5 is no probability: use one of 0 to 1"),
        ({"decision_thresholds": {"MI": float("nan")}}, "=nan is no probability"),
        ({"decision_thresholds": {"STTC": 0.5}}, "has 'STTC', but id2label has no such label .*'NORM', 'MI'"),
        ({"temperature": 0}, "temperature=0 must be positive and finite, or None"),
        ({"temperature": -1.0}, "must be positive"),
        ({"temperature": float("inf")}, "must be positive and finite"),
        ({"temperature": float("nan")}, "must be positive and finite"),
    ],
)
def test_thresholds_and_temperature_that_mean_nothing_are_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        EcgJepaConfig(id2label=LABELS, **values)
    EcgJepaConfig(id2label=LABELS).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ValueError, match=message):
        EcgJepaConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "values", [{"decision_thresholds": {"MI": True}}, {"decision_thresholds": [0.5]}, {"temperature": "hot"}]
)
def test_thresholds_and_temperature_of_another_type_are_refused(values):
    with pytest.raises(Exception, match=f"'{next(iter(values))}'"):
        EcgJepaConfig(id2label=LABELS, **values)


def test_thresholds_of_labels_that_are_not_there_are_not_saved(tmp_path):
    config = EcgJepaConfig(num_labels=3, decision_thresholds={"LABEL_2": 0.5})
    config.id2label = {0: "a", 1: "b", 2: "c"}
    with pytest.raises(StrictDataclassError, match="no such label"):
        config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no such label"):
        EcgJepaConfig(num_labels=3, decision_thresholds={"LABEL_3": 0.5})


def test_other_labels_do_not_inherit_thresholds(tmp_path):
    EcgJepaConfig(id2label=LABELS, decision_thresholds={"MI": 0.3}, temperature=2.0).save_pretrained(tmp_path)
    same = EcgJepaConfig.from_pretrained(tmp_path, id2label=LABELS)
    assert (same.decision_thresholds, same.temperature) == ({"MI": 0.3}, 2.0)
    for other in ({"id2label": {0: "MI", 1: "NORM"}}, {"num_labels": 5}):
        config = EcgJepaConfig.from_pretrained(tmp_path, **other)
        assert (config.decision_thresholds, config.temperature) == (None, None), other
    with pytest.raises(ValueError, match="no such label"):
        EcgJepaConfig.from_pretrained(tmp_path, decision_thresholds={"AFIB": 0.5})
