"""Finished runs -> one table: a row per encoder, protocol, task and share of the labels, over seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .bootstrap import paired_test
from .probing import METRICS_FILE, PREDICTIONS_FILE
from .published import corpus_of, published_result

_GROUP = ["model", "path", "database", "task", "protocol", "label_fraction", "labels_per_class"]


def find_runs(directories: Sequence[str | Path]) -> list[Path]:
    """
    Folders of finished runs in `directories` and below.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = sorted({path.parent for directory in directories for path in Path(directory).rglob(METRICS_FILE)})
    if not found:
        names = ", ".join(map(str, directories))
        raise FileNotFoundError(f"No finished run ({METRICS_FILE}) in {names}: run training/finetune.py or training/sweep.py.")
    return found


def gather(runs: Sequence[Path]) -> pd.DataFrame:
    """
    One row per group of runs that differ in their seed only.

    Columns: the group (`model` is size, or else name, and databases of the encoder, `path` its directory); `runs`; `auroc` and
    `auroc_std`, mean and standard deviation over seeds (NaN for one run); `low` and `high`, means of the bootstrap bounds, which
    tell how sure the test records are; `average_precision`, `f1`, `accuracy` (ST-MEM); `classes_left_out`; `published`,
    `published_std` and the `difference` of ours to it.

    Raises:
        ValueError: if two runs of a group have the same seed.
    """
    table = _read(runs, [*_GROUP, "seed"], "are the same but for their folder, and would count twice")
    groups = table.groupby(_GROUP, dropna=False, sort=False)
    means = groups[["auroc", "low", "high", "average_precision", "f1", "accuracy"]].mean()
    means.insert(0, "runs", groups.size())
    means.insert(2, "auroc_std", groups["auroc"].std())
    first = groups[["classes_left_out", "published", "published_std"]].first()
    result = means.join(first).reset_index()
    result["difference"] = result["auroc"] - result["published"]
    return result


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
    keys = [name for name in _GROUP if name not in ("model", "path")] + ["seed"]
    left, right = (_read(runs, keys, "are of the same kind, so that it is open which to compare") for runs in (first, second))
    pairs = left.merge(right, on=keys, suffixes=("_first", "_second"))  # missing values match each other
    if pairs.empty:
        raise ValueError("No two runs agree in database, task, protocol, labels and seed: there is nothing to compare.")
    rows = []
    for pair in pairs.to_dict("records"):
        labels, scores_first, scores_second = _paired_predictions(pair["folder_first"], pair["folder_second"])
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


def _paired_predictions(first: str, second: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    one, other = (np.load(Path(folder, PREDICTIONS_FILE)) for folder in (first, second))
    for name in ("record_id", "class_names", "labels"):
        if not np.array_equal(one[name], other[name]):
            raise ValueError(f"{first} and {second} differ in the {name} of their test records: they cannot be paired.")
    return one["labels"], one["logits"], other["logits"]


def comparison_as_markdown(table: pd.DataFrame) -> str:
    """A row per pair of runs."""
    cells = pd.DataFrame(
        {
            "protocol": table["protocol"],
            "task": [row["task"] + _budget(row) for row in table.to_dict("records")],
            "seed": table["seed"],
            "first": table["first"].map("{:.3f}".format),
            "second": table["second"].map("{:.3f}".format),
            "difference [95% interval]": [
                f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" for row in table.to_dict("records")
            ],
            "p": table["p_value"].map("{:.3f}".format),
        }
    )
    return cells.to_markdown(index=False, disable_numparse=True)


def _read(runs: Sequence[Path], unique: list[str], complaint: str) -> pd.DataFrame:
    table = pd.DataFrame([_row(path, json.loads((path / METRICS_FILE).read_text())) for path in runs])
    twice = table[table.duplicated(unique, keep=False)]
    if len(twice):
        raise ValueError(f"These runs {complaint}: {', '.join(twice['folder'])}.")
    return table


def _row(path: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    encoder, published = metrics["encoder"], published_result(metrics)
    low, high = metrics["test_macro_auroc_interval"] or (None, None)
    origin = corpus_of(encoder) or "+".join(encoder["databases"]) or "unknown"
    return {
        "folder": str(path),
        "model": f"{encoder['size'] or Path(encoder['path'].removeprefix('random:')).name} ({origin})",
        "path": encoder["path"],
        **{name: metrics[name] for name in _GROUP[2:]},
        "seed": metrics["seed"],
        "auroc": metrics["test_macro_auroc"],
        "low": low,
        "high": high,
        "average_precision": metrics["test_macro_average_precision"],
        "f1": metrics["test_macro_f1"],
        "accuracy": metrics.get("test_accuracy"),
        "classes_left_out": ", ".join(metrics["classes_left_out"]),
        "published": published.auroc if published else None,
        "published_std": published.std if published else None,
    }


def as_markdown(table: pd.DataFrame) -> str:
    """
    Laid out as the paper's, a table per protocol: a row per encoder (and share of the labels), a column per task; each cell
    with mean and standard deviation over seeds, or else the bootstrap interval, then the paper's figure and our difference.
    """
    rows = table.to_dict("records")
    table = table.assign(encoder=[row["model"] + _budget(row) for row in rows], cell=[_cell(row) for row in rows])
    parts = []
    for protocol, runs in table.groupby("protocol", sort=False):
        # The path keeps encoders apart that are otherwise described alike.
        cells = runs.pivot_table(index=["encoder", "path"], columns="task", values="cell", aggfunc="first", sort=False)
        parts.append(f"**{protocol}**\n\n{cells.reset_index('path', drop=True).fillna('').to_markdown()}")
    return "\n\n".join(parts)


def _budget(row: dict[Any, Any]) -> str:
    if pd.notna(row["labels_per_class"]):
        return f", {row['labels_per_class']:.0f} labels per class"
    return "" if row["label_fraction"] == 1 else f", {row['label_fraction']:.0%} of labels"


def _cell(row: dict[Any, Any]) -> str:
    if pd.notna(row["auroc_std"]):
        text = f"{row['auroc']:.3f} ({row['auroc_std']:.3f}, {row['runs']} seeds)"
    elif pd.notna(row["low"]):
        text = f"{row['auroc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    else:
        text = f"{row['auroc']:.3f}"
    return text if pd.isna(row["published"]) else f"{text}; paper {row['published']:.3f}, {row['difference']:+.3f}"
