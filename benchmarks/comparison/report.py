"""Report of a comparison: tables, tests and plots, from what is kept of its runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ecg_jepa._utils.plot_style import COLORS, in_legend, new_figure, save, shortened
from ecg_jepa.evaluation.bootstrap import paired_test
from ecg_jepa.evaluation.plots import plot_label_fractions
from ecg_jepa.evaluation.tables import one_cell

from .kept import CONDITION, Outcome
from .plan import ComparisonPlan

_CONDITION = list(CONDITION)
_FAMILY = ["protocol", "label_fraction"]  # of tests that are corrected together
_RESAMPLES = 5000  # enough for small p values after the correction
_LEVEL = 0.05  # of corrected p values
_MEASURES = {
    "embedding_std": "deviation of embeddings over records",
    "content_effective_rank": "effective rank at equal positions",
    "position_share": "position's share of the variance",
}


def write_report(outcome: Outcome) -> Path:
    """Write `report.md`, tables as `.csv` and plots into the folder of a comparison; return the path of the report."""
    plan, directory = outcome.plan, outcome.plan.directory
    results, logs = gather_results(outcome), gather_logs(outcome)
    tests = compare_pairs(plan, results)
    for name, table in {"results": results.drop(columns=["labels", "ranks"]), "tests": tests}.items():
        table.to_csv(directory / f"{name}.csv", index=False)
    plots = directory / "plots"
    courses, tables = [describe_courses(logs)], [describe_results(plan, results)]
    for column in ("TFLOP", "step") if not logs.empty else ():
        path = save(plot_over_cost(logs, column, plan.comparison.probe_task), plots / f"over_{column}.png")
        courses.append(f"![probe over {column}](plots/{path.name})")
    for (protocol, task), rows in results.groupby(["protocol", "task"], sort=False):
        if rows["label_fraction"].nunique() > 1:
            table = spread_over_seeds(rows).rename(columns={"label": "model"}).assign(settings="")
            path = save(plot_label_fractions(table), plots / f"labels_{protocol}_{task}.png")
            tables.append(f"![{task}, {protocol}](plots/{path.name})")
    parts = [f"# Comparison of {len(plan.entries)} objectives", describe(outcome)]
    if outcome.failures:
        parts.append(f"**Failed, and missing from what follows**: {', '.join(outcome.failures)}.")
    if outcome.missing:
        parts.append(f"**Not finished, and missing from what follows, or in part**: {', '.join(outcome.missing)}.")
    parts += ["## Tuning", describe_tuning(outcome), "## Course", *courses, "## Results", *tables]
    parts += ["## Tests", describe_tests(tests)]
    (directory / "report.md").write_text("\n\n".join(parts) + "\n")
    return directory / "report.md"


def gather_results(outcome: Outcome) -> pd.DataFrame:
    """
    Return a row per evaluating run: `label`, `seed` (of pre-training), `finetune_seed`, condition, `auroc`, and `labels` and
    `ranks` of the scores of its test records, (records, classes) each.
    """
    rows = []
    for (label, seed), encoder in outcome.encoders.items():
        for run, ranks in encoder.wanted_runs(outcome.plan):
            row = {"label": label, "seed": seed, "finetune_seed": run["seed"], "auroc": run["auroc"]}
            row |= {name: run[name] for name in _CONDITION}
            rows.append({**row, "labels": encoder.records[run["task"]][1], "ranks": ranks})
    return pd.DataFrame(rows, columns=["label", "seed", "finetune_seed", *_CONDITION, "auroc", "labels", "ranks"])


def gather_logs(outcome: Outcome) -> pd.DataFrame:
    """Return what was measured on held-out records: a row per `label`, `seed` and `step`, with the `TFLOP` until then."""
    rows = [
        {"label": label, "seed": seed, "TFLOP": line["step"] * encoder.teraflops, **line}
        for (label, seed), encoder in outcome.encoders.items()
        for line in encoder.course
    ]
    return pd.DataFrame(rows)


def spread_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Return `auroc` (mean over pre-training seeds), `auroc_std` and `seeds` per label and condition."""
    of_seeds = results.groupby(["label", "seed", *_CONDITION], sort=False)["auroc"].mean()
    groups = of_seeds.groupby(["label", *_CONDITION], sort=False)
    return pd.DataFrame({"auroc": groups.mean(), "auroc_std": groups.std(), "seeds": groups.size()}).reset_index()


def compare_pairs(plan: ComparisonPlan, results: pd.DataFrame) -> pd.DataFrame:
    """
    Test the baselines against each other objective in every condition, with the seeds that both have.

    Returns:
        A row per test: difference of the mean macro AUROC with its paired 95% interval over test records, `p`, and `p_holm`,
        corrected for all tests of the same protocol and share of the labels.

    Raises:
        ValueError: if two runs that are compared were evaluated on different records.
    """
    rows: list[dict[str, Any]] = []
    for condition, group in results.groupby(_CONDITION, sort=False):
        runs = {label: of.set_index(["seed", "finetune_seed"]) for label, of in group.groupby("label", sort=False)}
        for first, second in _pairs(plan, group["label"]):
            shared = sorted(runs[first].index.intersection(runs[second].index))
            if not shared:
                continue
            pair = [runs[name].loc[shared] for name in (first, second)]
            labels = [*pair[0]["labels"], *pair[1]["labels"]]
            if not all(np.array_equal(labels[0], others) for others in labels[1:]):
                raise ValueError(f"{first} and {second} were not evaluated on the same records: {condition}.")
            ours, theirs = (np.stack(list(rows["ranks"])) for rows in pair)
            test = paired_test(labels[0], ours, theirs, num_resamples=_RESAMPLES)
            row = {**dict(zip(_CONDITION, condition, strict=True)), "first": first, "second": second, "seeds": len(shared)}
            row |= {"difference": test.difference.value, "low": test.difference.low, "high": test.difference.high}
            rows.append({**row, "p": test.p_value})
    table = pd.DataFrame(rows, columns=[*_CONDITION, "first", "second", "seeds", "difference", "low", "high", "p"])
    corrected = [pd.Series(holm(of["p"].to_numpy(dtype=float)), index=of.index) for _, of in table.groupby(_FAMILY)]
    return table.assign(p_holm=pd.concat(corrected) if corrected else [])


def holm(p_values: np.ndarray) -> np.ndarray:
    """
    Return p values corrected for the number of tests by Holm's step-down procedure (1979), which needs no assumption about how
    the tests depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    raised = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(raised)) if len(p_values) else raised
    return corrected


def _pairs(plan: ComparisonPlan, labels: pd.Series) -> list[tuple[str, str]]:
    """Return all pairs of a baseline and another evaluated objective, each pair once."""
    known, pairs = set(labels), []
    for first in plan.baselines:
        for second in (entry.label for entry in plan.entries):
            if first != second and {first, second} <= known and (second, first) not in pairs:
                pairs.append((first, second))
    return pairs


def plot_over_cost(logs: pd.DataFrame, column: str, task: str) -> Figure:
    """
    Plot the linear probe on validation records over the cost of training: thick lines for the mean over seeds of each objective,
    thin ones for its seeds, and a horizontal line for one that does not train.

    Args:
        logs: a row per `label`, `seed` and measurement, with `eval_probe_auroc` and `column`.
        column: `TFLOP` or `step`.
        task: of the probe.
    """
    figure, axis = new_figure(8.0, 4.8)
    for number, (label, rows) in enumerate(logs.groupby("label", sort=False)):
        color, name = COLORS[number % len(COLORS)], in_legend(shortened(str(label), 40))
        if rows[column].max() == 0:
            axis.axhline(rows["eval_probe_auroc"].mean(), color=color, linestyle="--", label=name)
            continue
        for _, run in rows.groupby("seed"):
            axis.plot(run[column], run["eval_probe_auroc"], color=color, linewidth=0.5, alpha=0.5, linestyle="-")
        mean = rows.groupby(column)["eval_probe_auroc"].mean()
        axis.plot(mean.index, mean, color=color, linewidth=1.8, linestyle="-", label=name)
    axis.set(xlabel="TFLOP of training" if column == "TFLOP" else "optimiser steps", ylabel="macro AUROC of the linear probe")
    lines = "thick: mean over seeds; thin: each seed; dashed: without training"
    axis.set_title(f"{task} on validation records\n{lines}", fontsize=10)
    axis.grid(color="0.9")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def describe(outcome: Outcome) -> str:
    """Describe what was compared, and what each cost."""
    plan, rows, hardware = outcome.plan, [], ""
    for entry in plan.entries:
        recipe = plan.recipe(entry, plan.comparison.seeds[0], outcome.chosen.get(entry.label, {}))
        steps = recipe.max_steps * recipe.batch_size * recipe.gradient_accumulation_steps
        cost = plan.cost_per_record(recipe)
        done = [encoder.training for (label, _), encoder in outcome.encoders.items() if label == entry.label]
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
        "counts them. Weights that were evaluated: the exponential moving average, the last ones, or random ones. Each run is "
        "one of `ecg-jepa pretrain` or `ecg-jepa sweep` with `--config` and a file of `plans/`.\n\n"
        f"{_markdown(pd.DataFrame(rows))}"
    )


def describe_tuning(outcome: Outcome) -> str:
    """Describe all tuning runs."""
    if not outcome.tuned:
        return "Nothing was tuned."
    comparison, chosen = outcome.plan.comparison, outcome.chosen
    rows = [
        {
            "name": candidate.entry.label,
            "tried": ", ".join(f"{key} {value}" for key, value in candidate.tried.items()),
            "steps": candidate.recipe.max_steps,
            "probe on validation": "none yet" if candidate.name in outcome.missing else _score(score),
            "chosen": "yes" if chosen.get(candidate.entry.label) == candidate.tried else "",
        }
        for candidate, score in outcome.tuned
    ]
    return (
        f"Runs of {comparison.tuning_share:.0%} of the steps, with seed {comparison.seeds[0]}; linear probe of "
        f"{comparison.probe_task} on mean tokens of validation records.\n\n{_markdown(pd.DataFrame(rows))}"
    )


def describe_courses(logs: pd.DataFrame) -> str:
    """Describe held-out loss, probe and collapse measures before and after training, mean over seeds."""
    rows = []
    for label, of_label in logs.groupby("label", sort=False) if not logs.empty else ():
        begin, end = (of_label.loc[getattr(of_label.groupby("seed")["step"], which)()] for which in ("idxmin", "idxmax"))
        row = {"name": label}
        for column, name in {"loss": "held-out loss", "probe_auroc": "probe", **_MEASURES}.items():
            values = [part[f"eval_{column}"].mean() for part in (begin, end)]
            has_loss = column != "loss" or of_label["step"].any()  # what is not trained has none
            row[name] = f"{values[0]:.3f} to {values[1]:.3f}" if has_loss else "–"
        rows.append(row)
    return f"On validation records, before and after, mean over seeds.\n\n{_markdown(pd.DataFrame(rows))}"


def describe_results(plan: ComparisonPlan, results: pd.DataFrame) -> str:
    """Describe the test results: means over tasks, and a table per protocol and share of the labels."""
    if results.empty:
        return "No run was evaluated."
    records = ", ".join(f"{len(rows['labels'].iloc[0])} of {task}" for task, rows in results.groupby("task", sort=False))
    of_all = mean_over_tasks(results, len(plan.comparison.tasks))
    means = "No encoder was evaluated on all of them yet."
    if not of_all.empty:
        means = _table(of_all, lambda row: f"{row['protocol']}, {_percent(row['label_fraction'])}")
    parts = [
        f"Macro AUROC on test records ({records}), mean over seeds of pre-training (standard deviation, number of seeds).",
        f"**Mean over tasks**\n\n{means}",
    ]
    for key, rows in results.groupby(["protocol", "label_fraction"], sort=False):
        protocol, fraction = key
        parts.append(f"**{protocol}, {_percent(fraction)} of the labels**\n\n{_table(rows, lambda row: row['task'])}")
    return "\n\n".join(parts)


def mean_over_tasks(results: pd.DataFrame, num_tasks: int) -> pd.DataFrame:
    """Return the rows of [`gather_results`] averaged over tasks, for encoders that were evaluated on all of them."""
    runs = results.groupby(["label", "seed", "finetune_seed", "protocol", "label_fraction"], sort=False)["auroc"]
    means = pd.DataFrame({"auroc": runs.mean(), "tasks": runs.size()}).reset_index()
    return means[means["tasks"] == num_tasks].assign(task="all")


def _table(results: pd.DataFrame, column: Callable[[dict[Any, Any]], str]) -> str:
    """Return a Markdown table with an objective per row, mean (and spread) over seeds; `column` names the column of a row."""
    rows = [
        {
            "name": row["label"],
            "column": column(row),
            "cell": f"{row['auroc']:.3f}" + (f" ({row['auroc_std']:.3f}, {row['seeds']})" if row["seeds"] > 1 else ""),
        }
        for row in spread_over_seeds(results).to_dict("records")
    ]
    cells = pd.DataFrame(rows).pivot_table(index="name", columns="column", values="cell", aggfunc="first", sort=False)
    return _markdown(cells.reset_index().fillna("–"))


def describe_tests(tests: pd.DataFrame) -> str:
    """Describe how many tests of a pair found a difference, and all tests."""
    if tests.empty:
        return "Nothing could be tested."
    rows = tests.assign(
        label_fraction=tests["label_fraction"].map(_percent),
        difference=[f"{r['difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]" for r in tests.to_dict("records")],
        p=tests["p"].map(_p_value),
        p_holm=tests["p_holm"].map(_p_value),
    ).drop(columns=["low", "high"])
    return (
        "First minus second: mean over the seeds that both have [paired 95% bootstrap interval over test records], p values, and "
        "the same corrected for all tests of the same protocol and share of the labels (Holm 1979). They are about these "
        "encoders: what another seed or another draw of few labels would give is not in them.\n\n"
        f"**How often the first is above or below the second** (corrected p under {_LEVEL}), of all tasks and shares of the "
        f"labels\n\n{_markdown(count_tests(tests))}\n\n**All tests**\n\n{_markdown(rows)}"
    )


def count_tests(tests: pd.DataFrame) -> pd.DataFrame:
    """Return a row per pair: in how many tests of each protocol the first is above or below the second after correction."""
    is_found = tests["p_holm"] < _LEVEL
    marked = tests.assign(above=is_found & (tests["difference"] > 0), below=is_found & (tests["difference"] < 0))
    groups = marked.groupby(["first", "second", "protocol"], sort=False)
    counts = groups.agg(above=("above", "sum"), below=("below", "sum"), of=("p", "size"))
    cells = [f"{row.above} above, {row.below} below, of {row.of}" for row in counts.itertuples()]
    return pd.Series(cells, index=counts.index).unstack("protocol", sort=False).fillna("–").reset_index()


def _percent(share: Any) -> str:
    return f"{100 * share:g}%"


def _score(value: float) -> str:
    return "failed" if np.isnan(value) else f"{value:.3f}"


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "under 0.001"


def _markdown(table: pd.DataFrame) -> str:
    return table.rename(columns=one_cell).map(one_cell).to_markdown(index=False, disable_numparse=True)
