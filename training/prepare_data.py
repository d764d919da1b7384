"""
Prepare a database once: read, condition, write Arrow shards that training maps into memory.

    python training/prepare_data.py --database ptb-xl --data_dir RAW --output_dir PREPARED
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from ecg_jepa.arguments import inputs_of, option, parse_arguments
from ecg_jepa.data.databases import BUILDERS
from ecg_jepa.data.records import QUALITY_FILE, REJECTED_FILE, DatabaseInfo
from ecg_jepa.data.synthetic import Synthetic, generate_if_absent


@dataclass
class PreparationArguments:
    """Arguments of this script."""

    database: str = field(metadata={"help": f"one of {', '.join(BUILDERS)}"})
    data_dir: str = field(metadata={"help": "folder of the database as downloaded; for synthetic, where to generate it"})
    output_dir: str = field(metadata={"help": "the prepared database goes to a folder of its name in here"})
    sampling_rate: int = option(500, "of the prepared records in Hz; 100 reads PTB-XL's own 100 Hz files")
    min_duration: float = option(10.0, "in seconds; shorter records are rejected")
    num_proc: int = option(1, "processes")
    strict: bool = option(False, "a record that cannot be used is an error, not left out")
    download: bool = option(False, "first fetch what is missing in data_dir from the database's original host")
    download_address: str | None = option(None, "of a mirror of the host, instead of https://physionet.org/files or Zenodo's")
    num_records: int = option(1000, "synthetic: how many records to generate")
    seed: int = option(0, "synthetic: of the records")

    def __post_init__(self) -> None:
        if self.database not in BUILDERS:
            nearest = difflib.get_close_matches(self.database, BUILDERS, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(BUILDERS)}."
            raise ValueError(f"there is no database {self.database!r}: {hint}")
        if self.sampling_rate < 1 or self.num_proc < 1:
            raise ValueError("sampling_rate and num_proc must be at least 1.")
        if self.min_duration < 0:
            raise ValueError(f"min_duration={self.min_duration} must not be negative.")


def main() -> None:
    arguments = parse_arguments(PreparationArguments, description=__doc__)
    builder = BUILDERS[arguments.database](
        data_dir=arguments.data_dir, sampling_rate=arguments.sampling_rate, min_duration=arguments.min_duration
    )
    with inputs_of("prepare_data.py"):
        if arguments.database == Synthetic.database:
            generate_if_absent(
                arguments.data_dir,
                arguments.num_records,
                seed=arguments.seed,
                with_low_rate=arguments.sampling_rate == 100,
                num_proc=arguments.num_proc,
            )
        if arguments.download:
            builder.download(arguments.download_address)
        info = builder.prepare(arguments.output_dir, num_proc=arguments.num_proc, strict=arguments.strict)
    summarize(info, Path(arguments.output_dir, info.name))


def summarize(info: DatabaseInfo, directory: Path) -> None:
    """Print the closing figures."""
    rejected = sum(info.rejected.values())
    print(f"{info.name}: {info.records} records read, {rejected} rejected, in {directory}")
    for reason, count in sorted(info.rejected.items()):
        print(f"  rejected: {count} x {reason}")
    if rejected:
        print(f"  each with its reason in {directory / REJECTED_FILE}")
    if info.bad_checksums:
        print(f"  {info.bad_checksums} records contradict the checksums in their headers: see the column num_bad_checksums")
    print(
        f"  {info.hours:.2f} hours at {info.sampling_rate} Hz, {info.megabytes:.1f} MB, {info.interpolated_samples} samples "
        f"interpolated, {info.clipped_samples} clipped to +-32.767 mV"
    )
    print(f"  measured figures in {directory / QUALITY_FILE}")


if __name__ == "__main__":
    main()
