"""
What can be learned from unlabelled records. A new objective is a file beside this one, its recipe, and a line here.
"""

import difflib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..recipe import JepaRecipe, PretrainingRecipe

if TYPE_CHECKING:
    from ..objective import Objective

# Name -> its recipe, and its class or where that is: recipes are read without torch.
OBJECTIVES: "dict[str, tuple[type[PretrainingRecipe], type[Objective[Any]] | str]]" = {
    "jepa": (JepaRecipe, "ecg_jepa.pretraining.objectives.jepa:Jepa"),
}


def recipe_class(settings: Mapping[str, Any]) -> type[PretrainingRecipe]:
    """The recipe of the objective that settings name, `jepa` if they name none. Raises `ValueError` for an unknown one."""
    name = str(settings.get("objective", "jepa"))
    if name not in OBJECTIVES:
        nearest = difflib.get_close_matches(name, OBJECTIVES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose among {', '.join(OBJECTIVES)}."
        raise ValueError(f"there is no objective {name!r}: {hint}")
    return OBJECTIVES[name][0]


def objective_class(name: str) -> "type[Objective]":
    """The class of an objective of `OBJECTIVES`."""
    place = OBJECTIVES[name][1]
    if not isinstance(place, str):
        return place
    module, _, class_name = place.partition(":")
    return getattr(importlib.import_module(module), class_name)
