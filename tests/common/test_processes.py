"""What launchers were asked for, what they started, and whose word OMP_NUM_THREADS is."""

import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import torch
from accelerate import Accelerator
from ecg_jepa.common.hardware import use_all_cores
from ecg_jepa.common.processes import check_num_processes

accelerator = Accelerator(cpu=True)
try:
    check_num_processes(accelerator)
except ValueError as error:
    print("refused:", error)
use_all_cores(accelerator)
print("threads:", torch.get_num_threads(), "processes:", accelerator.num_processes)
"""
LAUNCH = ("-m", "accelerate.commands.launch")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def launch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def run(*launcher: str, **environment: str) -> str:
        clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        command = [sys.executable, *launcher, str(script)]
        result = subprocess.run(command, capture_output=True, text=True, env=clean | environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_threads_without_a_launcher(launch):
    assert f"threads: {CORES} " in launch()
    assert "threads: 3 " in launch(OMP_NUM_THREADS="3")
    assert f"threads: {CORES} " in launch(OMP_NUM_THREADS="many")


def test_threads_of_a_launcher_are_nobodys_word(launch):
    assert f"threads: {CORES} " in launch(*LAUNCH)
    assert "threads: 1 " in launch(*LAUNCH, OMP_NUM_THREADS="1")
    assert "threads: 3 " in launch(*LAUNCH, "--num_cpu_threads_per_process", "3")


def test_two_processes_share_the_cores(launch):
    output = launch(*TORCHRUN, ACCELERATE_USE_CPU="true")
    assert output.count(f"threads: {max(1, CORES // 2)} processes: 2") == 2
    assert "refused" not in output


def test_affinity_counts():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])" + SCRIPT
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert "threads: 1 " in result.stdout


@pytest.mark.parametrize("flags", [("--num_processes", "2"), ("--num_processes=2", "--cpu")])
def test_processes_that_were_not_started_are_missed(launch, flags):
    assert "refused: 2 processes were asked for, but this one is alone, on cpu." in launch(*LAUNCH, *flags)
    assert "refused" not in launch(*LAUNCH, "--num_processes", "1")
