"""Damaged checkpoints, changed settings, and two runs at once: nothing passes in silence."""

import json
import os
import shutil

import numpy as np
import pytest
from attacks import assert_same_run, forked

pytestmark = pytest.mark.stress

# Settings that change what is trained, and others than `flags` has.
CHANGES = {
    **{"learning_rate": 1e-4, "final_learning_rate": 1e-5, "warmup_start_learning_rate": 1e-5, "warmup_steps": 3},
    **{"batch_size": 8, "seed": 1, "max_steps": 8, "weight_decay": 0.1, "final_weight_decay": 0.3, "ema_momentum": 0.9},
    **{"final_ema_momentum": 0.99, "max_grad_norm": 1.0, "min_keep_ratio": 0.3, "max_keep_ratio": 0.5, "min_block_size": 4},
    **{"num_attention_heads": 2, "crop_duration": 5.0, "mixed_precision": "bf16", "gradient_accumulation_steps": 2},
    **{"normalize_targets": True, "masks_per_record": 2, "covariance_weight": 0.1},
}


def test_damaged_checkpoints(pretrain, flags, tmp_path):
    """54 flipped bits and 24 truncations, in all files of a checkpoint: named when asked for, passed over by `latest`."""
    whole = tmp_path / "whole"
    assert pretrain(flags(whole, save_total_limit=5)).status == 0
    newest = whole / "checkpoint-6"
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    for case in range(78):
        rng = np.random.default_rng(case)
        directory = tmp_path / f"damaged-{case}"
        shutil.copytree(whole, directory)
        path = directory / "checkpoint-6" / files[case % len(files)].relative_to(newest)
        content = bytearray(path.read_bytes())
        if case < 54:
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        else:
            content = content[: int(rng.integers(len(content)))]
        path.write_bytes(content)
        outcome = pretrain(flags(directory, resume_from_checkpoint=directory / "checkpoint-6"))
        assert outcome.status == 1, (case, path, outcome.output)
        assert "is no complete checkpoint" in outcome.output, (case, outcome.output)
        assert "Whole ones: " in outcome.output
        assert "checkpoint-4" in outcome.output
        (directory / "model.safetensors").unlink()  # or the run would be finished
        outcome = pretrain(flags(directory))
        assert outcome.status == 0, (case, outcome.output)
        assert "checkpoint-6 is passed over" in outcome.output
        assert_same_run(directory, whole)
        shutil.rmtree(directory)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_is_refused(pretrain, flags, tmp_path, name):
    directory = tmp_path / "run"
    assert pretrain(flags(directory)).status == 0
    config = (directory / "training_config.yaml").read_bytes()
    outcome = pretrain(flags(directory, **{name: CHANGES[name]}))
    assert outcome.status != 0, outcome.output
    assert "UNHANDLED" not in outcome.output
    assert name in outcome.output or "does not fit" in outcome.output, outcome.output
    assert (directory / "training_config.yaml").read_bytes() == config


def test_sixteen_double_starts(pretrain, flags, tmp_path):
    """Two runs in one directory at once: one trains as if it were alone, the other says so and ends."""
    whole = tmp_path / "whole"
    assert pretrain(flags(whole)).status == 0
    for attempt in range(16):
        directory = tmp_path / f"run-{attempt}"
        marks = tmp_path / f"mark-{attempt}"

        def both(directory=directory, marks=marks):
            pid = os.fork()
            outcome = pretrain(flags(directory))
            (marks.with_suffix(f".{bool(pid)}")).write_text(json.dumps([outcome.status, outcome.output]))
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)

        assert forked(both).status == 0
        outcomes = sorted(json.loads(path.read_text()) for path in tmp_path.glob(f"mark-{attempt}.*"))
        assert [status for status, _ in outcomes] == [0, 1], outcomes
        assert "Another" in outcomes[1][1], outcomes[1][1]
        assert_same_run(directory, whole)
