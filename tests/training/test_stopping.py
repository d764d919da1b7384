"""Runs in processes of their own that are asked to stop, or whose launcher dies."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

REPOSITORY = Path(__file__).parents[2]
TRAINING = str(REPOSITORY / "training" / "pretrain.py")
ENVIRONMENT = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
LIMIT = 300  # seconds


@pytest.fixture
def flags(prepared_dir):
    """Settings of a run of a few seconds, for a folder."""

    def make(output_dir):
        values = {
            **{"data_dir": prepared_dir, "databases": "synthetic=1.0", "output_dir": output_dir},
            **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "crop_duration": 2.5},
            **{"pred_hidden_size": 16, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
            **{"min_block_size": 5, "batch_size": 8, "max_steps": 400, "warmup_steps": 2, "save_steps": 400},
            **{"logging_steps": 1, "mixed_precision": "no", "resume_from_checkpoint": "latest"},
        }
        return [word for name, value in values.items() for word in (f"--{name}", str(value))]

    return make


def start(command, output_dir):
    """Start a run and wait until it trains; returns the process."""
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "step 3/" in line:
            return process
    raise AssertionError(f"The run in {output_dir} ended before it trained.")


def children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def wait_until_gone(pid):
    descriptor = os.pidfd_open(pid)
    ready, _, _ = select.select([descriptor], [], [], LIMIT)
    os.close(descriptor)
    assert ready, f"process {pid} goes on"


def only_checkpoint(directory):
    (path,) = directory.glob("checkpoint-*")
    steps = int(path.name.split("-")[1])
    logged = [json.loads(line)["step"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1] == steps  # the step was finished, and none begun
    assert 3 <= steps < 400
    return path


def others_are_stress(first, *others):
    return [first, *(pytest.param(other, marks=pytest.mark.stress) for other in others)]


@pytest.mark.slow
@pytest.mark.parametrize("number", others_are_stress(signal.SIGTERM, signal.SIGUSR1, signal.SIGINT))
def test_a_stopped_run_goes_on_as_if_it_had_not_been(flags, tmp_path, number):
    command = [sys.executable, TRAINING]
    process = start([*command, *flags(tmp_path / "stopped")], tmp_path / "stopped")
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + number, errors
    assert f"Stopped by {number.name} after" in errors
    only_checkpoint(tmp_path / "stopped")
    for name in ("stopped", "whole"):
        subprocess.run([*command, *flags(tmp_path / name)], env=ENVIRONMENT, check=True, capture_output=True, timeout=LIMIT)
    first, second = (load_file(tmp_path / name / "pretraining" / "model.safetensors") for name in ("stopped", "whole"))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.slow
def test_a_run_ends_with_its_launcher(flags, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", TRAINING]
    process = start([*launch, *flags(tmp_path)], tmp_path)
    (worker,) = children(process)
    process.kill()
    wait_until_gone(worker)
    process.wait()
    process.stderr.close()
    only_checkpoint(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", others_are_stress(signal.SIGUSR1, signal.SIGTERM, signal.SIGINT))
def test_all_processes_stop_at_the_same_step(flags, tmp_path, number):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", TRAINING]
    process = start([*launch, *flags(tmp_path)], tmp_path)
    workers = children(process)
    assert len(workers) == 2
    os.kill(workers[1], number)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    assert f"Stopped by {number.name}" in errors
    for worker in workers:
        assert not Path(f"/proc/{worker}").exists()
    checkpoint = only_checkpoint(tmp_path)
    assert len(list(checkpoint.glob("random_states_*"))) == 2
