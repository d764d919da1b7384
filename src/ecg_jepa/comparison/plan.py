"""What a comparison runs: recipes of pre-training, of their tuning before it, and the sweep that judges them."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..common.settings import field_names, make_settings
from ..data.records import find_database
from ..finetuning.sweep import SweepSettings
from ..pretraining.flops import count_flops
from ..pretraining.objective import Objective
from ..pretraining.objectives import objective_class, recipe_class
from ..pretraining.recipe import PretrainingRecipe
from .settings import ComparisonSettings

# Settings that the comparison gives its runs itself.
_OF_THE_COMPARISON = frozenset(
    {
        *("objective", "seed", "max_steps", "warmup_steps", "data_dir", "output_dir", "eval_steps", "probe_task", "probe_seeds"),
        *("resume_from_checkpoint", "overwrite_output_dir", "allow_changes"),
    }
)


@dataclass(frozen=True)
class Entry:
    """One of the compared: what it is called, and its objective."""

    label: str
    objective: str

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Of `NAME` or `LABEL=NAME`."""
        label, sign, objective = text.partition("=")
        return cls(label, objective if sign else label)


@dataclass(frozen=True)
class Candidate:
    """A run of the tuning: what of the settings is tried, and the recipe that tries it."""

    entry: Entry
    tried: dict[str, str]
    recipe: PretrainingRecipe


class ComparisonPlan:
    """
    Recipes and the sweep of a comparison.

    Args:
        comparison: what is asked for.

    Raises:
        ValueError: for unknown objectives, labels and settings.
    """

    def __init__(self, comparison: ComparisonSettings):
        self.comparison = comparison
        self.directory = Path(comparison.output_dir)
        self.entries = [Entry.parse(text) for text in comparison.objectives]
        labels = [entry.label for entry in self.entries]
        if len(set(labels)) < len(labels) or any(set(label) & set("./") or not label for label in labels):
            raise ValueError(f"objectives: labels must differ, and hold no dot and no slash: {', '.join(labels)}.")
        for name in ("settings", "tuning"):
            for text in getattr(comparison, name):
                self._check_scope(name, text)

    @cached_property
    def costs(self) -> dict[str, float]:
        """
        Floating-point operations per record of each label.

        Raises:
            FileNotFoundError: if there is no such database.
        """
        return {entry.label: count_flops(self._objective(entry)) for entry in self.entries}

    def first_recipe(self) -> PretrainingRecipe:
        """Of the first entry, to see the data by."""
        return self._recipe(self.entries[0], self.comparison.seeds[0], self.comparison.max_steps, self.directory, {})

    def tuning(self) -> list[Candidate]:
        """All that is tried of all entries; nothing of one that does not train or has nothing to choose from."""
        return [candidate for entry in self.entries for candidate in self._candidates(entry)]

    def recipe(self, entry: Entry, seed: int, chosen: dict[str, str]) -> PretrainingRecipe:
        """Of a run of its own length, with what was chosen for it."""
        directory = self.directory / "pretraining" / f"{entry.label}-{seed}"
        return self._recipe(entry, seed, self.steps(entry), directory, chosen)

    def steps(self, entry: Entry) -> int:
        """As many as cost what the first entry costs, or as many as it has."""
        steps = self.comparison.max_steps
        first, own = self.costs[self.entries[0].label], self.costs[entry.label]
        return max(1, round(steps * first / own)) if self.comparison.match == "flops" and own and first else steps

    def sweep(self, models: list[str]) -> SweepSettings:
        """The runs that judge encoders."""
        comparison = self.comparison
        values = {name: getattr(comparison, name) for name in ("protocols", "tasks", "label_fractions", "data_dir", "database")}
        values |= {"models": models, "seeds": comparison.finetune_seeds, "settings": comparison.finetune_settings}
        return make_settings(SweepSettings, {**values, "output_dir": str(self.directory / "finetuning")})

    def _candidates(self, entry: Entry) -> list[Candidate]:
        choices = self._choices(entry)
        if not choices or not self.costs[entry.label]:
            return []
        steps = max(1, round(self.comparison.tuning_share * self.steps(entry)))
        found = []
        for values in itertools.product(*choices.values()):
            tried = dict(zip(choices, values, strict=True))
            name = ",".join(f"{key}={value}" for key, value in tried.items())
            directory = self.directory / "tuning" / entry.label / name
            found.append(Candidate(entry, tried, self._recipe(entry, self.comparison.seeds[0], steps, directory, tried)))
        return found

    def _recipe(self, entry: Entry, seed: int, steps: int, directory: Path, chosen: dict[str, str]) -> PretrainingRecipe:
        comparison = self.comparison
        values: dict[str, Any] = {"logging_steps": max(1, steps // 20), **self._settings(entry), **chosen}
        values |= {"objective": entry.objective, "seed": seed, "max_steps": steps, "data_dir": comparison.data_dir}
        values |= {"warmup_steps": round(comparison.warmup_share * steps), "output_dir": str(directory)}
        values |= {"eval_steps": max(1, steps // comparison.evaluations), "probe_task": comparison.probe_task, "probe_seeds": 0}
        values["resume_from_checkpoint"] = "latest"
        return make_settings(recipe_class({"objective": entry.objective}), values)

    def _settings(self, entry: Entry) -> dict[str, str]:
        """What is asked for of an entry; its own settings win."""
        for_all: dict[str, str] = {}
        own: dict[str, str] = {}
        for text in self.comparison.settings:
            scope, key, value = _split(text)
            if scope in ("", entry.label):
                (own if scope else for_all)[key] = value
        return {**for_all, **own}

    def _choices(self, entry: Entry) -> dict[str, list[str]]:
        found = {}
        for text in self.comparison.tuning:
            scope, key, values = _split(text)
            if scope in ("", entry.label):
                found[key] = values.split(",")
        return found

    def _check_scope(self, name: str, text: str) -> None:
        """Raise `ValueError` unless a setting is one of the objectives that it is for."""
        scope, key, value = _split(text)
        if key in _OF_THE_COMPARISON:
            raise ValueError(f"{name}: {text!r}: the comparison itself gives each run its {key}.")
        concerned = [entry for entry in self.entries if scope in ("", entry.label)]
        unknown = [e.label for e in concerned if key not in field_names(recipe_class({"objective": e.objective}))]
        if not value or not concerned or unknown:
            labels = ", ".join(entry.label for entry in self.entries)
            reason = f"{', '.join(unknown)} have no {key}" if unknown else f"labels are {labels}"
            raise ValueError(f"{name}: {text!r} is neither KEY=VALUE nor LABEL.KEY=VALUE with a key of the objective: {reason}.")

    def _objective(self, entry: Entry) -> Objective[Any]:
        recipe = self._recipe(entry, 0, self.comparison.max_steps, self.directory, {})
        info = find_database(recipe.data_dir, next(iter(recipe.database_weights()))).info
        config = recipe.model_config(info.sampling_rate, info.amplitude_free)
        return objective_class(entry.objective)(config, recipe)


def _split(text: str) -> tuple[str, str, str]:
    """`LABEL.KEY=VALUE` or `KEY=VALUE` -> label or "", key, value."""
    name, _, value = text.partition("=")
    scope, _, key = name.rpartition(".")
    return scope, key, value
