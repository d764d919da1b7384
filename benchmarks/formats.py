"""
Read records in every format with `read_ecg` and with other libraries: largest deviation and median time (docs/formats.md).

    python benchmarks/formats.py --records_dir PTB-XL/records500/00000
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import sierraecg
from ecgdatakit.parsing.parser import FileParser
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from clinical_formats import WRITERS, write_philips, write_scp

from ecg_jepa import read_ecg
from ecg_jepa._utils.settings import option, parse_settings, settings

FILES: dict[str, Callable[..., Path]] = {
    **WRITERS,
    "uncompressed.philips.xml": partial(write_philips, compressed=False),
    "raw.scp": partial(write_scp, huffman=False, differences=0),
    "first_differences.scp": partial(write_scp, differences=1),
}
MICROVOLTS = {"uV": 1.0, "mV": 1000.0}


@settings
class Arguments:
    """Arguments of this script."""

    records_dir: str = option(text="folder of 12-lead WFDB records")
    num_records: int = option(20, "of them")


@dataclass
class Deviations:
    """Deviations and times of one reader on one kind of file."""

    deviations: list[float] = field(default_factory=list)  # uV
    seconds: list[float] = field(default_factory=list)
    errors: set[str] = field(default_factory=set)

    def measure(self, read: Callable[[Path], dict[str, np.ndarray]], path: Path, written: dict[str, np.ndarray]) -> None:
        """Read a file, and compare its leads in uV with the `written` ones."""
        started = time.perf_counter()
        try:
            leads = read(path)
        except Exception as error:  # whatever a library raises is reported
            self.errors.add(f"{type(error).__name__}: {error}"[:60])
            return
        self.seconds.append(time.perf_counter() - started)
        self.deviations.append(max(float(np.abs(values - written[name]).max()) for name, values in leads.items()))

    def __str__(self) -> str:
        found = f"{max(self.deviations):.4f} uV, {1000 * np.median(self.seconds):.1f} ms" if self.deviations else ""
        return "; ".join([found, *sorted(self.errors)]).strip("; ")


def by_read_ecg(path: Path) -> dict[str, np.ndarray]:
    """Return the leads in uV as this package reads them."""
    ecg = read_ecg(path, check_plausibility=False)
    return dict(zip(ecg.lead_names, 1000.0 * ecg.signal.astype(np.float64), strict=True))


def by_ecgdatakit(path: Path) -> dict[str, np.ndarray]:
    """Return the leads in uV as ecgdatakit reads them."""
    leads = {}
    for lead in FileParser().parse(str(path)).leads:
        values = lead.samples * lead.resolution + lead.offset if lead.is_raw else lead.samples
        leads[lead.label] = values * MICROVOLTS[lead.resolution_unit if lead.is_raw else lead.units]
    return leads


def by_sierraecg(path: Path) -> dict[str, np.ndarray]:
    """Return the leads in uV as sierraecg reads them."""
    return {lead.label: lead.samples for lead in sierraecg.read_file(str(path)).leads}


def main() -> None:
    """Write, read and print."""
    arguments = parse_settings(Arguments, sys.argv[1:], Path(__file__).name)
    warnings.simplefilter("ignore")
    readers = {"read_ecg": by_read_ecg, "ecgdatakit": by_ecgdatakit, "sierraecg": by_sierraecg}
    found = {(file, reader): Deviations() for file in FILES for reader in readers}
    records = sorted(Path(arguments.records_dir).glob("*.hea"))[: arguments.num_records]
    with tempfile.TemporaryDirectory() as folder:
        for record in records:
            ecg = read_ecg(record)
            digital = np.rint(1000 * ecg.signal).astype(np.int16)
            written = dict(zip(ecg.lead_names, digital.astype(np.float64), strict=True))
            for name, write in FILES.items():
                path = write(Path(folder, name), digital, ecg.sampling_rate, ecg.lead_names, 1.0)
                for reader, read in readers.items():
                    if reader != "sierraecg" or "philips" in name:
                        found[name, reader].measure(read, path, written)
    rows = [[name, *(found[name, reader] for reader in readers)] for name in FILES]
    print(tabulate(rows, ["file", *readers], "github"))


if __name__ == "__main__":
    main()
