import numpy as np
import pytest
import torch

from ecg_jepa import EcgJepaConfig, EcgJepaForPreTraining, EcgJepaForSequenceClassification
from ecg_jepa.data.task_data import TaskData
from ecg_jepa.finetuning.classifier import Scorer, build_classifier, find_start
from ecg_jepa.finetuning.protocols import FinetuneSettings

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def data(prepared_dir):
    return TaskData.load(prepared_dir, "superdiagnostic")


@pytest.fixture
def pretrained(tmp_path):
    model = EcgJepaForPreTraining(EcgJepaConfig(**SIZES))
    with torch.no_grad():
        for parameter in model.ecg_jepa.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained", model


def build(data, name, protocol="attentive", **settings):
    return build_classifier(FinetuneSettings(str(name), protocol, **settings), find_start(str(name)), data)


@pytest.mark.parametrize(
    ("protocol", "pooling", "trains"), [("linear", "mean", 2), ("attentive", "attentive", 4), ("finetune", "register", 99)]
)
def test_protocols(pretrained, data, protocol, pooling, trains):
    path, original = pretrained
    model = build(data, path, protocol)
    assert model.config.classifier_pooling == pooling
    assert list(model.config.id2label.values()) == data.task.class_names
    assert model.config.problem_type == "multi_label_classification"
    for ours, theirs in zip(model.ecg_jepa.parameters(), original.ecg_jepa.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(name.startswith("ecg_jepa.") for name in trainable) == (trains == 99)
    assert "classifier.weight" in trainable


def test_a_head_may_see_several_layers(pretrained, data, tmp_path):
    probe = build(data, pretrained[0], "attentive", readout_layers=2)
    assert [name for name, p in probe.named_parameters() if p.requires_grad and "mix" in name] == ["mixing.layer_logits"]
    with torch.no_grad():
        probe.mixing.layer_logits.copy_(torch.tensor([2.0, -1.0]))
    probe.save_pretrained(tmp_path / "probe")
    after = build(data, tmp_path / "probe", "finetune_after_probe")
    assert torch.equal(after.mixing.layer_logits, probe.mixing.layer_logits)
    assert build(data, tmp_path / "probe", "attentive").mixing is None
    scorer = Scorer(probe.eval(), data, "test", 1250, 625, True)
    index = data.splits["test"][3]
    crops = torch.from_numpy(np.stack([data.normalized(index, 625 * i, 1250) for i in range(7)]))
    with torch.no_grad():
        np.testing.assert_allclose(scorer.logits()[3], probe(crops[None]).logits[0], atol=1e-5)
    with pytest.raises(ValueError, match="keeps the head of the probe"):
        build(data, tmp_path / "probe", "finetune_after_probe", readout_layers=2)
    with pytest.raises(ValueError, match="readout_layers=3 must be 1 to num_hidden_layers=2"):
        build(data, pretrained[0], "attentive", readout_layers=3)


def test_finetuning_after_a_probe_keeps_its_head(pretrained, data, tmp_path):
    probe = build(data, pretrained[0], "attentive")
    probe.save_pretrained(tmp_path / "probe")
    model = build(data, tmp_path / "probe", "finetune_after_probe", dropout=0.1)
    assert torch.equal(model.classifier.weight, probe.classifier.weight)
    assert torch.equal(model.pooling.query_token, probe.pooling.query_token)
    assert model.config.hidden_dropout_prob == 0.1
    assert all(parameter.requires_grad for parameter in model.parameters())
    fresh = build(data, tmp_path / "probe", "attentive")
    assert not torch.equal(fresh.classifier.weight, probe.classifier.weight)


def test_no_head_inherits_thresholds(pretrained, data, tmp_path):
    probe = build(data, pretrained[0], "attentive")
    without = find_start(f"random:{pretrained[0]}").digest()
    probe.config.decision_thresholds, probe.config.temperature = dict.fromkeys(data.task.class_names, 0.3), 2.0
    probe.save_pretrained(tmp_path / "probe")
    assert find_start(str(tmp_path / "probe")).config.temperature == 2.0
    for protocol in ("linear", "attentive", "finetune", "finetune_after_probe"):
        model = build(data, tmp_path / "probe", protocol)
        assert (model.config.decision_thresholds, model.config.temperature) == (None, None), protocol
        assert (model.ecg_jepa.config.decision_thresholds, model.ecg_jepa.config.temperature) == (None, None), protocol
    # What random weights depend on is the encoder's architecture.
    with_thresholds = find_start(f"random:{tmp_path / 'probe'}")
    same = {"classifier_pooling", "readout_layers", "hidden_dropout_prob"}
    assert {key: getattr(with_thresholds.config, key) for key in same} == {key: getattr(probe.config, key) for key in same}
    assert with_thresholds.digest() == without


def test_what_does_not_fit_raises(pretrained, data, prepared_dir, tmp_path):
    with pytest.raises(ValueError, match="directory of a probe of the same task"):
        build(data, pretrained[0], "finetune_after_probe")
    probe = build(TaskData.load(prepared_dir, "rhythm"), pretrained[0], "attentive")
    probe.save_pretrained(tmp_path / "rhythm")
    with pytest.raises(ValueError, match="CD, HYP, MI, NORM, STTC"):
        build(data, tmp_path / "rhythm", "finetune_after_probe")
    with pytest.raises(FileNotFoundError, match=r"no directory with a config\.json"):
        build(data, "nowhere")
    EcgJepaForPreTraining(EcgJepaConfig(**SIZES, sampling_rate=100, signal_length=1000)).save_pretrained(tmp_path / "slow")
    with pytest.raises(ValueError, match="takes 100 Hz"):
        build(data, tmp_path / "slow")
    EcgJepaForPreTraining(EcgJepaConfig(**SIZES, amplitude_free=True)).save_pretrained(tmp_path / "scaled")
    with pytest.raises(ValueError, match="was prepared in mV: prepare it with --amplitude_free"):
        build(data, tmp_path / "scaled")
    with pytest.raises(ValueError, match=r"crop_duration=12\.0 s does not fit the encoder, which takes at most 10 s"):
        build(data, pretrained[0], crop_duration=12)
    with pytest.raises(ValueError, match=r"whole patches of 0\.05 s"):
        build(data, pretrained[0], crop_duration=2.51)
    with pytest.raises(ValueError, match="model_name_or_path is missing"):
        FinetuneSettings()


def test_random_baseline(data):
    model = build(data, "random:xs", "linear")
    assert model.ecg_jepa.num_parameters() == 3_600_000


@pytest.mark.parametrize("frozen", [True, False])
def test_scores_are_the_models_own(pretrained, data, frozen):
    model: EcgJepaForSequenceClassification = build(data, pretrained[0], "attentive").eval()
    scorer = Scorer(model, data, "test", 1250, 625, frozen)
    first = scorer.logits()
    index = data.splits["test"][3]
    crops = torch.from_numpy(np.stack([data.normalized(index, 625 * i, 1250) for i in range(7)]))
    with torch.no_grad():
        np.testing.assert_allclose(first[3], model(crops[None]).logits[0], atol=1e-5)
        model.classifier.weight.mul_(2)
        np.testing.assert_allclose(scorer.logits(), 2 * first, atol=1e-5)  # the head is never cached
        model.ecg_jepa.norm.weight.mul_(0.5)
    assert np.allclose(scorer.logits(), 2 * first, atol=1e-5) == frozen  # the encoder only if it is frozen


def test_descriptions_of_labels_travel_and_are_of_these_labels(data):
    config = build(data, "random:xs").config
    assert config.label_descriptions["MI"] == "myocardial infarction"
    assert set(config.label_descriptions) <= set(data.task.class_names)
    with pytest.raises(ValueError, match=r"label_descriptions has 'XX', but id2label has no such label"):
        EcgJepaConfig(id2label={0: "AF", 1: "MI"}, label_descriptions={"XX": "nothing"})


def test_a_new_head_has_no_descriptions_of_the_old_labels():
    config = EcgJepaConfig(**SIZES, id2label={0: "AF"}, label_descriptions={"AF": "atrial fibrillation"})
    model = EcgJepaForSequenceClassification(config)
    model.reset_classifier(id2label={0: "a", 1: "b"})
    assert model.config.label_descriptions is None
