"""`ecg-jepa prepare`: a database as downloaded -> prepared records."""

from pathlib import Path

from ..data.databases import builder_class
from ..data.records import QUALITY_FILE, REJECTED_FILE, DatabaseInfo, find_database
from ..data.synthetic import Synthetic, generate_if_absent
from .command_settings import PreparationSettings


def run(settings: PreparationSettings) -> None:
    """Generate or download what is asked for, prepare it, and say what came out; or verify what was prepared."""
    if settings.verify:
        database = find_database(settings.output_dir, settings.database)
        database.verify()
        print(f"{database.name}: all {len(database)} records are as they were prepared")
        return
    assert settings.data_dir is not None  # for the type checker: settings see to it
    of_own = {"label_columns": settings.label_columns} if settings.database == "own" else {}
    builder = builder_class(settings.database)(
        data_dir=settings.data_dir,
        sampling_rate=settings.sampling_rate,
        min_duration=settings.min_duration,
        amplitude_free=settings.amplitude_free,
        allow_implausible=settings.allow_implausible,
        allow_outside_paths=settings.allow_outside_paths,
        **of_own,
    )
    if settings.database == Synthetic.database:
        generate_if_absent(
            settings.data_dir,
            settings.num_records,
            seed=settings.seed,
            with_low_rate=settings.sampling_rate == 100,
            num_proc=settings.num_proc,
        )
    if settings.download:
        builder.download(settings.download_address)
    info = builder.prepare(
        settings.output_dir,
        num_proc=settings.num_proc,
        strict=settings.strict,
        overwrite_output_dir=settings.overwrite_output_dir,
    )
    summarize(info, Path(settings.output_dir, info.name))


def summarize(info: DatabaseInfo, directory: Path) -> None:
    """Print the closing figures."""
    rejected = sum(info.rejected.values())
    print(f"{info.name}: {info.records} records read, {rejected} rejected, in {directory}")
    for reason, count in sorted(info.rejected.items()):
        print(f"  rejected: {count} x {reason}")
    if rejected:
        print(f"  each with its reason in {directory / REJECTED_FILE}")
    for line in describe_labels(info):
        print(f"  {line}")
    if info.bad_checksums:
        print(f"  {info.bad_checksums} records contradict the checksums in their headers: see the column num_bad_checksums")
    print(
        f"  {info.hours:.2f} hours at {info.sampling_rate} Hz, {info.megabytes:.1f} MB, {info.interpolated_samples} samples "
        f"interpolated, {info.clipped_samples} clipped to +-32.767 mV"
    )
    print(f"  measured figures in {directory / QUALITY_FILE}")


def describe_labels(info: DatabaseInfo) -> list[str]:
    """Lines that say which labels were taken, how many records have each, and which columns of an own table mean nothing here."""
    lines = []
    if info.label_counts is not None:
        names = ", ".join(info.label_names or []) or "none"
        lines.append(f"taken as labels: the columns {names}" if info.name == "own" else f"labels: {names}")
        for name in info.label_names or []:
            counts = [(group["split"], group["positives"][name], group["records"]) for group in info.label_counts]
            (_, positives, records), *splits = counts
            parts = ", ".join(f"{split} {count} of {of}" for split, count, of in splits)
            lines.append(f"  {name}: {positives} of {records} records" + (f" ({parts})" if parts else ""))
    if info.ignored_columns:
        lines.append(f"ignored: the columns {', '.join(info.ignored_columns)}")
    return lines
