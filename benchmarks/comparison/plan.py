"""What a comparison runs: recipes of pre-training, of their tuning before it, and the sweep that judges them."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ecg_jepa._utils.files import digest_of, read_json, write_json
from ecg_jepa._utils.settings import field_names, make_settings
from ecg_jepa.data.records import DatabaseInfo, find_database
from ecg_jepa.finetuning.sweep_settings import SweepSettings
from ecg_jepa.pretraining.flops import count_flops
from ecg_jepa.pretraining.objectives import objective_class, recipe_class
from ecg_jepa.pretraining.recipe import PretrainingRecipe

from .settings import ComparisonSettings

# Settings that the comparison gives its runs itself.
_OF_THE_COMPARISON = frozenset(
    {
        *("objective", "seed", "max_steps", "warmup_steps", "data_dir", "output_dir", "eval_steps", "probe_task", "probe_seeds"),
        *("resume_from_checkpoint", "overwrite_output_dir", "allow_changes"),
    }
)

# What objectives are compared on.
_SHARED = frozenset(
    {
        *("databases", "synthetic_records", "crop_duration", "mixed_precision", "position_encoding"),
        *("size", "hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size"),
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
    Recipes and the sweep of a comparison. Folders of pre-training carry a digest of what decides their figures, so that runs with
    other settings never stand for these.

    Args:
        comparison: what is asked for.

    Raises:
        ValueError: for unknown objectives, labels and settings, of pre-training and of what judges it.
    """

    def __init__(self, comparison: ComparisonSettings):
        self.comparison = comparison
        self.directory = Path(comparison.output_dir)
        self.entries = [Entry.parse(text) for text in comparison.objectives]
        self._counted_path = self.directory / "counted.json"
        self._costs: dict[str, float] = read_json(self._counted_path) if self._counted_path.exists() else {}
        labels = [entry.label for entry in self.entries]
        if len(set(labels)) < len(labels) or any(set(label) & set("./|") or not label for label in labels):
            raise ValueError(f"objectives: labels must differ, and hold no dot, slash or bar: {', '.join(labels)}.")
        self.baselines = comparison.baselines or labels[:1]
        if unknown := [label for label in self.baselines if label not in labels]:
            raise ValueError(f"baselines: {', '.join(unknown)} are not among the labels {', '.join(labels)}.")
        for name in ("settings", "tuning"):
            for text in getattr(comparison, name):
                self._check_scope(name, text)
        self.sweep("encoder")

    def first_recipe(self) -> PretrainingRecipe:
        """Of the first entry, to see the data by."""
        return self._recipe(self.entries[0], self.comparison.seeds[0], self.comparison.max_steps, "pretraining", {})

    def tuning(self) -> list[Candidate]:
        """All that is tried of all entries; nothing of one that does not train or has nothing to choose from."""
        return [candidate for entry in self.entries for candidate in self._candidates(entry)]

    def recipe(self, entry: Entry, seed: int, chosen: dict[str, str]) -> PretrainingRecipe:
        """Of a run of its own length, with what was chosen for it."""
        return self._recipe(entry, seed, self.steps(entry, chosen), "pretraining", chosen)

    def steps(self, entry: Entry, chosen: dict[str, str]) -> int:
        """As many as cost what the first entry costs with its own settings, or as many as it has."""
        steps = self.comparison.max_steps
        first, own = self.cost_per_step(self.entries[0], {}), self.cost_per_step(entry, chosen)
        return max(1, round(steps * first / own)) if self.comparison.match == "flops" and own and first else steps

    def cost_per_step(self, entry: Entry, chosen: dict[str, str]) -> float:
        """Floating-point operations of an optimiser step."""
        recipe = self._recipe(entry, 0, self.comparison.max_steps, "pretraining", chosen)
        return self.cost_per_record(recipe) * recipe.batch_size * recipe.gradient_accumulation_steps

    def cost_per_record(self, recipe: PretrainingRecipe) -> float:
        """
        Floating-point operations of a training step per record, as they were counted first; see [`keep_counts`].

        Raises:
            FileNotFoundError: if there is no such database.
        """
        config = recipe.model_config(self._records.sampling_rate, self._records.amplitude_free)
        decisive = {**recipe.what_trains(), "seed": 0, "max_steps": bool(recipe.max_steps), "warmup_steps": 0}
        decisive["signal"] = [len(config.lead_names), config.signal_length]
        key = f"{recipe.objective}-{digest_of(decisive)[:8]}"
        if key not in self._costs:
            self._costs[key] = count_flops(objective_class(recipe.objective)(config, recipe))
        return self._costs[key]

    @cached_property
    def _records(self) -> DatabaseInfo:
        """What is known of the records, which are the same for all entries."""
        recipe = self.first_recipe()
        return find_database(recipe.data_dir, next(iter(recipe.database_weights()))).info

    def keep_counts(self) -> None:
        """
        Keep what the runs cost in the comparison's folder, from where a plan takes it: what another version of the package or of
        PyTorch counts must not change how long the runs are that are left. Call it before there are threads.
        """
        for entry in self.entries:
            self.steps(entry, {})
        self.tuning()  # whose steps are counted, too
        write_json(self._counted_path, self._costs)

    def sweep(self, model: str) -> SweepSettings:
        """The runs that judge an encoder, in a folder of its own: a sweep keeps others out of its folder."""
        comparison = self.comparison
        values = {name: getattr(comparison, name) for name in ("protocols", "tasks", "label_fractions", "data_dir", "database")}
        values |= {"models": [model], "seeds": comparison.finetune_seeds, "settings": comparison.finetune_settings}
        return make_settings(SweepSettings, {**values, "output_dir": str(self.directory / "finetuning" / Path(model).name)})

    def _candidates(self, entry: Entry) -> list[Candidate]:
        choices = self._scoped("tuning", entry)
        found = []
        for values in itertools.product(*(text.split(",") for text in choices.values())) if choices else ():
            tried = dict(zip(choices, values, strict=True))
            if not self.cost_per_step(entry, tried):
                return []
            steps = max(1, round(self.comparison.tuning_share * self.steps(entry, tried)))
            found.append(Candidate(entry, tried, self._recipe(entry, self.comparison.seeds[0], steps, "tuning", tried)))
        return found

    def _recipe(self, entry: Entry, seed: int, steps: int, folder: str, chosen: dict[str, str]) -> PretrainingRecipe:
        comparison = self.comparison
        values: dict[str, Any] = {"logging_steps": max(1, steps // 20), "mixed_precision": "no"}
        values |= {**self._scoped("settings", entry), **chosen}
        if "databases" in values:
            values["databases"] = values["databases"].split()
        values |= {"objective": entry.objective, "seed": seed, "max_steps": steps, "data_dir": comparison.data_dir}
        values |= {"warmup_steps": round(comparison.warmup_share * steps), "resume_from_checkpoint": "latest"}
        evaluations = comparison.evaluations if folder == "pretraining" else 1  # a choice is made by the last
        values |= {"eval_steps": -(-steps // evaluations), "probe_task": comparison.probe_task, "probe_seeds": 0}
        kind = recipe_class({"objective": entry.objective})
        recipe = make_settings(kind, values)
        decisive = {**recipe.what_trains(), "databases": recipe.databases}
        decisive |= {name: getattr(recipe, name) for name in ("eval_steps", "eval_batches", "probe_task", "probe_records")}
        name = f"{entry.label}-{seed}-{digest_of(decisive)[:8]}"
        return make_settings(kind, {**values, "output_dir": str(self.directory / folder / name)})

    def _scoped(self, name: str, entry: Entry) -> dict[str, str]:
        """What `settings` or `tuning` hold for an entry, key -> text; its own win."""
        for_all: dict[str, str] = {}
        own: dict[str, str] = {}
        for text in getattr(self.comparison, name):
            scope, key, value = _split(text)
            if scope in ("", entry.label):
                (own if scope else for_all)[key] = value
        return {**for_all, **own}

    def _check_scope(self, name: str, text: str) -> None:
        """Raise `ValueError` unless a setting is one of the objectives that it is for."""
        scope, key, value = _split(text)
        if key in _OF_THE_COMPARISON:
            raise ValueError(f"{name}: {text!r}: the comparison itself gives each run its {key}.")
        if (key, value) == ("mixed_precision", "auto"):
            raise ValueError(f"{name}: {text!r}: runs that choose for themselves may differ: say bf16 or no.")
        if key in _SHARED and (scope or name == "tuning"):
            raise ValueError(f"{name}: {text!r}: {key} must be the same for all objectives, or they could not be compared.")
        concerned = [entry for entry in self.entries if scope in ("", entry.label)]
        unknown = [e.label for e in concerned if key not in field_names(recipe_class({"objective": e.objective}))]
        if not value or not concerned or unknown:
            labels = ", ".join(entry.label for entry in self.entries)
            reason = f"{', '.join(unknown)} have no {key}" if unknown else f"labels are {labels}"
            raise ValueError(f"{name}: {text!r} is neither KEY=VALUE nor LABEL.KEY=VALUE with a key of the objective: {reason}.")


def _split(text: str) -> tuple[str, str, str]:
    """`LABEL.KEY=VALUE` or `KEY=VALUE` -> label or "", key, value."""
    name, _, value = text.partition("=")
    scope, _, key = name.rpartition(".")
    return scope, key, value
