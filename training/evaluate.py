"""
Gather finished runs into one table, beside the paper's figures: Markdown on the screen, and as .md, .csv and .json files.

    python training/evaluate.py RUN_DIR... [--output_dir DIR]
    python training/evaluate.py FIRST_DIR SECOND_DIR --compare
"""

import argparse
from pathlib import Path

import pandas as pd

from ecg_jepa.arguments import inputs_of
from ecg_jepa.evaluation.plots import plot_label_fractions, save
from ecg_jepa.evaluation.tables import as_markdown, compare, comparison_as_markdown, find_runs, gather


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", help="folder of a run, or of many")
    parser.add_argument("--compare", action="store_true", help="paired bootstrap tests between the runs of two folders")
    parser.add_argument("--output_dir", help="where the .md, .csv and .json files go; default: the first RUN_DIR")
    arguments = parser.parse_args()
    if arguments.compare and len(arguments.run_dirs) != 2:
        parser.error(f"--compare takes two folders, not {len(arguments.run_dirs)}")
    output_dir = Path(arguments.output_dir or arguments.run_dirs[0])
    with inputs_of("evaluate.py"):
        if arguments.compare:
            report_comparison(arguments.run_dirs, output_dir)
        else:
            report_results(arguments.run_dirs, output_dir)


def report_results(run_dirs: list[str], output_dir: Path) -> None:
    """The table of all runs, and AUROC over labels where runs differ in these."""
    table = gather(find_runs(run_dirs))
    print("Macro AUROC on test records: mean (standard deviation over seeds), or [95% bootstrap interval]\n")
    write(table, as_markdown(table), output_dir, "results")
    for row in table[table["classes_left_out"] != ""].to_dict("records"):
        print(f"{row['model']}, {row['task']}, {row['protocol']}: left out of the mean: {row['classes_left_out']}")
    for task, rows in table[table["labels_per_class"].isna()].groupby("task"):
        if rows["label_fraction"].nunique() > 1:
            print(f"Curve over labels: {save(plot_label_fractions(rows), output_dir / 'plots' / f'labels_{task}.png')}")


def report_comparison(run_dirs: list[str], output_dir: Path) -> None:
    """The paired tests."""
    table = compare(*(find_runs([directory]) for directory in run_dirs))
    print(f"Macro AUROC of {run_dirs[0]} (first) and {run_dirs[1]} (second) on the same test records, paired bootstrap test\n")
    write(table, comparison_as_markdown(table), output_dir, "comparison")


def write(table: pd.DataFrame, markdown: str, output_dir: Path, name: str) -> None:
    """Print a table and save it."""
    print(f"{markdown}\n")
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / f"{name}.md").write_text(markdown + "\n")
    table.to_csv(output_dir / f"{name}.csv", index=False)
    table.to_json(output_dir / f"{name}.json", orient="records", indent=2)
    print(f"Saved as {name}.md, {name}.csv and {name}.json in {output_dir}")


if __name__ == "__main__":
    main()
