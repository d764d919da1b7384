"""Where a model is found: here, or on a Hub, of which the files of the model and no others are fetched."""

import pytest
from fake_hub import Repository

from ecg_jepa._utils.model_directory import model_directory, weights_digest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_directory_is_itself(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert model_directory(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match="has no weights"):
        weights_digest(tmp_path)


@pytest.mark.parametrize(
    ("weights", "ignored"),
    [
        ({"model.safetensors": b"weights"}, {"pretraining/config.json": b"{}", "pretraining/model.safetensors": b"large"}),
        (
            {
                "model.safetensors.index.json": b"{}",
                "model-00001-of-00002.safetensors": b"a",
                "model-00002-of-00002.safetensors": b"b",
            },
            {"plots/a.png": b"", "checkpoint-3/model.safetensors": b"", "README.md": b""},
        ),
    ],
)
def test_a_repository_is_fetched_without_what_its_use_does_not_need(hub, cache, weights, ignored):
    files = {"config.json": b"{}", "training_info.json": b"{}", **weights}
    hub.repositories["me/model"] = Repository(private=False, files=files | ignored)
    directory = model_directory("me/model")
    assert {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()} == files
    assert weights_digest(directory)
    del hub.repositories["me/model"].files["training_info.json"]
    assert model_directory("me/model") == directory


def test_what_is_no_model_is_said(hub, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    hub.repositories["me/data"] = Repository(private=False, files={"README.md": b""})
    for name, message in {
        "folder": "folder is no directory with a config.json: name that of a model",
        "folder/run": "nor the name of a repository of the Hugging Face Hub",
        "./me/model": "nor the name of a repository",
        "me/mo del": "nor the name of a repository",
        "me/nothing": "cannot be had from the Hugging Face Hub",
        "me/data": "me/data is no directory with a config.json, and the repository of that name has none",
    }.items():
        with pytest.raises(FileNotFoundError, match=message):
            model_directory(name)


def test_without_a_network_what_was_fetched_is_used(hub, cache, monkeypatch):
    hub.repositories["me/model"] = Repository(private=False, files={"config.json": b"{}", "model.safetensors": b"weights"})
    directory = model_directory("me/model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert model_directory("me/model") == directory
    with pytest.raises(FileNotFoundError, match="cannot be had from the Hugging Face Hub"):
        model_directory("me/other")
