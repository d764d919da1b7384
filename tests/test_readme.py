"""
Run the README's blocks one after the other, in a folder that looks like a fresh clone with the databases that they name. Commands
run in this process; trainings are cut short by the flags that are listed here, everything else is as written.
"""

import csv
import io
import re
import shlex
from pathlib import Path

import compare
import numpy as np
import pytest
from accelerate.state import AcceleratorState, PartialState
from raw_databases import ecg, write_challenge, write_record

from ecg_jepa import cli

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python|csv)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)

_TINY = "--hidden_size 32 --num_hidden_layers 1 --num_attention_heads 4 --pred_hidden_size 16 --pred_num_hidden_layers 1"
_ONE_STEP = "--max_steps 1 --warmup_steps 0 --batch_size 8 --mixed_precision no --pred_num_attention_heads 2"
_OF_COMPARED = "synthetic_records=80 databases=synthetic=1.0 size=xs hidden_size=32 num_hidden_layers=1 num_attention_heads=4"
_OF_COMPARED += " crop_duration=2.5 batch_size=8 mixed_precision=no jepa.min_block_size=5"
SHORTER = {
    "pretrain": f"{_TINY} {_ONE_STEP} --eval_steps 0 --probe_seeds 1",
    "finetune": "--max_steps 2 --eval_steps 1 --batch_size 8",
    "sweep": "--settings max_steps=1 eval_steps=1 batch_size=8 crop_duration=10 crop_stride=10 --seeds 0 --tasks superdiagnostic",
    "compare": f"--objectives jepa random --seeds 0 --max_steps 1 --evaluations 1 --tuning --settings {_OF_COMPARED}",
    "prepare": "--num_proc 1",
}
# Further flags of single commands, by words that they hold.
OF_ONE = {"vit_s_all": "--databases georgia=1.0", "demo.yaml": "--synthetic_records 80"}

# What a test cannot do, or would do without end.
NOT_RUN = ("pip install -e .", 'pip install -e ".[test]"', "python -m pytest -n 2", 'pip install -e ".[demo,formats]"')


@pytest.fixture
def clone(tmp_path, raw_database, monkeypatch):
    """A folder as the README expects it."""
    for name in ("benchmarks", "checkpoints", "examples", "training", "src"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "ptb-xl-1.0.3").symlink_to(raw_database)
    for number in range(12):
        comments = ["# Age: 61", "# Sex: Female", f"# Dx: {('426783006', '164889003')[number % 2]}"]
        write_challenge(tmp_path / "raw" / "challenge-2021", "georgia", f"E{number:05}", ecg(5000, number), comments=comments)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def write_own_records(folder: Path, table: str) -> None:
    """Forty records like the two of the README's table."""
    wfdb, array = csv.DictReader(io.StringIO(table))
    rows = []
    for number in range(40):
        row = dict((wfdb, array)[number % 2])
        row |= {"path": row["path"].replace("1.hea", f"{number}.hea").replace("2.npy", f"{number}.npy")}
        row |= {"patient_id": str(number), "AF": str(number // 2 % 2), "LVH": str(number // 4 % 2)}
        path = folder / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, ecg(2500, number, rate=float(row["sampling_rate"])))
        else:
            write_record(path.with_suffix(""), ecg(5000, number))
        rows.append(row)
    with (folder / "records.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(wfdb))
        writer.writeheader()
        writer.writerows(rows)


def run(command: str) -> str | None:
    """Run a command of ours, cut short; return any other, which is not run."""
    words = shlex.split(command, comments=True)
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    if words[:2] == ["python", "benchmarks/compare.py"]:
        compare.main([*words[2:], *shlex.split(SHORTER["compare"])])
        return None
    for start in (["ecg-jepa"], ["accelerate", "launch", "-m", "ecg_jepa"]):
        if words[: len(start)] == start:
            words = words[len(start) :]
            break
    else:
        if words[:2] != ["accelerate", "launch"]:
            return command
        words = [Path(words[2]).stem, *words[3:]]
    more = [flags for mark, flags in OF_ONE.items() if any(mark in word for word in words)]
    for flags in (SHORTER.get(words[0], ""), *more):
        words += shlex.split(flags)
    cli.main(words)
    return None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:Warning")
def test_every_block_runs_in_the_order_in_which_it_is_read(clone, monkeypatch):
    gradio = pytest.importorskip("gradio")
    monkeypatch.setattr(gradio.Blocks, "block_thread", lambda self: None)
    left_out: list[str] = []
    names: dict[str, object] = {}
    for kind, code in BLOCKS:
        if kind == "csv":
            write_own_records(clone / "MY_RECORDS", code)
        elif kind == "python":
            exec(code.replace("max_steps=10)", 'max_steps=1, use_cpu=True, report_to="none", save_strategy="no")'), names)
        else:
            parts = [part.strip() for line in code.strip().splitlines() for part in line.split(" && ")]
            left_out += [part for part in map(run, parts) if part is not None]
    assert sorted(left_out) == sorted(NOT_RUN)
    for name in ("00003_lr.png", "runs/labels.csv", "runs/vectors.parquet", "runs/own/metrics.json", "runs/probe/metrics.json"):
        assert (clone / name).is_file(), name
    assert (clone / "runs" / "compare_demo" / "report.md").is_file()
    assert list((clone / "runs" / "tables").glob("*.md"))
    assert (clone / "runs" / "space" / "app.py").is_file()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        assert target.startswith("https://") or (REPOSITORY / target).exists(), target
