"""All databases that can be prepared, by name. Their builders are imported when one is asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builder import EcgDatabaseBuilder

# Name -> module and class.
DATABASES = {
    "mimic-iv-ecg": ("mimic_iv_ecg", "MimicIvEcg"),
    "code-15": ("code_15", "Code15"),
    "ptb-xl": ("ptb_xl", "PtbXl"),
    "chapman-shaoxing": ("challenge_2021", "ChapmanShaoxing"),
    "cpsc": ("challenge_2021", "Cpsc"),
    "cpsc-extra": ("challenge_2021", "CpscExtra"),
    "georgia": ("challenge_2021", "Georgia"),
    "ningbo": ("challenge_2021", "Ningbo"),
    "ptb": ("challenge_2021", "Ptb"),
    "st-petersburg": ("challenge_2021", "StPetersburg"),
    "ptb-xl-challenge": ("challenge_2021", "PtbXlChallenge"),
    "own": ("own_records", "OwnRecords"),
    "synthetic": ("synthetic", "Synthetic"),
}


def builder_class(name: str) -> "type[EcgDatabaseBuilder]":
    """The builder of a database of `DATABASES`."""
    module, class_name = DATABASES[name]
    return getattr(importlib.import_module(f".{module}", __package__), class_name)
