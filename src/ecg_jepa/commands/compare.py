"""`ecg-jepa compare`: objectives of pre-training on one encoder, one corpus and one budget, judged alike."""

import logging
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..common.files import write_json
from ..common.json_lines import read_lines
from ..common.logs import progress_bar
from ..common.run_directory import own_directory
from ..common.settings import write_yaml
from ..common.signals import run_to_the_end
from ..comparison.outcome import Outcome
from ..comparison.plan import Candidate, ComparisonPlan
from ..comparison.report import write_report
from ..comparison.settings import ComparisonSettings
from ..data.records import find_database
from .pretrain import make_synthetic_database

logger = logging.getLogger(__name__)


def run(comparison: ComparisonSettings) -> None:
    """
    Choose settings, pre-train, judge, report. A run that fails ends nothing, and stands in the report.

    Raises:
        ValueError: if a run failed, after the report.
    """
    plan = ComparisonPlan(comparison)
    make_synthetic_database(plan.first_recipe())
    find_database(comparison.data_dir, comparison.database)
    with own_directory(plan.directory, Accelerator(cpu=True)):
        write_yaml(comparison, plan.directory / "comparison.yaml")
        outcome = Outcome(plan)
        for candidate in progress_bar(plan.tuning(), desc="tuning"):
            outcome.tuned.append((candidate, validation_score(plan, candidate, outcome)))
        write_json(plan.directory / "chosen.json", outcome.chosen)
        for entry, seed in progress_bar(outcome.runs(), desc="pre-training"):
            recipe = plan.recipe(entry, seed, outcome.chosen[entry.label])
            if execute(plan, "pretrain", recipe, Path(recipe.output_dir).name, outcome):
                outcome.encoders[entry.label, seed] = Path(recipe.output_dir)
        if outcome.encoders:
            models = [str(directory) for directory in outcome.encoders.values()]
            execute(plan, "sweep", plan.sweep(models), "sweep", outcome)
        print(f"Report: {write_report(outcome)}")
    if outcome.failures:
        raise ValueError(f"{len(outcome.failures)} runs failed: {', '.join(outcome.failures)}. Their messages are above.")


def validation_score(plan: ComparisonPlan, candidate: Candidate, outcome: Outcome) -> float:
    """Of a run of the tuning, which is made unless it is there: its probe's AUROC at the end; NaN if the run failed."""
    directory = Path(candidate.recipe.output_dir)
    if not execute(plan, "pretrain", candidate.recipe, f"tuning-{directory.name}", outcome):
        return math.nan
    scores = [line["eval_probe_auroc"] for line in read_lines(directory / "metrics.jsonl") if "eval_probe_auroc" in line]
    return scores[-1] if scores else math.nan


def execute(plan: ComparisonPlan, command: str, settings: Any, name: str, outcome: Outcome) -> bool:
    """Run a command in a process of its own, with settings that are written to `plans/`; whether it came to its end."""
    path = plan.directory / "plans" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_yaml(settings, path)
    launcher = shlex.split(plan.comparison.launcher) or [sys.executable]
    status = run_to_the_end([*launcher, "-m", "ecg_jepa", command, "--config", str(path)])
    if status:
        logger.warning(f"{name} failed ({status}): the comparison goes on without it.")
        outcome.failures.append(name)
    return status == 0
