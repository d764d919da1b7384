"""What launchers are told, as the processes that they start find it out, and how many threads and processes follow from it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ecg_jepa.common import hardware
from ecg_jepa.common.hardware import set_threads
from ecg_jepa.common.launcher import TRACES, Launcher, _as_launcher, find_launcher

CORES = len(os.sched_getaffinity(0))
ON_CPU = SimpleNamespace(device=torch.device("cpu"))

# Says how many threads it has, and which launcher started it for how many processes.
PROBE = """
import logging
from types import SimpleNamespace
import torch
from ecg_jepa.common.hardware import set_threads
from ecg_jepa.common.launcher import find_launcher
logging.basicConfig()
set_threads(SimpleNamespace(device=torch.device("cpu")))
launcher = find_launcher()
found = launcher and (launcher.name, launcher.processes, launcher.command)
print(f"{torch.get_num_threads()} threads, {found}\\n", end="", flush=True)  # at once, or lines of two processes mix
"""
STARTS = """
from ecg_jepa.common.processes import start_accelerator
try:
    print(f"world {start_accelerator().num_processes}\\n", end="", flush=True)
except ValueError as error:
    print(f"refused: {error}\\n", end="", flush=True)
"""
ACCELERATE = ("-m", "accelerate.commands.launch")
TORCHRUN = ("-m", "torch.distributed.run")


@pytest.fixture
def launched(tmp_path):
    """What a script prints that is started by words of Python, without any settings of launchers but those given."""

    def run(script, *words, **environment):
        path = tmp_path / "script.py"
        path.write_text(script)
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "ACCELERATE_", *TRACES))}
        command = [sys.executable, *(str(path if word == "SCRIPT" else word) for word in words)]
        # A home of its own: somebody may have run `accelerate config` here.
        variables = ours | environment | {"HF_HOME": str(tmp_path)}
        result = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr

    return run


@pytest.mark.parametrize(("value", "threads"), [(None, 3), ("2", 2), ("2,1", 2), ("16", 16)])
def test_without_a_launcher_omp_num_threads_is_the_users_word(monkeypatch, caplog, value, threads):
    for name in (*TRACES, "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda process: {0, 5, 6})
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    set_threads(ON_CPU)
    assert torch.get_num_threads() == threads
    assert ("asks for 16 threads, more than the 3 cores" in caplog.text) == (threads > 3)


@pytest.mark.parametrize("value", ["", "0", "-1", "many", "1.5"])
def test_what_is_no_number_of_threads_is_refused(monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(ValueError, match=rf"OMP_NUM_THREADS='{value}' is no number of threads: unset it"):
        set_threads(ON_CPU)


def test_other_devices_keep_their_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    set_threads(SimpleNamespace(device=torch.device("cuda")))
    assert torch.get_num_threads() == 1


def test_a_launcher_that_was_told_nothing_leaves_the_cores_of_the_affinity(launched):
    said, _ = launched(PROBE, *ACCELERATE, "SCRIPT")
    assert said.startswith(f"{CORES} threads, ('accelerate launch', 1, ")
    one = f"import os, sys; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); os.execv(sys.executable, sys.argv[1:])"
    said, _ = launched(PROBE, "-c", one, sys.executable, *ACCELERATE, "--cpu", "SCRIPT")
    assert said.startswith("1 threads")


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ((*ACCELERATE, "SCRIPT"), {"OMP_NUM_THREADS": "5"}),
        ((*ACCELERATE, "--num-cpu-threads-per-process=5", "SCRIPT"), {}),
        # Said by a shell between the launcher and the script.
        ((*ACCELERATE, "--no_python", "sh", "-c", 'OMP_NUM_THREADS=5 "$0" "$1"; true', sys.executable, "SCRIPT"), {}),
    ],
    ids=["environment", "flag", "between"],
)
def test_what_accelerate_was_told_is_kept(launched, words, environment):
    said, log = launched(PROBE, *words, **environment)
    assert said.startswith("5 threads")
    assert ("OMP_NUM_THREADS asks for 5 threads" in log) == (CORES < 5)


def test_processes_of_torchrun_share_the_cores_unless_told_otherwise(launched):
    said, _ = launched(PROBE, *TORCHRUN, "--nproc_per_node", "2", "SCRIPT")
    assert said.count(f"{max(1, CORES // 2)} threads, ('torchrun', 2, ") == 2
    said, log = launched(PROBE, *TORCHRUN, "--nproc_per_node", "2", "SCRIPT", OMP_NUM_THREADS=str(CORES))
    assert said.count(f"{CORES} threads") == 2
    assert f"asks for {CORES} threads in each of 2 processes, more than the {CORES} cores" in log


@pytest.mark.skipif(torch.accelerator.is_available(), reason="how it is on CPUs alone")
@pytest.mark.parametrize("flags", [(), ("--cpu",), ("--cpu", "--num_machines", "1")], ids=["plain", "cpu", "one-machine"])
def test_one_process_in_place_of_two_is_refused(launched, flags):
    said, _ = launched(STARTS, *ACCELERATE, *flags, "--num_processes", "2", "SCRIPT")
    assert "refused: accelerate launch was to start 2 processes, but this one trains alone" in said
    assert "ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 " in said


@pytest.mark.skipif(torch.accelerator.is_available(), reason="how it is on CPUs alone")
def test_a_configuration_of_accelerate_counts_as_well(launched, tmp_path):
    (tmp_path / "two.yaml").write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 2\n")
    said, _ = launched(STARTS, *ACCELERATE, "--config_file", tmp_path / "two.yaml", "SCRIPT")
    assert "was to start 2 processes" in said


@pytest.mark.skipif(torch.accelerator.is_available(), reason="how it is on CPUs alone")
@pytest.mark.parametrize(
    "words",
    [(*TORCHRUN, "--nproc_per_node", "2"), (*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")],
    ids=["torchrun", "multi_gpu"],
)
def test_processes_on_cpus_find_each_other(launched, words):
    said, _ = launched(STARTS, *words, "SCRIPT")
    assert said.count("world 2") == 2


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("python /bin/accelerate launch --cpu a.py", "accelerate launch"),
        ("python -X dev -u -m accelerate.commands.launch --cpu a.py", "accelerate launch"),
        ("python /bin/accelerate-launch --cpu a.py", "accelerate launch"),
        ("python -I /bin/torchrun --cpu a.py", "torchrun"),
        ("python -m torch.distributed.run --cpu a.py", "torchrun"),
        ("python /bin/accelerate config", None),
        ("python train.py accelerate launch", None),
        ("python -m pytest torchrun", None),
        ("bash", None),
        ("python", None),
        ("", None),
    ],
)
def test_launchers_are_known_by_their_command_line(line, name):
    assert _as_launcher(line.split()) == (None if name is None else (name, ["--cpu", "a.py"]))


def test_words_that_are_not_understood_say_nothing():
    launcher = Launcher("accelerate launch", ("--from-the-future", "2"), {}, {"OMP_NUM_THREADS": "1"})
    assert launcher.arguments is None
    assert (launcher.processes, launcher.command) == (1, "training/pretrain.py")
    assert launcher.chose_threads("1")


def test_nobody_launched_the_tests(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert find_launcher() is None
