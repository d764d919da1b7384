"""Pre-training with weights shared out among two processes (FSDP2) is that of one process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from ecg_jepa.model import modeling_ecg_jepa as modeling

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "training" / "accelerate" / "fsdp2.yaml"

FLAGS = (
    *("--databases", "synthetic=1.0", "--hidden_size", 32, "--num_hidden_layers", 2, "--num_attention_heads", 4),
    *("--pred_hidden_size", 16, "--pred_num_hidden_layers", 1, "--pred_num_attention_heads", 2, "--crop_duration", 2.5),
    *("--batch_size", 8, "--max_steps", 4, "--warmup_steps", 2, "--save_steps", 2),
    *("--save_total_limit", 10, "--logging_steps", 1, "--learning_rate", 0.05, "--ema_momentum", 0.5, "--eval_steps", 2),
    *("--probe_task", "superdiagnostic"),
)


def launch(data_dir, output_dir, *flags):
    """Two processes, as the package's configuration of FSDP2 has them."""
    words = [*FLAGS, "--data_dir", data_dir, "--output_dir", output_dir, *flags]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIG, "--num_processes", 2]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "src")}
    command = [*launcher, "--main_process_port", 0, REPOSITORY / "tests" / "sharded_on_cpus.py", "pretrain", *words]
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def figures(directory, *names):
    """Of training steps and evaluations, as they were logged."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in names if name in line]


def assert_same_weights(one, other, atol):
    for name in ("model.safetensors", "pretraining/model.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        for key, tensor in first.items():
            torch.testing.assert_close(tensor, second[key], atol=atol, rtol=0, msg=key)


# Latents are of an encoder that the forward leaves unasked, gradients are clipped and gathered over batches.
JEPA = (
    *("--min_block_size", 5, "--exported_weights", "trained", "--gradient_checkpointing", True),
    *("--max_grad_norm", 0.5, "--gradient_accumulation_steps", 2),
)
MAE = ("--objective", "mae", "--min_block_size", 5)
# At a rate at which rounding does not grow from step to step.
VIEWS = ("--view_duration", 1.25, "--projection_hidden_size", 32, "--learning_rate", 1e-3)
SIMCLR = ("--objective", "simclr", *VIEWS)
BYOL = ("--objective", "byol", *VIEWS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(JEPA, id="jepa"),
        *(pytest.param(flags, id=flags[1], marks=pytest.mark.stress) for flags in (MAE, SIMCLR, BYOL)),
    ],
)
def test_sharded_processes_train_like_one(run_script, prepared_dir, tmp_path, flags):
    flags = (*flags, "--mixed_precision", "no")
    run_script("pretrain", *FLAGS, "--data_dir", prepared_dir, "--output_dir", tmp_path / "one", *flags)
    launch(prepared_dir, tmp_path / "two", *flags)
    assert {path.name for path in (tmp_path / "two" / "checkpoint-2" / "pytorch_model_fsdp_0").iterdir()} == {
        *(".metadata", "__0_0.distcp", "__1_0.distcp"),  # each has written its part
    }
    for names in (("loss", "eval_loss"), ("eval_probe_auroc",)):
        one, two = (figures(tmp_path / run, *names) for run in ("one", "two"))
        assert len(one) >= 3
        assert two == pytest.approx(one, abs=1e-5, rel=0)
    one, two = (figures(tmp_path / run, "grad_norm") for run in ("one", "two"))
    assert len(one) >= 3
    assert two == pytest.approx(one, rel=1e-5)  # some are 40
    assert_same_weights(tmp_path / "one", tmp_path / "two", 1e-5)

    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "two", resumed, ignore=shutil.ignore_patterns("*-4", "*.safetensors", "training_info.json"))
    words = (*flags, "--resume_from_checkpoint", "latest")
    with pytest.raises(SystemExit, match="holds weights in parts of each process, but this run holds them whole"):
        run_script("pretrain", *FLAGS, "--data_dir", prepared_dir, "--output_dir", resumed, *words, "--allow_changes")
    launch(prepared_dir, resumed, *words)
    assert_same_weights(tmp_path / "two", resumed, 0)


def test_layers_of_the_configuration_are_there():
    config = load_config_from_file(str(CONFIG)).fsdp_config
    assert hasattr(modeling, config["fsdp_transformer_layer_cls_to_wrap"])
