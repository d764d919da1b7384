"""Runs of pre-training in forked processes, which can be killed or refused the disk at any file operation."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks import Outcome, forked, is_change

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def flags(prepared_dir: Path) -> Callable[..., list[str]]:
    """Settings of a run of six steps and three checkpoints, with changes."""

    def make(output_dir: Path, **changes: Any) -> list[str]:
        values = {
            **{"data_dir": prepared_dir, "databases": "synthetic=1.0", "output_dir": output_dir},
            **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "crop_duration": 2.5},
            **{"pred_hidden_size": 16, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
            **{"min_block_size": 5, "batch_size": 4, "max_steps": 6, "warmup_steps": 2, "save_steps": 2},
            **{"logging_steps": 1, "mixed_precision": "no", "resume_from_checkpoint": "latest"},
        }
        return [word for name, value in (values | changes).items() for word in (f"--{name}", str(value))]

    return make


@pytest.fixture(scope="session")
def pretrain() -> Callable[..., Outcome]:
    """Pre-train in a forked process; `hook(number)` is called before its file operations in the output directory."""
    path = REPOSITORY / "training" / "pretrain.py"
    spec = importlib.util.spec_from_file_location("training_pretrain", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(words: list[str], hook: Callable[[int], None] | None = None) -> Outcome:
        directory = words[words.index("--output_dir") + 1]
        count = 0

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if is_change(event, arguments, directory):
                count += 1
                hook(count)

        def action() -> None:
            torch.set_num_threads(1)
            sys.argv = [str(path), *words]
            if hook is not None:
                sys.addaudithook(audit)
            module.main()

        return forked(action)

    return run
