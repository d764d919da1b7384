"""Finished runs -> one table: a row per encoder, database, protocol, task and share of the labels, over seeds."""

import os
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
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
    `difference` of ours to it. Raises `ValueError` if two runs of a group have the same seed.
    """
    table = _read(runs)
    _check_unique(table, [*_GROUP, "seed"], "are the same but for their folder, and would count twice")
    groups = table.groupby(_GROUP, dropna=False, sort=False)
    means = groups[["auroc", "low", "high", *_METRICS]].mean()
    means.insert(0, "runs", groups.size())
    means.insert(2, "auroc_std", groups["auroc"].std())
    result = means.join(groups[["path", "classes_left_out", "published", "published_std"]].first()).reset_index()
    result["difference"] = result["auroc"] - result["published"]
    return result


def find_outdated(runs: Sequence[Path]) -> list[str]:
    """Return a sentence for each run that started from weights that are no longer there."""
    digest = cache(weights_digest)
    sentences = []
    for run in runs:
        path = run / TRAINING_INFO_FILE
        start = read_json(path)["start"] if path.is_file() else {"directory": None}
        source = os.path.normpath(run.resolve() / (start["directory"] or ""))
        if start["directory"] is not None and Path(source).is_dir() and digest(source) != start["digest"]:
            sentences.append(f"{run} is older than {source}: it started from other weights than those that are there now.")
    return sentences


def compare(first: Sequence[Path], second: Sequence[Path]) -> pd.DataFrame:
    """
    Return paired bootstrap tests between runs that agree in all but the encoder, each of `first` with the one of `second`.

    Columns: what the two agree in; `first` and `second`, their macro AUROC; `difference` (first minus second), with `low` and
    `high` of its 95% interval; `p_value`.
    Raises `ValueError` if runs of one side are the same but for their folder or encoder, no two runs agree, or their test
    records differ.
    """
    keys = [*(name for name in _GROUP if name not in ("model", "encoder")), "seed"]
    table = _read(list(dict.fromkeys([*first, *second]))).set_index("folder", drop=False)
    sides = [table.loc[[str(path) for path in paths]] for paths in (first, second)]
    for side in sides:
        _check_unique(side, keys, "are of the same kind, so that it is open which to compare")
    pairs = sides[0].merge(sides[1], on=keys, suffixes=("_first", "_second"))  # missing values match each other
    if pairs.empty:
        raise ValueError("No two runs agree in database, task, protocol, settings, labels and seed: nothing can be compared.")
    tests = []
    for first_run, second_run in zip(pairs["folder_first"], pairs["folder_second"], strict=True):
        one, other = (np.load(Path(folder, PREDICTIONS_FILE)) for folder in (first_run, second_run))
        for name in ("record_id", "class_names", "labels"):
            if not np.array_equal(one[name], other[name]):
                raise ValueError(f"{first_run} and {second_run} differ in the {name} of their test records: no pair.")
        tests.append(paired_test(one["labels"], one["logits"], other["logits"]))
    result = pairs[[*keys, "auroc_first", "auroc_second"]].set_axis([*keys, "first", "second"], axis=1)
    result[["difference", "low", "high"]] = [list(test.difference) for test in tests]
    return result.assign(p_value=[test.p_value for test in tests])


def _check_unique(table: pd.DataFrame, columns: list[str], complaint: str) -> None:
    twice = table[table.duplicated(columns, keep=False)]
    if len(twice):
        raise ValueError(f"These runs {complaint}: {', '.join(twice['folder'])}.")


def _read(runs: Sequence[Path]) -> pd.DataFrame:
    """Return a row per run, in which encoders, databases and settings have names that tell them apart."""
    everything = [read_metrics(path) for path in runs]
    table = pd.DataFrame([_row(path, metrics) for path, metrics in zip(runs, everything, strict=True)])
    numbers = ["labels_per_class", "low", "high", "published", "published_std", *_METRICS]
    table[numbers] = table[numbers].astype(float)  # one type also where all are missing
    # A copy of an encoder is the same one; a database that was prepared in another way or anew is another one.
    table["model"] = _distinct(table.groupby("encoder")["model"].transform("last"), table["encoder"])
    table["database"] = _distinct(table["database"], table["database_digest"] + " " + table["database"])
    settings = pd.DataFrame([metrics["settings"] for metrics in everything]).astype(str)
    for _, rows in settings.groupby(table["protocol"]):
        differing = [name for name in sorted(map(str, rows)) if name not in (*_GROUP, "seed") and rows[name].nunique() > 1]
        for index in rows.index:
            own = everything[index]["settings"]
            table.loc[index, "settings"] = ", ".join(f"{name} {own[name]}" for name in differing if name in own)
    return table


def _distinct(names: pd.Series, identities: pd.Series) -> pd.Series:
    """Return names, followed by the beginning of the identity, a digest, where several have the same."""
    length = 6
    while (names + identities.str[:length]).nunique() < identities.nunique():
        length += 1
    return names.where(identities.groupby(names).transform("nunique") == 1, names + " #" + identities.str[:length])


def _row(path: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    encoder, macro = metrics["encoder"], metrics["test_metrics"]["macro"]
    name = Path(encoder["path"].removeprefix(RANDOM_PREFIX)).name
    if is_random := encoder["path"].startswith(RANDOM_PREFIX):
        name = f"{name} (random)"
    else:
        databases = "+".join(entry["name"] for entry in encoder["databases"])
        name = f"{name} ({encoder['objective'] or 'training not recorded'}, {databases or 'databases not recorded'})"
    low, high = macro["auroc"]["interval"] or (None, None)
    published = published_result(metrics) or {"auroc": None, "std": None}
    copied = ("database", "database_digest", "task", "protocol", "label_fraction", "labels_per_class", "seed")
    return {
        "folder": str(path),
        "model": name,
        # The digest of random weights is of the architecture only.
        "encoder": f"{encoder['digest']} {encoder['path']}" if is_random else encoder["digest"],
        "path": encoder["path"],
        **{name: metrics[name] for name in copied},
        "settings": "",
        "auroc": macro["auroc"]["value"],
        "low": low,
        "high": high,
        **{name: macro[name]["value"] if name in macro else None for name in _METRICS},
        "accuracy": metrics.get("test_accuracy"),
        "classes_left_out": ", ".join(metrics["classes_left_out"]),
        "published": published["auroc"],
        "published_std": published["std"],
    }


def comparison_as_markdown(table: pd.DataFrame) -> str:
    """Return a row per pair of runs."""
    rows = table.to_dict("records")
    cells = table[["database", "protocol"]].assign(
        task=[row["task"] + _budget(row) for row in rows],
        seed=table["seed"],
        **{name: table[name].map("{:.3f}".format) for name in ("first", "second")},
    )
    cells["difference [95% interval]"] = [f"{r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]" for r in rows]
    return cells.assign(p=table["p_value"].map("{:.3f}".format)).to_markdown(index=False, disable_numparse=True)


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
        cells = cells.fillna("").rename_axis(f"encoder, on {database}").rename(index=one_cell, columns=one_cell)
        parts.append(f"**{one_cell(database)}, {protocol}**\n\n{cells.to_markdown()}")
    return "\n\n".join(parts)


def one_cell(name: Hashable) -> str:
    """Return a name, of a folder or a label, as text that ends no cell or row of a table in Markdown."""
    return " ".join(str(name).split()).replace("|", "&#124;").replace("<", "&#60;")


def _budget(row: Mapping[Any, Any]) -> str:
    """Return what sets a run apart from others of its encoder: few labels, settings of its own."""
    text = f", {row['settings']}" if row["settings"] else ""
    if pd.notna(row["labels_per_class"]):
        return f"{text}, {row['labels_per_class']:.0f} labels per class"
    return text if row["label_fraction"] == 1 else f"{text}, {100 * row['label_fraction']:g}% of labels"


def _cell(row: Mapping[Any, Any]) -> str:
    text = f"{row['auroc']:.3f}"
    if pd.notna(row["auroc_std"]):
        text += f" ({row['auroc_std']:.3f}, {row['runs']} seeds)"
    elif pd.notna(row["low"]):
        text += f" [{row['low']:.3f}, {row['high']:.3f}]"
    return text if pd.isna(row["published"]) else f"{text}; paper {row['published']:.3f}, {row['difference']:+.3f}"
