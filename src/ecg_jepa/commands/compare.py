"""`ecg-jepa compare`: objectives of pre-training on one encoder, one corpus and one budget, judged alike."""

import logging
import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..common.files import write_json
from ..common.json_lines import read_lines
from ..common.logs import progress_bar
from ..common.settings import write_yaml
from ..comparison.plan import Candidate, ComparisonPlan, Entry
from ..comparison.report import write_report
from ..comparison.settings import ComparisonSettings
from .pretrain import make_synthetic_database

logger = logging.getLogger(__name__)


def run(comparison: ComparisonSettings) -> None:
    """Choose settings, pre-train, judge, report; a run that fails ends nothing. Raises `ValueError` if no encoder came out."""
    plan = ComparisonPlan(comparison)
    make_synthetic_database(plan.first_recipe())
    tuned = [(candidate, validation_score(plan, candidate)) for candidate in progress_bar(plan.tuning(), desc="tuning")]
    chosen = choose(plan, tuned)
    trained = pretrain_all(plan, chosen)
    if not trained:
        raise ValueError(f"None of the runs in {plan.directory / 'pretraining'} could be finished: their messages are above.")
    sweep = plan.sweep([str(directory) for directory in trained])
    execute(plan, "sweep", sweep, plan.directory / "plans" / "sweep.yaml")
    print(f"Report: {write_report(plan, tuned, chosen)}")


def validation_score(plan: ComparisonPlan, candidate: Candidate) -> float:
    """Of a run of the tuning, which is made unless it is there: its probe's AUROC at the end; NaN if the run failed."""
    recipe = candidate.recipe
    name = f"tuning-{candidate.entry.label}-{Path(recipe.output_dir).name}"
    if not execute(plan, "pretrain", recipe, plan.directory / "plans" / f"{name}.yaml"):
        return math.nan
    lines = read_lines(Path(recipe.output_dir, "metrics.jsonl"))
    scores = [line["eval_probe_auroc"] for line in lines if "eval_probe_auroc" in line]
    return scores[-1] if scores else math.nan


def choose(plan: ComparisonPlan, tuned: list[tuple[Candidate, float]]) -> dict[str, dict[str, str]]:
    """Of each entry what did best on validation records, the first of those that are equal: label -> settings."""
    chosen: dict[str, dict[str, str]] = {entry.label: {} for entry in plan.entries}
    best = dict.fromkeys(chosen, -math.inf)
    for candidate, score in tuned:
        label = candidate.entry.label
        if score > best[label]:  # not of NaN
            best[label], chosen[label] = score, candidate.tried
    for label in {candidate.entry.label for candidate, _ in tuned}:
        if best[label] == -math.inf:
            logger.warning(f"Nothing that was tried of {label} could be finished: it is trained with its defaults.")
    return chosen


def pretrain_all(plan: ComparisonPlan, chosen: dict[str, dict[str, str]]) -> list[Path]:
    """Folders of the encoders that are there in the end."""
    runs: list[tuple[Entry, int]] = [(entry, seed) for seed in plan.comparison.seeds for entry in plan.entries]
    finished = []
    for entry, seed in progress_bar(runs, desc="pre-training"):
        recipe = plan.recipe(entry, seed, chosen[entry.label])
        if execute(plan, "pretrain", recipe, plan.directory / "plans" / f"{entry.label}-{seed}.yaml"):
            finished.append(Path(recipe.output_dir))
    write_json(plan.directory / "chosen.json", chosen)
    return finished


def execute(plan: ComparisonPlan, command: str, settings: Any, path: Path) -> bool:
    """Run a command in a process of its own, with settings that are written to a file; whether it came to its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_yaml(settings, path)
    launcher = shlex.split(plan.comparison.launcher) or [sys.executable]
    result = subprocess.run([*launcher, "-m", "ecg_jepa", command, "--config", str(path)], check=False)
    if result.returncode >= 128 or result.returncode < 0:  # stopped from outside, and so are we
        raise SystemExit(result.returncode if result.returncode > 0 else 128 - result.returncode)
    if result.returncode:
        logger.warning(f"{path.stem} failed ({result.returncode}): the comparison goes on without it.")
    return result.returncode == 0
