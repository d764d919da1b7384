"""`ecg-jepa prepare`: a database as downloaded -> prepared records."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.settings import check_at_least, option, settings
from ..data.databases import DATABASES, builder_class

if TYPE_CHECKING:
    from ..data.records import DatabaseInfo


@settings
class PrepareSettings:
    """Settings of `ecg-jepa prepare`. Raises `ValueError` for an unknown database and values that cannot be."""

    database: str = option(text=f"one of {', '.join(DATABASES)}")
    output_dir: str = option(text="the prepared database goes to a folder of its name in here")
    data_dir: str | None = option(None, "folder of the database as downloaded; for synthetic, where to generate it")
    sampling_rate: int = option(500, "of the prepared records in Hz; 100 reads PTB-XL's own 100 Hz files")
    min_duration: float = option(10.0, "in seconds; shorter records are rejected")
    amplitude_free: bool = option(False, "for unknown gains: band-pass 0.5 to 40 Hz, each lead divided by its standard deviation")
    allow_implausible: bool = option(False, "keep records that cannot be ECGs in the unit that they declare")
    allow_outside_paths: bool = option(False, "also read files outside data_dir, which tables name or links lead to")
    label_columns: list[str] | None = option(
        None, "own: the columns that are labels; others are ignored; default: all unknown ones, which must hold 0 or 1 throughout"
    )
    overwrite_output_dir: bool = option(False, "own: replace records that were prepared from another folder")
    verify: bool = option(False, "prepare nothing, but read what was prepared, and name files that are damaged")
    num_proc: int = option(1, "processes")
    strict: bool = option(False, "a record that cannot be used is an error, not left out")
    download: bool = option(False, "first fetch what is missing in data_dir from the database's original host")
    download_address: str | None = option(None, "of a mirror of the host, instead of https://physionet.org/files or Zenodo's")
    num_records: int = option(1000, "synthetic: how many records to generate")
    seed: int = option(0, "synthetic: of the records")

    def __post_init__(self) -> None:
        if self.database not in DATABASES:
            nearest = difflib.get_close_matches(self.database, DATABASES, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(DATABASES)}."
            raise ValueError(f"there is no database {self.database!r}: {hint}")
        if self.data_dir is None and not self.verify:
            raise ValueError("data_dir is required: the folder of the database as downloaded.")
        if self.label_columns is not None and self.database != "own":
            raise ValueError(f"label_columns is for own records (--database own), not for {self.database}.")
        check_at_least(self, 1, "sampling_rate", "num_proc", "num_records")
        check_at_least(self, 0, "min_duration", "seed")


def run(settings: PrepareSettings) -> None:
    """Generate or download the database if asked to, prepare it and print a summary; or verify a prepared one."""
    from ..data.records import find_database
    from ..data.synthetic import Synthetic, generate_if_absent

    if settings.verify:
        database = find_database(settings.output_dir, settings.database)
        database.verify()
        print(f"{database.name}: all {len(database)} records are as they were prepared")
        return
    names = ["data_dir", "sampling_rate", "min_duration", "amplitude_free", "allow_implausible", "allow_outside_paths"]
    names += ["label_columns"] if settings.database == "own" else []
    builder = builder_class(settings.database)(**{name: getattr(settings, name) for name in names})
    if settings.database == Synthetic.database:
        of_records = {"seed": settings.seed, "with_low_rate": settings.sampling_rate == 100, "num_proc": settings.num_proc}
        generate_if_absent(builder.data_dir, settings.num_records, **of_records)
    if settings.download:
        builder.download(settings.download_address)
    options: dict[str, Any] = {name: getattr(settings, name) for name in ("num_proc", "strict", "overwrite_output_dir")}
    info = builder.prepare(settings.output_dir, **options)
    summarize(info, Path(settings.output_dir, info.name))


def summarize(info: "DatabaseInfo", directory: Path) -> None:
    """Print how many records were prepared and rejected, their labels, the columns of an own table, and their size."""
    from ..data.records import QUALITY_FILE, REJECTED_FILE

    rejected = sum(info.rejected.values())
    print(f"{info.name}: {info.records} records read, {rejected} rejected, in {directory}")
    for reason, count in sorted(info.rejected.items()):
        print(f"  rejected: {count} x {reason}")
    if rejected:
        print(f"  each with its reason in {directory / REJECTED_FILE}")
    if info.label_counts is not None:
        labels = ", ".join(info.label_names or []) or "none"
        print(f"  taken as labels: the columns {labels}" if info.name == "own" else f"  labels: {labels}")
        for name in info.label_names or []:
            whole, *splits = [(group["split"], group["positives"][name], group["records"]) for group in info.label_counts]
            parts = ", ".join(f"{split} {count} of {of}" for split, count, of in splits)
            print(f"    {name}: {whole[1]} of {whole[2]} records" + (f" ({parts})" if parts else ""))
    if info.ignored_columns:
        print(f"  ignored: the columns {', '.join(info.ignored_columns)}")
    if info.bad_checksums:
        print(f"  {info.bad_checksums} records contradict the checksums in their headers: see the column num_bad_checksums")
    print(
        f"  {info.hours:.2f} hours at {info.sampling_rate} Hz, {info.megabytes:.1f} MB, {info.interpolated_samples} samples "
        f"interpolated, {info.clipped_samples} clipped to +-32.767 mV"
    )
    print(f"  measurements in {directory / QUALITY_FILE}")
