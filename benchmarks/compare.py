"""`ecg-jepa compare`: objectives of pre-training on one encoder, one corpus and one budget, judged alike."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from comparison.judged import Judged, judged_path, keep_tried, load_judged, load_tried
from comparison.outcome import Outcome, gather, score_of
from comparison.plan import Candidate, ComparisonPlan, Entry
from comparison.report import write_report
from comparison.settings import ComparisonSettings

from ecg_jepa._utils.files import write_json
from ecg_jepa._utils.hardware import warn_of_slow_precision
from ecg_jepa._utils.interruption import Commands
from ecg_jepa._utils.json_lines import read_lines
from ecg_jepa._utils.logs import progress_bar
from ecg_jepa._utils.run_directory import own_directory
from ecg_jepa._utils.settings import write_yaml
from ecg_jepa.cli.pretrain import make_synthetic_database
from ecg_jepa.data.records import find_database

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")


def run(comparison: ComparisonSettings) -> None:
    """
    Choose settings, pre-train, judge, report; or report alone. A run that fails ends nothing, and stands in the report.

    Raises:
        ValueError: if a run failed, after the report.
    """
    plan = ComparisonPlan(comparison)
    if comparison.report_only:
        print(f"Report: {write_report(gather(plan))}")
        return
    first = plan.first_recipe()
    if not torch.cuda.is_available():  # here, since runs say it in their logs alone
        warn_of_slow_precision(torch.device("cpu"), str(first.mixed_precision))
    make_synthetic_database(first)
    find_database(comparison.data_dir, comparison.database)
    with own_directory(plan.directory, Accelerator(cpu=True)), Commands() as commands:
        write_yaml(comparison, plan.directory / "comparison.yaml")
        plan.keep_counts()
        runner, outcome = Runner(plan, commands), Outcome(plan)
        candidates = plan.tuning()
        scores = runner.run_all("tuning", runner.try_settings, candidates)
        outcome.tuned.extend(zip(candidates, scores, strict=True))
        write_json(plan.directory / "chosen.json", outcome.chosen)
        encoders = [(entry, seed, outcome.chosen[entry.label]) for entry, seed in outcome.runs()]
        for (entry, seed, _), judged in zip(encoders, runner.run_all("encoders", runner.judge, encoders), strict=True):
            if judged is not None:
                outcome.judged[entry.label, seed] = judged
        outcome.failures.extend(runner.failures)
        print(f"Report: {write_report(outcome)}")
    if outcome.failures:
        raise ValueError(f"{len(outcome.failures)} runs failed: {', '.join(outcome.failures)}. Their messages are in logs/.")


class Runner:
    """
    Makes the runs of a comparison, each unless what is kept of it is there.

    Args:
        plan: of the comparison.
        commands: that run them.
    """

    def __init__(self, plan: ComparisonPlan, commands: Commands):
        self.plan = plan
        self.commands = commands
        self.failures: list[str] = []
        jobs, cores = plan.comparison.jobs, sorted(os.sched_getaffinity(0))
        self._cores: SimpleQueue[list[int]] = SimpleQueue()
        for number in range(jobs):
            # More jobs than cores share them.
            self._cores.put(cores[number::jobs] or [cores[number % len(cores)]])

    def run_all(self, name: str, work: Callable[[Job], Result], jobs: Iterable[Job]) -> list[Result]:
        """The results of work on several jobs, as many at a time as the comparison says, in their order."""
        listed = list(jobs)
        with ThreadPoolExecutor(self.plan.comparison.jobs) as threads:
            return list(progress_bar(threads.map(work, listed), total=len(listed), desc=name))

    def try_settings(self, candidate: Candidate) -> float:
        """The AUROC of the probe at the end of a run of the tuning, on validation records; NaN if the run failed."""
        directory = Path(candidate.recipe.output_dir)
        kept = load_tried(self.plan, candidate)
        if kept is None or kept.get("failed"):
            failed = not self.execute("pretrain", candidate.recipe, f"tuning-{directory.name}")
            lines = [] if failed else read_lines(directory / "metrics.jsonl")
            scores = [line["eval_probe_auroc"] for line in lines if "eval_probe_auroc" in line]
            kept = keep_tried(self.plan, candidate, scores[-1] if scores else None, failed)
        if not kept.get("failed"):
            self.tidy(directory)
        return score_of(kept)

    def judge(self, job: tuple[Entry, int, dict[str, str]]) -> Judged | None:
        """
        Train an entry with a seed and what was chosen for it, and judge it. If it could not be trained, what was known of it
        before, or `None`.
        """
        plan, (entry, seed, chosen) = self.plan, job
        recipe = plan.recipe(entry, seed, chosen)
        directory = Path(recipe.output_dir)
        judged = load_judged(plan, recipe)
        if judged is None or judged.lacks(plan):
            if not self.execute("pretrain", recipe, directory.name):
                return judged
            complete = self.execute("sweep", plan.sweep(str(directory)), f"sweep-{directory.name}")
            earlier, judged = judged, Judged.gather(plan, entry, seed, directory)
            if earlier is not None:
                judged.take_over(earlier)
            judged.save(judged_path(plan, recipe))
            if not complete or judged.lacks(plan):
                return judged  # what could not be scored can be tried again
        self.tidy(directory, plan.directory / "finetuning" / directory.name)
        return judged

    def tidy(self, *directories: Path) -> None:
        """Remove folders of runs, unless the comparison is to keep them."""
        for directory in directories if not self.plan.comparison.keep_runs else ():
            shutil.rmtree(directory, ignore_errors=True)

    def execute(self, command: str, settings: Any, name: str) -> bool:
        """
        Run a command in a process of its own, with settings that are written to `plans/` and messages that go to `logs/`; whether
        it came to its end.
        """
        plan_path, log_path = self.plan.directory / "plans" / f"{name}.yaml", self.plan.directory / "logs" / f"{name}.log"
        for path in (plan_path, log_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_yaml(settings, plan_path)
        launcher = shlex.split(self.plan.comparison.launcher) or [sys.executable]
        cores = self._cores.get()
        logger.info(f"{name}: begins, messages in {log_path}")
        try:
            with log_path.open("a") as log:
                words = [*launcher, "-m", "ecg_jepa", command, "--config", str(plan_path)]
                status = self.commands.run(words, cores=cores, output=log)
        finally:
            self._cores.put(cores)
        logger.info(f"{name}: ends ({status})")
        if status:
            logger.warning(f"{name} failed ({status}), as logs/{name}.log says: the comparison goes on without it.")
            self.failures.append(name)
        return status == 0
