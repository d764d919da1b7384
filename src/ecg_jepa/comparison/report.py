"""What a comparison found: tables, tests and curves, from the folders of its runs."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.figures import save
from ..common.files import TRAINING_INFO_FILE, read_json
from ..common.json_lines import read_lines
from ..evaluation.bootstrap import holm, paired_test
from ..evaluation.plots import plot_label_fractions, plot_over_cost
from ..evaluation.results import METRICS_FILE, PREDICTIONS_FILE
from ..evaluation.tables import one_cell
from ..finetuning.sweep import plan as planned_runs
from ..finetuning.sweep_folder import SweepFolder
from .plan import Candidate, ComparisonPlan

_CONDITION = ["protocol", "task", "label_fraction"]  # in which encoders are compared
_MEASURES = {
    "embedding_std": "deviation of embeddings over records",
    "content_effective_rank": "effective rank at equal positions",
    "position_share": "position's share of the variance",
}


def write_report(plan: ComparisonPlan, tuned: list[tuple[Candidate, float]], chosen: dict[str, dict[str, str]]) -> Path:
    """Write `report.md`, tables as `.csv` and pictures into the folder of a comparison; returns the path of the first."""
    directory = plan.directory
    results, logs = gather_results(plan), gather_logs(plan)
    tests = compare_with_first(plan, results)
    for name, table in {"results": results.drop(columns="folder", errors="ignore"), "tests": tests}.items():
        table.to_csv(directory / f"{name}.csv", index=False)
    parts = [
        f"# Comparison of {len(plan.entries)} objectives",
        describe(plan, logs, chosen),
        "## Tuning\n\n" + describe_tuning(plan, tuned, chosen),
        "## Course\n\n" + describe_courses(plan, logs),
        "## Results\n\n" + describe_results(plan, results),
        "## Tests\n\n" + describe_tests(plan, tests),
    ]
    if not logs.empty:
        for column in ("TFLOP", "step"):
            path = save(plot_over_cost(logs, column, plan.comparison.probe_task), directory / "plots" / f"over_{column}.png")
            parts[3] += f"\n\n![probe over {column}](plots/{path.name})"
    for (protocol, task), rows in results.groupby(["protocol", "task"], sort=False) if not results.empty else ():
        if rows["label_fraction"].nunique() > 1:
            table = spread_over_seeds(rows).rename(columns={"label": "model"})
            path = save(plot_label_fractions(table), directory / "plots" / f"labels_{protocol}_{task}.png")
            parts[4] += f"\n\n![{task}, {protocol}](plots/{path.name})"
    (directory / "report.md").write_text("\n\n".join(parts) + "\n")
    return directory / "report.md"


def gather_results(plan: ComparisonPlan) -> pd.DataFrame:
    """A row per finished judging run: `label`, `seed` (of pre-training), `finetune_seed`, condition, `auroc`, `folder`."""
    folders = {str(encoder_folder(plan, e.label, s)): (e.label, s) for e in plan.entries for s in plan.comparison.seeds}
    existing = [folder for folder in folders if Path(folder, TRAINING_INFO_FILE).is_file()]
    rows, placed_runs = [], SweepFolder()
    for planned in planned_runs(plan.sweep(existing)):
        placed = placed_runs.place(planned)
        if not placed.finished:
            continue
        label, seed = folders[planned.model_name_or_path]
        metrics = read_json(Path(placed.settings.output_dir, METRICS_FILE))
        condition = {name: getattr(planned, name) for name in _CONDITION}
        row = {"label": label, "seed": seed, "finetune_seed": planned.seed, **condition, "auroc": metrics["test_macro_auroc"]}
        rows.append({**row, "folder": placed.settings.output_dir})
    columns = ["label", "seed", "finetune_seed", *_CONDITION, "auroc", "folder"]
    return pd.DataFrame(rows, columns=columns)


def encoder_folder(plan: ComparisonPlan, label: str, seed: int) -> Path:
    """Of a run of pre-training."""
    return plan.directory / "pretraining" / f"{label}-{seed}"


def gather_logs(plan: ComparisonPlan) -> pd.DataFrame:
    """What was measured on held-out records during pre-training: a row per `label`, `seed`, `step`, with `TFLOP` until then."""
    rows = []
    for entry, seed in itertools.product(plan.entries, plan.comparison.seeds):
        folder = encoder_folder(plan, entry.label, seed)
        if not (folder / TRAINING_INFO_FILE).is_file():
            continue
        info = read_json(folder / TRAINING_INFO_FILE)
        settings = info["settings"]
        records = settings["batch_size"] * settings["gradient_accumulation_steps"]
        for line in read_lines(folder / "metrics.jsonl"):
            if "eval_loss" in line:
                cost = line["step"] * records * info["gflop_per_record"] / 1000
                rows.append({"label": entry.label, "seed": seed, "TFLOP": cost, **line})
    return pd.DataFrame(rows)


def spread_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Per label and condition: `auroc`, the mean over pre-training seeds, and `auroc_std`, its standard deviation over them."""
    of_seeds = results.groupby(["label", "seed", *_CONDITION], sort=False)["auroc"].mean()
    groups = of_seeds.groupby(["label", *_CONDITION], sort=False)
    return pd.DataFrame({"auroc": groups.mean(), "auroc_std": groups.std(), "seeds": groups.size()}).reset_index()


def compare_with_first(plan: ComparisonPlan, results: pd.DataFrame) -> pd.DataFrame:
    """
    The first objective against each other one in every condition, with the seeds that both have: difference of their mean macro
    AUROC with its paired 95% interval over test records, and p values, of which `p_holm` are corrected for all of them.
    """
    first = plan.entries[0].label
    rows: list[dict[str, Any]] = []
    for condition, group in results.groupby(_CONDITION, sort=False) if not results.empty else ():
        runs = {label: of.set_index(["seed", "finetune_seed"])["folder"] for label, of in group.groupby("label", sort=False)}
        for label in runs.keys() - {first} if first in runs else ():
            shared = sorted(runs[first].index.intersection(runs[label].index))
            if not shared:
                continue
            sides = [[_predictions(runs[name][key]) for key in shared] for name in (first, label)]
            labels = sides[0][0][0]
            ours, theirs = (np.stack([scores for _, scores in side]) for side in sides)
            test = paired_test(labels, ours, theirs)
            row = dict(zip(_CONDITION, condition, strict=True))
            row |= {"first": first, "second": label, "seeds": len(shared), "difference": test.difference.value}
            rows.append({**row, "low": test.difference.low, "high": test.difference.high, "p": test.p_value})
    table = pd.DataFrame(rows, columns=[*_CONDITION, "first", "second", "seeds", "difference", "low", "high", "p"])
    order = {entry.label: number for number, entry in enumerate(plan.entries)}
    table = table.sort_values("second", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)
    return table.assign(p_holm=holm(table["p"].to_numpy(dtype=float)))


def _predictions(folder: str) -> tuple[np.ndarray, np.ndarray]:
    stored = np.load(Path(folder, PREDICTIONS_FILE))
    return stored["labels"], stored["logits"]


def describe(plan: ComparisonPlan, logs: pd.DataFrame, chosen: dict[str, dict[str, str]]) -> str:
    """What was compared, and what each cost."""
    comparison = plan.comparison
    rows = []
    for entry in plan.entries:
        recipe = plan.recipe(entry, comparison.seeds[0], chosen.get(entry.label, {}))
        records = recipe.max_steps * recipe.batch_size * recipe.gradient_accumulation_steps
        done = [
            read_json(path)
            for seed in comparison.seeds
            if (path := encoder_folder(plan, entry.label, seed) / TRAINING_INFO_FILE).is_file()
        ]
        rows.append(
            {
                "name": entry.label,
                "objective": entry.objective,
                "steps": recipe.max_steps,
                "records a step": recipe.batch_size,
                "GFLOP a record": f"{plan.costs[entry.label] / 1e9:.3g}",
                "TFLOP in all": f"{plan.costs[entry.label] * records / 1e12:.3g}",
                "minutes": f"{np.mean([info['seconds'] for info in done]) / 60:.1f}" if done else "",
                "seeds": len(done),
                "weights": "random" if not recipe.max_steps else "average" if recipe.exported_weights == "ema" else "last",
            }
        )
    matched = "operations" if comparison.match == "flops" else "steps"
    shared = ", ".join(comparison.settings) or "defaults"
    hardware = _hardware(plan)
    return (
        f"One encoder, corpus, optimiser and schedule for all; the same number of {matched}. Settings: {shared}.{hardware} "
        "Operations are those of forward and backward as PyTorch counts them. Weights that were judged: the exponential moving "
        "average, the last ones, or random ones. Each run is one of `ecg-jepa pretrain` or `ecg-jepa sweep` with `--config` and "
        f"a file of `plans/`.\n\n{_markdown(pd.DataFrame(rows))}"
    )


def _hardware(plan: ComparisonPlan) -> str:
    for entry, seed in itertools.product(plan.entries, plan.comparison.seeds):
        path = encoder_folder(plan, entry.label, seed) / TRAINING_INFO_FILE
        if path.is_file():
            return f" Machine: {read_json(path)['hardware']}."
    return ""


def describe_tuning(plan: ComparisonPlan, tuned: list[tuple[Candidate, float]], chosen: dict[str, dict[str, str]]) -> str:
    """All that was tried, also what lost."""
    if not tuned:
        return "Nothing was tuned."
    rows = [
        {
            "name": candidate.entry.label,
            "tried": ", ".join(f"{key} {value}" for key, value in candidate.tried.items()),
            "steps": candidate.recipe.max_steps,
            "probe on validation": f"{score:.3f}",
            "chosen": "yes" if chosen[candidate.entry.label] == candidate.tried else "",
        }
        for candidate, score in tuned
    ]
    task, seed = plan.comparison.probe_task, plan.comparison.seeds[0]
    return (
        f"Runs of {plan.comparison.tuning_share:.0%} of the steps, with seed {seed}; linear probe of {task} on validation "
        f"records.\n\n{_markdown(pd.DataFrame(rows))}"
    )


def describe_courses(plan: ComparisonPlan, logs: pd.DataFrame) -> str:
    """Before and after: held-out loss, probe, and the measures by which a collapse shows, mean over seeds."""
    rows = []
    for label, of_label in logs.groupby("label", sort=False) if not logs.empty else ():
        begin, end = (of_label.loc[getattr(of_label.groupby("seed")["step"], which)()] for which in ("idxmin", "idxmax"))
        row = {"name": label}
        for column, name in {"loss": "held-out loss", "probe_auroc": "probe", **_MEASURES}.items():
            values = [part[f"eval_{column}"].mean() for part in (begin, end)]
            row[name] = f"{values[0]:.3f} to {values[1]:.3f}"
        rows.append(row)
    return f"On validation records, before and after, mean over seeds.\n\n{_markdown(pd.DataFrame(rows))}"


def describe_results(plan: ComparisonPlan, results: pd.DataFrame) -> str:
    """A table per protocol and share of the labels, an objective per row."""
    if results.empty:
        return "No run was judged."
    table = spread_over_seeds(results)
    cell = [
        f"{row['auroc']:.3f}" + (f" ({row['auroc_std']:.3f})" if row["seeds"] > 1 else "") for row in table.to_dict("records")
    ]
    parts = ["Macro AUROC on test records, mean over seeds of pre-training (standard deviation)."]
    for key, rows in table.assign(cell=cell).groupby(["protocol", "label_fraction"], sort=False):
        protocol, fraction = key
        cells = rows.pivot_table(index="label", columns="task", values="cell", aggfunc="first", sort=False)
        parts.append(
            f"**{protocol}, {_percent(fraction)} of the labels**\n\n{_markdown(cells.rename_axis('name').reset_index())}"
        )
    return "\n\n".join(parts)


def describe_tests(plan: ComparisonPlan, tests: pd.DataFrame) -> str:
    """A row per test."""
    if tests.empty:
        return "Nothing could be tested."
    rows = tests.assign(
        label_fraction=tests["label_fraction"].map(_percent),
        difference=[f"{r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]" for r in tests.to_dict("records")],
        p=tests["p"].map("{:.3f}".format),
        p_holm=tests["p_holm"].map("{:.3f}".format),
    ).drop(columns=["low", "high", "first"])
    return (
        f"`{plan.entries[0].label}` minus each other, paired bootstrap over test records of the mean over seeds [95% interval]; "
        f"p values, and the same corrected for all {len(tests)} of them (Holm 1979).\n\n{_markdown(rows)}"
    )


def _percent(share: Any) -> str:
    return f"{100 * share:g}%"


def _markdown(table: pd.DataFrame) -> str:
    return table.rename(columns=one_cell).to_markdown(index=False, disable_numparse=True)
