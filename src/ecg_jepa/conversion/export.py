"""A converted checkpoint as a complete directory: normalisation, names of labels, code and card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.builders.ptb_xl import class_names
from ..data.corpus import common_cutoff, mix_statistics
from ..data.databases import builder_class
from ..data.record_statistics import PUBLISHED
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from ..model.signal_processing_ecg_jepa import STANDARD_LEADS
from ..publishing.directory import save_directory
from .weights import Converted, convert_reference_checkpoint, load_reference_checkpoint


def normalization(config: Mapping[str, Any], databases: Mapping[str, float]) -> tuple[list[float], list[float], float | None]:
    """
    Return what the reference normalised with: mean and standard deviation per lead of `config["channels"]` in mV, mixed by the
    weights of the databases, and the cutoff of the high-pass in Hz if all of them had the same.
    """
    unknown = [name for name in databases if name not in PUBLISHED]
    if unknown or not databases:
        trained_on = ", ".join(unknown) or "databases that it does not name"
        hint = f"choose those to normalise with by --normalization, one of {', '.join(PUBLISHED)}"
        raise ValueError(f"The checkpoint was trained on {trained_on}, whose statistics the reference does not state: {hint}.")
    order = [name.lower() for name in STANDARD_LEADS]
    if strange := [name for name in config["channels"] if name.lower() not in order]:
        raise ValueError(f"The reference states no statistics of leads {', '.join(strange)}.")
    leads = [order.index(name.lower()) for name in config["channels"]]
    # The reference normalises CPSC-Extra with the statistics of CPSC.
    chosen = [PUBLISHED["cpsc" if name == "cpsc-extra" else name] for name in databases]
    means, stds = (np.array([getattr(statistics, name) for statistics in chosen])[:, leads] for name in ("mean", "std"))
    weights = np.array(list(databases.values()), dtype=float)
    mean, std = mix_statistics(weights / weights.sum(), means, stds)
    return mean.tolist(), std.tolist(), common_cutoff(builder_class(name).highpass_cutoff for name in databases)


def export_conversion(
    path: str | Path,
    output_dir: str | Path,
    task: str | None = None,
    scp_statements: str | Path | None = None,
    normalize_as: str | None = None,
) -> Converted:
    """
    Convert the checkpoint at `path`, checked against it, and write a directory; nothing if it cannot be converted.

    Args:
        task: of a classifier, one of PTB-XL's; gives its outputs names, sorted, which reference checkpoints do not hold.
        scp_statements: PTB-XL's table of statements, for the names of tasks other than superdiagnostic and ST-MEM.
        normalize_as: name of the database whose statistics to normalise with; default: those that it was pre-trained on, and for
            a classifier PTB-XL (of whose training records the reference measures them anew, where it states rounded ones).
    """
    checkpoint = load_reference_checkpoint(path)
    model = convert_reference_checkpoint(checkpoint)
    config, eval_config = checkpoint["config"], checkpoint.get("eval_config") or {}
    databases: dict[str, float] = {normalize_as: 1.0} if normalize_as else dict(config.get("datasets") or {})
    if isinstance(model, EcgJepaForSequenceClassification):
        databases = {normalize_as or "ptb-xl": 1.0}
        if task is not None:
            names = class_names(task, None if scp_statements is None else pd.read_csv(scp_statements, index_col=0))
            if len(names) != model.num_labels:
                raise ValueError(f"Task {task} has {len(names)} classes, but the classifier has {model.num_labels} outputs.")
            model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
            model.config.problem_type = "single_label_classification" if task == "ST-MEM" else "multi_label_classification"
    elif task is not None:
        raise ValueError(f"--task names the outputs of a classifier, but this is a checkpoint of {type(model).__name__}.")
    mean, std, highpass_cutoff = normalization(config, databases)
    crops = {f"crop_{name}": eval_config[f"crop_{name}"] for name in ("duration", "stride") if f"crop_{name}" in eval_config}
    extractor = EcgJepaFeatureExtractor.for_model(model.config, mean, std, highpass_cutoff=highpass_cutoff, **crops)
    card: dict[str, Any] = {"kind": type(model).__name__, "databases": list(databases), "task": task}
    save_directory(output_dir, model, extractor, "converted.md.jinja", **card)
    return model
