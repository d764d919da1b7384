"""Checkpoints as others meet them: without this package, from untrusted sources, damaged."""

import json
import os

import numpy as np
import pytest
import torch
from raw_databases import ecg, write_challenge
from safetensors.torch import load_file, save_file
from tiny_classifier import CODE
from transformers import AutoModel, AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

from ecg_jepa import (
    EcgJepaConfig,
    EcgJepaFeatureExtractor,
    EcgJepaForPreTraining,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
    read_ecg,
)

LABELS = {0: "AF", 1: "LVH", 2: "NORM"}


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    config = EcgJepaConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        id2label=LABELS,
        problem_type="multi_label_classification",
        classifier_pooling="mean",
    )
    return EcgJepaForSequenceClassification(config).eval()


@pytest.fixture
def directory(classifier, tmp_path):
    extractor = EcgJepaFeatureExtractor.for_model(classifier.config, 0.0, 0.3, crop_duration=2.5, crop_stride=1.25)
    classifier.save_pretrained(tmp_path / "classifier")
    extractor.save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


@pytest.fixture
def record(tmp_path):
    write_challenge(tmp_path, "georgia", "E00001", ecg(5000, 1))
    return next(tmp_path.rglob("E00001.hea"))


def record_array(record):
    return read_ecg(record).signal


def saved_array(record):
    """The signal as an array, which is read without this package and wfdb."""
    path = record.with_suffix(".npy")
    np.save(path, record_array(record))
    return path


def test_what_is_in_it(classifier, directory, tmp_path):
    assert {path.name for path in directory.iterdir()} == {
        *("config.json", "model.safetensors", "preprocessor_config.json"),
        *CODE,
    }
    assert json.loads((directory / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_ecg_jepa.EcgJepaConfig",
        "AutoModel": "modeling_ecg_jepa.EcgJepaModel",
        "AutoModelForSequenceClassification": "modeling_ecg_jepa.EcgJepaForSequenceClassification",
    }
    classifier.ecg_jepa.save_pretrained(tmp_path / "encoder")
    auto_map = json.loads((tmp_path / "encoder" / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel"}
    EcgJepaForPreTraining(classifier.config).save_pretrained(tmp_path / "trio")
    EcgJepaFeatureExtractor().save_pretrained(tmp_path / "trio")
    auto_map = json.loads((tmp_path / "trio" / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForPreTraining"}
    assert {path.name for path in (tmp_path / "trio").iterdir()} >= CODE


@pytest.mark.slow
def test_it_works_without_this_package(directory, record, foreign_python):
    expected = pipeline("ecg-classification", model=str(directory))(record_array(record), sampling_rate=500, unit="mV")
    result = foreign_python(
        f"""
import json
import numpy as np
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, pipeline
source = {str(directory)!r}
print(type(AutoModel.from_pretrained(source, trust_remote_code=True)).__name__)
print(type(AutoModelForSequenceClassification.from_pretrained(source, trust_remote_code=True)).__name__)
print(type(AutoFeatureExtractor.from_pretrained(source, trust_remote_code=True)).__name__)
classify = pipeline("ecg-classification", model=source, trust_remote_code=True)
print(json.dumps(classify(np.load({str(saved_array(record))!r}), sampling_rate=500, unit="mV")))
"""
    )
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert lines[:3] == ["EcgJepaModel", "EcgJepaForSequenceClassification", "EcgJepaFeatureExtractor"]
    scores = json.loads(lines[3])
    assert [entry["label"] for entry in scores] == [entry["label"] for entry in expected]
    np.testing.assert_allclose([e["score"] for e in scores], [e["score"] for e in expected], atol=1e-6)


@pytest.mark.slow
def test_no_code_runs_that_is_not_trusted(directory, record, foreign_python, tmp_path):
    trace = tmp_path / "trace"
    for file in directory.glob("*.py"):
        file.write_text(f"open({str(trace)!r}, 'w').close()\n" + file.read_text())
    source = str(directory)
    # Here, where the package is installed, the checkpoint's code is never used.
    AutoModel.from_pretrained(source)
    AutoModelForSequenceClassification.from_pretrained(source)
    pipeline("ecg-classification", model=source)(str(record))
    assert not trace.exists()
    for action in ("AutoModel.from_pretrained(source)", "pipeline('ecg-classification', model=source)"):
        result = foreign_python(f"from transformers import AutoModel, pipeline\nsource = {source!r}\n{action}")
        assert "trust_remote_code=True" in result.stderr
        assert result.returncode == 1
    assert not trace.exists()
    result = foreign_python(f"from transformers import AutoModel\nAutoModel.from_pretrained({source!r}, trust_remote_code=True)")
    assert result.returncode == 0, result.stderr
    assert trace.exists()  # or this test could not fail


def test_a_copy_of_a_copy_is_complete(directory, tmp_path):
    loaded = AutoModelForSequenceClassification.from_pretrained(directory)
    loaded.save_pretrained(tmp_path / "copy")
    EcgJepaFeatureExtractor.from_pretrained(directory).save_pretrained(tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} >= CODE
    auto_map = json.loads((tmp_path / "copy" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModelForSequenceClassification"] == "modeling_ecg_jepa.EcgJepaForSequenceClassification"


@pytest.mark.slow
def test_whatever_saves_a_model_the_directory_is_complete(classifier, record, foreign_python, tmp_path):
    """`Trainer` calls save_pretrained, too; no function of this package is needed."""
    arguments = TrainingArguments(str(tmp_path / "trainer"), report_to=[], use_cpu=True)
    Trainer(classifier, arguments).save_model(str(tmp_path / "saved"))
    EcgJepaFeatureExtractor.for_model(classifier.config, 0.0, 0.3).save_pretrained(tmp_path / "saved")
    assert not hasattr(classifier.config, "custom_pipelines")
    classifier.ecg_jepa.save_pretrained(tmp_path / "encoder")
    EcgJepaForPreTraining(classifier.config).save_pretrained(tmp_path / "trio")
    result = foreign_python(
        f"""
import os
import numpy as np
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, pipeline
classify = pipeline("ecg-classification", model={str(tmp_path / "saved")!r}, trust_remote_code=True)
print(len(classify(np.load({str(saved_array(record))!r}), sampling_rate=500, unit="mV")))
for name in ("saved", "encoder", "trio"):
    print(type(AutoModel.from_pretrained(os.path.join({str(tmp_path)!r}, name), trust_remote_code=True)).__name__)
trio = AutoModelForPreTraining.from_pretrained({str(tmp_path / "trio")!r}, trust_remote_code=True)
# And what is saved there, from a checkpoint's own code, is as complete.
AutoModelForSequenceClassification.from_pretrained({str(tmp_path / "saved")!r}, trust_remote_code=True).save_pretrained(
    {str(tmp_path / "again")!r}
)
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["3", "EcgJepaModel", "EcgJepaModel", "EcgJepaModel"]
    again, saved = ({path.name for path in (tmp_path / name).iterdir()} for name in ("again", "saved"))
    assert again == saved - {
        "preprocessor_config.json",
        "training_args.bin",
    }
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("again", "saved")]
    assert configs[0]["auto_map"] == configs[1]["auto_map"]
    assert configs[0]["custom_pipelines"] == configs[1]["custom_pipelines"]


def test_weights_are_for_whom_the_umask_says(classifier, tmp_path):
    for mask, mode in ((0o022, 0o644), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            classifier.save_pretrained(tmp_path / str(mask))
        finally:
            os.umask(before)
        assert (tmp_path / str(mask) / "model.safetensors").stat().st_mode & 0o777 == mode


def edit_weights(change):
    def edit(directory):
        weights = load_file(directory / "model.safetensors")
        change(weights)
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})

    return edit


def edit_config(**values):
    def edit(directory):
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | values))

    return edit


def truncate(directory):
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[: len(content) // 2])


QKV = "ecg_jepa.layers.0.attention.qkv.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_weights(lambda weights: weights.pop(QKV)), rf"model\.safetensors\) lack 1 of .* {QKV}"),
        (edit_weights(lambda weights: weights.pop("classifier.weight")), None),  # a new head
        (edit_weights(lambda weights: weights.update({QKV: torch.zeros(3, 3)})), rf"{QKV}: \(3, 3\) instead of \(96, 32\)"),
        (edit_weights(lambda weights: weights[QKV][0, 0].fill_(torch.nan)), rf"model\.safetensors\) have NaN .* {QKV}"),
        (edit_weights(lambda weights: weights[QKV][0, 0].fill_(torch.inf)), rf"have NaN or infinite values in {QKV}"),
        (truncate, r"model\.safetensors\) cannot be read: .*damaged"),
        (lambda directory: (directory / "model.safetensors").write_bytes(b""), r"model\.safetensors\) cannot be read"),
        (lambda directory: (directory / "model.safetensors").unlink(), r"no file named model\.safetensors"),
        (edit_config(model_type="bert"), r"\(config\.json\): .* is the configuration of a 'bert' model"),
        (edit_config(hidden_size="wide"), r"\(config\.json\): .* is no configuration of ECG-JEPA: .*'hidden_size'"),
        (edit_config(patch_size=33), r"\(config\.json\): .*whole number of patches"),
        (lambda directory: (directory / "config.json").write_text("{"), r"config\.json' is not a valid JSON"),
        (lambda directory: (directory / "config.json").unlink(), r"has no config\.json"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_named_with_its_file(directory, damage, message):
    damage(directory)
    if message is None:
        EcgJepaForSequenceClassification.from_pretrained(directory)
        return
    with pytest.raises((ValueError, RuntimeError, OSError), match=f"(?s){message}") as caught:
        EcgJepaForSequenceClassification.from_pretrained(directory)
    assert str(directory) in str(caught.value)


def test_part_of_a_head_is_damage_too(directory):
    edit_config(classifier_pooling="attentive")(directory)
    attentive = EcgJepaForSequenceClassification.from_pretrained(directory)  # the pooling is new
    attentive.save_pretrained(directory)
    edit_weights(lambda weights: weights.pop("pooling.query.weight"))(directory)
    with pytest.raises(ValueError, match=r"lack 1 of .*pooling\.query\.weight"):
        EcgJepaForSequenceClassification.from_pretrained(directory)
    EcgJepaModel.from_pretrained(directory)  # which is of no concern to the encoder


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 1}, {"num_register_tokens": 0}])
@pytest.mark.filterwarnings("ignore")
def test_an_encoder_with_fewer_parts_is_not_the_one_that_was_trained(tmp_path, changes):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"pred_hidden_size": 16, "pred_num_hidden_layers": 2, "pred_num_attention_heads": 2}
    EcgJepaForPreTraining(EcgJepaConfig(**sizes)).save_pretrained(tmp_path)
    for model_class in (EcgJepaModel, EcgJepaForSequenceClassification, EcgJepaForPreTraining):
        model_class.from_pretrained(tmp_path)
    edit_config(**changes)(tmp_path)
    for model_class in (EcgJepaModel, EcgJepaForSequenceClassification, EcgJepaForPreTraining):
        with pytest.raises(ValueError, match=r"parts that their config\.json does not know"):
            model_class.from_pretrained(tmp_path)
    EcgJepaModel(EcgJepaConfig(**sizes)).save_pretrained(tmp_path / "alone")
    edit_config(**changes)(tmp_path / "alone")
    with pytest.raises(ValueError, match=r"parts that their config\.json does not know"):
        EcgJepaModel.from_pretrained(tmp_path / "alone")
