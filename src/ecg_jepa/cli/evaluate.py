"""`ecg-jepa evaluate`: finished runs -> tables, on the screen and as .md, .csv and .json files."""

import logging
from pathlib import Path

import pandas as pd

from .._utils.files import read_json, replace_file
from .._utils.plot_style import save
from ..evaluation.plots import plot_label_fractions
from ..evaluation.tables import as_markdown, compare, comparison_as_markdown, find_outdated, find_runs, gather
from .command_settings import EvaluationSettings

logger = logging.getLogger(__name__)


def run(settings: EvaluationSettings) -> None:
    """Print and save the table."""
    output_dir = Path(settings.output_dir or settings.run_dirs[0])
    outdated = find_outdated(find_runs(settings.run_dirs))
    for sentence in outdated:
        logger.warning(sentence)
    if settings.compare:
        report_comparison(settings.run_dirs, output_dir, outdated)
    else:
        report_results(settings.run_dirs, output_dir, outdated)


def report_results(run_dirs: list[str], output_dir: Path, outdated: list[str]) -> None:
    """The table of all runs, and AUROC over labels where runs differ in these."""
    table = gather(find_runs(run_dirs))
    print("Macro AUROC on test records: mean (standard deviation over seeds), or [95% bootstrap interval]\n")
    write(table, [as_markdown(table), *outdated], output_dir, "results")
    for row in table[table["classes_left_out"] != ""].to_dict("records"):
        place = f"{row['model']}, {row['database']}, {row['task']}, {row['protocol']}"
        print(f"{place}: left out of the mean: {row['classes_left_out']}")
    for (database, task), rows in table[table["labels_per_class"].isna()].groupby(["database", "task"]):
        if rows["label_fraction"].nunique() > 1:
            path = output_dir / "plots" / f"labels_{database}_{task}.png"
            print(f"Curve over labels: {save(plot_label_fractions(rows), path)}")


def report_comparison(run_dirs: list[str], output_dir: Path, outdated: list[str]) -> None:
    """The paired tests."""
    table = compare(*(find_runs([directory]) for directory in run_dirs))
    print(f"Macro AUROC of {run_dirs[0]} (first) and {run_dirs[1]} (second) on the same test records, paired bootstrap test\n")
    write(table, [comparison_as_markdown(table), *outdated], output_dir, "comparison")


def write(table: pd.DataFrame, paragraphs: list[str], output_dir: Path, name: str) -> None:
    """
    Print a table, as Markdown with what is to be said of it, and save it.

    Raises:
        FileExistsError: if files of these names are there that are no table of ours.
    """
    markdown = "\n\n".join(paragraphs)
    print(f"{markdown}\n")
    output_dir.mkdir(parents=True, exist_ok=True)
    there = [path for suffix in (".md", ".csv", ".json") if (path := output_dir / f"{name}{suffix}").exists()]
    if there and not _is_table(output_dir / f"{name}.json"):
        raise FileExistsError(f"{there[0]} is no table of ecg-jepa evaluate: choose another --output_dir.")
    replace_file(output_dir / f"{name}.json", table.to_json(orient="records", indent=2))  # first: by it, the others are ours
    replace_file(output_dir / f"{name}.md", markdown + "\n")
    replace_file(output_dir / f"{name}.csv", table.to_csv(index=False))
    print(f"Saved as {name}.md, {name}.csv and {name}.json in {output_dir}")


def _is_table(path: Path) -> bool:
    """Whether a file is what [`write`] writes, with rows that have a protocol."""
    try:
        rows = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and "protocol" in row for row in rows)
