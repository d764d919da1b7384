"""What is compared: recipes that differ from a configuration in a few settings. Imports nothing heavy, as settings do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..common.settings import make_settings, read_yaml
from ..pretraining.objectives import recipe_class
from ..pretraining.recipe import PretrainingRecipe


@dataclass(frozen=True)
class Variant:
    """
    Args:
        label: by which tables name it: the settings in which it differs from the configuration.
        changes: these settings, as text.
        recipe: with them.
    """

    label: str
    changes: dict[str, str]
    recipe: PretrainingRecipe

    def check_reference_has_it(self) -> None:
        """Raise `ValueError` if the reference implementation cannot compute such a step."""
        here = {"objective": "jepa", "position_encoding": "sinusoidal", "masks_per_record": 1}
        for name, theirs in here.items():
            ours = getattr(self.recipe, name, theirs)
            if ours != theirs:
                raise ValueError(
                    f"against: the reference implementation has {name}={theirs} only, but {self.label} has {ours}: leave "
                    f"--against out, or set {name}={theirs} with --settings."
                )


def variants_of(config: str, overrides: Sequence[str], variants: Sequence[str]) -> list[Variant]:
    """
    The variants of a configuration.

    Args:
        config: file, or name of one that ships.
        overrides: NAME=VALUE, of all of them.
        variants: NAME=VALUE,NAME=VALUE,... of each; none: the configuration's own precision, and float32.

    Raises:
        ValueError: in a line that names the variant, for settings that do not exist or do not fit, and for a variant twice.
    """
    common = read_yaml(config) | _pairs("settings", overrides)
    if not variants:
        own = str(_recipe(config, common).mixed_precision)
        variants = [f"mixed_precision={precision}" for precision in dict.fromkeys((own, "no"))]
    if len(set(variants)) < len(variants):
        raise ValueError(f"variants: {' '.join(variants)}: name each once.")
    made = []
    for text in variants:
        changes = _pairs("variants", text.split(","))
        made.append(Variant(text, changes, _recipe(f"{config} with {text}", common | changes)))
    return made


def _recipe(name: str, values: dict[str, Any]) -> PretrainingRecipe:
    try:
        recipe = make_settings(recipe_class(values), values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not recipe.max_steps:
        raise ValueError(f"{name}: max_steps=0, so that there is no step to measure.")
    return recipe


def _pairs(setting: str, entries: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for entry in entries:
        name, sign, value = entry.strip().partition("=")
        if not sign or not name:
            raise ValueError(f"{setting}: {entry!r} is not NAME=VALUE.")
        pairs[name] = value
    return pairs
