"""What a comparison found: tables, tests and curves, from the folders of its runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.figures import save
from ..common.files import TRAINING_INFO_FILE, read_json
from ..common.json_lines import read_lines
from ..evaluation.bootstrap import holm, paired_test
from ..evaluation.plots import plot_label_fractions, plot_over_cost
from ..evaluation.results import METRICS_FILE
from ..evaluation.tables import one_cell, paired_predictions
from ..finetuning.sweep import plan as planned_runs
from ..finetuning.sweep_folder import SweepFolder
from .outcome import Outcome
from .plan import ComparisonPlan

_CONDITION = ["protocol", "task", "label_fraction"]  # in which encoders are compared
_FAMILY = ["protocol", "label_fraction"]  # of tests that are corrected together
_RESAMPLES = 5000  # enough for small p values after the correction
_MEASURES = {
    "embedding_std": "deviation of embeddings over records",
    "content_effective_rank": "effective rank at equal positions",
    "position_share": "position's share of the variance",
}


def write_report(outcome: Outcome) -> Path:
    """Write `report.md`, tables as `.csv` and pictures into the folder of a comparison; returns the path of the first."""
    plan, directory = outcome.plan, outcome.plan.directory
    results, logs = gather_results(outcome), gather_logs(outcome)
    tests = compare_with_first(plan, results)
    for name, table in {"results": results.drop(columns="folder"), "tests": tests}.items():
        table.to_csv(directory / f"{name}.csv", index=False)
    plots = directory / "plots"
    courses, judged = [describe_courses(logs)], [describe_results(results)]
    for column in ("TFLOP", "step") if not logs.empty else ():
        path = save(plot_over_cost(logs, column, plan.comparison.probe_task), plots / f"over_{column}.png")
        courses.append(f"![probe over {column}](plots/{path.name})")
    for (protocol, task), rows in results.groupby(["protocol", "task"], sort=False):
        if rows["label_fraction"].nunique() > 1:
            table = spread_over_seeds(rows).rename(columns={"label": "model"})
            path = save(plot_label_fractions(table), plots / f"labels_{protocol}_{task}.png")
            judged.append(f"![{task}, {protocol}](plots/{path.name})")
    parts = [f"# Comparison of {len(plan.entries)} objectives", describe(outcome)]
    if outcome.failures:
        parts.append(f"**Failed, and missing from what follows**: {', '.join(outcome.failures)}.")
    parts += ["## Tuning", describe_tuning(outcome), "## Course", *courses, "## Results", *judged]
    parts += ["## Tests", describe_tests(plan, tests)]
    (directory / "report.md").write_text("\n\n".join(parts) + "\n")
    return directory / "report.md"


def gather_results(outcome: Outcome) -> pd.DataFrame:
    """A row per finished judging run: `label`, `seed` (of pre-training), `finetune_seed`, condition, `auroc`, `folder`."""
    rows, folders = [], SweepFolder()
    for (label, seed), encoder in outcome.encoders.items():
        for planned in planned_runs(outcome.plan.sweep([str(encoder)])):
            placed = folders.place(planned)
            if placed.finished:
                metrics = read_json(Path(placed.settings.output_dir, METRICS_FILE))
                row = {"label": label, "seed": seed, "finetune_seed": planned.seed, "auroc": metrics["test_macro_auroc"]}
                row |= {name: getattr(planned, name) for name in _CONDITION}
                rows.append({**row, "folder": placed.settings.output_dir})
    return pd.DataFrame(rows, columns=["label", "seed", "finetune_seed", *_CONDITION, "auroc", "folder"])


def gather_logs(outcome: Outcome) -> pd.DataFrame:
    """What was measured on held-out records during pre-training: a row per `label`, `seed`, `step`, with `TFLOP` until then."""
    rows = []
    for (label, seed), folder in outcome.encoders.items():
        info = read_json(folder / TRAINING_INFO_FILE)
        records = info["settings"]["batch_size"] * info["settings"]["gradient_accumulation_steps"]
        for line in read_lines(folder / "metrics.jsonl"):
            if "eval_loss" in line:
                cost = line["step"] * records * info["gflop_per_record"] / 1000
                rows.append({"label": label, "seed": seed, "TFLOP": cost, **line})
    return pd.DataFrame(rows)


def spread_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Per label and condition: `auroc`, the mean over pre-training seeds, and `auroc_std`, its standard deviation over them."""
    of_seeds = results.groupby(["label", "seed", *_CONDITION], sort=False)["auroc"].mean()
    groups = of_seeds.groupby(["label", *_CONDITION], sort=False)
    return pd.DataFrame({"auroc": groups.mean(), "auroc_std": groups.std(), "seeds": groups.size()}).reset_index()


def compare_with_first(plan: ComparisonPlan, results: pd.DataFrame) -> pd.DataFrame:
    """
    The first objective against each other one in every condition, with the seeds that both have: difference of their mean macro
    AUROC with its paired 95% interval over test records, and p values; `p_holm` are corrected for all tests of the same protocol
    and share of the labels.

    Raises:
        ValueError: if two runs that are compared were not judged on the same records.
    """
    first = plan.entries[0].label
    rows: list[dict[str, Any]] = []
    for condition, group in results.groupby(_CONDITION, sort=False):
        runs = {label: of.set_index(["seed", "finetune_seed"])["folder"] for label, of in group.groupby("label", sort=False)}
        for label in [entry.label for entry in plan.entries[1:] if entry.label in runs and first in runs]:
            shared = sorted(runs[first].index.intersection(runs[label].index))
            if not shared:
                continue
            pairs = [paired_predictions(runs[first][key], runs[label][key]) for key in shared]
            ours, theirs = (np.stack([pair[side] for pair in pairs]) for side in (1, 2))
            test = paired_test(pairs[0][0], ours, theirs, num_resamples=_RESAMPLES)
            row = {**dict(zip(_CONDITION, condition, strict=True)), "first": first, "second": label, "seeds": len(shared)}
            row |= {"difference": test.difference.value, "low": test.difference.low, "high": test.difference.high}
            rows.append({**row, "p": test.p_value})
    table = pd.DataFrame(rows, columns=[*_CONDITION, "first", "second", "seeds", "difference", "low", "high", "p"])
    corrected = [pd.Series(holm(of["p"].to_numpy(dtype=float)), index=of.index) for _, of in table.groupby(_FAMILY)]
    return table.assign(p_holm=pd.concat(corrected) if corrected else [])


def describe(outcome: Outcome) -> str:
    """What was compared, and what each cost."""
    plan, rows, hardware = outcome.plan, [], ""
    for entry in plan.entries:
        recipe = plan.recipe(entry, plan.comparison.seeds[0], outcome.chosen.get(entry.label, {}))
        steps = recipe.max_steps * recipe.batch_size * recipe.gradient_accumulation_steps
        cost = plan.cost_per_record(recipe)
        done = [read_json(path / TRAINING_INFO_FILE) for (label, _), path in outcome.encoders.items() if label == entry.label]
        hardware = hardware or (f" Machine: {done[0]['hardware']}." if done else "")
        rows.append(
            {
                "name": entry.label,
                "objective": entry.objective,
                "steps": recipe.max_steps,
                "records a step": recipe.batch_size * recipe.gradient_accumulation_steps,
                "GFLOP a record": f"{cost / 1e9:.3g}",
                "TFLOP in all": f"{cost * steps / 1e12:.3g}",
                "minutes": f"{np.mean([info['seconds'] for info in done]) / 60:.1f}" if done else "",
                "seeds": len(done),
                "weights": "random" if not recipe.max_steps else "average" if recipe.exported_weights == "ema" else "last",
            }
        )
    matched = "operations" if plan.comparison.match == "flops" else "steps"
    return (
        f"One encoder, corpus, optimiser and schedule for all; the same number of {matched}. Settings: "
        f"{', '.join(plan.comparison.settings) or 'defaults'}.{hardware} Operations are those of forward and backward as PyTorch "
        "counts them. Weights that were judged: the exponential moving average, the last ones, or random ones. Each run is one "
        f"of `ecg-jepa pretrain` or `ecg-jepa sweep` with `--config` and a file of `plans/`.\n\n{_markdown(pd.DataFrame(rows))}"
    )


def describe_tuning(outcome: Outcome) -> str:
    """All that was tried, also what lost."""
    if not outcome.tuned:
        return "Nothing was tuned."
    comparison, chosen = outcome.plan.comparison, outcome.chosen
    rows = [
        {
            "name": candidate.entry.label,
            "tried": ", ".join(f"{key} {value}" for key, value in candidate.tried.items()),
            "steps": candidate.recipe.max_steps,
            "probe on validation": "failed" if np.isnan(score) else f"{score:.3f}",
            "chosen": "yes" if chosen.get(candidate.entry.label) == candidate.tried else "",
        }
        for candidate, score in outcome.tuned
    ]
    return (
        f"Runs of {comparison.tuning_share:.0%} of the steps, with seed {comparison.seeds[0]}; linear probe of "
        f"{comparison.probe_task} on mean tokens of validation records.\n\n{_markdown(pd.DataFrame(rows))}"
    )


def describe_courses(logs: pd.DataFrame) -> str:
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


def describe_results(results: pd.DataFrame) -> str:
    """A table per protocol and share of the labels, an objective per row."""
    if results.empty:
        return "No run was judged."
    table = spread_over_seeds(results)
    cell = [
        f"{row['auroc']:.3f}" + (f" ({row['auroc_std']:.3f}, {row['seeds']})" if row["seeds"] > 1 else "")
        for row in table.to_dict("records")
    ]
    parts = ["Macro AUROC on test records, mean over seeds of pre-training (standard deviation, number of seeds)."]
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
        f"`{plan.entries[0].label}` minus each other: mean over seeds [paired 95% bootstrap interval over test records], p "
        "values, and the same corrected for all tests of the same protocol and share of the labels (Holm 1979). They are about "
        f"these encoders: what another seed or another draw of few labels would give is not in them.\n\n{_markdown(rows)}"
    )


def _percent(share: Any) -> str:
    return f"{100 * share:g}%"


def _markdown(table: pd.DataFrame) -> str:
    return table.rename(columns=one_cell).map(one_cell).to_markdown(index=False, disable_numparse=True)
