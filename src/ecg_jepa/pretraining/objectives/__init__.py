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

_HERE = "ecg_jepa.pretraining.objectives"

# Name -> its recipe and its class, or where they are: that of the default is read without torch.
OBJECTIVES: "dict[str, tuple[type[PretrainingRecipe] | str, type[Objective[Any]] | str]]" = {
    "jepa": (JepaRecipe, f"{_HERE}.jepa:Jepa"),
    "mae": (f"{_HERE}.mae:MaeRecipe", f"{_HERE}.mae:Mae"),
    "simclr": (f"{_HERE}.simclr:SimClrRecipe", f"{_HERE}.simclr:SimClr"),
    "byol": (f"{_HERE}.byol:ByolRecipe", f"{_HERE}.byol:Byol"),
    "vicreg": (f"{_HERE}.vicreg:VicRegRecipe", f"{_HERE}.vicreg:VicReg"),
    "data2vec": (f"{_HERE}.data2vec:Data2VecRecipe", f"{_HERE}.data2vec:Data2Vec"),
    "random": (f"{_HERE}.random:RandomRecipe", f"{_HERE}.random:Random"),
}


def recipe_class(settings: Mapping[str, Any]) -> type[PretrainingRecipe]:
    """The recipe of the objective that settings name, `jepa` if they name none. Raises `ValueError` for an unknown one."""
    name = str(settings.get("objective", "jepa"))
    if name not in OBJECTIVES:
        nearest = difflib.get_close_matches(name, OBJECTIVES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose among {', '.join(OBJECTIVES)}."
        raise ValueError(f"there is no objective {name!r}: {hint}")
    return _at(OBJECTIVES[name][0])


def objective_class(name: str) -> "type[Objective]":
    """The class of an objective of `OBJECTIVES`."""
    return _at(OBJECTIVES[name][1])


def _at(place: Any) -> Any:
    """A class, or what is at `module:name`."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
