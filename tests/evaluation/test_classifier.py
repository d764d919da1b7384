import numpy as np
import pytest
import torch

from ecg_jepa import EcgJepaConfig, EcgJepaForPreTraining, EcgJepaForSequenceClassification
from ecg_jepa.evaluation.classifier import Scorer, build_classifier
from ecg_jepa.evaluation.linear_probe import embed_split, linear_probe
from ecg_jepa.evaluation.protocols import ProtocolArguments
from ecg_jepa.evaluation.task_data import TaskData

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


@pytest.mark.parametrize(
    ("protocol", "pooling", "trains"), [("linear", "mean", 2), ("attentive", "attentive", 4), ("finetune", "register", 99)]
)
def test_protocols(pretrained, data, protocol, pooling, trains):
    path, original = pretrained
    model = build_classifier(ProtocolArguments(str(path), protocol), data)
    assert model.config.classifier_pooling == pooling
    assert list(model.config.id2label.values()) == data.task.class_names
    assert model.config.problem_type == "multi_label_classification"
    for ours, theirs in zip(model.ecg_jepa.parameters(), original.ecg_jepa.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(name.startswith("ecg_jepa.") for name in trainable) == (trains == 99)
    assert "classifier.weight" in trainable


def test_finetuning_after_a_probe_keeps_its_head(pretrained, data, tmp_path):
    probe = build_classifier(ProtocolArguments(str(pretrained[0]), "attentive"), data)
    probe.save_pretrained(tmp_path / "probe")
    model = build_classifier(ProtocolArguments(str(tmp_path / "probe"), "finetune_after_probe", dropout=0.1), data)
    assert torch.equal(model.classifier.weight, probe.classifier.weight)
    assert torch.equal(model.pooling.query_token, probe.pooling.query_token)
    assert model.config.hidden_dropout_prob == 0.1
    assert all(parameter.requires_grad for parameter in model.parameters())
    fresh = build_classifier(ProtocolArguments(str(tmp_path / "probe"), "attentive"), data)
    assert not torch.equal(fresh.classifier.weight, probe.classifier.weight)


def test_what_does_not_fit_raises(pretrained, data, prepared_dir, tmp_path):
    with pytest.raises(ValueError, match="directory of a probe of the same task"):
        build_classifier(ProtocolArguments(str(pretrained[0]), "finetune_after_probe"), data)
    probe = build_classifier(ProtocolArguments(str(pretrained[0]), "attentive"), TaskData.load(prepared_dir, "rhythm"))
    probe.save_pretrained(tmp_path / "rhythm")
    with pytest.raises(ValueError, match="CD, HYP, MI, NORM, STTC"):
        build_classifier(ProtocolArguments(str(tmp_path / "rhythm"), "finetune_after_probe"), data)
    with pytest.raises(ValueError, match=r"no directory with a config\.json"):
        build_classifier(ProtocolArguments("nowhere"), data)
    EcgJepaForPreTraining(EcgJepaConfig(**SIZES, sampling_rate=100, signal_length=1000)).save_pretrained(tmp_path / "slow")
    with pytest.raises(ValueError, match="takes 100 Hz"):
        build_classifier(ProtocolArguments(str(tmp_path / "slow")), data)
    with pytest.raises(ValueError, match="model_name_or_path is missing"):
        ProtocolArguments()


def test_random_baseline(data):
    model = build_classifier(ProtocolArguments("random:xs", "linear"), data)
    assert model.ecg_jepa.num_parameters() == 3_600_000


@pytest.mark.parametrize("frozen", [True, False])
def test_scores_are_the_models_own(pretrained, data, frozen):
    model: EcgJepaForSequenceClassification = build_classifier(ProtocolArguments(str(pretrained[0]), "attentive"), data).eval()
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


def test_embeddings_are_means_over_crops(data):
    encoder = EcgJepaForPreTraining(EcgJepaConfig(**SIZES, signal_length=1250)).ecg_jepa
    indices = data.splits["test"][:3]
    features = embed_split(encoder, data, indices)
    crops = torch.from_numpy(np.stack([data.normalized(indices[2], 1250 * i, 1250) for i in range(4)]))
    with torch.no_grad():
        np.testing.assert_allclose(features[2], encoder(crops).pooler_output.mean(0), atol=1e-5)


def test_linear_probe_finds_what_is_there(data, monkeypatch):
    encoder = EcgJepaForPreTraining(EcgJepaConfig(**SIZES, signal_length=1250)).ecg_jepa
    labels = data.task.labels

    def oracle(encoder, data, indices):
        return labels[indices] + 0.01 * np.random.default_rng(0).normal(size=(len(indices), labels.shape[1]))

    monkeypatch.setattr("ecg_jepa.evaluation.linear_probe.embed_split", oracle)
    assert linear_probe(encoder, data).macro > 0.99
    monkeypatch.setattr(
        "ecg_jepa.evaluation.linear_probe.embed_split", lambda e, d, i: np.random.default_rng(1).normal(size=(len(i), 5))
    )
    assert 0.2 < linear_probe(encoder, data).macro < 0.8
