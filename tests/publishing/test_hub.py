import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from fake_hub import Repository
from tiny_classifier import CODE
from transformers import pipeline

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaModel, read_ecg
from ecg_jepa.publishing.hub import PushError, publishable_files, upload

REPOSITORY = Path(__file__).parents[2]


def push(directory, repo_id, **options):
    return upload(publishable_files(directory), repo_id, "model", **options)


@pytest.fixture
def directory(tmp_path):
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    EcgJepaModel(config).save_pretrained(tmp_path / "model")
    EcgJepaFeatureExtractor.for_model(config, 0.0, 1.0).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Ours\n")
    return tmp_path / "model"


def test_what_goes_is_safe_and_of_the_model(directory):
    written = ("training_config.yaml", "metrics.jsonl")
    for name in written:
        (directory / name).write_text("")
    for name in ("predictions.npz", "notes.txt", "evil.py"):
        (directory / name).write_text("")
    (directory / "checkpoint-5").mkdir()
    (directory / "checkpoint-5" / "optimizer.bin").write_text("")
    expected = [*CODE, "README.md", "config.json", "model.safetensors", "preprocessor_config.json", *written]
    assert publishable_files(directory) == {name: directory / name for name in sorted(expected)}


def remove(*names):
    return lambda directory: [(directory / name).unlink() for name in names]


def write(name, text):
    return lambda directory: (directory / name).write_text(text)


def spoil_weights(directory):
    model = EcgJepaModel.from_pretrained(directory)
    with torch.no_grad():
        model.norm.weight.fill_(torch.nan)
    model.save_pretrained(directory)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("README.md"), r"README\.md is missing"),
        (remove("preprocessor_config.json", "config.json"), r"config\.json is missing; preprocessor_config\.json is missing"),
        (remove("model.safetensors"), r"weights are missing \(no \.safetensors\)"),
        (write("pytorch_model.bin", ""), r"no safetensors: pytorch_model\.bin"),
        (remove("modeling_ecg_jepa.py"), r"code is missing \(modeling_ecg_jepa\.py\)"),
        (write("README.md", "---\nmodel-index: 3\n---\n"), r"metadata of README\.md is not valid"),
        (write("preprocessor_config.json", "{"), r"does not load .*not a valid JSON"),
        (spoil_weights, "does not load .*NaN or infinite values in norm.weight"),
        (shutil.rmtree, "There is no directory"),
    ],
)
def test_what_is_incomplete_is_refused(directory, hub, damage, message):
    damage(directory)
    with pytest.raises(ValueError, match=message):
        push(directory, "me/model", token=hub.token)
    assert not hub.repositories


def test_code_that_is_not_named_is_refused(directory):
    config = json.loads((directory / "config.json").read_text())
    del config["auto_map"]
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="an auto_map"):
        publishable_files(directory)


def test_private_unless_public(directory, hub):
    assert push(directory, "me/private", token=hub.token) == f"{hub.address}/me/private"
    push(directory, "me/public", public=True, token=hub.token)
    assert {name: repository.private for name, repository in hub.repositories.items()} == {"me/private": True, "me/public": False}
    files = hub.repositories["me/private"].files
    assert set(files) == set(publishable_files(directory))
    assert all(files[name] == (directory / name).read_bytes() for name in files)  # our card, not one of transformers'
    assert hub.commits == 2


def test_a_second_push_replaces_the_first(directory, hub):
    push(directory, "me/model", token=hub.token)
    hub.repositories["me/model"].files["model-00001-of-00002.safetensors"] = b"of an earlier push"
    hub.repositories["me/model"].files["notes.md"] = b"somebody's"
    (directory / "README.md").write_text("# New\n")
    push(directory, "me/model", token=hub.token)
    files = hub.repositories["me/model"].files
    assert files["README.md"] == b"# New\n"
    assert "model-00001-of-00002.safetensors" not in files
    assert "notes.md" in files


@pytest.mark.parametrize(("exists_private", "public"), [(False, False), (True, True)])
def test_visibility_is_never_changed_nor_assumed(directory, hub, exists_private, public):
    hub.repositories["me/model"] = Repository(private=exists_private)
    with pytest.raises(PushError, match=f"exists and is {'private' if exists_private else 'public'}, but is to be"):
        push(directory, "me/model", public=public, token=hub.token)
    assert hub.repositories["me/model"].files == {}
    assert hub.repositories["me/model"].private == exists_private


def test_tokens_that_do_not_do(directory, hub, monkeypatch):
    with pytest.raises(PushError, match="may not write to others/model: use one with write access to others"):
        push(directory, "others/model", token=hub.token)
    with pytest.raises(PushError, match="does not know the token"):
        push(directory, "me/model", token="hf_wrong")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", "/nowhere")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(PushError, match="log in with `hf auth login`"):
        push(directory, "me/model")
    hub.repositories["others/model"] = Repository(private=False)
    with pytest.raises(PushError, match="may not write to others/model"):
        push(directory, "others/model", public=True, token=hub.token)
    assert hub.repositories["others/model"].files == {}


def test_a_connection_that_breaks_leaves_nothing_half_done(directory, hub):
    hub.breaks_at_commit = True
    with pytest.raises(PushError, match="run the same command again"):
        push(directory, "me/model", token=hub.token)
    assert hub.repositories["me/model"].files == {}
    assert hub.repositories["me/model"].private
    hub.breaks_at_commit = False
    push(directory, "me/model", token=hub.token)
    assert set(hub.repositories["me/model"].files) == set(publishable_files(directory))


def test_names_and_offline(directory, hub, monkeypatch):
    with pytest.raises(ValueError, match="no name for a repository"):
        push(directory, "a/b/c", token=hub.token)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    with pytest.raises(PushError, match="unset HF_HUB_OFFLINE"):
        push(directory, "me/model", token=hub.token)


@pytest.mark.slow
def test_a_shipped_checkpoint_is_pushed_with_the_code_that_loads_it(hub, foreign_python, tmp_path):
    directory = REPOSITORY / "checkpoints" / "ecg-jepa-xs-100hz-superdiagnostic"
    assert not list(directory.glob("*.py"))
    push(directory, "me/model", token=hub.token)
    files = hub.repositories["me/model"].files
    assert set(files) == {path.name for path in directory.iterdir()} | CODE
    record = read_ecg(REPOSITORY / "examples" / "00003_lr.hea")
    np.save(tmp_path / "record.npy", record.signal)
    given = {"sampling_rate": record.sampling_rate, "lead_names": record.lead_names, "unit": record.unit}
    expected = pipeline("ecg-classification", model=str(directory))(record.signal, **given)
    code = f"""
import json
import numpy as np
from transformers import pipeline
classify = pipeline("ecg-classification", model="me/model", trust_remote_code=True)
print(json.dumps(classify(np.load({str(tmp_path / "record.npy")!r}), **{given!r})))
"""
    result = foreign_python(code, **hub.environment())
    assert result.returncode == 0, result.stderr
    scores = json.loads(result.stdout.splitlines()[-1])
    assert [entry["label"] for entry in scores] == [entry["label"] for entry in expected]
    np.testing.assert_allclose([e["score"] for e in scores], [e["score"] for e in expected], atol=1e-6)
