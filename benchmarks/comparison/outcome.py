"""What became of the runs of a comparison."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .judged import Judged, load_judged, load_tried
from .plan import Candidate, ComparisonPlan, Entry


@dataclass
class Outcome:
    """
    Args:
        plan: of the comparison.
        tuned: what was tried, with its AUROC on validation records; NaN if the run failed.
        judged: encoders, by label and seed.
        failures: names of runs that did not come to their end.
        missing: of those that nobody has made, or judged to the end, yet.
    """

    plan: ComparisonPlan
    tuned: list[tuple[Candidate, float]] = field(default_factory=list)
    judged: dict[tuple[str, int], Judged] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def is_missing(self, candidate: Candidate) -> bool:
        """Whether nobody has tried it yet."""
        return _name(candidate) in self.missing

    @property
    def chosen(self) -> dict[str, dict[str, str]]:
        """
        Label -> what did best on validation records, the first of those that are equal; nothing for one that has nothing to
        choose from. A label of which nothing could be tried, or not all is tried yet, is left out.
        """
        found: dict[str, dict[str, str]] = {entry.label: {} for entry in self.plan.entries}
        for label in {candidate.entry.label for candidate, _ in self.tuned}:
            own = [(score, candidate) for candidate, score in self.tuned if candidate.entry.label == label]
            scores = [(score, candidate.tried) for score, candidate in own if not math.isnan(score)]
            if scores and not any(self.is_missing(candidate) for _, candidate in own):
                found[label] = max(scores, key=lambda pair: pair[0])[1]
            else:
                del found[label]
        return found

    def runs(self) -> list[tuple[Entry, int]]:
        """Of pre-training, a seed of all objectives before the next seed."""
        return [(entry, seed) for seed in self.plan.comparison.seeds for entry in self.plan.entries if entry.label in self.chosen]


def gather(plan: ComparisonPlan) -> Outcome:
    """
    As far as runs of a comparison are kept; none is made.

    Raises:
        FileNotFoundError: if there is no folder of the comparison.
    """
    if not plan.directory.is_dir():
        raise FileNotFoundError(f"There is no folder {plan.directory}: nothing is kept of this comparison.")
    outcome = Outcome(plan)
    for candidate in plan.tuning():
        kept = load_tried(plan, candidate)
        outcome.tuned.append((candidate, math.nan if kept is None else score_of(kept)))
        if kept is None:
            outcome.missing.append(_name(candidate))
    for entry, seed in outcome.runs():
        recipe = plan.recipe(entry, seed, outcome.chosen[entry.label])
        judged = load_judged(plan, recipe)
        if judged is not None:
            outcome.judged[entry.label, seed] = judged
        if judged is None or judged.lacks(plan):
            outcome.missing.append(Path(recipe.output_dir).name)
    return outcome


def _name(candidate: Candidate) -> str:
    return f"tuning-{Path(candidate.recipe.output_dir).name}"


def score_of(kept: Mapping[str, Any]) -> float:
    """The AUROC by which a run of the tuning is measured, of what is kept of it; NaN if its probe had none."""
    return math.nan if kept["probe_auroc"] is None else float(kept["probe_auroc"])
