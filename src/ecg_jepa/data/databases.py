"""All databases that can be prepared, by name."""

from . import challenge_2021
from .builder import EcgDatabaseBuilder
from .code_15 import Code15
from .mimic_iv_ecg import MimicIvEcg
from .own_records import OwnRecords
from .ptb_xl import PtbXl
from .synthetic import Synthetic

BUILDERS: dict[str, type[EcgDatabaseBuilder]] = {
    builder.database: builder
    for builder in (
        MimicIvEcg,
        Code15,
        PtbXl,
        challenge_2021.ChapmanShaoxing,
        challenge_2021.Cpsc,
        challenge_2021.CpscExtra,
        challenge_2021.Georgia,
        challenge_2021.Ningbo,
        challenge_2021.Ptb,
        challenge_2021.StPetersburg,
        challenge_2021.PtbXlChallenge,
        OwnRecords,
        Synthetic,
    )
}
