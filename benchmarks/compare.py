"""
Compare objectives of pre-training on one encoder, one corpus and one budget.

    python benchmarks/compare.py --config compare_demo

Tunes each objective, pre-trains it with several seeds, evaluates the encoders by probing and fine-tuning, and writes `report.md`.
`--config` names a YAML file, or one in `benchmarks/configs`.
"""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from comparison.kept import EncoderResult, Outcome, encoder_path, gather_outcome, keep_tuning, load_encoder, load_tuning, score_of
from comparison.plan import Candidate, ComparisonPlan, ComparisonSettings, Entry
from comparison.processes import Commands
from comparison.report import write_report

from ecg_jepa._utils.files import read_lines, write_json
from ecg_jepa._utils.hardware import warn_of_slow_precision
from ecg_jepa._utils.logs import progress_bar, start_logging
from ecg_jepa._utils.run_directory import own_directory
from ecg_jepa._utils.settings import fail, parse_settings, write_yaml
from ecg_jepa.cli.pretrain import make_synthetic_database
from ecg_jepa.data.records import find_database

CONFIGS = Path(__file__).parent / "configs"

logger = logging.getLogger("ecg_jepa.benchmarks")  # below the package, whose handler writes the lines

Job = TypeVar("Job")
Result = TypeVar("Result")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and compare; mistakes and failures are one line on the error stream."""
    words = list(sys.argv[1:] if argv is None else argv)
    for number, word in enumerate(words[:-1]):
        if word == "--config" and (CONFIGS / f"{words[number + 1]}.yaml").is_file():
            words[number + 1] = str(CONFIGS / f"{words[number + 1]}.yaml")
    start_logging()
    comparison = parse_settings(ComparisonSettings, words, "compare.py", __doc__)
    try:
        compare(comparison)
    except (ValueError, OSError) as error:
        fail("compare.py", error)


def compare(comparison: ComparisonSettings) -> None:
    """
    Tune, pre-train, evaluate and report; or report only. A failing run is listed in the report and does not end the others.

    Raises:
        ValueError: after the report, if a run failed.
    """
    plan = ComparisonPlan(comparison)
    if comparison.report_only:
        print(f"Report: {write_report(gather_outcome(plan))}")
        return
    first = plan.first_recipe()
    if not torch.cuda.is_available():  # here, because runs warn in their logs only
        warn_of_slow_precision(torch.device("cpu"), str(first.mixed_precision))
    make_synthetic_database(first)
    find_database(comparison.data_dir, comparison.database)
    with own_directory(plan.directory), Commands() as commands:
        write_yaml(comparison, plan.directory / "comparison.yaml")
        plan.keep_costs()
        runner, outcome = Runner(plan, commands), Outcome(plan)
        candidates = plan.tuning()
        outcome.tuned.extend(zip(candidates, runner.run_all("tuning", runner.tune, candidates), strict=True))
        write_json(plan.directory / "chosen.json", outcome.chosen)
        encoders = [(entry, seed, outcome.chosen[entry.label]) for entry, seed in outcome.runs()]
        results = runner.run_all("encoders", runner.train_and_evaluate, encoders)
        for (entry, seed, _), result in zip(encoders, results, strict=True):
            if result is not None:
                outcome.encoders[entry.label, seed] = result
        outcome.failures.extend(runner.failures)
        print(f"Report: {write_report(outcome)}")
    if outcome.failures:
        raise ValueError(f"{len(outcome.failures)} runs failed: {', '.join(outcome.failures)}. Their messages are in logs/.")


class Runner:
    """Make the runs of a comparison that are not kept yet."""

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
        """Return the results of several jobs in their order, running as many at a time as the comparison says."""
        listed = list(jobs)
        with ThreadPoolExecutor(self.plan.comparison.jobs) as threads:
            return list(progress_bar(threads.map(work, listed), total=len(listed), desc=name))

    def tune(self, candidate: Candidate) -> float:
        """Return the AUROC of the last probe of a tuning run on validation records, NaN if the run failed."""
        directory = Path(candidate.recipe.output_dir)
        kept = load_tuning(self.plan, candidate)
        if kept is None or kept.get("failed"):
            failed = not self.execute("pretrain", candidate.recipe, candidate.name)
            lines = [] if failed else read_lines(directory / "metrics.jsonl")
            scores = [line["eval_probe_auroc"] for line in lines if "eval_probe_auroc" in line]
            kept = keep_tuning(self.plan, candidate, scores[-1] if scores else None, failed)
        if not kept.get("failed"):
            self.tidy(directory)
        return score_of(kept)

    def train_and_evaluate(self, job: tuple[Entry, int, dict[str, str]]) -> EncoderResult | None:
        """Train and evaluate an entry with a seed and its chosen settings; if that fails, return what is kept of it."""
        plan, (entry, seed, chosen) = self.plan, job
        recipe = plan.recipe(entry, seed, chosen)
        directory = Path(recipe.output_dir)
        result = load_encoder(plan, recipe)
        if result is None or result.is_incomplete(plan):
            if not self.execute("pretrain", recipe, directory.name):
                return result
            complete = self.execute("sweep", plan.sweep(str(directory)), f"sweep-{directory.name}")
            earlier, result = result, EncoderResult.gather(plan, entry, seed, directory)
            if earlier is not None:
                result.add_earlier(earlier)
            result.save(encoder_path(plan, recipe))
            if not complete or result.is_incomplete(plan):
                return result  # its folders stay, so that the rest can be tried again
        self.tidy(directory, plan.directory / "finetuning" / directory.name)
        return result

    def tidy(self, *directories: Path) -> None:
        """Remove folders of runs, unless the comparison is to keep them."""
        for directory in directories if not self.plan.comparison.keep_runs else ():
            shutil.rmtree(directory, ignore_errors=True)

    def execute(self, command: str, settings: Any, name: str) -> bool:
        """Run a command of `ecg-jepa` with settings in `plans/` and messages in `logs/`; return whether it succeeded."""
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
                status = self.commands.run(words, cores, log)
        finally:
            self._cores.put(cores)
        logger.info(f"{name}: ends ({status})")
        if status:
            logger.warning(f"{name} failed ({status}), as logs/{name}.log says: the comparison goes on without it.")
            self.failures.append(name)
        return status == 0


if __name__ == "__main__":
    main()
