"""The folder of a Space, and what goes to the Hub of it."""

import importlib.metadata
import subprocess
import sys

import pytest
import yaml
from fake_hub import Repository
from raw_databases import ecg, write_record
from tiny_classifier import save_classifier

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaModel
from ecg_jepa.publishing.checkpoint import save_checkpoint
from ecg_jepa.publishing.hub import PushError, upload
from ecg_jepa.publishing.space import space_files, write_space

gradio = pytest.importorskip("gradio", reason='a Space needs gradio: pip install "ecg_jepa[demo]"')


@pytest.fixture
def classifier_dir(tmp_path):
    return save_classifier(tmp_path / "model")


@pytest.fixture
def examples(tmp_path):
    write_record(tmp_path / "examples" / "r1", ecg(5000))
    return tmp_path / "examples"


def test_a_space_is_complete(classifier_dir, examples, tmp_path):
    write_space(classifier_dir, tmp_path / "space", "Look: here", examples)
    names = {file.name for file in space_files(tmp_path / "space")}
    assert {"README.md", "app.py", "requirements.txt", "examples/r1.hea", "examples/r1.dat"} <= names
    assert {"model/model.safetensors", "model/config.json", "model/preprocessor_config.json", "model/README.md"} <= names
    front_matter = yaml.safe_load((tmp_path / "space" / "README.md").read_text().split("---\n")[1])
    assert front_matter["title"] == "Look: here"
    assert (front_matter["sdk"], front_matter["app_file"], front_matter["license"]) == ("gradio", "app.py", "apache-2.0")
    assert front_matter["sdk_version"] == gradio.__version__
    assert len(front_matter["sdk_version"].split(".")) == 3
    requirements = (tmp_path / "space" / "requirements.txt").read_text().splitlines()
    own = importlib.metadata.version("ecg_jepa")
    assert requirements == [f"ecg_jepa[demo,formats]=={own}", f"gradio=={gradio.__version__}"]


def test_what_another_space_left_goes_and_other_files_stay(classifier_dir, examples, tmp_path):
    target = tmp_path / "space"
    write_space(classifier_dir, target, "first", examples)
    write_space(classifier_dir, target, "second", None, "ecg_jepa @ https://example.org/ecg_jepa.whl")
    assert not list((target / "examples").iterdir())
    assert (target / "requirements.txt").read_text().startswith("ecg_jepa @ https://example.org/ecg_jepa.whl\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(FileExistsError, match=r"files that are no Space's: choose another --space_dir"):
        write_space(classifier_dir, tmp_path / "mine", "third", None)


def test_an_encoder_makes_no_space(tmp_path):
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    save_checkpoint(tmp_path / "model", EcgJepaModel(config), EcgJepaFeatureExtractor.for_model(config, 0.0, 1.0))
    (tmp_path / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Ours\n")
    with pytest.raises(ValueError, match="is no classifier"):
        write_space(tmp_path / "model", tmp_path / "space", "title", None)


def test_the_app_is_code_that_says_what_it_runs(classifier_dir, tmp_path):
    title = 'It\'s "quoted" {braces}'
    write_space(classifier_dir, tmp_path / "space", title, None)
    code = "import ecg_jepa.page, runpy; ecg_jepa.page.serve = lambda *a, **k: print(a[0].name, k['title'], k['examples'].name)"
    words = [sys.executable, "-c", f"{code}; runpy.run_path('app.py', run_name='__main__')"]
    done = subprocess.run(words, cwd=tmp_path / "space", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"model {title} examples"


def test_pushed_privately_as_a_space(run_script, classifier_dir, examples, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    flags = (classifier_dir, "--repo_id", "me/look", "--space", "--space_dir", tmp_path / "space", "--space_examples", examples)
    run_script("push_to_hub", *flags, "--dry_run")
    printed = capsys.readouterr().out
    assert "model/model.safetensors" in printed
    assert "Nothing was uploaded" in printed
    assert not hub.repositories
    run_script("push_to_hub", *flags)
    assert f"Pushed to {hub.address}/" in (printed := capsys.readouterr().out)
    assert "a Space, private" in printed
    repository = hub.repositories["me/look"]
    assert (repository.private, repository.sdk) == (True, "gradio")
    assert set(repository.files) == {file.name for file in space_files(tmp_path / "space")}


def test_a_space_that_everybody_sees_is_not_written_to(hub, classifier_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.repositories["me/look"] = Repository(private=False, sdk="gradio")
    write_space(classifier_dir, tmp_path / "space", "look", None)
    with pytest.raises(PushError, match="is public, but is to be private"):
        upload(tmp_path / "space", "me/look", "space", public=False, token=None)
    assert not hub.repositories["me/look"].files
