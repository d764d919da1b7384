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
    """Print and save the table, print the classes without AUROC, and plot AUROC over labels where runs differ in these."""
    from .._utils.plot_style import save
    from ..evaluation.plots import plot_label_fractions
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
        return
    table = gather(runs)
    print("Macro AUROC on test records: mean (standard deviation over seeds), or [95% bootstrap interval]\n")
    write_table(table, [as_markdown(table), *outdated], output_dir, "results")
    for row in table[table["classes_left_out"] != ""].to_dict("records"):
        place = f"{row['model']}, {row['database']}, {row['task']}, {row['protocol']}"
        print(f"{place}: left out of the mean: {row['classes_left_out']}")
    for (database, task), rows in table[table["labels_per_class"].isna()].groupby(["database", "task"]):
        if rows["label_fraction"].nunique() > 1:
            path = output_dir / "plots" / f"labels_{database}_{task}.png"
            print(f"Curve over labels: {save(plot_label_fractions(rows), path)}")


def write_table(table: "pd.DataFrame", paragraphs: list[str], output_dir: Path, name: str) -> None:
    """Print a table as Markdown, with further paragraphs, and save it. Raises `FileExistsError` for files that are no table's."""
    markdown = "\n\n".join(paragraphs)
    print(f"{markdown}\n")
    output_dir.mkdir(parents=True, exist_ok=True)
    # JSON first: it marks the others as ours.
    contents = {".json": table.to_json(orient="records", indent=2), ".md": f"{markdown}\n", ".csv": table.to_csv(index=False)}
    files = {output_dir / f"{name}{suffix}": content for suffix, content in contents.items()}
    marker, there = next(iter(files)), [path for path in files if path.exists()]
    if there and not (marker.is_file() and '"protocol"' in marker.read_text()):
        raise FileExistsError(f"{there[0]} is no table of ecg-jepa evaluate: choose another --output_dir.")
    for path, content in files.items():
        replace_file(path, content)
    print(f"Saved as {name}.md, {name}.csv and {name}.json in {output_dir}")
