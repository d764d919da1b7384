"""All databases that can be prepared, by name. Their builders are imported when one is asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builders.base import EcgDatabaseBuilder

# Name -> module and class.
DATABASES = {
    "mimic-iv-ecg": ("builders.mimic_iv_ecg", "MimicIvEcg"),
    "code-15": ("builders.code_15", "Code15"),
    "ptb-xl": ("builders.ptb_xl", "PtbXl"),
    "chapman-shaoxing": ("builders.challenge_2021", "ChapmanShaoxing"),
    "cpsc": ("builders.challenge_2021", "Cpsc"),
    "cpsc-extra": ("builders.challenge_2021", "CpscExtra"),
    "georgia": ("builders.challenge_2021", "Georgia"),
    "ningbo": ("builders.challenge_2021", "Ningbo"),
    "ptb": ("builders.challenge_2021", "Ptb"),
    "st-petersburg": ("builders.challenge_2021", "StPetersburg"),
    "ptb-xl-challenge": ("builders.challenge_2021", "PtbXlChallenge"),
    "own": ("builders.own_records", "OwnRecords"),
    "synthetic": ("synthetic", "Synthetic"),
}


def builder_class(name: str) -> "type[EcgDatabaseBuilder]":
    """Import and return the builder of a database of `DATABASES`."""
    module, class_name = DATABASES[name]
    return getattr(importlib.import_module(f".{module}", __package__), class_name)
