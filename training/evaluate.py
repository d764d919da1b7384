"""
Gather finished runs into one table, beside the paper's figures: Markdown on the screen, and as .md, .csv and .json files.

    python training/evaluate.py RUN_DIR... [--output_dir DIR]
"""

import argparse
from pathlib import Path

from ecg_jepa.arguments import inputs_of
from ecg_jepa.evaluation.plots import plot_label_fractions, save
from ecg_jepa.evaluation.tables import as_markdown, find_runs, gather


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", help="folder of a run, or of many")
    parser.add_argument("--output_dir", help="where results.md, .csv and .json go; default: the first RUN_DIR")
    arguments = parser.parse_args()
    with inputs_of("evaluate.py"):
        table = gather(find_runs(arguments.run_dirs))
    markdown = as_markdown(table)
    print(f"Macro AUROC on test records: mean (standard deviation over seeds), or [95% bootstrap interval]\n\n{markdown}\n")
    for row in table[table["classes_left_out"] != ""].to_dict("records"):
        print(f"{row['model']}, {row['task']}, {row['protocol']}: left out of the mean: {row['classes_left_out']}")
    output_dir = Path(arguments.output_dir or arguments.run_dirs[0])
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "results.md").write_text(markdown + "\n")
    table.to_csv(output_dir / "results.csv", index=False)
    table.to_json(output_dir / "results.json", orient="records", indent=2)
    for task, rows in table[table["labels_per_class"].isna()].groupby("task"):
        if rows["label_fraction"].nunique() > 1:
            print(f"Curve over labels: {save(plot_label_fractions(rows), output_dir / 'plots' / f'labels_{task}.png')}")
    print(f"Saved as results.md, results.csv and results.json in {output_dir}")


if __name__ == "__main__":
    main()
