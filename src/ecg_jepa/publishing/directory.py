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
from ..data.corpus import Corpus
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaModel, EcgJepaPreTrainedModel
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
    Write a model with everything that belongs to it; `training_info.json`, which is `info` and the digest of the weights, comes
    last. The template of the card gets `config`, `extractor`, `num_parameters`, `info` and `values`.
    """
    directory = Path(directory)
    model.save_pretrained(directory)
    extractor.save_pretrained(directory)
    values |= {"config": model.config, "extractor": extractor, "num_parameters": model.num_parameters(), "info": info}
    write_model_card(directory / "README.md", template, directory.name, eval_results, **values)
    if info is not None:
        write_json(directory / TRAINING_INFO_FILE, {**info, "weights": weights_digest(directory)})


def export_encoder(
    output_dir: str | Path,
    encoder: EcgJepaModel,
    networks: EcgJepaPreTrainedModel,
    corpus: Corpus,
    settings: dict[str, Any],
    run: dict[str, Any],
    **card: Any,
) -> None:
    """
    Write an encoder to `output_dir`, and all networks of its training to `pretraining/` in it. The extractor holds the statistics
    of the weighted mixture, and a high-pass if all databases had the same; the card lists each database's own.
    `settings` of the run hold its `objective`; `run` are the entries of `training_info.json` that only the run knows, `card` the
    values of `encoder.md.jinja`: `summary`, `exported_weights`, and `metrics` at the end and before the first step (`untrained`).
    """
    mean, std = corpus.mixture_statistics()
    extractor = EcgJepaFeatureExtractor.for_model(encoder.config, mean, std, highpass_cutoff=corpus.highpass_cutoff())
    shares = [
        (database, {"weight": weight, "records": len(records)})
        for database, weight, records in zip(corpus.databases, corpus.weights.tolist(), corpus.records, strict=True)
    ]
    info = {
        "kind": "pretraining",
        "objective": settings["objective"],
        "settings": settings,
        "databases": [{"name": database.name, **share, **database.info.what_models_see()} for database, share in shares],
        "records_seen": settings["max_steps"] * settings["batch_size"] * settings["gradient_accumulation_steps"],
        **run,
    }
    on_card = [
        {**vars(database.info), **share, "mean": means.tolist(), "std": stds.tolist()}
        for (database, share), means, stds in zip(shares, *corpus.lead_statistics, strict=True)
    ]
    card |= {"settings": settings, "databases": on_card, "info_file": TRAINING_INFO_FILE}
    # The encoder comes last: its training_info.json says that the run is finished.
    for folder, network in ((Path(output_dir, "pretraining"), networks), (Path(output_dir), encoder)):
        save_directory(folder, network, extractor, "encoder.md.jinja", info, all_networks=network is networks, **card)


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
