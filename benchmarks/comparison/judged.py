"""
What a comparison keeps of its runs: all that its report needs, in files that are small enough for a repository. Weights and
folders of runs may go.
"""

import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ecg_jepa._utils.files import TRAINING_INFO_FILE, read_json, write_json
from ecg_jepa._utils.json_lines import read_lines
from ecg_jepa.data.records import find_database
from ecg_jepa.evaluation.results import METRICS_FILE, PREDICTIONS_FILE
from ecg_jepa.finetuning.protocols import ProtocolSettings
from ecg_jepa.finetuning.sweep_folder import SweepFolder
from ecg_jepa.finetuning.sweep_settings import plan as planned_runs
from ecg_jepa.pretraining.recipe import PretrainingRecipe

from .plan import Candidate, ComparisonPlan, Entry

logger = logging.getLogger(__name__)

CONDITION = ("protocol", "task", "label_fraction")  # in which encoders are compared

_PLAIN = ("label", "seed", "training", "course", "runs")
_OF_TRAINING = ("settings", "gflop_per_record", "seconds", "hardware", "databases", "weights")


@dataclass(frozen=True)
class Judged:
    """
    An encoder that was trained, and what was found of it.

    Args:
        label, seed: what it is called, and of its pre-training.
        training: `settings`, `gflop_per_record`, `seconds`, `hardware`, `databases` and digest of the `weights`, as its
            `training_info.json` has them.
        course: the lines of its log that were measured on held-out records.
        runs: those that judged it: `protocol`, `task`, `label_fraction`, `seed`, `settings`, `database` (its digest), `auroc` on
            test records, `best_step`.
        ranks: of the scores of test records in each run, (records, classes): all that an AUROC needs of them.
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
        """Operations of a step, in units of 1e12."""
        settings = self.training["settings"]
        records = settings["batch_size"] * settings["gradient_accumulation_steps"]
        return records * self.training["gflop_per_record"] / 1000

    def asked_for(self, plan: ComparisonPlan) -> list[tuple[dict[str, Any], np.ndarray]]:
        """Those of the runs, with their ranks, that the comparison asks for: of these settings, on these records."""
        database = find_database(plan.comparison.data_dir, plan.comparison.database).info.identity
        wanted = [planned.what_counts() for planned in planned_runs(plan.sweep("encoder"))]
        pairs = zip(self.runs, self.ranks, strict=True)
        return [(run, ranks) for run, ranks in pairs if run["database"] == database and run["settings"] in wanted]

    def lacks(self, plan: ComparisonPlan) -> bool:
        """Whether a run that the comparison asks for is missing."""
        return len(self.asked_for(plan)) < len(planned_runs(plan.sweep("encoder")))

    def take_over(self, earlier: "Judged") -> None:
        """Keep what other comparisons asked for of the same weights on the same records."""
        same = earlier.training["weights"] == self.training["weights"]
        for run, ranks in zip(earlier.runs, earlier.ranks, strict=True) if same else ():
            known = self.records.setdefault(run["task"], earlier.records[run["task"]])
            settings = [own["settings"] for own in self.runs if own["database"] == run["database"]]
            if run["settings"] not in settings and np.array_equal(known[0], earlier.records[run["task"]][0]):
                self.runs.append(run)
                self.ranks.append(ranks)

    def save(self, path: Path) -> None:
        """Write a file, whole or not at all."""
        arrays: dict[str, Any] = {f"ranks-{number}": ranks for number, ranks in enumerate(self.ranks)}
        for task, (record_id, labels) in self.records.items():
            arrays |= {f"records-{task}": record_id, f"labels-{task}": labels}
        content = {name: getattr(self, name) for name in _PLAIN}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp.npz")
        np.savez_compressed(temporary, content=np.array(json.dumps(content)), **arrays)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Judged | None":
        """What [`save`] wrote; `None` if there is nothing, or, with a warning, if it cannot be read."""
        if not path.is_file():
            return None
        try:
            with np.load(path) as arrays:
                content = json.loads(str(arrays["content"]))
                ranks = [arrays[f"ranks-{number}"] for number in range(len(content["runs"]))]
                tasks = [name.removeprefix("labels-") for name in arrays.files if name.startswith("labels-")]
                records = {task: (arrays[f"records-{task}"], arrays[f"labels-{task}"]) for task in tasks}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning(f"{path} cannot be read ({error}): the encoder is trained and judged anew.")
            return None
        return cls(**content, ranks=ranks, records=records)

    @classmethod
    def gather(cls, plan: ComparisonPlan, entry: Entry, seed: int, encoder: Path) -> "Judged":
        """
        From the folder of an encoder and those of the runs that judged it, as far as they are finished.

        Raises:
            ValueError: if two runs of a task were scored on other records.
        """
        info, folders = read_json(encoder / TRAINING_INFO_FILE), SweepFolder()
        training = {name: info.get(name) for name in _OF_TRAINING}
        course = [line for line in read_lines(encoder / "metrics.jsonl") if "eval_loss" in line]
        found = cls(entry.label, seed, training, course, [], [], {})
        for planned in planned_runs(plan.sweep(str(encoder))):
            placed = folders.place(planned)
            if placed.finished:
                found._add(placed.settings, plan)
        return found

    def _add(self, run: ProtocolSettings, plan: ComparisonPlan) -> None:
        metrics = read_json(Path(run.output_dir, METRICS_FILE))
        with np.load(Path(run.output_dir, PREDICTIONS_FILE)) as file:
            predictions = {name: file[name] for name in ("record_id", "labels", "logits")}
        record_id, labels = predictions["record_id"], predictions["labels"].astype(np.uint8)
        known_id, known_labels = self.records.setdefault(run.task, (record_id, labels))
        if not (np.array_equal(known_id, record_id) and np.array_equal(known_labels, labels)):
            raise ValueError(f"{run.output_dir} was scored on other records or labels than other runs of {run.task}.")
        ranks = rankdata(predictions["logits"], method="dense", axis=0)
        self.ranks.append(ranks.astype(np.uint16 if len(ranks) < 1 << 16 else np.uint32))
        figures = {"auroc": metrics["test_macro_auroc"], "best_step": metrics["best_step"]}
        of_run = {name: getattr(run, name) for name in (*CONDITION, "seed")}
        self.runs.append({**of_run, "settings": run.what_counts(), "database": metrics["database_digest"], **figures})


def judged_path(plan: ComparisonPlan, recipe: PretrainingRecipe) -> Path:
    """Where [`Judged`] of a run of pre-training lies. Its name tells it from runs with other settings."""
    return plan.directory / "judged" / f"{Path(recipe.output_dir).name}.npz"


def tried_path(plan: ComparisonPlan, candidate: Candidate) -> Path:
    """Where lies what came out of a run of the tuning."""
    return plan.directory / "tried" / f"{Path(candidate.recipe.output_dir).name}.json"


def keep_tried(plan: ComparisonPlan, candidate: Candidate, probe_auroc: float | None, failed: bool) -> dict[str, Any]:
    """Keep what came out of a run of the tuning, also that it failed; returns what [`load_tried`] will."""
    databases = [{"name": name, "digest": digest} for name, digest in _records_of(candidate.recipe).items()]
    kept = {"tried": candidate.tried, "probe_auroc": probe_auroc, "databases": databases, "failed": failed}
    path = tried_path(plan, candidate)
    path.parent.mkdir(exist_ok=True)
    write_json(path, kept)
    return kept


def load_tried(plan: ComparisonPlan, candidate: Candidate) -> dict[str, Any] | None:
    """
    What is kept of a run of the tuning: `tried`, `probe_auroc`, `databases`, and whether it `failed`; `None` unless it was on
    these records.
    """
    path = tried_path(plan, candidate)
    kept = read_json(path) if path.is_file() else None
    return kept if kept is not None and same_records(kept, candidate.recipe) else None


def load_judged(plan: ComparisonPlan, recipe: PretrainingRecipe) -> Judged | None:
    """What is kept of a run of pre-training, if it was on these records; all that is asked for need not be in it."""
    judged = Judged.load(judged_path(plan, recipe))
    return judged if judged is not None and same_records(judged.training, recipe) else None


def same_records(training: Mapping[str, Any], recipe: PretrainingRecipe) -> bool:
    """Whether a run was trained on the records that are there now."""
    return _records_of(recipe) == {database["name"]: database["digest"] for database in training["databases"]}


def _records_of(recipe: PretrainingRecipe) -> dict[str, str]:
    """Database -> the identity of its records, as they are prepared now."""
    return {name: find_database(recipe.data_dir, name).info.identity for name in recipe.database_weights()}
