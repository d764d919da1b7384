"""Finished runs -> one table: a row per encoder, database, protocol, task and share of the labels, over seeds."""

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .._utils.files import RANDOM_PREFIX, TRAINING_INFO_FILE, read_json
from .._utils.model_directory import weights_digest
from .bootstrap import paired_test
from .published import published_result
from .results import METRICS_FILE, PREDICTIONS_FILE, read_metrics

# Columns in which the runs of one row agree; they differ in their seed only.
_GROUP = ["model", "encoder", "database", "database_digest", "task", "protocol", "label_fraction", "labels_per_class", "settings"]

# Means over classes beside the AUROC.
_METRICS = (
    *("average_precision", "f1", "accuracy", "sensitivity", "specificity", "ppv", "npv"),
    *(f"{name}_at_{target}" for target in ("0.90", "0.95") for name in ("sensitivity", "specificity", "ppv")),
    *("brier", "expected_calibration_error"),
)


def find_runs(directories: Sequence[str | Path]) -> list[Path]:
    """Return the folders of finished runs in `directories` and below. Raises `FileNotFoundError` if there is none."""
    if absent := [str(directory) for directory in directories if not Path(directory).is_dir()]:
        raise FileNotFoundError(f"There is no folder {', '.join(absent)}.")
    found = sorted({path.parent for directory in directories for path in Path(directory).rglob(METRICS_FILE)})
    if not found:
        names = ", ".join(map(str, directories))
        raise FileNotFoundError(f"No finished run ({METRICS_FILE}) in {names}: run ecg-jepa finetune or ecg-jepa sweep.")
    return found


def gather(runs: Sequence[Path]) -> pd.DataFrame:
    """
    Return one row per group of runs that differ in their seed only.

    Columns: the group (`model` names the encoder as no other of the table, `encoder` is the digest of its weights, `settings` are
    those in which runs of the protocol differ); `path` of the encoder; `runs`; `auroc` and `auroc_std`, mean and standard
    deviation over seeds (NaN for one run); `low` and `high`, means of the bootstrap bounds; `average_precision`, `f1`, `accuracy`
    (ST-MEM); at thresholds chosen on validation `sensitivity`, `specificity`, `ppv`, `npv`, the first three also at fixed
    sensitivities (`ppv_at_0.90`); `brier`, `expected_calibration_error`; `classes_left_out`; `published`, `published_std` and the
    `difference` of ours to it.

    Raises:
        ValueError: if two runs of a group have the same seed.
    """
    table = _read(runs, [*_GROUP, "seed"], "are the same but for their folder, and would count twice")
    groups = table.groupby(_GROUP, dropna=False, sort=False)
    means = groups[["auroc", "low", "high", *_METRICS]].mean()
    means.insert(0, "runs", groups.size())
    means.insert(2, "auroc_std", groups["auroc"].std())
    result = means.join(groups[["path", "classes_left_out", "published", "published_std"]].first()).reset_index()
    result["difference"] = result["auroc"] - result["published"]
    return result


def find_outdated(runs: Sequence[Path]) -> list[str]:
    """Return a sentence for each run that started from weights that are no longer there."""
    digests: dict[str, str] = {}
    sentences = []
    for run in runs:
        path = run / TRAINING_INFO_FILE
        start = read_json(path)["start"] if path.is_file() else {"directory": None}
        if start["directory"] is None:
            continue
        source = os.path.normpath(run.resolve() / start["directory"])
        if not Path(source).is_dir():
            continue
        if source not in digests:
            digests[source] = weights_digest(source)
        if digests[source] != start["digest"]:
            sentences.append(f"{run} is older than {source}: it started from other weights than those that are there now.")
    return sentences


def compare(first: Sequence[Path], second: Sequence[Path]) -> pd.DataFrame:
    """
    Return paired bootstrap tests between runs that agree in all but the encoder, each of `first` with the one of `second`.

    Columns: what the two agree in; `first` and `second`, their macro AUROC; `difference` (first minus second), with `low` and
    `high` of its 95% interval; `p_value`.

    Raises:
        ValueError: if runs of one side are the same but for their folder or encoder, no two runs agree, or a pair was scored on
            other records or classes.
    """
    keys = [name for name in _GROUP if name not in ("model", "encoder")] + ["seed"]
    complaint = "are of the same kind, so that it is open which to compare"
    left, right = (_read(runs, keys, complaint, [*first, *second]) for runs in (first, second))
    pairs = left.merge(right, on=keys, suffixes=("_first", "_second"))  # missing values match each other
    if pairs.empty:
        raise ValueError("No two runs agree in database, task, protocol, settings, labels and seed: nothing can be compared.")
    tests = [
        paired_test(*paired_predictions(*folders)) for folders in zip(pairs["folder_first"], pairs["folder_second"], strict=True)
    ]
    table = pairs[[*keys, "auroc_first", "auroc_second"]].set_axis([*keys, "first", "second"], axis=1)
    for name in ("value", "low", "high"):
        table["difference" if name == "value" else name] = [getattr(test.difference, name) for test in tests]
    return table.assign(p_value=[test.p_value for test in tests])


def paired_predictions(first: str, second: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return labels and both scores, (records, classes) each, of two runs on the same test records.

    Raises:
        ValueError: if their records, classes or labels differ.
    """
    one, other = (np.load(Path(folder, PREDICTIONS_FILE)) for folder in (first, second))
    for name in ("record_id", "class_names", "labels"):
        if not np.array_equal(one[name], other[name]):
            raise ValueError(f"{first} and {second} differ in the {name} of their test records: they cannot be paired.")
    return one["labels"], one["logits"], other["logits"]


def comparison_as_markdown(table: pd.DataFrame) -> str:
    """Return a row per pair of runs."""
    rows = table.to_dict("records")
    cells = table[["database", "protocol"]].assign(
        task=[row["task"] + _budget(row) for row in rows],
        seed=table["seed"],
        first=table["first"].map("{:.3f}".format),
        second=table["second"].map("{:.3f}".format),
    )
    cells["difference [95% interval]"] = [f"{r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]" for r in rows]
    return cells.assign(p=table["p_value"].map("{:.3f}".format)).to_markdown(index=False, disable_numparse=True)


def _read(runs: Sequence[Path], unique: list[str], complaint: str, context: Sequence[Path] | None = None) -> pd.DataFrame:
    """Return a row per run. `context`: all runs among which encoders and settings need names of their own; default: these."""
    everything = {path: read_metrics(path) for path in context or runs}
    encoders = _distinct_names({_encoder_identity(m["encoder"]): _encoder_name(m["encoder"]) for m in everything.values()})
    # A database that was prepared in another way or anew is another one, whatever its name.
    prepared = sorted({(m["database"], m["database_digest"]) for m in everything.values()})
    databases = _distinct_names({f"{digest} {name}": name for name, digest in prepared})
    settings = _differing_settings(list(everything.values()))
    table = pd.DataFrame([_row(path, everything[path], encoders, databases, settings) for path in runs])
    numbers = ["labels_per_class", "low", "high", "published", "published_std", *_METRICS]
    table[numbers] = table[numbers].astype(float)  # one type also where all are missing
    twice = table[table.duplicated(unique, keep=False)]
    if len(twice):
        raise ValueError(f"These runs {complaint}: {', '.join(twice['folder'])}.")
    return table


def _encoder_identity(encoder: dict[str, Any]) -> str:
    """Return the digest of the weights; with the path for random ones, whose digest is of the architecture only."""
    return f"{encoder['digest']} {encoder['path']}" if encoder["path"].startswith(RANDOM_PREFIX) else encoder["digest"]


def _encoder_name(encoder: dict[str, Any]) -> str:
    name = Path(encoder["path"].removeprefix(RANDOM_PREFIX)).name
    if encoder["path"].startswith(RANDOM_PREFIX):
        return f"{name} (random)"
    databases = "+".join(entry["name"] for entry in encoder["databases"])
    return f"{name} ({encoder['objective'] or 'training not recorded'}, {databases or 'databases not recorded'})"


def _distinct_names(by_identity: dict[str, str]) -> dict[str, str]:
    """Return identity -> name; equal names are followed by the beginning of their identity, a digest."""
    names = list(by_identity.values())
    length = 6
    while len({(name, identity[:length]) for identity, name in by_identity.items()}) < len(names):
        length += 1
    return {
        identity: name if names.count(name) == 1 else f"{name} #{identity[:length]}" for identity, name in by_identity.items()
    }


def _differing_settings(everything: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return protocol -> settings in which its runs differ, apart from those with a column of their own."""
    table = pd.DataFrame([{**metrics["settings"], "protocol": metrics["protocol"]} for metrics in everything]).astype(str)
    names = sorted(set(table.columns) - {*_GROUP, "seed"})
    return {str(protocol): [name for name in names if runs[name].nunique() > 1] for protocol, runs in table.groupby("protocol")}


def _row(
    path: Path, metrics: dict[str, Any], encoders: dict[str, str], databases: dict[str, str], differing: dict[str, list[str]]
) -> dict[str, Any]:
    encoder, macro, settings = metrics["encoder"], metrics["test_metrics"]["macro"], metrics["settings"]
    low, high = macro["auroc"]["interval"] or (None, None)
    published = published_result(metrics)
    return {
        "folder": str(path),
        "model": encoders[_encoder_identity(encoder)],
        "encoder": _encoder_identity(encoder),
        "path": encoder["path"],
        "database": databases[f"{metrics['database_digest']} {metrics['database']}"],
        **{name: metrics[name] for name in ("database_digest", "task", "protocol", "label_fraction", "labels_per_class", "seed")},
        "settings": ", ".join(f"{name} {settings[name]}" for name in differing[metrics["protocol"]] if name in settings),
        "auroc": macro["auroc"]["value"],
        "low": low,
        "high": high,
        **{name: macro[name]["value"] if name in macro else None for name in _METRICS},
        "accuracy": metrics.get("test_accuracy"),
        "classes_left_out": ", ".join(metrics["classes_left_out"]),
        "published": published.auroc if published else None,
        "published_std": published.std if published else None,
    }


def as_markdown(table: pd.DataFrame) -> str:
    """
    Return a table per database and protocol, laid out as the paper's: a row per encoder (and share of the labels), a column per
    task; a cell has mean and standard deviation over seeds, or else the bootstrap interval, then the paper's and the difference.
    """
    rows = table.to_dict("records")
    table = table.assign(row=[row["model"] + _budget(row) for row in rows], cell=[_cell(row) for row in rows])
    parts = []
    for (database, protocol), runs in table.groupby(["database", "protocol"], sort=False):
        if runs.duplicated(["row", "task"]).any():
            raise ValueError(f"Two results of {database}, {protocol} have the same name: {', '.join(runs['row'].unique())}.")
        cells = runs.pivot_table(index="row", columns="task", values="cell", aggfunc="first", sort=False)
        cells = cells.fillna("").rename_axis(f"encoder, on {database}")
        # Names of folders and labels must not end a cell or a row.
        cells = cells.rename(index=one_cell, columns=one_cell)
        parts.append(f"**{one_cell(database)}, {protocol}**\n\n{cells.to_markdown()}")
    return "\n\n".join(parts)


def one_cell(name: Hashable) -> str:
    """Return a name as text that ends no cell or row of a table in Markdown."""
    return " ".join(str(name).split()).replace("|", "&#124;").replace("<", "&#60;")


def _budget(row: dict[Any, Any]) -> str:
    """Return what sets a run apart from others of its encoder: few labels, settings of its own."""
    parts = [row["settings"]] if row["settings"] else []
    if pd.notna(row["labels_per_class"]):
        parts.append(f"{row['labels_per_class']:.0f} labels per class")
    elif row["label_fraction"] != 1:
        parts.append(f"{100 * row['label_fraction']:g}% of labels")
    return "".join(f", {part}" for part in parts)


def _cell(row: dict[Any, Any]) -> str:
    text = f"{row['auroc']:.3f}"
    if pd.notna(row["auroc_std"]):
        text += f" ({row['auroc_std']:.3f}, {row['runs']} seeds)"
    elif pd.notna(row["low"]):
        text += f" [{row['low']:.3f}, {row['high']:.3f}]"
    return text if pd.isna(row["published"]) else f"{text}; paper {row['published']:.3f}, {row['difference']:+.3f}"
