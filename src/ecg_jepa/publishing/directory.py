"""
Complete directories: weights, the code that loads them, pre-processing, card and provenance.

`AutoModel.from_pretrained(directory, trust_remote_code=True)`, the feature extractor and the pipeline then need transformers,
torch, numpy and scipy only. With `import ecg_jepa`, the installed classes are used and nothing is to be trusted.

`training_info.json` says where the weights come from. Every run writes `kind`, `configuration` (the shipped one with the same
settings, or null), `settings`, `databases` (name, digest of the prepared records, number of training records), `records_seen`,
`versions`, `commit`, `hardware`, `seconds`, `finished` (UTC) and `weights` (a digest). Pre-training adds `objective`,
`num_processes`, `changes` (of settings and records, with the step), `gflop_per_record` and `skipped_steps` (whose gradients were
not finite). Fine-tuning adds `protocol`, `task`, `start` (name, relative directory and digest of the initial weights), `encoder`
(as in `metrics.json`) and `labels` (a digest).
"""

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from .._utils.files import TRAINING_INFO_FILE, write_json
from .._utils.model_directory import weights_digest
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaPreTrainedModel
from .card import write_model_card

_PACKAGES = ("ecg_jepa", "torch", "transformers", "accelerate", "datasets", "safetensors", "numpy", "scipy", "wfdb")


def save_directory(
    directory: str | Path,
    model: EcgJepaPreTrainedModel,
    extractor: EcgJepaFeatureExtractor,
    template: str,
    info: dict[str, Any] | None = None,
    eval_results: Sequence[EvalResult] = (),
    **values: Any,
) -> None:
    """
    Write a model with everything that belongs to it; `training_info.json` comes last.

    Args:
        template: of the card, a file of `model_cards/`; it gets `config`, `extractor`, `num_parameters`, `info` and `values`.
        info: content of `training_info.json`, to which the digest of the weights is added.
        eval_results: metrics for the Hub's model index.
    """
    directory = Path(directory)
    model.save_pretrained(directory)
    extractor.save_pretrained(directory)
    values |= {"config": model.config, "extractor": extractor, "num_parameters": model.num_parameters(), "info": info}
    write_model_card(directory / "README.md", template, directory.name, eval_results, **values)
    if info is not None:
        write_json(directory / TRAINING_INFO_FILE, {**info, "weights": weights_digest(directory)})


def circumstances(hardware: str, seconds: float) -> dict[str, Any]:
    """Return the entries of `training_info.json` about software, machine and time."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "commit": _commit(),
        "hardware": hardware,
        "seconds": seconds,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Return the commit of the checkout, with `+changes` if it has any; `None` for an installed package or without git."""

    def git(*words: str) -> str:
        options: dict[str, Any] = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "timeout": 10}
        return subprocess.run(["git", *words], check=True, **options).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
