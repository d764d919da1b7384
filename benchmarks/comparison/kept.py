"""
What a comparison keeps of its runs, in files small enough for a repository: everything that the report needs. Weights and folders
of runs may be removed.
"""

import json
import logging
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ecg_jepa._utils.files import TRAINING_INFO_FILE, read_json, read_lines, replacing, write_json
from ecg_jepa._utils.settings import deciding_values
from ecg_jepa.data.records import find_database
from ecg_jepa.evaluation.results import PREDICTIONS_FILE, read_metrics
from ecg_jepa.finetuning.protocols import FinetuneSettings
from ecg_jepa.finetuning.sweep_plan import SweepFolder
from ecg_jepa.finetuning.sweep_plan import plan as planned_runs
from ecg_jepa.pretraining.recipe import PretrainingRecipe

from .plan import Candidate, ComparisonPlan, Entry

logger = logging.getLogger("ecg_jepa.benchmarks")  # below the package, whose handler writes the lines

CONDITION = ("protocol", "task", "label_fraction")  # under which encoders are compared

_PLAIN = ("label", "seed", "training", "course", "runs")
_OF_TRAINING = ("settings", "gflop_per_record", "seconds", "hardware", "databases", "weights")


@dataclass(frozen=True)
class EncoderResult:
    """
    A trained encoder and its test results.

    Args:
        label, seed: of the objective and its pre-training.
        training: `settings`, `gflop_per_record`, `seconds`, `hardware`, `databases` and digest of the `weights`, as in
            `training_info.json`.
        course: lines of its log that were measured on held-out records.
        runs: evaluating runs: `protocol`, `task`, `label_fraction`, `seed`, `settings`, `database` (digest), `auroc` on test
            records, `best_step`.
        ranks: ranks of the test scores of each run, (records, classes), which give the same AUROC.
        records: task -> (`record_id`, `labels`) of its test records.
    """

    label: str
    seed: int
    training: dict[str, Any]
    course: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    ranks: list[np.ndarray]
    records: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def teraflops(self) -> float:
        """Return the floating-point operations of a step, in units of 1e12."""
        settings = self.training["settings"]
        records = settings["batch_size"] * settings["gradient_accumulation_steps"]
        return records * self.training["gflop_per_record"] / 1000

    def wanted_runs(self, plan: ComparisonPlan) -> list[tuple[dict[str, Any], np.ndarray]]:
        """Return the runs and ranks with the settings and on the records that the comparison asks for."""
        database = find_database(plan.comparison.data_dir, plan.comparison.database).info.content_digest
        wanted = [deciding_values(planned) for planned in planned_runs(plan.sweep("encoder"))]
        pairs = zip(self.runs, self.ranks, strict=True)
        return [(run, ranks) for run, ranks in pairs if run["database"] == database and run["settings"] in wanted]

    def is_incomplete(self, plan: ComparisonPlan) -> bool:
        """Return whether a run that the comparison asks for is missing."""
        return len(self.wanted_runs(plan)) < len(planned_runs(plan.sweep("encoder")))

    def add_earlier(self, earlier: "EncoderResult") -> None:
        """Keep what other comparisons asked for of the same weights on the same records."""
        same = earlier.training["weights"] == self.training["weights"]
        for run, ranks in zip(earlier.runs, earlier.ranks, strict=True) if same else ():
            known = self.records.setdefault(run["task"], earlier.records[run["task"]])
            settings = [own["settings"] for own in self.runs if own["database"] == run["database"]]
            if run["settings"] not in settings and np.array_equal(known[0], earlier.records[run["task"]][0]):
                self.runs.append(run)
                self.ranks.append(ranks)

    def save(self, path: Path) -> None:
        """Write one file."""
        arrays: dict[str, Any] = {f"ranks-{number}": ranks for number, ranks in enumerate(self.ranks)}
        for task, (record_id, labels) in self.records.items():
            arrays |= {f"records-{task}": record_id, f"labels-{task}": labels}
        content = {name: getattr(self, name) for name in _PLAIN}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, content=np.array(json.dumps(content)), **arrays)

    @classmethod
    def load(cls, path: Path) -> "EncoderResult | None":
        """Read the file of [`save`]; return `None` if there is none, or, with a warning, if it cannot be read."""
        if not path.is_file():
            return None
        try:
            with np.load(path) as arrays:
                content = json.loads(str(arrays["content"]))
                for run in content["runs"]:
                    run.get("settings", {}).setdefault("calibrate", False)  # not in files of before that setting
                ranks = [arrays[f"ranks-{number}"] for number in range(len(content["runs"]))]
                tasks = [name.removeprefix("labels-") for name in arrays.files if name.startswith("labels-")]
                records = {task: (arrays[f"records-{task}"], arrays[f"labels-{task}"]) for task in tasks}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning(f"{path} cannot be read ({error}): the encoder is trained and evaluated again.")
            return None
        for run in content["runs"]:
            run["settings"].setdefault("calibrate", False)  # earlier versions recorded it only if it was set
        return cls(**content, ranks=ranks, records=records)

    @classmethod
    def gather(cls, plan: ComparisonPlan, entry: Entry, seed: int, encoder: Path) -> "EncoderResult":
        """
        Gather the result of an encoder from its folder and those of its finished evaluating runs.

        Raises:
            ValueError: if two runs of a task were scored on different records.
        """
        info, folders = read_json(encoder / TRAINING_INFO_FILE), SweepFolder()
        training = {name: info.get(name) for name in _OF_TRAINING}
        course = [line for line in read_lines(encoder / "metrics.jsonl") if "eval_loss" in line]
        found = cls(entry.label, seed, training, course, [], [], {})
        for planned in planned_runs(plan.sweep(str(encoder))):
            placed = folders.place(planned)
            if placed.finished:
                found._add(placed.settings)
        return found

    def _add(self, run: FinetuneSettings) -> None:
        metrics = read_metrics(Path(run.output_dir))
        with np.load(Path(run.output_dir, PREDICTIONS_FILE)) as file:
            record_id, labels, logits = file["record_id"], file["labels"].astype(np.uint8), file["logits"]
        known_id, known_labels = self.records.setdefault(run.task, (record_id, labels))
        if not (np.array_equal(known_id, record_id) and np.array_equal(known_labels, labels)):
            raise ValueError(f"{run.output_dir} was scored on other records or labels than other runs of {run.task}.")
        ranks = rankdata(logits, method="dense", axis=0)
        self.ranks.append(ranks.astype(np.uint16 if len(ranks) < 1 << 16 else np.uint32))
        scores = {"auroc": metrics["test_metrics"]["macro"]["auroc"]["value"], "best_step": metrics["best_step"]}
        condition = {name: getattr(run, name) for name in (*CONDITION, "seed")}
        self.runs.append({**condition, "settings": deciding_values(run), "database": metrics["database_digest"], **scores})


def encoder_path(plan: ComparisonPlan, recipe: PretrainingRecipe) -> Path:
    """Return where the [`EncoderResult`] of a run of pre-training is kept."""
    return plan.directory / "judged" / f"{Path(recipe.output_dir).name}.npz"


def load_encoder(plan: ComparisonPlan, recipe: PretrainingRecipe) -> EncoderResult | None:
    """Return what is kept of a run of pre-training on the present records; it may be incomplete."""
    result = EncoderResult.load(encoder_path(plan, recipe))
    return result if result is not None and _same_records(result.training, recipe) else None


def _tuning_path(plan: ComparisonPlan, candidate: Candidate) -> Path:
    return plan.directory / "tried" / f"{Path(candidate.recipe.output_dir).name}.json"


def keep_tuning(plan: ComparisonPlan, candidate: Candidate, probe_auroc: float | None, failed: bool) -> dict[str, Any]:
    """Keep the result of a tuning run, also of one that failed; return what [`load_tuning`] will."""
    databases = [{"name": name, "digest": digest} for name, digest in _digests(candidate.recipe).items()]
    kept = {"tried": candidate.tried, "probe_auroc": probe_auroc, "databases": databases, "failed": failed}
    path = _tuning_path(plan, candidate)
    path.parent.mkdir(exist_ok=True)
    write_json(path, kept)
    return kept


def load_tuning(plan: ComparisonPlan, candidate: Candidate) -> dict[str, Any] | None:
    """Return `tried`, `probe_auroc`, `databases` and `failed` of a tuning run on the present records, `None` if there is none."""
    path = _tuning_path(plan, candidate)
    kept = read_json(path) if path.is_file() else None
    return kept if kept is not None and _same_records(kept, candidate.recipe) else None


def score_of(kept: Mapping[str, Any]) -> float:
    """Return the AUROC of a tuning run, NaN if it failed."""
    return math.nan if kept["probe_auroc"] is None else float(kept["probe_auroc"])


def _same_records(training: Mapping[str, Any], recipe: PretrainingRecipe) -> bool:
    return _digests(recipe) == {database["name"]: database["digest"] for database in training["databases"]}


def _digests(recipe: PretrainingRecipe) -> dict[str, str]:
    """Return database -> digest of its records as they are prepared now."""
    return {name: find_database(recipe.data_dir, name).info.content_digest for name in recipe.database_weights()}


@dataclass
class Outcome:
    """
    Results of a comparison.

    Args:
        plan: of the comparison.
        tuned: tuning runs with their AUROC on validation records, NaN if they failed.
        encoders: results by label and seed.
        failures: names of runs that failed.
        missing: names of runs that are not made, or not evaluated to the end, yet.
    """

    plan: ComparisonPlan
    tuned: list[tuple[Candidate, float]] = field(default_factory=list)
    encoders: dict[tuple[str, int], EncoderResult] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> dict[str, dict[str, str]]:
        """
        Return label -> settings with the best AUROC on validation records (the first of equal ones), empty without tuning. A
        label whose tuning failed or is not finished is left out.
        """
        found: dict[str, dict[str, str]] = {entry.label: {} for entry in self.plan.entries}
        for label in {candidate.entry.label for candidate, _ in self.tuned}:
            own = [(score, candidate) for candidate, score in self.tuned if candidate.entry.label == label]
            scores = [(score, candidate.tried) for score, candidate in own if not math.isnan(score)]
            if scores and not any(candidate.name in self.missing for _, candidate in own):
                found[label] = max(scores, key=lambda pair: pair[0])[1]
            else:
                del found[label]
        return found

    def runs(self) -> list[tuple[Entry, int]]:
        """Return the runs of pre-training: one seed of all objectives before the next seed."""
        return [(entry, seed) for seed in self.plan.comparison.seeds for entry in self.plan.entries if entry.label in self.chosen]


def gather_outcome(plan: ComparisonPlan) -> Outcome:
    """
    Gather what is kept of a comparison, without running anything.

    Raises:
        FileNotFoundError: if the comparison has no folder.
    """
    if not plan.directory.is_dir():
        raise FileNotFoundError(f"There is no folder {plan.directory}: nothing is kept of this comparison.")
    outcome = Outcome(plan)
    for candidate in plan.tuning():
        kept = load_tuning(plan, candidate)
        outcome.tuned.append((candidate, math.nan if kept is None else score_of(kept)))
        if kept is None:
            outcome.missing.append(candidate.name)
    for entry, seed in outcome.runs():
        recipe = plan.recipe(entry, seed, outcome.chosen[entry.label])
        result = load_encoder(plan, recipe)
        if result is not None:
            outcome.encoders[entry.label, seed] = result
        if result is None or result.is_incomplete(plan):
            outcome.missing.append(Path(recipe.output_dir).name)
    return outcome
