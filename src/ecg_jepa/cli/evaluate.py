"""`ecg-jepa evaluate`: finished runs -> tables, on the screen and as .md, .csv and .json files."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from .._utils.files import replace_file
from .._utils.settings import option, settings

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@settings
class EvaluateSettings:
    """Settings of `ecg-jepa evaluate`."""

    run_dirs: list[str] = option(text="folder of a run, or of many", positional=True)
    compare: bool = option(False, "paired bootstrap tests between the runs of two folders")
    output_dir: str | None = option(None, "where the .md, .csv and .json files go; default: the first RUN_DIR")

    def __post_init__(self) -> None:
        if self.compare and len(self.run_dirs) != 2:
            raise ValueError(f"--compare takes two folders, not {len(self.run_dirs)}.")


def run(settings: EvaluateSettings) -> None:
    """Print and save the table."""
    from ..evaluation.tables import as_markdown, compare, comparison_as_markdown, find_outdated, find_runs, gather

    output_dir, dirs = Path(settings.output_dir or settings.run_dirs[0]), settings.run_dirs
    runs = find_runs(dirs)
    outdated = find_outdated(runs)
    for sentence in outdated:
        logger.warning(sentence)
    if settings.compare:
        table = compare(*(find_runs([directory]) for directory in dirs))
        print(f"Macro AUROC of {dirs[0]} (first) and {dirs[1]} (second) on the same test records, paired bootstrap test\n")
        write_table(table, [comparison_as_markdown(table), *outdated], output_dir, "comparison")
    else:
        table = gather(runs)
        print("Macro AUROC on test records: mean (standard deviation over seeds), or [95% bootstrap interval]\n")
        write_table(table, [as_markdown(table), *outdated], output_dir, "results")
        report_details(table, output_dir)


def report_details(table: "pd.DataFrame", output_dir: Path) -> None:
    """Print the classes without AUROC, and plot AUROC over labels where runs differ in these."""
    from .._utils.plot_style import save
    from ..evaluation.plots import plot_label_fractions

    for row in table[table["classes_left_out"] != ""].to_dict("records"):
        place = f"{row['model']}, {row['database']}, {row['task']}, {row['protocol']}"
        print(f"{place}: left out of the mean: {row['classes_left_out']}")
    for (database, task), rows in table[table["labels_per_class"].isna()].groupby(["database", "task"]):
        if rows["label_fraction"].nunique() > 1:
            path = output_dir / "plots" / f"labels_{database}_{task}.png"
            print(f"Curve over labels: {save(plot_label_fractions(rows), path)}")


def write_table(table: "pd.DataFrame", paragraphs: list[str], output_dir: Path, name: str) -> None:
    """
    Print a table as Markdown, with further paragraphs, and save it.

    Raises:
        FileExistsError: if files of these names are there that are no table of ours.
    """
    markdown = "\n\n".join(paragraphs)
    print(f"{markdown}\n")
    output_dir.mkdir(parents=True, exist_ok=True)
    there = [path for suffix in (".md", ".csv", ".json") if (path := output_dir / f"{name}{suffix}").exists()]
    marker = output_dir / f"{name}.json"
    if there and not (marker.is_file() and '"protocol"' in marker.read_text()):
        raise FileExistsError(f"{there[0]} is no table of ecg-jepa evaluate: choose another --output_dir.")
    replace_file(marker, table.to_json(orient="records", indent=2))  # first: it marks the others as ours
    replace_file(output_dir / f"{name}.md", markdown + "\n")
    replace_file(output_dir / f"{name}.csv", table.to_csv(index=False))
    print(f"Saved as {name}.md, {name}.csv and {name}.json in {output_dir}")
