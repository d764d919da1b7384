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

from ..download import PhysioNet
from ..quality import PublishedStatistics
from ..raw_files import record_files
from .base import EcgDatabaseBuilder, RecordInfo

_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


class Challenge2021(EcgDatabaseBuilder):
    """Base of the builders. Statements are the SNOMED CT codes of the header's `Dx` line."""

    source = PhysioNet("challenge-2021/1.0.3", "CC BY 4.0")
    folder: str  # below `training`
    record_name: re.Pattern[str]

    signal_suffix = ".mat"

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
        return dataclasses.replace(
            info,
            age=_parse_age(values.get("age", "")),
            sex=_SEXES.get(values.get("sex", "").lower()),
            statements=dict.fromkeys(self.statements_in(values), 0.0),
        )

    def statements_in(self, comments: dict[str, str]) -> list[str]:
        """Return the codes of the `Dx` line; `comments` by lower-case name."""
        return [code for code in map(str.strip, comments.get("dx", "").split(",")) if code.isdigit()]


def _parse_age(text: str) -> float | None:
    """Return years; headers write NaN, Unknown or -1 for an age that is not known."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age < 1000 else None


class ChapmanShaoxing(Challenge2021):
    """Chapman-Shaoxing (Zheng et al. 2020): 10,247 records of 10 s at 500 Hz."""

    database = "chapman-shaoxing"
    folder = "chapman_shaoxing"
    record_name = re.compile(r"JS(0\d{4}|10[0-5]\d{2}|106[0-3]\d|1064[0-6])")  # up to JS10646; then Ningbo begins
    published = PublishedStatistics(
        records=10_247,
        mean=(0.002, 0.005, 0.003, -0.002, -0.002, 0.003, 0.0, 0.003, 0.004, 0.004, 0.003, -0.001),
        std=(0.140, 0.171, 0.145, 0.138, 0.114, 0.143, 0.218, 0.355, 0.366, 0.365, 0.332, 0.299),
    )


class Ningbo(Challenge2021):
    """Ningbo First Hospital (Zheng et al. 2020): 34,905 records of 10 s at 500 Hz."""

    database = "ningbo"
    folder = "ningbo"
    record_name = re.compile(rf"(?!{ChapmanShaoxing.record_name.pattern}$)JS\d{{5}}")
    published = PublishedStatistics(
        records=34_905,
        mean=(0.002, 0.004, 0.002, -0.001, -0.001, 0.002, 0.0, 0.003, 0.003, 0.004, 0.003, 0.0),
        std=(0.145, 0.179, 0.159, 0.142, 0.123, 0.153, 0.228, 0.368, 0.377, 0.394, 0.405, 0.444),
    )


class Cpsc(Challenge2021):
    """China Physiological Signal Challenge 2018 (Liu et al. 2018): 6,877 records of 6 to 144 s at 500 Hz."""

    database = "cpsc"
    folder = "cpsc_2018"
    record_name = re.compile(r"A\d{4}")
    published = PublishedStatistics(
        records=6_867,
        mean=(0.0,) * 12,
        std=(0.214, 0.236, 0.221, 0.209, 0.196, 0.214, 0.336, 0.417, 0.449, 0.483, 0.523, 0.561),
    )


class CpscExtra(Challenge2021):
    """Unused data of CPSC 2018: 3,453 records of 8 to 98 s at 500 Hz."""

    database = "cpsc-extra"
    folder = "cpsc_2018_extra"
    record_name = re.compile(r"Q\d{4}")
    published = PublishedStatistics(
        records=3_441,
        mean=(0.0,) * 12,
        std=(0.182, 0.183, 0.184, 0.163, 0.164, 0.165, 0.288, 0.370, 0.371, 0.380, 0.375, 0.392),
    )


class Georgia(Challenge2021):
    """Georgia 12-lead ECG Challenge Database: 10,344 records of 5 to 10 s at 500 Hz."""

    database = "georgia"
    folder = "georgia"
    record_name = re.compile(r"E\d{5}")
    published = PublishedStatistics(
        records=10_292,
        mean=(-0.003, -0.002, 0.001, 0.003, -0.002, -0.001, -0.004, -0.004, -0.003, -0.003, -0.003, -0.003),
        std=(0.157, 0.178, 0.164, 0.147, 0.134, 0.153, 0.213, 0.285, 0.272, 0.245, 0.224, 0.209),
    )


class StPetersburg(Challenge2021):
    """St Petersburg INCART (Tihonenko et al. 2007): 74 records of 30 minutes at 257 Hz, with strong baseline wander."""

    database = "st-petersburg"
    folder = "st_petersburg_incart"
    record_name = re.compile(r"I\d{4}")
    highpass_cutoff = 0.5
    published = PublishedStatistics(
        records=74,
        mean=(0.0,) * 12,
        std=(0.132, 0.370, 0.353, 0.215, 0.191, 0.356, 0.234, 0.320, 0.328, 0.290, 0.317, 0.337),
    )


class Ptb(Challenge2021):
    """
    PTB Diagnostic (Bousseljot et al. 1995): 516 records of 10 to 120 s at 1000 Hz, from the challenge (`S0001`, ...) or as
    first published (`patient001/s0010_re`, ... with a `.dat`, and a `.xyz` for the Frank leads, which are not used).

    Statements are SNOMED CT codes in the challenge's files, and the reason for admission in words in the original ones.
    """

    database = "ptb"
    folder = "ptb"
    record_name = re.compile(r"S\d{4}|s\d{4}(_|[a-z])re")
    published = PublishedStatistics(
        records=516,
        mean=(0.0,) * 12,
        std=(0.642, 0.975, 0.953, 0.674, 0.651, 0.909, 0.643, 0.658, 0.668, 0.688, 0.648, 0.622),
    )

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


class PtbXlChallenge(Challenge2021):
    """
    The challenge's copies of PTB-XL (`HR00001`, ...), for those who want its SNOMED CT codes.

    They have no folds and include the records that PTB-XL keeps for tests: a corpus for pre-training refuses them.
    """

    database = "ptb-xl-challenge"
    for_pretraining = False
    folder = "ptb-xl"
    record_name = re.compile(r"HR\d{5}")
