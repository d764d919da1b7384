"""The folder of a Space, and what goes to the Hub of it."""

import importlib.metadata
import shutil
import subprocess
import sys

import pytest
import yaml
from fake_hub import Repository
from raw_databases import ecg, write_record
from tiny_classifier import save_classifier

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaModel
from ecg_jepa.publishing.hub import PushError, upload
from ecg_jepa.publishing.space import write_space

gradio = pytest.importorskip("gradio", reason='a Space needs gradio: pip install "ecg_jepa[demo]"')


@pytest.fixture
def classifier_dir(tmp_path):
    return save_classifier(tmp_path / "model")


@pytest.fixture
def examples(tmp_path):
    write_record(tmp_path / "examples" / "r1", ecg(5000))
    return tmp_path / "examples"


def test_a_space_is_complete(classifier_dir, examples, tmp_path):
    names = set(write_space(classifier_dir, tmp_path / "space", "Look: here", examples))
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
    (target / ".env").write_text("SECRET=1")
    files = write_space(classifier_dir, target, "second", None, "ecg_jepa @ https://example.org/ecg_jepa.whl")
    assert not (target / "examples").exists()
    assert (target / "requirements.txt").read_text().startswith("ecg_jepa @ https://example.org/ecg_jepa.whl\n")
    assert (target / ".env").is_file()
    assert ".env" not in files
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_spaces_is_left_alone(classifier_dir, examples, tmp_path):
    project = tmp_path / "project"
    for name in ("app.py", "model/my_weights.pt", "examples/data.csv"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("mine")
    with pytest.raises(FileExistsError, match=r"files that are no Space's: choose another --space_dir"):
        write_space(classifier_dir, project, "title", None)
    assert {path.read_text() for path in project.rglob("*") if path.is_file()} == {"mine"}
    for source, given in ((classifier_dir, None), (classifier_dir, examples)):
        with pytest.raises(FileExistsError, match="which is to be copied there"):
            write_space(source, tmp_path, "title", given)
    assert (classifier_dir / "model.safetensors").is_file()


def test_an_encoder_makes_no_space(tmp_path):
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    EcgJepaModel(config).save_pretrained(tmp_path / "model")
    EcgJepaFeatureExtractor.for_model(config, 0.0, 1.0).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Ours\n")
    with pytest.raises(ValueError, match="is no classifier"):
        write_space(tmp_path / "model", tmp_path / "space", "title", None)


@pytest.mark.slow
def test_what_is_pushed_runs(classifier_dir, tmp_path):
    """The files that are listed alone, as the Hub keeps them, under a title that is no plain text."""
    title = 'It\'s "quoted" {braces}'
    for name, path in write_space(classifier_dir, tmp_path / "space", title, None).items():
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / "hub" / name)
    with subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path / "hub", stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=60) == 143
    assert line.startswith(f"{title}: http://127.0.0.1:")


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
    expected = {path.relative_to(tmp_path / "space").as_posix() for path in (tmp_path / "space").rglob("*") if path.is_file()}
    assert set(repository.files) == expected


def test_a_space_that_everybody_sees_is_not_written_to(hub, classifier_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.repositories["me/look"] = Repository(private=False, sdk="gradio")
    files = write_space(classifier_dir, tmp_path / "space", "look", None)
    with pytest.raises(PushError, match="is public, but is to be private"):
        upload(files, "me/look", "space")
    assert not hub.repositories["me/look"].files
