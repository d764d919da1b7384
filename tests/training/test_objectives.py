"""Every objective trains, resumes exactly, exports an encoder that probes, and draws what it learned."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from ecg_jepa import EcgJepaModel
from ecg_jepa.pretraining.objectives import OBJECTIVES

SETTINGS = {
    "jepa": ("--min_block_size", 5),
    "mae": ("--min_block_size", 5),
    "simclr": ("--projection_hidden_size", 32),
    "byol": ("--projection_hidden_size", 32),
    "vicreg": ("--projection_size", 32),
    "data2vec": ("--min_block_size", 5, "--target_layers", 2, "--num_hidden_layers", 2),
    "random": (),
}
PICTURES = {
    **{"jepa": {"masks"}, "data2vec": {"masks"}, "mae": {"reconstruction"}},
    **{"simclr": {"views"}, "byol": {"views"}, "vicreg": {"views"}},
}


@pytest.fixture
def pretrain(run_script, prepared_dir):
    sizes = ("--hidden_size", 32, "--num_hidden_layers", 1, "--num_attention_heads", 4, "--crop_duration", 2.5)
    sizes += ("--pred_hidden_size", 16, "--pred_num_hidden_layers", 1, "--pred_num_attention_heads", 2)
    short = ("--max_steps", 20, "--warmup_steps", 1, "--batch_size", 16, "--learning_rate", 0.003, "--mixed_precision", "no")
    often = ("--save_steps", 10, "--logging_steps", 10, "--eval_steps", 20, "--eval_batches", 2, "--save_total_limit", 5)

    def run(objective, output_dir, *flags):
        data = ("--data_dir", prepared_dir, "--databases", "synthetic=1.0", "--output_dir", output_dir)
        views = ("--view_duration", 1.25) if objective in ("simclr", "byol", "vicreg") else ()
        own = (*SETTINGS[objective], *views, "--ema_momentum", 0.9)
        run_script("pretrain", "--objective", objective, *data, *sizes, *short, *often, *own, *flags)
        return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]

    return run


def test_all_are_tested():
    assert SETTINGS.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name != "mae" else ()) for name in SETTINGS if name != "random"]
)
def test_trains_resumes_exports(pretrain, tmp_path, name):
    lines = pretrain(name, tmp_path / "run")
    held_out = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert held_out[-1] < held_out[0]
    assert all("embedding_std" in line for line in lines if "loss" in line)
    assert next(line["gflop_per_record"] for line in lines if "gflop_per_record" in line) > 0
    assert type(AutoModel.from_pretrained(tmp_path / "run")) is EcgJepaModel
    both = load_file(tmp_path / "run" / "pretraining" / "model.safetensors")
    average = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(tensor, both[f"ecg_jepa.{key}"]) for key, tensor in average.items())
    assert any(not torch.equal(tensor, both[f"context_encoder.{key}"]) for key, tensor in average.items())
    info = json.loads((tmp_path / "run" / "training_info.json").read_text())
    assert info["objective"] == name
    card = (tmp_path / "run" / "README.md").read_text()
    assert re.search(rf"12-lead ECG, pre-trained by [^\n]+, without labels \(objective `{name}`\)", card)
    pictures = {path.stem for path in (tmp_path / "run" / "plots").iterdir()}
    assert pictures == {"pretraining", *PICTURES[name]}

    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-20")
    (tmp_path / "resumed" / "training_info.json").unlink()
    pretrain(name, tmp_path / "resumed", "--resume_from_checkpoint", "latest")
    for key, tensor in load_file(tmp_path / "resumed" / "pretraining" / "model.safetensors").items():
        assert torch.equal(tensor, both[key]), key


@pytest.mark.slow
def test_last_weights_are_exported_if_asked_for(pretrain, tmp_path):
    pretrain("simclr", tmp_path, "--exported_weights", "trained")
    both = load_file(tmp_path / "pretraining" / "model.safetensors")
    exported = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, both[f"context_encoder.{key}"]) for key, tensor in exported.items())
    assert type(AutoModel.from_pretrained(tmp_path)) is EcgJepaModel
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["EcgJepaModel"]
    assert "The weights are those of the last step" in (tmp_path / "README.md").read_text()


def test_random_is_exported_without_training(pretrain, prepared_dir, run_script, tmp_path):
    lines = pretrain("random", tmp_path / "run")
    assert [line["step"] for line in lines] == [0]
    assert "eval_embedding_std" in lines[0]
    info = json.loads((tmp_path / "run" / "training_info.json").read_text())
    assert (info["records_seen"], info["gflop_per_record"]) == (0, 0)
    assert "12-lead ECG, not trained at all: its weights are random (objective" in (tmp_path / "run" / "README.md").read_text()
    torch.manual_seed(0)
    task = ("--config", "linear", "--task", "rhythm", "--data_dir", prepared_dir, "--max_steps", 2, "--eval_steps", 1)
    run_script("finetune", *task, "--model_name_or_path", tmp_path / "run", "--output_dir", tmp_path / "probe", "--batch_size", 8)
    assert json.loads((tmp_path / "probe" / "metrics.json").read_text())["encoder"]["objective"] == "random"
