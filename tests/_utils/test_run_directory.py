import os
import signal
import subprocess
import sys

import pytest
from accelerate import Accelerator

from ecg_jepa._utils.run_directory import clear, left_in, own_directory

HOLD = """
import sys, time
from accelerate import Accelerator
from ecg_jepa._utils.run_directory import own_directory
with own_directory(sys.argv[1], Accelerator(cpu=True)):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def alone():
    return Accelerator(cpu=True)


def test_one_run_at_a_time(alone, tmp_path):
    run = tmp_path / "a" / "run"
    with own_directory(run, alone), pytest.raises(BlockingIOError, match="Another run"), own_directory(run, alone):
        pass
    with own_directory(run, alone):  # let go of
        pass


@pytest.mark.slow
def test_a_dead_run_does_not_hold_its_directory(alone, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(BlockingIOError), own_directory(tmp_path, alone):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with own_directory(tmp_path, alone):
        pass


def test_only_what_fits_is_removed(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "a").touch()
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "notes.txt").touch()
    patterns = ("checkpoint-*", "*.safetensors", "nothing")
    assert [path.name for path in left_in(tmp_path, patterns)] == ["checkpoint-1", "model.safetensors"]
    clear(tmp_path, patterns)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_process_alone_may_wait_for_the_lock(alone, tmp_path):
    with own_directory(tmp_path, alone), pytest.raises(BlockingIOError), own_directory(tmp_path, timeout=0.1):
        pass
    with own_directory(tmp_path):
        pass
