"""The objectives of pre-training. A new one is a file beside this one, with its recipe, and a line here."""

import difflib
from collections.abc import Mapping
from typing import Any

from ..objective import Objective
from ..recipe import PretrainingRecipe
from .byol import Byol, ByolRecipe
from .data2vec import Data2Vec, Data2VecRecipe
from .jepa import Jepa, JepaRecipe
from .mae import Mae, MaeRecipe
from .simclr import SimClr, SimClrRecipe
from .untrained import Untrained, UntrainedRecipe
from .vicreg import VicReg, VicRegRecipe

OBJECTIVES: dict[str, tuple[type[PretrainingRecipe], type[Objective[Any]]]] = {
    "jepa": (JepaRecipe, Jepa),
    "mae": (MaeRecipe, Mae),
    "simclr": (SimClrRecipe, SimClr),
    "byol": (ByolRecipe, Byol),
    "vicreg": (VicRegRecipe, VicReg),
    "data2vec": (Data2VecRecipe, Data2Vec),
    "random": (UntrainedRecipe, Untrained),
}


def recipe_class(settings: Mapping[str, Any]) -> type[PretrainingRecipe]:
    """Return the recipe of the objective that settings name, `jepa` by default. Raise `ValueError` for an unknown one."""
    name = str(settings.get("objective", "jepa"))
    if name in OBJECTIVES:
        return OBJECTIVES[name][0]
    nearest = difflib.get_close_matches(name, OBJECTIVES, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose among {', '.join(OBJECTIVES)}."
    raise ValueError(f"there is no objective {name!r}: {hint}")


def make_objective(config: Any, recipe: PretrainingRecipe) -> Objective[Any]:
    """Return the objective of a recipe, with random weights."""
    return OBJECTIVES[recipe.objective][1](config, recipe)
