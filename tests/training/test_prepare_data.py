import pytest

from ecg_jepa.data.records import find_database


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
        (("--database", "ptbxl", "--data_dir", "x", "--output_dir", "y"), "'ptbxl' has no builder"),
        (("--database", "ptb-xl", "--data_dir", "x", "--output_dir", "y", "--download"), "not available yet"),
        (("--database", "ptb-xl", "--data_dir", "x", "--output_dir", "y", "--sampling_rat", "500"), "'sampling_rate'"),
    ],
)
def test_mistakes_are_named(run_script, capsys, flags, message):
    with pytest.raises(SystemExit):
        run_script("prepare_data", *flags)
    assert message in capsys.readouterr().err


def test_wrong_folder(run_script, tmp_path):
    with pytest.raises(SystemExit, match="as downloaded"):
        run_script("prepare_data", "--database", "ptb-xl", "--data_dir", tmp_path, "--output_dir", tmp_path)
