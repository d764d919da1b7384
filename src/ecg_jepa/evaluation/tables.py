"""Finished runs -> one table: a row per encoder, protocol, task and share of the labels, over seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .probing import METRICS_FILE
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

    Columns: the group (`model` is size and databases of the encoder, `path` its directory); `runs`; `auroc` and `auroc_std`,
    mean and standard deviation over seeds (NaN for one run); `low` and `high`, means of the bootstrap bounds, which tell how
    sure the test records are; `average_precision`, `f1`, `accuracy` (ST-MEM); `classes_left_out`; `published`,
    `published_std` and the `difference` of ours to it.

    Raises:
        ValueError: if two runs of a group have the same seed.
    """
    rows = [_row(path, json.loads((path / METRICS_FILE).read_text())) for path in runs]
    table = pd.DataFrame(rows)
    twice = table[table.duplicated([*_GROUP, "seed"], keep=False)]
    if len(twice):
        raise ValueError(f"These runs are the same but for their folder, and would count twice: {', '.join(twice['folder'])}.")
    groups = table.groupby(_GROUP, dropna=False, sort=False)
    means = groups[["auroc", "low", "high", "average_precision", "f1", "accuracy"]].mean()
    means.insert(0, "runs", groups.size())
    means.insert(2, "auroc_std", groups["auroc"].std())
    first = groups[["classes_left_out", "published", "published_std"]].first()
    result = means.join(first).reset_index()
    result["difference"] = result["auroc"] - result["published"]
    return result


def _row(path: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    encoder, published = metrics["encoder"], published_result(metrics)
    low, high = metrics["test_macro_auroc_interval"] or (None, None)
    origin = corpus_of(encoder) or "+".join(encoder["databases"]) or "unknown"
    return {
        "folder": str(path),
        "model": f"{encoder['size'] or '?'} ({origin})",
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
