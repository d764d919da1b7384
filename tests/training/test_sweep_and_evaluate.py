"""A sweep, from YAML to table."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ecg_jepa import EcgJepaConfig, EcgJepaModel
from ecg_jepa.data.synthetic import Synthetic

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def encoder_dir(tmp_path):
    torch.manual_seed(0)
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    EcgJepaModel(config).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.slow
def test_from_yaml_to_table(run_script, prepared_dir, encoder_dir, tmp_path, capsys):
    config = tmp_path / "sweep.yaml"
    config.write_text(
        f"models: [{encoder_dir}, 'random:{encoder_dir}']\ndata_dir: {prepared_dir}\noutput_dir: {tmp_path / 'out'}\n"
        f"config_dir: {REPOSITORY / 'training' / 'configs'}\ntasks: [superdiagnostic]\n"
        "protocols: [linear, attentive, finetune_after_probe]\nsettings: [max_steps=2, eval_steps=1, batch_size=8]\n"
    )
    run_script("sweep", "--config", config)
    assert "6 runs, of which 0 are finished" in capsys.readouterr().err
    found = sorted((tmp_path / "out").rglob("metrics.json"))
    assert len(found) == 6
    tuned = json.loads(next(path for path in found if "finetune_after_probe" in str(path)).read_text())
    assert tuned["encoder"]["path"] in (str(encoder_dir), f"random:{encoder_dir}")
    times = [path.stat().st_mtime_ns for path in found]
    run_script("sweep", "--config", config)
    assert "of which 6 are finished" in capsys.readouterr().err
    assert [path.stat().st_mtime_ns for path in found] == times

    run_script("evaluate", tmp_path / "out")
    printed = capsys.readouterr().out
    assert printed.count("| superdiagnostic") == 3
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 6
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 7
    run_script("evaluate", tmp_path / "out")  # a table of ours is written anew
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.csv").write_text("mine")
    with pytest.raises(SystemExit, match=r"results\.csv is no table of ecg-jepa evaluate: choose another --output_dir"):
        run_script("evaluate", tmp_path / "out", "--output_dir", tmp_path / "mine")
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["mine"]
    capsys.readouterr()

    run_script("evaluate", tmp_path / "out" / "tiny", tmp_path / "out" / "random-tiny", "--compare")
    assert "paired bootstrap test" in capsys.readouterr().out
    pairs = json.loads((tmp_path / "out" / "tiny" / "comparison.json").read_text())
    assert [pair["protocol"] for pair in pairs] == ["attentive", "finetune_after_probe", "linear"]
    with pytest.raises(SystemExit):
        run_script("evaluate", tmp_path / "out", "--compare")
    assert "--compare takes two folders" in capsys.readouterr().err


def test_a_task_that_cannot_be_scored_ends_nothing(run_script, prepared_dir, encoder_dir, tmp_path, capsys):
    flags = ("--config_dir", REPOSITORY / "training" / "configs", "--protocols", "linear", "--output_dir", tmp_path / "out")
    small = ("--settings", "max_steps=1", "crop_duration=2.5")
    wrong = tmp_path / "wrong"
    EcgJepaModel(EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, sampling_rate=250)).save_pretrained(
        wrong
    )
    run_script("sweep", *flags, "--models", wrong, encoder_dir, "--data_dir", prepared_dir, "--tasks", "rhythm", *small)
    assert "1 runs could not be scored" in capsys.readouterr().err
    (note,) = (tmp_path / "out").rglob("not_scored.json")
    assert "takes 250 Hz" in json.loads(note.read_text())["reason"]
    assert len(list((tmp_path / "out").rglob("metrics.json"))) == 1


def test_a_sweep_of_which_nothing_can_be_scored_fails(run_script, prepared_dir, encoder_dir, tmp_path):
    flags = ("--protocols", "linear", "--output_dir", tmp_path / "out", "--data_dir", prepared_dir, "--tasks", "rhythm")
    with pytest.raises(SystemExit, match="None of the 1 runs could be scored"):
        run_script("sweep", *flags, "--models", encoder_dir, "--settings", "crop_duration=2.51")


@pytest.mark.slow
def test_a_database_that_was_prepared_anew_is_another_one_in_the_table(run_script, raw_database, encoder_dir, tmp_path, capsys):
    flags = ("--protocols", "linear", "--output_dir", tmp_path / "out", "--tasks", "rhythm", "--models", encoder_dir)
    shutil.copytree(raw_database, tmp_path / "raw")
    for number in range(3):
        Synthetic(data_dir=str(tmp_path / "raw")).prepare(tmp_path / "prepared")
        run_script("sweep", *flags, "--data_dir", tmp_path / "prepared", "--settings", "max_steps=1", "batch_size=8")
        file = tmp_path / "raw" / "records500" / "00000" / "00001_hr.dat"
        if number == 0:  # the same again, only later: nothing to run
            os.utime(file, (1, 1))
        else:
            shutil.copy(file.with_name("00002_hr.dat"), file)
    assert "of which 1 are finished" in capsys.readouterr().err
    run_script("evaluate", tmp_path / "out")
    table = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(table) == 2
    assert {row["database"] for row in table} == {f"synthetic #{row['database_digest'][:6]}" for row in table}
    with pytest.raises(SystemExit, match="There is no folder"):
        run_script("evaluate", tmp_path / "out", tmp_path / "nowhere")


@pytest.mark.slow
def test_runs_older_than_their_encoder_are_named_from_anywhere(run_script, prepared_dir, encoder_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--protocols", "linear", "--output_dir", "out", "--tasks", "rhythm", "--models", "tiny", "--data_dir", prepared_dir)
    run_script("sweep", *flags, "--settings", "max_steps=1", "batch_size=8")
    torch.manual_seed(1)
    EcgJepaModel(EcgJepaConfig.from_pretrained(encoder_dir)).save_pretrained(encoder_dir)
    monkeypatch.chdir("/")
    run_script("evaluate", tmp_path / "out")
    assert "started from other weights than those that are there now" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.slow
def test_the_script_does_not_hide_the_library_of_its_name(tmp_path):
    """As a user runs it: its folder comes first on Python's path, and it is called `evaluate.py`."""
    command = [sys.executable, REPOSITORY / "training" / "evaluate.py", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "No finished run" in result.stderr
    assert "Traceback" not in result.stderr
