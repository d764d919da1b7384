"""Runs that are killed at any of their file operations, or find the disk full, go on to the same weights."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from attacks import assert_same_run

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.stress
KINDS = {"plain": {}, "accumulation": {"gradient_accumulation_steps": 2, "batch_size": 2}, "bf16": {"mixed_precision": "bf16"}}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, pretrain, flags, tmp_path_factory):
    """A run that nothing happened to, its settings, and how many file operations it took."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    (directory.parent / "count").write_text("0")
    count = os.open(directory.parent / "count", os.O_RDWR)
    outcome = pretrain(flags(directory, **KINDS[request.param]), lambda number: os.pwrite(count, b"%d" % number, 0))
    assert outcome.status == 0, outcome.output
    return directory, KINDS[request.param], int((directory.parent / "count").read_text())


def test_killed_at_forty_file_operations(whole, pretrain, flags, tmp_path):
    expected, changes, operations = whole
    assert operations >= 40
    for at in map(int, np.linspace(1, operations, 40)):
        directory = tmp_path / f"killed-{at}"
        words = flags(directory, **changes)
        outcome = pretrain(words, lambda number, at=at: number == at and os.kill(os.getpid(), signal.SIGKILL))
        assert outcome.status == -signal.SIGKILL, (at, outcome.output)
        outcome = pretrain(words)
        assert outcome.status == 0, (at, outcome.output)
        assert_same_run(directory, expected)


def test_a_disk_that_is_full_for_a_while(whole, pretrain, flags, tmp_path):
    """From some operation on, for one to eight of them; the run goes on, or ends with an error and can be resumed."""
    expected, changes, operations = whole
    recovered = went_on = 0
    for attempt in range(31):
        first, last = 1 + attempt * operations // 31, attempt * operations // 31 + 1 + attempt % 8

        def full(number, first=first, last=last):
            if first <= number <= last:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        directory = tmp_path / f"full-{attempt}"
        words = flags(directory, **changes)
        outcome = pretrain(words, full)
        went_on += outcome.status == 0
        if outcome.status:
            assert outcome.status == 1, outcome.output
        outcome = pretrain(words)
        assert outcome.status == 0, (attempt, outcome.output)
        assert_same_run(directory, expected)
        recovered += 1
    assert recovered == 31
    assert went_on


def test_a_disk_that_is_really_full(pretrain, flags, tmp_path):
    disk, expected = tmp_path / "disk", tmp_path / "whole"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        assert pretrain(flags(expected)).status == 0
        size = sum(path.stat().st_size for path in expected.rglob("*") if path.is_file())
        for step in range(1, 32):
            subprocess.run(["mount", "-o", f"remount,size={step * size // 32}", disk], check=True)
            words = flags(disk / f"run-{step}")
            pretrain(words)
            subprocess.run(["mount", "-o", f"remount,size={4 * size}", disk], check=True)
            outcome = pretrain(words)
            assert outcome.status == 0, (step, outcome.output)
            assert_same_run(disk / f"run-{step}", expected)
            subprocess.run(["rm", "-r", disk / f"run-{step}"], check=True)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_killed_with_two_processes(flags, tmp_path):
    """The launcher with all its processes, after so many checkpoints and files of the end."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "src")}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch += [str(REPOSITORY / "training" / "pretrain.py")]

    def run(directory: Path, until: str | None):
        process = subprocess.Popen(
            [*launch, *flags(directory)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        output = ""
        for line in process.stdout:
            output += line
            if until and until in line:
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait(), output

    status, output = run(tmp_path / "whole", None)
    assert status == 0, output
    for number, until in enumerate(["parameters", "step 1/", "step 2/", "step 3/", "step 4/", "step 5/", "step 6/", "exported"]):
        directory = tmp_path / f"killed-{number}"
        status, output = run(directory, until)
        assert status == -signal.SIGKILL, output
        status, output = run(directory, None)
        assert status == 0, output
        assert_same_run(directory, tmp_path / "whole")
