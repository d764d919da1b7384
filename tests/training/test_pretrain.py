"""The whole script on a tiny model: training, exact resume, export."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from raw_databases import ecg, write_challenge
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForPreTraining

from ecg_jepa import EcgJepaForPreTraining, EcgJepaModel
from ecg_jepa._utils.files import digest_of
from ecg_jepa._utils.model_directory import weights_digest
from ecg_jepa._utils.run_directory import own_directory
from ecg_jepa._utils.settings import read_yaml
from ecg_jepa.cli import run_command
from ecg_jepa.data.builders.challenge_2021 import Georgia
from ecg_jepa.data.corpus import BatchNormalizer, Corpus
from ecg_jepa.data.records import find_database
from ecg_jepa.data.synthetic import Synthetic, generate_database
from ecg_jepa.pretraining.monitoring import Monitor
from ecg_jepa.pretraining.objective import BatchKey
from ecg_jepa.pretraining.objectives.jepa import Jepa, JepaRecipe

REPOSITORY = Path(__file__).parents[2]

SIZES = (
    *("--hidden_size", 32, "--num_hidden_layers", 2, "--num_attention_heads", 4),
    *("--pred_hidden_size", 16, "--pred_num_hidden_layers", 1, "--pred_num_attention_heads", 2),
)
RECIPE = (
    *("--crop_duration", 2.5, "--min_block_size", 5, "--batch_size", 8, "--max_steps", 6, "--warmup_steps", 2),
    *("--save_steps", 2, "--save_total_limit", 10, "--logging_steps", 1, "--learning_rate", 0.01, "--ema_momentum", 0.5),
    *("--mixed_precision", "no"),  # measuring which is faster takes longer than these runs
)


@pytest.fixture
def pretrain(run_script, prepared_dir):
    def run(output_dir, *flags):
        data = ("--data_dir", prepared_dir, "--databases", "synthetic=1.0", "--output_dir", output_dir)
        return run_script("pretrain", *data, *SIZES, *RECIPE, *flags)

    return run


def metrics(directory):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["step"] > 0]  # what came before training is of step 0


def assert_same_tensors(one, other):
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def leave_as_if_killed(whole, directory, steps):
    """Copy a run as it would be, had it been killed with `checkpoint-<steps>` as its last one, a step or two later."""
    shutil.copytree(whole, directory, ignore=shutil.ignore_patterns("*.safetensors", "training_info.json", "README.md", "plots"))
    for path in directory.glob("checkpoint-*"):
        if int(path.name.split("-")[1]) > steps:
            shutil.rmtree(path)
    for path in whole.glob("checkpoint-*/*.safetensors"):
        if (directory / path.parent.name).is_dir():
            shutil.copy(path, directory / path.parent.name)


@pytest.mark.parametrize(
    "flags",
    [(), pytest.param(("--gradient_accumulation_steps", 2, "--mixed_precision", "bf16"), marks=pytest.mark.slow)],
    ids=["fp32", "bf16-accumulated"],
)
def test_resume_is_exact(pretrain, tmp_path, flags):
    pretrain(tmp_path / "whole", *flags)
    leave_as_if_killed(tmp_path / "whole", tmp_path / "resumed", 2)
    (tmp_path / "resumed/unfinished-checkpoint-4").mkdir()
    pretrain(tmp_path / "resumed", *flags, "--resume_from_checkpoint", "latest")
    whole, resumed = metrics(tmp_path / "whole"), metrics(tmp_path / "resumed")
    assert [line["step"] for line in resumed] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "learning_rate", "target_std", "target_effective_rank"):
        assert [line[key] for line in resumed] == [line[key] for line in whole]
    assert_same_tensors(tmp_path / "whole/pretraining/model.safetensors", tmp_path / "resumed/pretraining/model.safetensors")


@pytest.mark.slow
def test_a_run_that_is_gone_on_with_keeps_its_precision(pretrain, tmp_path, monkeypatch):
    faster = iter(("bf16", "no"))
    monkeypatch.setattr("ecg_jepa.cli.pretrain.fastest_precision", lambda device: next(faster))
    pretrain(tmp_path / "whole", "--mixed_precision", "auto")
    assert read_yaml(str(tmp_path / "whole/training_config.yaml"))["mixed_precision"] == "bf16"
    leave_as_if_killed(tmp_path / "whole", tmp_path / "resumed", 2)
    pretrain(tmp_path / "resumed", "--mixed_precision", "auto", "--resume_from_checkpoint", "latest")
    assert metrics(tmp_path / "whole")[-1]["loss"] == metrics(tmp_path / "resumed")[-1]["loss"]
    pretrain(tmp_path / "other", "--mixed_precision", "auto")
    assert read_yaml(str(tmp_path / "other/training_config.yaml"))["mixed_precision"] == "no"


@pytest.mark.slow
def test_log_lines_of_a_resumed_run_average_the_same_steps(pretrain, tmp_path):
    rarely = ("--logging_steps", 5)
    pretrain(tmp_path / "whole", *rarely)
    leave_as_if_killed(tmp_path / "whole", tmp_path / "resumed", 2)
    pretrain(tmp_path / "resumed", *rarely, "--resume_from_checkpoint", "latest")
    whole, resumed = ([(line["step"], line["loss"]) for line in metrics(tmp_path / run)] for run in ("whole", "resumed"))
    assert [step for step, _ in whole] == [2, 4, 5, 6]  # one for each checkpoint, too
    assert resumed == whole


def test_the_loop_is_the_recipe(pretrain, prepared_dir, tmp_path):
    """Two steps of the script against the same steps written out by hand."""
    pretrain(tmp_path, "--max_steps", 2, "--warmup_steps", 1, "--seed", 7)
    recipe = JepaRecipe(
        max_steps=2,
        warmup_steps=1,
        seed=7,
        crop_duration=2.5,
        min_block_size=5,
        batch_size=8,
        learning_rate=0.01,
        ema_momentum=0.5,
    )
    torch.manual_seed(7)
    model = EcgJepaForPreTraining(AutoModelForPreTraining.from_pretrained(tmp_path / "pretraining").config).train()
    draw = Jepa(model.config, recipe).draw
    corpus = Corpus.from_weights(prepared_dir, {"synthetic": 1.0}, batch_size=8, crop_length=1250, seed=7)
    normalize = BatchNormalizer(*corpus.lead_statistics)
    decayed = [m.weight for m in model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv1d)) and m.weight.requires_grad]
    others = [p for p in model.parameters() if p.requires_grad and not any(p is d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": 1.0}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-6)
    for step, (rate, decay) in enumerate(((1e-6, 0.01), (0.01, 0.1))):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.param_groups[0]["weight_decay"] = decay
        output = model(normalize(corpus.batch(step)), **draw(BatchKey(7, step), 8))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        momentum = 0.5 + (0.9995 - 0.5) * (step + 1) / 2
        for target, context in zip(model.ecg_jepa.parameters(), model.context_encoder.parameters(), strict=True):
            target.data.mul_(momentum).add_(context.data, alpha=1 - momentum)
    exported = load_file(tmp_path / "pretraining/model.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(exported[name], tensor, atol=1e-6, rtol=0, msg=name)


def test_export(pretrain, prepared_dir, tmp_path):
    pretrain(tmp_path, "--save_total_limit", 1, "--probe_task", "superdiagnostic", "--probe_seeds", 1)
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".py"}
    assert names == {
        *("config.json", "model.safetensors", "preprocessor_config.json", "README.md", "training_config.yaml"),
        *("training_info.json", "metrics.jsonl", "pretraining", "checkpoint-6", "plots", ".lock"),
    }
    pictures = {path.name: path.read_bytes()[:4] for path in (tmp_path / "plots").iterdir()}
    assert pictures == {"pretraining.png": b"\x89PNG", "masks.png": b"\x89PNG"}
    encoder, networks = AutoModel.from_pretrained(tmp_path), AutoModelForPreTraining.from_pretrained(tmp_path / "pretraining")
    assert type(encoder) is EcgJepaModel
    for ours, theirs in zip(encoder.parameters(), networks.ecg_jepa.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(encoder.parameters(), networks.context_encoder.parameters(), strict=True):
        assert not torch.equal(ours, theirs)  # the target, not the context encoder
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    corpus = Corpus.from_weights(prepared_dir, {"synthetic": 1.0}, batch_size=8, crop_length=1250)
    mean, std = corpus.mixture_statistics()
    assert extractor.mean == mean.tolist()
    assert extractor.std == std.tolist()
    signal = corpus.databases[0].signal(0, 0, 1250) / 1000
    assert encoder(**extractor(signal, sampling_rate=500, return_tensors="pt")).pooler_output.shape == (1, 32)
    card = (tmp_path / "README.md").read_text()
    assert "| synthetic | 1.0 |" in card
    assert "Trained on synthetic records" in card
    assert all(line["target_std"] > 0.1 and line["target_effective_rank"] > 2 for line in metrics(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (("--databases", "georgia=1.0"), SystemExit, "--database georgia"),
        (("--resume_from_checkpoint", "nowhere"), SystemExit, "no complete checkpoint"),
        (("--crop_duration", "2.51"), SystemExit, "no whole number of patches"),
        (("--report_to", "foo"), SystemExit, "foo"),
        (("--learning_rate", "-1"), SystemExit, "2"),
        (("--eval_steps", "2", "--databases", "georgia=1.0"), SystemExit, "--database georgia"),
        (("--max_step", "5"), SystemExit, "2"),
        (("--probe_task", "superdiagnosti"), SystemExit, "2"),
    ],
)
def test_mistakes_are_named(pretrain, tmp_path, flags, error, message):
    with pytest.raises(error, match=message):
        pretrain(tmp_path, *flags)


@pytest.mark.slow
def test_a_used_directory_is_refused(pretrain, tmp_path):
    pretrain(tmp_path / "run", "--max_steps", 2)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match=r"holds a run .* --resume_from_checkpoint latest"):
        pretrain(tmp_path / "run", "--max_steps", 2, "--seed", 1)
    shutil.copytree(tmp_path / "run" / "checkpoint-2", tmp_path / "other" / "checkpoint-2")
    with pytest.raises(SystemExit, match="holds a run"):  # another run's checkpoint does not make it this run's folder
        pretrain(tmp_path / "run", "--max_steps", 2, "--resume_from_checkpoint", tmp_path / "other" / "checkpoint-2")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    pretrain(tmp_path / "run", "--max_steps", 2, "--seed", 1, "--save_steps", 1, "--overwrite_output_dir")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != before
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    assert "overwrite" not in (tmp_path / "run" / "training_config.yaml").read_text()  # not for whoever runs it again


@pytest.mark.slow
def test_what_is_not_a_runs_own_is_left_alone(pretrain, finished_run, tmp_path):
    other = tmp_path / "run" / "pretraining" / "other" / "model.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of somebody else")
    pretrain(tmp_path / "run", "--max_steps", 2)
    assert other.read_bytes() == b"of somebody else"
    # A model without checkpoints is nothing to go on from, and is not replaced by a run from the beginning.
    shutil.copytree(finished_run, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    with pytest.raises(SystemExit, match="no checkpoint to go on from"):
        pretrain(tmp_path / "model", "--seed", 1, "--resume_from_checkpoint", "latest")
    assert (tmp_path / "model" / "training_info.json").is_file()


@pytest.mark.slow
def test_what_a_run_does_not_go_on_from_is_set_aside(pretrain, finished_run, tmp_path):
    leave_as_if_killed(finished_run, tmp_path / "run", 6)
    named = tmp_path / "run" / "checkpoint-2"
    pretrain(tmp_path / "run", "--resume_from_checkpoint", named, "--learning_rate", 0.02, "--allow_changes", "--save_steps", 3)
    names = {path.name for path in (tmp_path / "run").glob("*checkpoint*")}
    assert names == {"checkpoint-2", "checkpoint-3", "checkpoint-6", "abandoned-checkpoint-4", "abandoned-checkpoint-6"}


def test_a_finished_run_on_other_records_is_not_this_one(pretrain, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    info = json.loads((tmp_path / "run" / "training_info.json").read_text())
    info["databases"][0]["digest"] = "f" * 64
    (tmp_path / "run" / "training_info.json").write_text(json.dumps(info))
    pretrain(tmp_path / "run", "--resume_from_checkpoint", "latest")  # exports anew, from the last checkpoint
    assert json.loads((tmp_path / "run" / "training_info.json").read_text())["databases"][0]["digest"] != "f" * 64


@pytest.mark.slow
def test_a_log_that_was_removed_ends_nothing(pretrain, finished_run, tmp_path):
    leave_as_if_killed(finished_run, tmp_path / "run", 6)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    pretrain(tmp_path / "run", "--resume_from_checkpoint", "latest")
    assert (tmp_path / "run" / "training_info.json").is_file()


def test_two_runs_do_not_share_a_directory(pretrain, tmp_path):
    with own_directory(tmp_path, Accelerator(cpu=True)), pytest.raises(SystemExit, match="Another run is writing to"):
        pretrain(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


CHANGES = {
    **{"learning_rate": 0.02, "final_learning_rate": 1e-5, "warmup_steps": 1, "weight_decay": 0.2, "final_weight_decay": 0.3},
    **{"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-07, "max_grad_norm": 2.0, "batch_size": 16, "seed": 1},
    **{"num_attention_heads": 2, "hidden_size": 64, "ema_momentum": 0.6, "final_ema_momentum": 0.9, "min_keep_ratio": 0.2},
    **{"max_steps": 8, "gradient_accumulation_steps": 2, "mixed_precision": "bf16", "min_block_size": 4, "patch_size": 50},
}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, prepared_dir):
    """A run of six steps with checkpoints of each second."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    data = ("--data_dir", prepared_dir, "--databases", "synthetic=1.0", "--output_dir", directory)
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    run_command("pretrain", [str(word) for word in (*data, *SIZES, *RECIPE)], "pretrain")
    return directory


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name not in ("learning_rate", "batch_size", "seed") else ())
        for name in CHANGES
    ],
)
def test_another_training_is_not_gone_on_with(pretrain, finished_run, tmp_path, name):
    leave_as_if_killed(finished_run, tmp_path / "run", 4)
    config = (tmp_path / "run" / "training_config.yaml").read_text()
    with pytest.raises(SystemExit, match=rf"is of another training: recipe\.{name} was .*, is {CHANGES[name]}\. Set"):
        pretrain(tmp_path / "run", f"--{name}", CHANGES[name], "--resume_from_checkpoint", "latest")
    assert (tmp_path / "run" / "training_config.yaml").read_text() == config


@pytest.mark.slow
def test_allowed_changes_are_recorded(pretrain, finished_run, tmp_path):
    leave_as_if_killed(finished_run, tmp_path / "run", 4)
    changed = ("--max_steps", 8, "--learning_rate", 0.02)
    pretrain(tmp_path / "run", *changed, "--resume_from_checkpoint", "latest", "--allow_changes")
    info = json.loads((tmp_path / "run" / "training_info.json").read_text())
    assert info["changes"] == [
        {
            "after_steps": 4,
            "changed": {"recipe.max_steps": {"was": 6, "is": 8}, "recipe.learning_rate": {"was": 0.01, "is": 0.02}},
        }
    ]
    # Killed again, the run remembers them, and is the one with the new settings.
    leave_as_if_killed(tmp_path / "run", tmp_path / "again", 6)
    pretrain(tmp_path / "again", *changed, "--resume_from_checkpoint", "latest")
    assert json.loads((tmp_path / "again" / "training_info.json").read_text())["changes"] == info["changes"]
    assert_same_tensors(tmp_path / "run" / "model.safetensors", tmp_path / "again" / "model.safetensors")


def test_other_records_are_not_gone_on_with(pretrain, finished_run, tmp_path):
    leave_as_if_killed(finished_run, tmp_path / "run", 4)
    info = Synthetic(data_dir=str(generate_database(tmp_path / "raw", 120, seed=4))).prepare(tmp_path / "data")
    with pytest.raises(SystemExit, match=rf"databases\.synthetic\.digest was .*, is {info.content_digest}"):
        pretrain(tmp_path / "run", "--data_dir", tmp_path / "data", "--resume_from_checkpoint", "latest")


@pytest.mark.slow
@pytest.mark.parametrize("kept", [(), ("model.safetensors",), ("model.safetensors", "README.md", "training_info.json")])
def test_a_run_killed_while_it_is_exported_is_finished(pretrain, finished_run, tmp_path, kept):
    leave_as_if_killed(finished_run, tmp_path / "run", 6)
    for name in kept:
        (tmp_path / "run" / name).write_bytes((finished_run / name).read_bytes()[:100])
    if "training_info.json" in kept:  # whole, but of other weights
        shutil.copy(finished_run / "training_info.json", tmp_path / "run")
    pretrain(tmp_path / "run", "--resume_from_checkpoint", "latest")
    assert_same_tensors(finished_run / "model.safetensors", tmp_path / "run" / "model.safetensors")
    assert (tmp_path / "run" / "training_info.json").is_file()
    assert "loss" in (tmp_path / "run" / "README.md").read_text()


def test_a_finished_run_that_is_started_again_says_so(pretrain, finished_run, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"}
    pretrain(tmp_path / "run", "--resume_from_checkpoint", "latest")
    assert "is finished: there is nothing to resume" in capsys.readouterr().err
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.fixture
def poison(monkeypatch):
    """Make the gradients of some forwards, counted from 0, not finite."""

    def plant(forwards, latents=False):
        forward, calls = Jepa.forward, itertools.count()

        def poisoned(self, *args, **drawn):
            output = forward(self, *args, **drawn)
            if not output.loss.is_meta and next(calls) in forwards:  # costs are counted on the meta device
                output.loss = output.loss * float("nan")
                output.latents = output.latents * float("nan") if latents else output.latents
            return output

        monkeypatch.setattr(Jepa, "forward", poisoned)

    return plant


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_skipped_and_told(pretrain, prepared_dir, poison, tmp_path, capsys):
    poison({3})
    pretrain(tmp_path, "--eval_steps", 0)
    lines = metrics(tmp_path)
    skipped = next(line for line in lines if "skipped" in line)
    assert (skipped["step"], skipped["skipped"]) == (4, 1)
    corpus = Corpus.from_weights(prepared_dir, {"synthetic": 1.0}, batch_size=8, crop_length=1250)
    assert skipped["records"] == corpus.record_ids(3)
    assert len(skipped["records"]) == 8
    assert "gradients are not finite, the step is skipped. Its records: synthetic/" in capsys.readouterr().err
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 5, 6]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / "model.safetensors").values())


@pytest.mark.slow
def test_many_steps_that_are_not_finite_end_the_run(pretrain, poison, tmp_path):
    poison(range(3, 100))
    with pytest.raises(SystemExit, match="not finite in 10 steps in a row, to step 13: resume from the last checkpoint"):
        pretrain(tmp_path, "--max_steps", 20, "--save_steps", 3)
    assert not (tmp_path / "model.safetensors").exists()
    weights = load_file(sorted(tmp_path.glob("checkpoint-*"))[-1] / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


@pytest.mark.slow
def test_what_ends_broken_is_not_exported(pretrain, poison, tmp_path):
    poison(range(3, 6), latents=True)
    with pytest.raises(SystemExit, match="not finite in the last 3 steps, nor what the encoder computes: nothing is exported"):
        pretrain(tmp_path, "--save_steps", 1, "--save_total_limit", 2)
    assert not (tmp_path / "model.safetensors").exists()
    # Those of before the first of them are kept, not ones that may be as broken.
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}


@pytest.mark.slow
def test_a_last_step_that_is_skipped_costs_no_run(pretrain, poison, tmp_path):
    poison({5})
    pretrain(tmp_path, "--save_steps", 1)
    assert json.loads((tmp_path / "training_info.json").read_text())["skipped_steps"] == 1


@pytest.mark.slow
def test_skipped_steps_are_counted_over_interruptions(pretrain, poison, tmp_path):
    poison({1, 5})
    pretrain(tmp_path, "--max_steps", 4, "--save_steps", 2)
    (tmp_path / "training_info.json").unlink()
    pretrain(tmp_path, "--max_steps", 8, "--resume_from_checkpoint", "latest", "--allow_changes")
    assert [line["skipped"] for line in metrics(tmp_path) if "skipped" in line] == [1, 2]
    assert json.loads((tmp_path / "training_info.json").read_text())["skipped_steps"] == 2
    assert "2 steps were skipped" in (tmp_path / "README.md").read_text()


@pytest.mark.slow
def test_a_collapse_that_the_last_evaluation_shows_stops_the_run(pretrain, monkeypatch, tmp_path):
    check = Monitor._check_health

    def at_the_end(self, line, prefix=""):
        if prefix and line["step"] == 6:
            self._warn(6, "a sign of collapse.")
        check(self, line, prefix)

    monkeypatch.setattr(Monitor, "_check_health", at_the_end)
    with pytest.raises(SystemExit, match="Stopped after 6 steps of 6, as --stop_on_collapse asks"):
        pretrain(tmp_path, "--stop_on_collapse", "--eval_steps", 6)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--resume_from_checkpoint", "latest"), ("--overwrite_output_dir",)])
@pytest.mark.parametrize("name", ["README.md", "plots/a.png", "metrics.jsonl", "model.safetensors"])
def test_files_that_are_no_runs_are_not_touched(pretrain, tmp_path, flags, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit, match=f"holds files that are no run's .{Path(name).name}"):
        pretrain(tmp_path, *flags)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.slow
def test_only_a_runs_own_files_are_replaced(pretrain, tmp_path):
    pretrain(tmp_path, "--max_steps", 2)
    for name in ("my_ecg_jepa.py", "other.safetensors", "checkpoint-notes.txt", "checkpoint-500/weights.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    pretrain(tmp_path, "--max_steps", 2, "--seed", 1, "--overwrite_output_dir")
    assert (tmp_path / "checkpoint-500" / "weights.bin").read_text() == (tmp_path / "my_ecg_jepa.py").read_text() == "mine"
    assert (tmp_path / "checkpoint-notes.txt").is_file()
    assert (tmp_path / "other.safetensors").is_file()


def test_a_classifiers_folder_is_refused(pretrain, finished_run, tmp_path):
    leave_as_if_killed(finished_run, tmp_path / "run", 4)
    (tmp_path / "run" / "metrics.json").write_text("{}")
    with pytest.raises(SystemExit, match="holds a classifier and its results"):
        pretrain(tmp_path / "run", "--resume_from_checkpoint", "latest")


@pytest.mark.slow
def test_a_run_that_goes_on_elsewhere_takes_its_log_along(pretrain, finished_run, tmp_path):
    named = finished_run / "checkpoint-4"
    pretrain(tmp_path / "run", "--resume_from_checkpoint", named)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [line["step"] for line in metrics(finished_run)]
    assert_same_tensors(finished_run / "model.safetensors", tmp_path / "run" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("sampling_rate", 250), ("highpass_cutoff", 0.5)])
def test_records_that_count_as_others_are_not_gone_on_with(pretrain, prepared_dir, finished_run, tmp_path, name, value):
    """What a database says of all its records goes into the model and its extractor."""
    leave_as_if_killed(finished_run, tmp_path / "run", 4)
    shutil.copytree(prepared_dir / "synthetic", tmp_path / "data" / "synthetic")
    path = tmp_path / "data" / "synthetic" / "database.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, name: value}))
    with pytest.raises(SystemExit, match="holds no prepared database"):  # an edit shows by itself
        pretrain(tmp_path / "run", "--data_dir", tmp_path / "data", "--resume_from_checkpoint", "latest")
    del told["sha256"]
    told[name] = value
    path.write_text(json.dumps({**told, "sha256": digest_of(told)}))
    with pytest.raises(SystemExit, match=f"is of another training: .*{name} was|is inconsistent|no whole number"):
        pretrain(tmp_path / "run", "--data_dir", tmp_path / "data", "--resume_from_checkpoint", "latest")


@pytest.mark.slow
def test_a_collapse_can_stop_the_run(pretrain, monkeypatch, tmp_path):
    signs = {"position_share": "All of it is position."}
    monkeypatch.setattr("ecg_jepa.pretraining.monitoring.signs_of_collapse", lambda untrained, now: signs)
    with pytest.raises(SystemExit, match="Stopped after 1 steps of 6, as --stop_on_collapse asks: a sign of collapse"):
        pretrain(tmp_path, "--stop_on_collapse")


@pytest.mark.slow
def test_divergence_is_warned_of(pretrain, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("ecg_jepa.pretraining.monitoring._DIVERGED", 0.5)
    pretrain(tmp_path)
    assert capsys.readouterr().err.count("at first: lower the learning rate") == 1


def test_fewer_steps_than_the_checkpoint_are_refused(pretrain, finished_run, tmp_path):
    leave_as_if_killed(finished_run, tmp_path / "run", 4)
    with pytest.raises(SystemExit, match="is 4 steps far, more than max_steps=3"):
        pretrain(tmp_path / "run", "--max_steps", 3, "--resume_from_checkpoint", "latest", "--allow_changes")


@pytest.mark.slow
def test_latest_without_a_checkpoint_starts_anew(pretrain, tmp_path, capsys):
    pretrain(tmp_path, "--max_steps", 3, "--resume_from_checkpoint", "latest")
    assert "starting from the beginning" in capsys.readouterr().err
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3]


@pytest.mark.slow
def test_what_was_run_is_recorded(pretrain, prepared_dir, tmp_path):
    pretrain(tmp_path, "--gradient_accumulation_steps", 2)
    info = json.loads((tmp_path / "training_info.json").read_text())
    assert (info["kind"], info["objective"], info["configuration"]) == ("pretraining", "jepa", None)
    assert info["settings"]["min_block_size"] == 5
    corpus = Corpus.from_weights(prepared_dir, {"synthetic": 1.0}, batch_size=8, crop_length=1250)
    database = corpus.databases[0]
    assert info["databases"] == [
        {"name": "synthetic", "weight": 1.0, "records": len(corpus.records[0]), **database.info.what_models_see()}
    ]
    assert info["databases"][0]["digest"] == database.info.content_digest
    assert info["databases"][0]["sampling_rate"] == 500
    assert info["skipped_steps"] == 0
    assert info["records_seen"] == 6 * 8 * 2
    assert info["weights"] == weights_digest(tmp_path)
    assert len(info["versions"]) > 5
    trio = json.loads((tmp_path / "pretraining" / "training_info.json").read_text())
    assert trio.pop("weights") != info.pop("weights")
    assert trio == info


def test_held_out_loss_is_of_the_validation_fold_and_always_of_the_same_records(pretrain, prepared_dir, tmp_path, monkeypatch):
    read = []
    validation_batches = Corpus.validation_batches

    def recorded(self, *arguments):
        batches = validation_batches(self, *arguments)
        read.extend(batches)
        return batches

    monkeypatch.setattr(Corpus, "validation_batches", recorded)
    flags = ("--learning_rate", 0, "--final_learning_rate", 0, "--warmup_start_learning_rate", 0)
    pretrain(tmp_path, *flags, "--eval_steps", 2, "--eval_batches", 3)
    lines = [line for line in metrics(tmp_path) if "eval_loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert len({line["eval_loss"] for line in lines}) == 1  # nothing was learned, so nothing changes
    assert len(read) == 3
    database = find_database(prepared_dir)
    held_out = np.flatnonzero(database.column("fold") == 9)
    crops = {database.signal(i, s, 1250).tobytes() for i in held_out for s in range(5000 - 1250 + 1)}
    assert all(record.tobytes() in crops for batch in read for record in batch.signal.numpy())


@pytest.mark.slow
def test_an_encoder_that_ignores_its_input_is_warned_of(pretrain, tmp_path, monkeypatch, capsys):
    outputs = EcgJepaModel.layer_outputs
    monkeypatch.setattr(EcgJepaModel, "layer_outputs", lambda self, x, *a, **k: outputs(self, torch.zeros_like(x), *a, **k))
    pretrain(tmp_path)
    printed = capsys.readouterr().err
    assert "a sign of collapse. 100.00% of the variance of tokens is their position" in printed
    assert "The run ends with a sign of collapse. 100.00%" in printed


@pytest.mark.slow
def test_a_probe_watches_and_changes_nothing(pretrain, tmp_path, capsys):
    pretrain(tmp_path / "alone")
    pretrain(tmp_path / "watched", "--eval_steps", 3, "--eval_batches", 1, "--probe_task", "superdiagnostic", "--probe_seeds", 1)
    lines = [json.loads(line) for line in (tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["eval_probe_auroc"] for line in lines if "eval_probe_auroc" in line}
    assert sorted(found) == [0, 3, 6]
    printed = capsys.readouterr()
    assert f"trained {found[6]:.3f}" in printed.out
    assert f"probe AUROC {found[0]:.3f}" in printed.err
    assert_same_tensors(tmp_path / "alone" / "model.safetensors", tmp_path / "watched" / "model.safetensors")


@pytest.mark.slow
def test_the_switches_of_the_recipe_train_resume_and_export(pretrain, tmp_path):
    switches = ("--position_encoding", "rotary", "--normalize_targets", "--center_targets", "--target_layers", 2)
    switches += ("--masks_per_record", 2, "--context_loss_weight", 0.5, "--variance_weight", 1, "--covariance_weight", 0.1)
    switches += ("--invariance_weight", 2)
    pretrain(tmp_path / "whole", *switches)
    leave_as_if_killed(tmp_path / "whole", tmp_path / "resumed", 4)
    pretrain(tmp_path / "resumed", *switches, "--resume_from_checkpoint", "latest")
    assert_same_tensors(tmp_path / "whole" / "model.safetensors", tmp_path / "resumed" / "model.safetensors")
    assert {"context_loss", "variance_loss", "covariance_loss", "invariance_loss"} <= metrics(tmp_path / "whole")[-1].keys()
    assert AutoModel.from_pretrained(tmp_path / "whole").config.position_encoding == "rotary"


JEPA_SWITCHES = (
    *("--position_encoding", "rotary", "--center_targets", "--normalize_targets", "--masks_per_record", 2),
    *("--variance_weight", 1, "--covariance_weight", 1, "--spread_of", "records"),
)
# At a rate at which rounding does not grow from step to step.
SIMCLR_SWITCHES = (
    *("--objective", "simclr", "--view_duration", 1.25),
    *("--projection_hidden_size", 32, "--learning_rate", 1e-3),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "switches"),
    [(2, JEPA_SWITCHES), (4, JEPA_SWITCHES), (2, SIMCLR_SWITCHES)],
    ids=["jepa-2", "jepa-4", "simclr-2"],
)
def test_several_processes_train_as_one(run_script, prepared_dir, tmp_path, processes, switches):
    """Records, masks, views and what is drawn for them are functions of seed, batch and record."""
    recipe = RECIPE if switches is JEPA_SWITCHES else [word for word in RECIPE if word not in ("--min_block_size", 5)]
    flags = ("--data_dir", prepared_dir, "--databases", "synthetic=1.0", *SIZES, *recipe, *switches)
    run_script("pretrain", *flags, "--output_dir", tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", processes, REPOSITORY / "training/pretrain.py"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    words = [*map(str, (*command, *flags, "--output_dir", tmp_path / "several"))]
    result = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "several" / "training_info.json").read_text())["num_processes"] == processes
    for one, several in zip(metrics(tmp_path / "one"), metrics(tmp_path / "several"), strict=True):
        for name in {"loss", "covariance_loss"} & one.keys():
            assert one[name] == pytest.approx(several[name], abs=1e-5), name
    first, second = (load_file(tmp_path / name / "pretraining" / "model.safetensors") for name in ("one", "several"))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-4, rtol=0, msg=name)


@pytest.mark.slow
def test_databases_without_folds_have_nothing_to_hold_out(pretrain, tmp_path):
    for number in range(12):
        write_challenge(tmp_path, "georgia", f"E{number:05d}", ecg(5000, number))
    Georgia(data_dir=str(tmp_path)).prepare(tmp_path / "prepared")
    flags = ("--data_dir", tmp_path / "prepared", "--databases", "georgia=1.0")
    with pytest.raises(SystemExit, match=r"none of the databases has \(georgia\): set it to 0"):
        pretrain(tmp_path / "out", *flags, "--eval_steps", 2)
    pretrain(tmp_path / "out", *flags, "--max_steps", 1)
