"""
The databases of the PhysioNet/Computing in Cardiology Challenge 2021 (Reyna et al. 2021), version 1.0.3, as downloaded:
`training/<folder>/g1/`, `g2/`, ... with a `.hea` and a `.mat` per record.

`data_dir` may be the folder of the challenge, its `training` folder, or the folder of one database. Records are told apart by
their names, so a folder that mixes databases will do, too. Published means and deviations are those of the reference.
"""

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..download import PhysioNet
from ..raw_files import record_files
from .base import EcgDatabaseBuilder, RecordInfo

_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


class Challenge2021(EcgDatabaseBuilder):
    """Base of the builders. Statements are the SNOMED CT codes of the header's `Dx` line."""

    source = PhysioNet("challenge-2021/1.0.3", "CC BY 4.0")
    signal_suffix = ".mat"
    folder: str  # below `training`
    record_name: re.Pattern[str]

    def __init_subclass__(cls, name: str, record_name: str, folder: str | None = None) -> None:
        """Declare the database `name`, whose records have such names, in `folder` (default: its name with underscores)."""
        cls.database, cls.folder, cls.record_name = name, folder or name.replace("-", "_"), re.compile(record_name)

    def wants_file(self, path: str) -> bool:
        return path.startswith(f"training/{self.folder}/") and path.endswith((".hea", ".mat"))

    def list_records(self) -> list[RecordInfo]:
        """Return the records of this database in `data_dir`, by name. Raises `FileNotFoundError` if there is no such folder."""
        if not self.data_dir.is_dir():
            raise FileNotFoundError(f"{self.data_dir} is no folder: expected that of the challenge or of {self.folder}.")
        candidates = (self.data_dir / "training" / self.folder, self.data_dir / self.folder, self.data_dir)
        directory = next(candidate for candidate in candidates if candidate.is_dir())
        records = [RecordInfo(Path(path).name, path) for path in record_files(directory, self.data_dir)]
        return sorted((r for r in records if self.record_name.fullmatch(r.record_id)), key=lambda r: (r.record_id, r.path))

    def complete(self, info: RecordInfo, comments: list[str]) -> RecordInfo:
        """Return `info` with age, sex and statements from the comments of the header."""
        pairs = (comment.partition(":")[::2] for comment in reversed(comments))  # the first of a name wins
        values = {name.strip().lower(): value.strip() for name, value in pairs}
        number = float(pd.to_numeric(values.get("age", ""), errors="coerce"))  # NaN, Unknown or -1 where it is not known
        age, sex = number if 0 <= number < 1000 else None, _SEXES.get(values.get("sex", "").lower())
        return dataclasses.replace(info, age=age, sex=sex, statements=dict.fromkeys(self.statements_in(values), 0.0))

    def statements_in(self, comments: dict[str, str]) -> list[str]:
        """Return the codes of the `Dx` line; `comments` by lower-case name."""
        return [code for code in map(str.strip, comments.get("dx", "").split(",")) if code.isdigit()]


class ChapmanShaoxing(Challenge2021, name="chapman-shaoxing", record_name=r"JS(0\d{4}|10[0-5]\d{2}|106[0-3]\d|1064[0-6])"):
    """Chapman-Shaoxing (Zheng et al. 2020): 10,247 records of 10 s at 500 Hz, up to JS10646; then Ningbo begins."""


class Ningbo(Challenge2021, name="ningbo", record_name=rf"(?!{ChapmanShaoxing.record_name.pattern}$)JS\d{{5}}"):
    """Ningbo First Hospital (Zheng et al. 2020): 34,905 records of 10 s at 500 Hz."""


class Cpsc(Challenge2021, name="cpsc", folder="cpsc_2018", record_name=r"A\d{4}"):
    """China Physiological Signal Challenge 2018 (Liu et al. 2018): 6,877 records of 6 to 144 s at 500 Hz."""


class CpscExtra(Challenge2021, name="cpsc-extra", folder="cpsc_2018_extra", record_name=r"Q\d{4}"):
    """Unused data of CPSC 2018: 3,453 records of 8 to 98 s at 500 Hz."""


class Georgia(Challenge2021, name="georgia", record_name=r"E\d{5}"):
    """Georgia 12-lead ECG Challenge Database: 10,344 records of 5 to 10 s at 500 Hz."""


class StPetersburg(Challenge2021, name="st-petersburg", folder="st_petersburg_incart", record_name=r"I\d{4}"):
    """St Petersburg INCART (Tihonenko et al. 2007): 74 records of 30 minutes at 257 Hz, with strong baseline wander."""

    highpass_cutoff = 0.5


class Ptb(Challenge2021, name="ptb", record_name=r"S\d{4}|s\d{4}(_|[a-z])re"):
    """
    PTB Diagnostic (Bousseljot et al. 1995): 516 records of 10 to 120 s at 1000 Hz, from the challenge (`S0001`, ...) or as
    first published (`patient001/s0010_re`, ... with a `.dat`, and a `.xyz` for the Frank leads, which are not used).

    Statements are SNOMED CT codes in the challenge's files, and the reason for admission in words in the original ones.
    """

    def source_files(self, record: RecordInfo) -> Iterable[str]:
        suffixes = (".hea", ".mat") if record.record_id.startswith("S") else (".hea", ".dat", ".xyz")
        return [os.path.join(self.config.data_dir, record.path + suffix) for suffix in suffixes]

    def complete(self, info: RecordInfo, comments: list[str]) -> RecordInfo:
        folder = Path(info.path).parent.name  # of a patient, in the original layout
        patient_id = folder if re.fullmatch(r"patient\d+", folder) else None
        return dataclasses.replace(super().complete(info, comments), patient_id=patient_id)

    def statements_in(self, comments: dict[str, str]) -> list[str]:
        reason = comments.get("reason for admission", "n/a")
        return super().statements_in(comments) or ([] if reason.lower() == "n/a" else [reason])


class PtbXlChallenge(Challenge2021, name="ptb-xl-challenge", folder="ptb-xl", record_name=r"HR\d{5}"):
    """
    The challenge's copies of PTB-XL (`HR00001`, ...), for those who want its SNOMED CT codes.

    They have no folds and include the records that PTB-XL keeps for tests: a corpus for pre-training refuses them.
    """

    for_pretraining = False
