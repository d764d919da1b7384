"""Finished runs -> one table: a row per encoder, database, protocol, task and share of the labels, over seeds."""

import itertools
import json
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
from .results import METRICS_FILE, PREDICTIONS_FILE

# What runs of one row agree in; they differ in their seed only.
_GROUP = ["model", "encoder", "database", "database_digest", "task", "protocol", "label_fraction", "labels_per_class", "settings"]
_OF_THE_ENCODER = ("model", "encoder")

# Further means over classes, of `test_figures`; runs of before there were any have none.
_FIGURES = (
    *("sensitivity", "specificity", "ppv", "npv"),
    *(f"{name}_at_{target}" for target in ("0.90", "0.95") for name in ("sensitivity", "specificity", "ppv")),
    *("brier", "expected_calibration_error"),
)


def find_runs(directories: Sequence[str | Path]) -> list[Path]:
    """
    Folders of finished runs in `directories` and below.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = sorted({path.parent for directory in directories for path in Path(directory).rglob(METRICS_FILE)})
    absent = [str(directory) for directory in directories if not Path(directory).is_dir()]
    if absent:
        raise FileNotFoundError(f"There is no folder {', '.join(absent)}.")
    if not found:
        names = ", ".join(map(str, directories))
        raise FileNotFoundError(f"No finished run ({METRICS_FILE}) in {names}: run ecg-jepa finetune or ecg-jepa sweep.")
    return found


def gather(runs: Sequence[Path]) -> pd.DataFrame:
    """
    One row per group of runs that differ in their seed only.

    Columns: the group (`model` says what the encoder is, in words that no other encoder of the table has; `encoder` is the digest
    of its weights; `settings` are those that other runs of the protocol have otherwise); `path` of the encoder; `runs`; `auroc`
    and `auroc_std`, mean and standard deviation over seeds (NaN for one run); `low` and `high`, means of the bootstrap bounds,
    which tell how sure the test records are; `average_precision`, `f1`, `accuracy` (ST-MEM); at thresholds chosen on validation
    `sensitivity`, `specificity`, `ppv`, `npv`, the first three also where a sensitivity was aimed at (`ppv_at_0.90`); `brier`,
    `expected_calibration_error`; `classes_left_out`; `published`, `published_std` and the `difference` of ours to it.

    Raises:
        ValueError: if two runs of a group have the same seed.
    """
    table = _read(runs, [*_GROUP, "seed"], "are the same but for their folder, and would count twice")
    groups = table.groupby(_GROUP, dropna=False, sort=False)
    means = groups[["auroc", "low", "high", "average_precision", "f1", "accuracy", *_FIGURES]].mean()
    means.insert(0, "runs", groups.size())
    means.insert(2, "auroc_std", groups["auroc"].std())
    first = groups[["path", "classes_left_out", "published", "published_std"]].first()
    result = means.join(first).reset_index()
    result["difference"] = result["auroc"] - result["published"]
    return result


def find_outdated(runs: Sequence[Path]) -> list[str]:
    """Runs that started from weights that are no longer there: a sentence each, with the folder of both."""
    digests: dict[str, str] = {}
    sentences = []
    for run in runs:
        path = run / TRAINING_INFO_FILE
        start = read_json(path).get("start", {}) if path.is_file() else {}
        named = start.get("path", RANDOM_PREFIX)
        source = os.path.normpath(run.resolve() / start["directory"]) if start.get("directory") else named
        if named.startswith(RANDOM_PREFIX) or not Path(source).is_dir():
            continue
        if source not in digests:
            digests[source] = weights_digest(source)
        if digests[source] != start["digest"]:
            sentences.append(f"{run} is older than {source}: it started from other weights than those that are there now.")
    return sentences


def compare(first: Sequence[Path], second: Sequence[Path]) -> pd.DataFrame:
    """
    Paired bootstrap tests between runs on the same test records: each run of `first` against the one of `second` that agrees
    in all but the encoder.

    Columns: what the two agree in; `first` and `second`, their macro AUROC; `difference` (first minus second), with `low` and
    `high` of its 95% interval; `p_value`.

    Raises:
        ValueError: if runs of one side are the same but for their folder or encoder, no two runs agree, or a pair was scored on
            other records or classes.
    """
    keys = [name for name in _GROUP if name not in _OF_THE_ENCODER] + ["seed"]
    complaint = "are of the same kind, so that it is open which to compare"
    left, right = (_read(runs, keys, complaint, [*first, *second]) for runs in (first, second))
    pairs = left.merge(right, on=keys, suffixes=("_first", "_second"))  # missing values match each other
    if pairs.empty:
        raise ValueError("No two runs agree in database, task, protocol, settings, labels and seed: nothing can be compared.")
    rows = []
    for pair in pairs.to_dict("records"):
        labels, scores_first, scores_second = paired_predictions(pair["folder_first"], pair["folder_second"])
        test = paired_test(labels, scores_first, scores_second)
        rows.append(
            {
                **{name: pair[name] for name in keys},
                "first": pair["auroc_first"],
                "second": pair["auroc_second"],
                "difference": test.difference.value,
                "low": test.difference.low,
                "high": test.difference.high,
                "p_value": test.p_value,
            }
        )
    return pd.DataFrame(rows)


def paired_predictions(first: str, second: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Labels and both scores, (records, classes) each, of two runs on the same test records.

    Raises:
        ValueError: if their records, classes or labels differ.
    """
    one, other = (np.load(Path(folder, PREDICTIONS_FILE)) for folder in (first, second))
    for name in ("record_id", "class_names", "labels"):
        if not np.array_equal(one[name], other[name]):
            raise ValueError(f"{first} and {second} differ in the {name} of their test records: they cannot be paired.")
    return one["labels"], one["logits"], other["logits"]


def comparison_as_markdown(table: pd.DataFrame) -> str:
    """A row per pair of runs."""
    rows = table.to_dict("records")
    cells = pd.DataFrame(
        {
            "database": table["database"],
            "protocol": table["protocol"],
            "task": [row["task"] + _budget(row) for row in rows],
            "seed": table["seed"],
            "first": table["first"].map("{:.3f}".format),
            "second": table["second"].map("{:.3f}".format),
            "difference [95% interval]": [f"{r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]" for r in rows],
            "p": table["p_value"].map("{:.3f}".format),
        }
    )
    return cells.to_markdown(index=False, disable_numparse=True)


def _read(runs: Sequence[Path], unique: list[str], complaint: str, context: Sequence[Path] | None = None) -> pd.DataFrame:
    """The runs as rows. `context`: all runs among which encoders and settings need names of their own; default: these."""
    everything = {path: read_json(path / METRICS_FILE) for path in context or runs}
    names = _distinct_names({_identity(m["encoder"]): _encoder_name(m["encoder"]) for m in everything.values()})
    prepared = {(m["database"], m.get("database_digest")) for m in everything.values()}
    # A database that was prepared otherwise or anew is another one, whatever its name.
    databases = _distinct_names({_database_identity(*entry): entry[0] for entry in sorted(prepared, key=str)})
    settings = _distinguishing_settings(list(everything.values()))
    rows = []
    for path in runs:
        metrics = everything[path]
        database = databases[_database_identity(metrics["database"], metrics.get("database_digest"))]
        rows.append(_row(path, metrics, names[_identity(metrics["encoder"])], database, settings))
    table = pd.DataFrame(rows)
    table["labels_per_class"] = table["labels_per_class"].astype(float)  # one type also where all are missing
    twice = table[table.duplicated(unique, keep=False)]
    if len(twice):
        raise ValueError(f"These runs {complaint}: {', '.join(twice['folder'])}.")
    return table


def _identity(encoder: dict[str, Any]) -> str:
    """
    Of an encoder: the digest of its weights, or its path where none was recorded. Random ones have the path, too: their digest is
    of the architecture, by which two sizes of one name differ, but not `random:A` and `random:B`.
    """
    digest = encoder.get("digest")
    if encoder["path"].startswith(RANDOM_PREFIX):
        return f"{digest or ''} {encoder['path']}".strip()
    return digest or encoder["path"]


def _database_identity(name: str, digest: str | None) -> str:
    return f"{digest or ''} {name}".strip()


def _distinct_names(by_identity: dict[str, str]) -> dict[str, str]:
    """Identity -> what it is in words; those that would be called the same get the beginning of their identity, a digest."""
    called = list(by_identity.values())
    for length in itertools.count(6):
        beginnings = [f"{name} #{identity[:length]}" for identity, name in by_identity.items()]
        if len(set(beginnings)) == len(beginnings):
            break
    pairs = zip(by_identity.items(), beginnings, strict=True)
    return {identity: name if called.count(name) == 1 else beginning for (identity, name), beginning in pairs}


def _encoder_name(encoder: dict[str, Any]) -> str:
    name = Path(encoder["path"].removeprefix(RANDOM_PREFIX)).name
    if encoder["path"].startswith(RANDOM_PREFIX):
        return f"{name} (random)"
    databases = [entry["name"] if isinstance(entry, dict) else entry for entry in encoder["databases"]]
    return f"{name} ({encoder.get('objective') or 'training not recorded'}, {'+'.join(databases) or 'databases not recorded'})"


def _distinguishing_settings(everything: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Protocol -> settings in which its runs differ, apart from what has columns of its own."""
    recorded: dict[str, list[dict[str, Any]]] = {}
    for metrics in everything:
        recorded.setdefault(metrics["protocol"], []).extend([metrics["settings"]] if "settings" in metrics else [])
    own_columns = {*_GROUP, "seed"}

    def differ(name: str, runs: list[dict[str, Any]]) -> bool:
        # What a run does not record is as it was before there was such a setting.
        return len({json.dumps(settings[name]) if name in settings else "" for settings in runs}) > 1

    return {
        protocol: {name for name in set().union(*runs) - own_columns if differ(name, runs)} for protocol, runs in recorded.items()
    }


def _row(path: Path, metrics: dict[str, Any], model: str, database: str, differing: dict[str, set[str]]) -> dict[str, Any]:
    published = published_result(metrics)
    low, high = metrics["test_macro_auroc_interval"] or (None, None)
    settings = metrics.get("settings", {})
    told = sorted(differing.get(metrics["protocol"], set()) & set(settings))
    return {
        "folder": str(path),
        "model": model,
        "encoder": _identity(metrics["encoder"]),
        "path": metrics["encoder"]["path"],
        "database": database,
        "database_digest": metrics.get("database_digest"),
        **{name: metrics[name] for name in ("task", "protocol", "label_fraction", "labels_per_class")},
        "settings": ", ".join(f"{name} {settings[name]}" for name in told),
        "seed": metrics["seed"],
        "auroc": metrics["test_macro_auroc"],
        "low": low,
        "high": high,
        "average_precision": metrics["test_macro_average_precision"],
        "f1": metrics["test_macro_f1"],
        "accuracy": metrics.get("test_accuracy"),
        **_further_figures(metrics),
        "classes_left_out": ", ".join(metrics["classes_left_out"]),
        "published": published.auroc if published else None,
        "published_std": published.std if published else None,
    }


def _further_figures(metrics: dict[str, Any]) -> dict[str, float]:
    """NaN where there is none."""
    means = metrics.get("test_figures", {}).get("macro", {})
    values = {name: means.get(name, {}).get("value") for name in _FIGURES}
    return {name: float("nan") if value is None else value for name, value in values.items()}


def as_markdown(table: pd.DataFrame) -> str:
    """
    Laid out as the paper's, a table per database and protocol: a row per encoder (and share of the labels), a column per task;
    each cell with mean and standard deviation over seeds, or else the bootstrap interval, then the paper's figure and our
    difference.
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
    """A name as text that ends no cell or row of a table in Markdown."""
    return " ".join(str(name).split()).replace("|", "&#124;").replace("<", "&#60;")


def _budget(row: dict[Any, Any]) -> str:
    """What a run had otherwise than most: few labels, settings of its own."""
    parts = [row["settings"]] if row["settings"] else []
    if pd.notna(row["labels_per_class"]):
        parts.append(f"{row['labels_per_class']:.0f} labels per class")
    elif row["label_fraction"] != 1:
        parts.append(f"{100 * row['label_fraction']:g}% of labels")
    return "".join(f", {part}" for part in parts)


def _cell(row: dict[Any, Any]) -> str:
    if pd.notna(row["auroc_std"]):
        text = f"{row['auroc']:.3f} ({row['auroc_std']:.3f}, {row['runs']} seeds)"
    elif pd.notna(row["low"]):
        text = f"{row['auroc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    else:
        text = f"{row['auroc']:.3f}"
    return text if pd.isna(row["published"]) else f"{text}; paper {row['published']:.3f}, {row['difference']:+.3f}"
