import shutil
from pathlib import Path

import pytest
import tenacity
import yaml
from raw_databases import ecg, write_challenge

from ecg_jepa.data import download
from ecg_jepa.data.records import find_database

REPOSITORY = Path(__file__).parents[2]


def test_ptb_xl_with_a_rejected_record(run_script, raw_database, tmp_path, capsys):
    run_script("prepare_data", "--database", "ptb-xl", "--data_dir", raw_database, "--output_dir", tmp_path)
    printed = capsys.readouterr().out
    assert "ptb-xl: 120 records read, 0 rejected" in printed
    assert "0.33 hours at 500 Hz" in printed
    assert len(find_database(tmp_path)) == 120


def test_synthetic_records_are_generated(run_script, tmp_path, capsys):
    flags = ("--database", "synthetic", "--data_dir", tmp_path / "raw", "--output_dir", tmp_path, "--num_records", 3)
    run_script("prepare_data", *flags, "--sampling_rate", 100)
    assert find_database(tmp_path).signal(0).shape == (12, 1000)
    (tmp_path / "raw/records100/00000/00002_lr.dat").unlink()
    run_script("prepare_data", *flags, "--sampling_rate", 100)
    printed = capsys.readouterr().out
    assert "2 records read, 1 rejected" in printed
    assert "1 x missing signal file" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--database", "ptbxl", "--data_dir", "x", "--output_dir", "y"), "no database 'ptbxl': did you mean 'ptb-xl'?"),
        (("--database", "zzz", "--data_dir", "x", "--output_dir", "y"), "choose one of mimic-iv-ecg, code-15, ptb-xl, "),
        (
            ("--database", "ptb-xl", "--data_dir", "x", "--output_dir", "y", "--min_duration", "-1"),
            "min_duration=-1.0 must be at least 0",
        ),
        (("--database", "ptb-xl", "--data_dir", "x", "--output_dir", "y", "--num_proc", "0"), "at least 1"),
        (("--database", "ptb-xl", "--data_dir", "x", "--output_dir", "y", "--sampling_rat", "500"), "'sampling_rate'"),
    ],
)
def test_mistakes_are_named(run_script, capsys, flags, message):
    with pytest.raises(SystemExit):
        run_script("prepare_data", *flags)
    assert message in capsys.readouterr().err


def test_strict_and_short_records(run_script, tmp_path, capsys):
    for seconds in (6, 10):
        write_challenge(tmp_path, "cpsc_2018", f"A{seconds:04d}", ecg(500 * seconds, seconds))
    flags = ("--database", "cpsc", "--data_dir", tmp_path, "--output_dir", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"A0006: short \(6 s, at least 10 s are wanted\)"):
        run_script("prepare_data", *flags, "--strict")
    run_script("prepare_data", *flags)
    printed = capsys.readouterr().out
    assert "1 records read, 1 rejected" in printed
    assert str(tmp_path / "out" / "cpsc" / "quality.json") in printed
    run_script("prepare_data", *flags, "--strict", "--min_duration", 5)
    assert "2 records read, 0 rejected" in capsys.readouterr().out


def test_all_ten_databases_have_a_builder(run_script, tmp_path):
    corpus = yaml.safe_load((REPOSITORY / "training" / "configs" / "vit_s_all.yaml").read_text())["databases"]
    for name in (entry.partition("=")[0] for entry in corpus):
        with pytest.raises(SystemExit, match="absent"):
            run_script("prepare_data", "--database", name, "--data_dir", tmp_path / "absent", "--output_dir", tmp_path)


def test_a_host_that_does_not_answer(run_script, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "wait_between_attempts", tenacity.wait_none())
    flags = ("--database", "georgia", "--data_dir", tmp_path, "--output_dir", tmp_path, "--download")
    with pytest.raises(SystemExit, match=r"prepare_data\.py: http://127\.0\.0\.1:9/.*could not be fetched"):
        run_script("prepare_data", *flags, "--download_address", "http://127.0.0.1:9")


def test_wrong_folder(run_script, tmp_path):
    with pytest.raises(SystemExit, match="as downloaded"):
        run_script("prepare_data", "--database", "ptb-xl", "--data_dir", tmp_path, "--output_dir", tmp_path)


def test_verify(run_script, prepared_dir, tmp_path, capsys):
    copy = shutil.copytree(prepared_dir, tmp_path / "prepared")
    run_script("prepare_data", "--database", "synthetic", "--output_dir", copy, "--verify")
    assert "synthetic: all 120 records are as they were prepared" in capsys.readouterr().out
    path = next(copy.rglob("records-*.arrow"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=rf"{path.name} is damaged"):
        run_script("prepare_data", "--database", "synthetic", "--output_dir", copy, "--verify")
    with pytest.raises(SystemExit):
        run_script("prepare_data", "--database", "synthetic", "--output_dir", copy)
    assert "data_dir is required" in capsys.readouterr().err
