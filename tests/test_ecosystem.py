"""What others build models with works on these: export, ONNX, sharded and half-precision checkpoints, device maps, new labels."""

import json

import numpy as np
import pytest
import torch
from torch.export import Dim
from transformers import AutoModel

from ecg_jepa import EcgJepaConfig, EcgJepaForPreTraining, EcgJepaForSequenceClassification, EcgJepaModel

MODELS = [EcgJepaModel, EcgJepaForSequenceClassification]
SHAPES = [(1, 12, 50), (3, 12, 1250), (5, 12, 5000)]


@pytest.fixture(params=["sinusoidal", "rotary"])
def config(request):
    """As published, and with what of the architecture can be otherwise."""
    other = {"position_encoding": "rotary", "readout_layers": 2} if request.param == "rotary" else {}
    return EcgJepaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_labels=3, **other)


def randomize(model):
    """Weights large enough that wrong results show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def export(model):
    """The graph, for any batch and two patches or more: torch.export makes a constant of one."""
    patch = model.config.patch_size
    dimensions = {0: Dim("batch"), 2: patch * Dim("patches", min=2, max=model.config.num_patches)}
    signal = {"input_values": torch.randn(2, 12, 20 * patch)}
    return torch.export.export(model, (), kwargs=signal, dynamic_shapes={"input_values": dimensions})


@pytest.mark.parametrize("model_class", MODELS)
def test_export_with_any_batch_and_length(model_class, config):
    model = randomize(model_class(config))
    program = export(model).module()
    for shape in SHAPES:
        signal = torch.randn(shape)
        torch.testing.assert_close(program(input_values=signal)[0], model(signal)[0], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_onnx_with_any_batch_and_length(model_class, config, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = randomize(model_class(config))
    torch.onnx.export(export(model), dynamo=True, verbose=False).save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for shape in SHAPES:
        signal = torch.randn(shape)
        outputs = session.run(None, {"input_values": signal.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(outputs[0], model(signal)[0], atol=1e-4)


@pytest.mark.parametrize("model_class", [*MODELS, EcgJepaForPreTraining])
def test_sharded_checkpoints(model_class, config, tmp_path):
    model = randomize(model_class(config))
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    loaded = model_class.from_pretrained(tmp_path)
    for (name, ours), theirs in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_device_maps(config, tmp_path, device_map):
    model = randomize(EcgJepaModel(config))
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, device_map=device_map)
    signal = torch.randn(2, 12, 500)
    torch.testing.assert_close(loaded(signal).pooler_output.cpu(), model(signal).pooler_output, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(config, tmp_path, dtype):
    model = randomize(EcgJepaForSequenceClassification(config))
    model.to(dtype).save_pretrained(tmp_path)
    loaded = EcgJepaForSequenceClassification.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    signal = torch.randn(2, 12, 500)  # as the extractor gives it, in float32
    logits = loaded(signal).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), model.float()(signal).logits, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("pooling", ["attentive", "register", "mean"])
def test_new_labels(config, tmp_path, pooling):
    config.classifier_pooling = pooling
    randomize(EcgJepaForSequenceClassification(config)).save_pretrained(tmp_path)
    model = EcgJepaForSequenceClassification.from_pretrained(tmp_path)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.reset_classifier(id2label={0: "a", 1: "b", 2: "c", 3: "d", 4: "e"})
    assert model(torch.randn(2, 12, 500)).logits.shape == (2, 5)
    assert model.config.id2label[4] == "e"
    assert model.config.label2id["e"] == 4
    assert model.config.num_labels == model.num_labels == 5
    for name, parameter in model.named_parameters():
        is_head = name.startswith(("classifier.", "pooling."))
        assert torch.equal(parameter, before[name]) != is_head if parameter.shape == before[name].shape else is_head
        assert parameter.requires_grad
    assert model.classifier.weight.std() < 0.03  # as initialised
    model.save_pretrained(tmp_path / "new")
    again = EcgJepaForSequenceClassification.from_pretrained(tmp_path / "new")
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    model.reset_classifier(2)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def with_decisions(config, directory):
    """A saved classifier that has thresholds and a temperature."""
    config.id2label = {0: "a", 1: "b"}
    config.decision_thresholds, config.temperature = {"a": 0.2, "b": 0.4}, 1.5
    EcgJepaForSequenceClassification(config).save_pretrained(directory)
    loaded = EcgJepaForSequenceClassification.from_pretrained(directory)
    assert (loaded.config.decision_thresholds, loaded.config.temperature) == ({"a": 0.2, "b": 0.4}, 1.5)
    return loaded


def test_a_new_head_has_no_thresholds_of_another(config, tmp_path):
    model = with_decisions(config, tmp_path)
    model.reset_classifier(id2label={0: "a", 1: "b"})  # the same names, but another head
    assert (model.config.decision_thresholds, model.config.temperature) == (None, None)
    EcgJepaModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "encoder")  # its configuration still names the labels
    headless = EcgJepaForSequenceClassification.from_pretrained(tmp_path / "encoder")
    assert (headless.config.decision_thresholds, headless.config.temperature) == (None, None)
    wider = EcgJepaForSequenceClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert (wider.config.decision_thresholds, wider.config.temperature) == (None, None)


@pytest.mark.parametrize("arguments", [{}, {"num_labels": 0}, {"num_labels": 2, "id2label": {0: "a"}}, {"id2label": {1: "a"}}])
def test_labels_must_fit(config, arguments):
    with pytest.raises(ValueError, match=r"num_labels|id2label"):
        EcgJepaForSequenceClassification(config).reset_classifier(**arguments)
