import json
import logging
import shutil

import pytest
import torch
from accelerate import Accelerator
from torch.distributed.checkpoint import CheckpointException

from ecg_jepa.pretraining.checkpointing import Checkpoints, differences, fault_of

TRAINING = {"recipe": {"learning_rate": 0.1}, "num_processes": 1}


def open_checkpoints(directory, keep=5, training=TRAINING, **options):
    """Checkpoints of a small network after one step, and the network."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    network = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network, optimizer = accelerator.prepare(network, optimizer)
    network(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return Checkpoints(accelerator, directory, keep, training, **options), network


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints after 2, 4 and 6 steps, the weights all equal to these numbers."""
    checkpoints, network = open_checkpoints(tmp_path)
    for steps in (2, 4, 6):
        torch.nn.init.constant_(network.weight, steps)
        assert checkpoints.save(steps)
    return tmp_path


def files_of(checkpoint):
    return sorted(path for path in checkpoint.iterdir() if path.is_file())


def test_latest_is_the_one_with_most_steps(saved):
    checkpoints, network = open_checkpoints(saved)
    assert checkpoints.restore("latest", 10) == 6
    assert network.weight.unique().tolist() == [6]
    assert checkpoints.restore(None, 10) == 0


def test_only_the_newest_are_kept(tmp_path):
    checkpoints, _ = open_checkpoints(tmp_path, keep=2)
    for steps in (8, 9, 10):
        checkpoints.save(steps)
    assert [path.name for path in checkpoints.existing()] == ["checkpoint-9", "checkpoint-10"]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-9", "checkpoint-10"}


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("number", range(4))
def test_latest_passes_over_what_is_damaged(saved, damage, number, caplog):
    files = files_of(saved / "checkpoint-6")
    assert len(files) == 4  # weights, optimiser, random states, progress
    content = bytearray(files[number].read_bytes())
    if damage == "missing":
        files[number].unlink()
    elif damage == "truncated":
        files[number].write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 3] ^= 1
        files[number].write_bytes(content)
    checkpoints, network = open_checkpoints(saved)
    with caplog.at_level(logging.WARNING):
        steps = checkpoints.restore("latest", 10)
    assert steps == 4
    assert network.weight.unique().tolist() == [4]
    assert "checkpoint-6 is passed over" in caplog.text
    with pytest.raises((ValueError, FileNotFoundError), match=r"checkpoint-6 is no complete checkpoint: .*checkpoint-4"):
        checkpoints.restore(str(saved / "checkpoint-6"), 10)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"steps_done": 5}, "SHA-256"),
        ({"files": {}}, "SHA-256"),
        ({"training": None}, "SHA-256"),
        ({"steps_done": 7, "sha256": None}, "SHA-256"),
    ],
)
def test_what_a_checkpoint_says_of_itself_is_checked(saved, changes, fault):
    path = saved / "checkpoint-6" / "progress.json"
    progress = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(progress))
    assert fault in fault_of(saved / "checkpoint-6")
    assert open_checkpoints(saved)[0].restore("latest", 10) == 4


def test_what_only_looks_like_a_checkpoint_is_in_nobodys_way(tmp_path):
    (tmp_path / "checkpoint-2").write_text("no folder")
    checkpoints, _ = open_checkpoints(tmp_path, keep=1)
    assert checkpoints.save(3)
    assert checkpoints.save(4)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-4"}
    (tmp_path / "checkpoint-500").mkdir()  # of another program
    checkpoints.clear(0, remove=True)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-500"}


def test_nothing_whole_is_an_error(saved):
    for path in saved.iterdir():
        (path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="None of the checkpoints"):
        open_checkpoints(saved)[0].restore("latest", 10)


def test_another_training_is_refused_and_can_be_allowed(saved):
    other = {"recipe": {"learning_rate": 0.2}, "num_processes": 1}
    with pytest.raises(ValueError, match=r"recipe\.learning_rate was 0\.1, is 0\.2"):
        open_checkpoints(saved, training=other)[0].restore("latest", 10)
    allowed, _ = open_checkpoints(saved, training=other, allow_changes=True)
    assert allowed.restore("latest", 10) == 6
    assert allowed.changes == [{"after_steps": 6, "changed": {"recipe.learning_rate": {"was": 0.1, "is": 0.2}}}]


def test_more_steps_than_the_run_has_are_refused(saved):
    with pytest.raises(ValueError, match="6 steps far, more than max_steps=5"):
        open_checkpoints(saved)[0].restore("latest", 5)


@pytest.mark.parametrize("at", ["save_state", "manifest"])
@pytest.mark.parametrize(
    # What torch raises for files that several processes write together is no Exception.
    "full",
    [OSError(28, "No space left on device"), CheckpointException("write", {})],
    ids=["os", "torch"],
)
def test_a_full_disk_costs_the_checkpoint_alone(saved, at, full, monkeypatch, caplog):
    checkpoints, network = open_checkpoints(saved)

    def fail(*_args, **_options):
        raise full

    with monkeypatch.context() as broken:
        target = (checkpoints.accelerator, "save_state") if at == "save_state" else (Checkpoints, "_finish")
        broken.setattr(*target, fail)
        assert not checkpoints.save(8)
    assert "checkpoint-8 could not be written, training goes on without it" in caplog.text
    assert [path.name for path in checkpoints.existing()] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert not list(saved.glob("unfinished*"))
    assert checkpoints.save(8)  # there is room again
    torch.nn.init.constant_(network.weight, 0)
    assert checkpoints.restore("latest", 10) == 8


def test_broken_weights_are_not_saved(saved):
    checkpoints, network = open_checkpoints(saved)
    network.weight.data[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"weights are not finite \(weight .* before: checkpoint-2, checkpoint-4"):
        checkpoints.save(8)
    assert not (saved / "checkpoint-8").exists()


def test_a_checkpoint_elsewhere_can_be_named(saved, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "mine"
    shutil.copytree(saved / "checkpoint-4", elsewhere)
    assert open_checkpoints(saved)[0].restore(str(elsewhere), 10) == 4


def test_differences():
    old = {"a": 1, "b": {"c": 2, "d": 3}, "gone": 0}
    new = {"a": 1, "b": {"c": 5, "d": 3, "e": 4}, "come": 1}
    assert differences(old, new) == {"b.c": (2, 5), "b.e": (None, 4), "gone": (0, None), "come": (None, 1)}
    assert differences(old, old) == {}
