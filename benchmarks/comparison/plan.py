"""Settings of a comparison, and the runs that they ask for: tuning, pre-training, and the sweep that evaluates each encoder."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ecg_jepa._utils.files import digest_of, read_json, write_json
from ecg_jepa._utils.settings import check_at_least, check_share, field_names, make_settings, option, settings
from ecg_jepa.data.records import DatabaseInfo, find_database
from ecg_jepa.data.tasks import TaskName
from ecg_jepa.finetuning.sweep_plan import SweepSettings
from ecg_jepa.pretraining.objective import count_flops
from ecg_jepa.pretraining.objectives import make_objective, recipe_class
from ecg_jepa.pretraining.recipe import PretrainingRecipe

# Settings of pre-training that the comparison sets itself.
_SET_HERE = frozenset(
    {
        *("objective", "seed", "max_steps", "warmup_steps", "data_dir", "output_dir", "eval_steps", "probe_task", "probe_seeds"),
        *("resume_from_checkpoint", "overwrite_output_dir", "allow_changes"),
    }
)

# Settings that must be the same for all objectives.
_SHARED = frozenset(
    {
        *("databases", "synthetic_records", "crop_duration", "mixed_precision", "position_encoding"),
        *("size", "hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size"),
    }
)


@settings
class ComparisonSettings:
    """Settings of `benchmarks/compare.py`. Raises `ValueError` for values that do not fit together."""

    objectives: list[str] = option(
        ["jepa", "mae", "mae-random=mae", "simclr", "byol", "random"], "NAME, or LABEL=NAME for one with settings of its own"
    )
    settings: list[str] = option([], "KEY=VALUE of pretrain for all objectives, or LABEL.KEY=VALUE for one")
    seeds: list[int] = option([0, 1, 2], "of pre-training")
    max_steps: int = option(600, "of the first objective")
    match: Literal["flops", "steps"] = option("flops", "what is the same for all objectives")
    warmup_share: float = option(0.1, "of the steps")
    evaluations: int = option(8, "linear probes during each run, on validation records")

    tuning: list[str] = option(
        ["learning_rate=3e-4,1e-3,3e-3"], "KEY=VALUE,VALUE,... to choose from for each objective, or LABEL.KEY=... for one"
    )
    tuning_share: float = option(0.1, "share of the steps in a tuning run, with the first seed")
    probe_task: TaskName = option("superdiagnostic", "of the linear probes, by which settings are chosen")

    protocols: list[str] = option(["linear", "attentive", "finetune"], "that evaluate the encoders")
    tasks: list[str] = option(["superdiagnostic", "form", "rhythm"], "on which")
    label_fractions: list[float] = option([0.01, 0.1, 1.0], "shares of the training labels")
    finetune_seeds: list[int] = option([0], "of the evaluating runs")
    baselines: list[str] = option([], "labels of objectives against which all others are tested; default: the first")
    finetune_settings: list[str] = option([], "KEY=VALUE of finetune, or PROTOCOL.KEY=VALUE")

    data_dir: str = option("data/prepared", "folder with prepared databases")
    database: str | None = option(None, "whose labels are used, if data_dir has several")
    output_dir: str = option("runs/comparison", "of everything; what is finished is not run again")
    jobs: int = option(1, "encoders that are trained and evaluated at a time, each on its share of the CPU cores")
    keep_runs: bool = option(True, "false: remove folders of runs once their encoder is evaluated; judged/ and tried/ stay")
    report_only: bool = option(False, "run nothing; report what is in judged/ and tried/, also while other runs are going on")
    launcher: str = option("", "words before `-m ecg_jepa`, such as 'accelerate launch --num_processes 8'; default: this Python")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "max_steps", "evaluations", "jobs")
        check_share(self, "warmup_share", "tuning_share", below_one=True)
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines: {', '.join(self.baselines)}: name each once.")
        for name in ("objectives", "seeds", "protocols", "tasks", "label_fractions", "finetune_seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: {', '.join(map(str, values)) or 'empty'}: name at least one, and each once.")


@dataclass(frozen=True)
class Entry:
    """An objective of the comparison under the label that tables name it by."""

    label: str
    objective: str

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Return the entry of `NAME` or `LABEL=NAME`."""
        label, sign, objective = text.partition("=")
        return cls(label, objective if sign else label)


@dataclass(frozen=True)
class Candidate:
    """A tuning run: the settings that it tries, and the recipe with them."""

    entry: Entry
    tried: dict[str, str]
    recipe: PretrainingRecipe

    @property
    def name(self) -> str:
        """The name of its log."""
        return f"tuning-{Path(self.recipe.output_dir).name}"


class ComparisonPlan:
    """
    Recipes and sweeps of a comparison. Names of pre-training folders hold a digest of what decides their results, so that runs
    with other settings are never taken for these.

    Raises:
        ValueError: for unknown objectives, labels and settings, of pre-training and of fine-tuning.
    """

    def __init__(self, comparison: ComparisonSettings):
        self.comparison = comparison
        self.directory = Path(comparison.output_dir)
        self.entries = [Entry.parse(text) for text in comparison.objectives]
        self._costs_path = self.directory / "counted.json"
        self._costs: dict[str, float] = read_json(self._costs_path) if self._costs_path.exists() else {}
        labels = [entry.label for entry in self.entries]
        if len(set(labels)) < len(labels) or any(set(label) & set("./|") or not label for label in labels):
            raise ValueError(f"objectives: labels must differ, and hold no dot, slash or bar: {', '.join(labels)}.")
        self.baselines = comparison.baselines or labels[:1]
        if unknown := [label for label in self.baselines if label not in labels]:
            raise ValueError(f"baselines: {', '.join(unknown)} are not among the labels {', '.join(labels)}.")
        for name in ("settings", "tuning"):
            for text in getattr(comparison, name):
                self._check_setting(name, text)
        self.sweep("encoder")

    def first_recipe(self) -> PretrainingRecipe:
        """Return the recipe of the first entry, which says what records are used."""
        return self._recipe(self.entries[0], self.comparison.seeds[0], self.comparison.max_steps, "pretraining", {})

    def tuning(self) -> list[Candidate]:
        """Return the tuning runs of all entries that train and have something to choose from."""
        return [candidate for entry in self.entries for candidate in self._candidates(entry)]

    def recipe(self, entry: Entry, seed: int, chosen: dict[str, str]) -> PretrainingRecipe:
        """Return the recipe of a run of full length, with the chosen settings."""
        return self._recipe(entry, seed, self.steps(entry, chosen), "pretraining", chosen)

    def steps(self, entry: Entry, chosen: dict[str, str]) -> int:
        """Return the number of steps that cost as much as the first entry's, or the same number of steps."""
        steps = self.comparison.max_steps
        first, own = self.cost_per_step(self.entries[0], {}), self.cost_per_step(entry, chosen)
        return max(1, round(steps * first / own)) if self.comparison.match == "flops" and own and first else steps

    def cost_per_step(self, entry: Entry, chosen: dict[str, str]) -> float:
        """Return the floating-point operations of an optimiser step."""
        recipe = self._recipe(entry, 0, self.comparison.max_steps, "pretraining", chosen)
        return self.cost_per_record(recipe) * recipe.batch_size * recipe.gradient_accumulation_steps

    def cost_per_record(self, recipe: PretrainingRecipe) -> float:
        """Return the floating-point operations of a training step per record, as they were counted first (see `keep_costs`)."""
        config = recipe.model_config(self._database.sampling_rate, self._database.amplitude_free)
        deciding = {**recipe.training_settings(), "seed": 0, "max_steps": bool(recipe.max_steps), "warmup_steps": 0}
        deciding["signal"] = [len(config.lead_names), config.signal_length]
        key = f"{recipe.objective}-{digest_of(deciding)[:8]}"
        if key not in self._costs:
            self._costs[key] = count_flops(make_objective(config, recipe))
        return self._costs[key]

    @cached_property
    def _database(self) -> DatabaseInfo:
        recipe = self.first_recipe()
        return find_database(recipe.data_dir, next(iter(recipe.database_weights()))).info

    def keep_costs(self) -> None:
        """
        Write the costs of all runs to `counted.json`, from where later plans take them: a version of the package or of PyTorch
        that counts otherwise must not change the lengths of the remaining runs. Call this before any threads are started.
        """
        for entry in self.entries:
            self.steps(entry, {})
        self.tuning()
        write_json(self._costs_path, self._costs)

    def sweep(self, model: str) -> SweepSettings:
        """Return the sweep that evaluates an encoder."""
        comparison = self.comparison
        values = {name: getattr(comparison, name) for name in ("protocols", "tasks", "label_fractions", "data_dir", "database")}
        values |= {"models": [model], "seeds": comparison.finetune_seeds, "settings": comparison.finetune_settings}
        return make_settings(SweepSettings, {**values, "output_dir": str(self.directory / "finetuning" / Path(model).name)})

    def _candidates(self, entry: Entry) -> list[Candidate]:
        choices = self._settings_of("tuning", entry)
        found = []
        for values in itertools.product(*(text.split(",") for text in choices.values())) if choices else ():
            tried = dict(zip(choices, values, strict=True))
            if not self.cost_per_step(entry, tried):  # an untrained encoder
                return []
            steps = max(1, round(self.comparison.tuning_share * self.steps(entry, tried)))
            found.append(Candidate(entry, tried, self._recipe(entry, self.comparison.seeds[0], steps, "tuning", tried)))
        return found

    def _recipe(self, entry: Entry, seed: int, steps: int, folder: str, chosen: dict[str, str]) -> PretrainingRecipe:
        comparison = self.comparison
        values: dict[str, Any] = {"logging_steps": max(1, steps // 20), "mixed_precision": "no"}
        values |= {**self._settings_of("settings", entry), **chosen}
        if "databases" in values:
            values["databases"] = values["databases"].split()
        values |= {"objective": entry.objective, "seed": seed, "max_steps": steps, "data_dir": comparison.data_dir}
        values |= {"warmup_steps": round(comparison.warmup_share * steps), "resume_from_checkpoint": "latest"}
        evaluations = comparison.evaluations if folder == "pretraining" else 1  # tuning looks at the last one only
        values |= {"eval_steps": -(-steps // evaluations), "probe_task": comparison.probe_task, "probe_seeds": 0}
        kind = recipe_class({"objective": entry.objective})
        recipe = make_settings(kind, values)
        deciding = {**recipe.training_settings(), "databases": recipe.databases}
        deciding |= {name: getattr(recipe, name) for name in ("eval_steps", "eval_batches", "probe_task", "probe_records")}
        name = f"{entry.label}-{seed}-{digest_of(deciding)[:8]}"
        return make_settings(kind, {**values, "output_dir": str(self.directory / folder / name)})

    def _settings_of(self, name: str, entry: Entry) -> dict[str, str]:
        """Return what `settings` or `tuning` hold for an entry, key -> text; its own win over those for all."""
        for_all: dict[str, str] = {}
        own: dict[str, str] = {}
        for text in getattr(self.comparison, name):
            label, key, value = _split(text)
            if label in ("", entry.label):
                (own if label else for_all)[key] = value
        return {**for_all, **own}

    def _check_setting(self, name: str, text: str) -> None:
        """Raise `ValueError` unless the setting is one of the objectives that it is for."""
        label, key, value = _split(text)
        if key in _SET_HERE:
            raise ValueError(f"{name}: {text!r}: the comparison itself gives each run its {key}.")
        if (key, value) == ("mixed_precision", "auto"):
            raise ValueError(f"{name}: {text!r}: runs that choose for themselves may differ: say bf16 or no.")
        if key in _SHARED and (label or name == "tuning"):
            raise ValueError(f"{name}: {text!r}: {key} must be the same for all objectives, or they could not be compared.")
        concerned = [entry for entry in self.entries if label in ("", entry.label)]
        unknown = [e.label for e in concerned if key not in field_names(recipe_class({"objective": e.objective}))]
        if not value or not concerned or unknown:
            labels = ", ".join(entry.label for entry in self.entries)
            reason = f"{', '.join(unknown)} have no {key}" if unknown else f"labels are {labels}"
            raise ValueError(f"{name}: {text!r} is neither KEY=VALUE nor LABEL.KEY=VALUE with a key of the objective: {reason}.")


def _split(text: str) -> tuple[str, str, str]:
    """Return label or "", key and value of `LABEL.KEY=VALUE` or `KEY=VALUE`."""
    name, _, value = text.partition("=")
    label, _, key = name.rpartition(".")
    return label, key, value
