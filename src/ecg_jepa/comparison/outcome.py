"""What became of the runs of a comparison."""

import math
from dataclasses import dataclass, field

from .judged import Judged
from .plan import Candidate, ComparisonPlan, Entry


@dataclass
class Outcome:
    """
    Args:
        plan: of the comparison.
        tuned: what was tried, with its AUROC on validation records; NaN if the run failed.
        judged: encoders, by label and seed.
        failures: names of runs that did not come to their end.
    """

    plan: ComparisonPlan
    tuned: list[tuple[Candidate, float]] = field(default_factory=list)
    judged: dict[tuple[str, int], Judged] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> dict[str, dict[str, str]]:
        """
        Label -> what did best on validation records, the first of those that are equal; nothing for one that has nothing to
        choose from. A label of which nothing could be tried is left out.
        """
        found: dict[str, dict[str, str]] = {entry.label: {} for entry in self.plan.entries}
        for label in {candidate.entry.label for candidate, _ in self.tuned}:
            scores = [(score, c.tried) for c, score in self.tuned if c.entry.label == label and not math.isnan(score)]
            if scores:
                found[label] = max(scores, key=lambda pair: pair[0])[1]
            else:
                del found[label]
        return found

    def runs(self) -> list[tuple[Entry, int]]:
        """Of pre-training, a seed of all objectives before the next seed."""
        return [(entry, seed) for seed in self.plan.comparison.seeds for entry in self.plan.entries if entry.label in self.chosen]
