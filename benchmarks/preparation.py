"""
Measure the time per WFDB record: read by wfdb, read by this package, and prepared from file to row; one process, files in memory.

    python benchmarks/preparation.py --database ptb-xl --data_dir RAW
"""

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import wfdb

from ecg_jepa._utils.settings import option, parse_settings, settings
from ecg_jepa.data.builders.base import ShardReport
from ecg_jepa.data.builders.challenge_2021 import Georgia, Ningbo
from ecg_jepa.data.builders.mimic_iv_ecg import MimicIvEcg
from ecg_jepa.data.builders.ptb_xl import PtbXl
from ecg_jepa.formats.wfdb_record import read_wfdb

BUILDERS = {builder.database: builder for builder in (PtbXl, MimicIvEcg, Georgia, Ningbo)}


@settings
class Arguments:
    """Arguments of this script."""

    data_dir: str = option(text="folder of the database as downloaded")
    database: str = option("ptb-xl", f"one of {', '.join(BUILDERS)}")
    num_records: int = option(200, "of the first records")
    repeats: int = option(7, "measurements of each, in turn")


def milliseconds(action: Callable[[], Iterable[object]], count: int) -> float:
    """Return the time of an action per record."""
    begin = time.perf_counter()
    for _ in action():
        pass
    return (time.perf_counter() - begin) / count * 1e3


def main() -> None:
    """Measure and print."""
    arguments = parse_settings(Arguments, description=__doc__)
    builder = BUILDERS[arguments.database](data_dir=arguments.data_dir)
    records = builder.list_records()[: arguments.num_records]
    paths = [str(Path(arguments.data_dir, record.path)) for record in records]
    actions = {
        "wfdb.rdrecord": lambda: map(wfdb.rdrecord, paths),
        "read_wfdb": lambda: map(read_wfdb, map(Path, paths)),
        "file to row": lambda: builder.prepare_records(records, ShardReport()),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(arguments.repeats):
        for name, action in actions.items():
            times[name].append(milliseconds(action, len(records)))
    for name, values in times.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f} in {len(values)}"
        print(f"{name:14} {median:6.2f} ms a record ({spread}), {1e3 / median:.0f} records/s")
    ratios = [slow / fast for slow, fast in zip(times["wfdb.rdrecord"], times["read_wfdb"], strict=True)]
    print(f"read_wfdb is {statistics.median(ratios):.1f} times as fast as wfdb.rdrecord ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
