"""A finished run is used again only if it is the same run."""

import json

import pytest
import torch
from raw_databases import ecg, write_challenge

from ecg_jepa import EcgJepaConfig, EcgJepaModel
from ecg_jepa.data.builders.challenge_2021 import Georgia


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Plots take most of the time of a short run, and are tested elsewhere."""
    monkeypatch.setattr("ecg_jepa.publishing.classifier_export.plot_results", lambda run, result: {})


@pytest.fixture
def encoder_dir(tmp_path):
    torch.manual_seed(0)
    EcgJepaModel(EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def prepare(tmp_path):
    """40 records of Georgia; `every` decides which have which code."""

    def run(every=2):
        for number in range(40):
            comments = [f"# Dx: {'111' if number % every else '222'}"]
            write_challenge(tmp_path, "georgia", f"E{number:05d}", ecg(5000, number), comments=comments)
        Georgia(data_dir=str(tmp_path)).prepare(tmp_path / "prepared")
        return tmp_path / "prepared"

    return run


@pytest.fixture
def sweep(run_script, encoder_dir, prepare, tmp_path, capsys):
    prepare()

    def run(*flags, settings=("max_steps=2", "eval_steps=1", "batch_size=8")):
        flags = ("--data_dir", tmp_path / "prepared", "--tasks", "all", "--output_dir", tmp_path / "out", *flags)
        run_script("sweep", "--models", encoder_dir, "--protocols", "linear", *flags, "--settings", *settings)
        found = sorted(path.parent.name for path in (tmp_path / "out").rglob("metrics.json"))
        return found, capsys.readouterr().err

    return run


def test_the_same_run_is_run_once(sweep, tmp_path):
    assert sweep()[0] == ["seed-0"]
    found, printed = sweep(settings=("max_steps=2.0", "eval_steps=1", "batch_size=8"))  # other text, the same value
    assert found == ["seed-0"]
    assert "of which 1 are finished" in printed


def test_other_settings_are_another_run(sweep, tmp_path, run_script, capsys):
    sweep()
    found, printed = sweep(settings=("max_steps=3", "eval_steps=1", "batch_size=8"))
    assert found == ["seed-0", "seed-0-run2"]
    assert "seed-0 is another run (max_steps: 2, now 3): this one is" in printed
    assert sweep(settings=("max_steps=3", "eval_steps=1", "batch_size=8"))[0] == found
    assert "of which 1 are finished" in sweep()[1]
    run_script("evaluate", tmp_path / "out")
    table = capsys.readouterr().out
    assert ", max_steps 2 " in table
    assert ", max_steps 3 " in table


@pytest.mark.slow
def test_a_temperature_makes_another_run(sweep, tmp_path):
    sweep()
    small = ("max_steps=2", "eval_steps=1", "batch_size=8")
    found, printed = sweep(settings=(*small, "calibrate=true"))
    assert found == ["seed-0", "seed-0-run2"]
    assert "seed-0 is another run (calibrate: False, now True)" in printed


@pytest.mark.slow
def test_other_weights_are_another_run(sweep, encoder_dir):
    sweep()
    model = EcgJepaModel.from_pretrained(encoder_dir)
    with torch.no_grad():
        model.norm.weight.mul_(1.5)
    model.save_pretrained(encoder_dir)
    found, printed = sweep()
    assert found == ["seed-0", "seed-0-run2"]
    assert f"{encoder_dir} has other weights" in printed


@pytest.mark.slow
def test_another_database_or_labels_are_another_run(sweep, prepare):
    sweep()
    prepare(every=3)
    found, printed = sweep()
    assert found == ["seed-0", "seed-0-run2"]
    assert "georgia was prepared anew" in printed


def test_records_that_changed_in_silence_are_noticed(sweep, tmp_path):
    """Labels that differ although the database says it is the same."""
    sweep()
    path = next((tmp_path / "out").rglob("training_info.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": "others"}))
    found, printed = sweep()
    assert found == ["seed-0", "seed-0-run2"]
    assert "records or labels of the task differ" in printed


@pytest.mark.slow
def test_a_run_that_recorded_nothing_is_not_used_again(sweep, tmp_path):
    sweep()
    next((tmp_path / "out").rglob("training_info.json")).unlink()
    assert "does not say what it was trained from" in sweep()[1]


@pytest.mark.slow
def test_fine_tuning_goes_on_from_the_probe_that_was_placed(sweep, tmp_path):
    both = ("--protocols", "attentive", "finetune_after_probe")
    sweep(*both)
    found, _ = sweep(*both, settings=("max_steps=2", "eval_steps=1", "batch_size=8", "attentive.learning_rate=0.5"))
    assert found == ["seed-0", "seed-0", "seed-0-run2", "seed-0-run2"]
    (tuned,) = (path for path in (tmp_path / "out").rglob("seed-0-run2/training_info.json") if "after_probe" in str(path))
    assert json.loads(tuned.read_text())["start"]["path"].endswith("attentive/all/labels-1/seed-0-run2")


def test_what_is_misspelt_ends_before_the_first_run(run_script, prepare, encoder_dir, tmp_path):
    prepare()
    flags = ("--data_dir", tmp_path / "prepared", "--output_dir", tmp_path / "out")
    with pytest.raises(SystemExit, match="tniy is no directory"):
        run_script("sweep", *flags, "--models", encoder_dir, tmp_path / "tniy")
    with pytest.raises(SystemExit, match="No prepared database"):
        run_script("sweep", "--data_dir", tmp_path / "nowhere", "--output_dir", tmp_path / "out", "--models", encoder_dir)
    assert not (tmp_path / "out").exists()
