"""The whole comparison on tiny encoders: it tunes, trains, evaluates, reports, resumes, and outlives a run that fails."""

import re
import shlex
import shutil

import compare as benchmark
import pandas as pd
import pytest
from accelerate.state import AcceleratorState, PartialState

pytestmark = pytest.mark.slow

ENCODER = "databases=synthetic=1.0 size=xs hidden_size=32 num_hidden_layers=1 num_attention_heads=4 crop_duration=2.5"
SETTINGS = (*shlex.split(ENCODER), *shlex.split("batch_size=16 ema_momentum=0.9 mixed_precision=no simclr.view_duration=1.25"))
SHORT = shlex.split("--max_steps 6 --evaluations 2 --seeds 0 --tuning simclr.temperature=0.1,0.5 --tuning_share 0.5")
EVALUATED = shlex.split("--protocols linear --tasks superdiagnostic --label_fractions 0.5 1.0")
FINETUNE = shlex.split("--finetune_settings max_steps=4 eval_steps=2 warmup_steps=1 batch_size=16")


@pytest.fixture
def compare(prepared_dir, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(output_dir, *flags, settings=SETTINGS):
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
        data = ("--data_dir", prepared_dir, "--output_dir", output_dir, "--settings", *settings)
        benchmark.main([str(word) for word in (*SHORT, *EVALUATED, *FINETUNE, *data, *flags)])

    return run


def test_tunes_trains_evaluates_and_reports(compare, tmp_path, capfd):
    compare(tmp_path, "--objectives", "simclr", "random")
    report = (tmp_path / "report.md").read_text()
    for part in ("## Tuning", "temperature 0.5", "## Course", "**linear, 50% of the labels**", "First minus second"):
        assert part in report
    for line in report.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line[line.index("(") + 1 : -1]).is_file()
    results = pd.read_csv(tmp_path / "results.csv")
    assert sorted(results["label"]) == ["random", "random", "simclr", "simclr"]
    assert len(pd.read_csv(tmp_path / "tests.csv")) == 2

    (trained,) = (tmp_path / "pretraining").glob("simclr-0-*/model.safetensors")
    written = trained.stat().st_mtime_ns
    # Once more, with an objective that cannot be trained: finished runs stay, and the others go on.
    broken = (*SETTINGS, "broken.learning_rate=1e30", "broken.view_duration=1.25")
    with pytest.raises(SystemExit, match="1 runs failed: broken-0-"):
        compare(tmp_path, "--objectives", "simclr", "random", "broken=byol", settings=broken)
    assert "failed (1), as logs/broken-0-" in "".join(capfd.readouterr())
    (log,) = (tmp_path / "logs").glob("broken-0-*.log")
    assert "not finite" in log.read_text()
    assert trained.stat().st_mtime_ns == written
    report = (tmp_path / "report.md").read_text()
    assert "**Failed, and missing from what follows**: broken-0-" in report
    assert "First minus second" in report


def test_kept_results_are_enough_to_go_on_without_the_runs(compare, tmp_path):
    flags = ("--objectives", "simclr", "random", "--jobs", 2, "--keep_runs", False)
    compare(tmp_path, *flags)
    report = (tmp_path / "report.md").read_text()
    left = {path.name for path in tmp_path.iterdir()}
    assert {"judged", "tried", "report.md"} <= left
    assert not [path for folder in ("pretraining", "tuning", "finetuning") for path in (tmp_path / folder).glob("*")]
    logs = {path.name for path in (tmp_path / "logs").iterdir()}
    for name in left - {"judged", "tried"}:
        shutil.rmtree(tmp_path / name) if (tmp_path / name).is_dir() else (tmp_path / name).unlink()
    for report_only in (True, False):  # nothing is run, and the report is the same
        compare(tmp_path, *flags, "--report_only", report_only)
        assert not (tmp_path / "logs").exists()
        assert (tmp_path / "report.md").read_text() == report
    with pytest.raises(SystemExit, match="nothing is kept of this comparison"):
        compare(tmp_path / "other", *flags, "--report_only", True)
    # An unfinished comparison is reported, too.
    compare(tmp_path, "--objectives", "simclr", "random", "--seeds", 0, 1, "--report_only", True)
    assert not (tmp_path / "logs").exists()
    unfinished = (tmp_path / "report.md").read_text()
    assert re.search(r"\*\*Not finished, .*: simclr-1-\w+, random-1-\w+\.$", unfinished, re.MULTILINE)
    assert "First minus second" in unfinished
    compare(tmp_path, *flags, "--label_fractions", 1.0, 0.25)  # a share that was not evaluated yet
    again = {path.name for path in (tmp_path / "logs").iterdir()}
    assert again == {name for name in logs if not name.startswith("tuning")}
    assert "25% of the labels" in (report := (tmp_path / "report.md").read_text())
    assert "50% of the labels" not in report  # it is not asked for now
    compare(tmp_path, *flags)
    assert {path.name for path in (tmp_path / "logs").iterdir()} == again  # earlier results are still there
    assert "50% of the labels" in (tmp_path / "report.md").read_text()
