"""The preparation of a database: its records -> shards, and what stands beside them, `database.json` last."""

import json
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np

from .._utils.files import digest_files, digest_of, write_json
from .._utils.logs import progress_bar
from .._utils.run_directory import own_directory
from ..model.signal_processing_ecg_jepa import STANDARD_LEADS
from .raw_files import files_digest, read_lines
from .record_statistics import PUBLISHED, count_labels, measure_quality
from .records import (
    DATABASE_FILE,
    QUALITY_FILE,
    REJECTED_FILE,
    DatabaseInfo,
    PreparedDatabase,
    read_database_info,
    write_database_info,
    write_rejections,
)
from .shards import open_shard, records_per_shard, shard_path, write_shard

if TYPE_CHECKING:
    from .builders.base import EcgDatabaseBuilder, RecordInfo

logger = logging.getLogger(__name__)

PREPARATION_VERSION = 4  # part of the digest of a prepared database: raise it when preparation changes what it writes

LOCK_TIMEOUT = 10  # seconds; workers of a run that was just killed take a moment to notice, and hold its lock until then


@contextmanager
def process_map(num_proc: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a `map` over `num_proc` processes; Python's own for 1. Raises `ChildProcessError` if one dies, of memory say."""
    if num_proc == 1:
        yield map
        return
    # A fork would wait for ever for a lock that another thread, of a page or a tracker, held.
    context = get_context("forkserver" if threading.active_count() > 1 else "fork")
    context.set_forkserver_preload(["ecg_jepa.data.builders.base"])
    pool = ProcessPoolExecutor(num_proc, mp_context=context, initializer=_end_with_parent)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A process of the preparation died, perhaps for lack of memory, or in a script without `if __name__ == '__main__':`. "
            "Run the same again, with a lower num_proc."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent is gone: workers of a killed preparation must not go on writing, or hold its lock."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass
class ShardReport:
    """What the process that prepared a shard found: `digest` is of the source files, `shard` from [`write_shard`]."""

    digest: str = ""
    shard: dict[str, Any] = field(default_factory=dict)
    samples_read: int = 0  # over all leads, at the files' own rate
    rejections: list[dict[str, str]] = field(default_factory=list)


def prepare_database(
    builder: "EcgDatabaseBuilder", output_dir: str | Path, num_proc: int, strict: bool, overwrite_output_dir: bool
) -> DatabaseInfo:
    """Prepare a database in `output_dir/<database>`: see [`EcgDatabaseBuilder.prepare`]."""
    records = builder.records_to_prepare()
    size = records_per_shard(len(records))
    shards = [records[begin : begin + size] for begin in range(0, len(records), size)]
    directory = Path(output_dir, builder.database)
    with own_directory(directory, timeout=LOCK_TIMEOUT):
        with process_map(num_proc) as run:
            existing = read_database_info(directory)
            if existing is not None:
                digest = _digest(builder, run(partial(_digest_shard, builder), shards))
                if existing.digest == digest and _is_whole(directory):
                    _check_strict(builder, strict, map(json.loads, read_lines(directory / REJECTED_FILE)), directory)
                    return existing
                if existing.source_folder not in (None, builder.source_folder) and not overwrite_output_dir:
                    raise ValueError(
                        f"{directory} holds {existing.records} records prepared from {existing.source_folder}, not from "
                        f"{builder.source_folder}: choose another output_dir, or replace them with --overwrite_output_dir."
                    )
            # From here until the end, the folder does not count as prepared.
            (directory / DATABASE_FILE).unlink(missing_ok=True)
            reports: list[ShardReport] = []
            done = 0
            with progress_bar(total=len(records), desc=f"Preparing {builder.database}", unit=" records") as progress:
                for report in run(partial(_write_shard, builder, directory), range(len(shards)), shards):
                    _check_strict(builder, strict, report.rejections, directory)
                    before, done = done, done + len(shards[len(reports)])
                    reports.append(report)
                    progress.update(done - before)
                    if 10 * done // len(records) > 10 * before // len(records):
                        logger.info(f"{builder.database}: {done} of {len(records)} records")
        return _finish(builder, directory, reports)


def _digest_shard(builder: "EcgDatabaseBuilder", records: "list[RecordInfo]") -> str:
    """Return a digest of everything that a shard's content depends on."""
    config = builder.config
    settings: tuple[Any, ...] = (builder.database, PREPARATION_VERSION, config.sampling_rate, config.min_duration)
    settings += ("amplitude-free",) if config.amplitude_free else (builder.highpass_cutoff,)
    settings += ("implausible",) if config.allow_implausible else ()
    settings += ("outside paths",) if config.allow_outside_paths else ()
    files = (file for record in records for file in builder.source_files(record))
    return files_digest(files, repr((settings, records)))


def _digest(builder: "EcgDatabaseBuilder", of_shards: Iterable[str]) -> str:
    tables = [builder.data_dir / builder.statements_file] if builder.statements_file else []
    # Labels that no record has show in no record.
    labels = f"LabelColumns(names={builder.label_names!r}, ignored={builder.ignored_columns!r})" if builder.has_own_labels else ""
    return files_digest(tables, "".join(of_shards) + labels)


def _is_whole(directory: Path) -> bool:
    """Read all bytes of a prepared database. Return whether they are those that were prepared."""
    try:
        PreparedDatabase(directory).verify()
    except (ValueError, OSError) as error:
        logger.warning(f"{error} All of it is prepared again.")
        return False
    return True


def _write_shard(builder: "EcgDatabaseBuilder", directory: Path, number: int, records: "list[RecordInfo]") -> ShardReport:
    report = ShardReport(_digest_shard(builder, records))
    report.shard = write_shard(shard_path(directory, number), builder.prepare_records(records, report))
    return report


def _check_strict(builder: "EcgDatabaseBuilder", strict: bool, rejections: Iterable[dict[str, str]], directory: Path) -> None:
    unwanted = [line for line in rejections if line["reason"] not in builder.left_out_on_purpose]
    if strict and unwanted:
        first = "{record}: {reason} ({detail})".format_map(unwanted[0])
        raise ValueError(
            f"{len(unwanted)} records cannot be used, the first of them {first}. Mend them, or prepare without strict, which "
            f"leaves them out and lists them in {directory / REJECTED_FILE}."
        )


def _finish(builder: "EcgDatabaseBuilder", directory: Path, reports: list[ShardReport]) -> DatabaseInfo:
    """Write what stands beside the shards, `database.json` last, and remove other shards and what `datasets` made of them."""
    shards = [report.shard for report in reports]
    for pattern in (".*.tmp", "records-*.arrow", "records-*.json", "cache-*.arrow"):
        for path in set(directory.glob(pattern)).difference(directory / shard["file"] for shard in shards):
            path.unlink()
    rejections = [line for report in reports for line in report.rejections]
    write_rejections(directory / REJECTED_FILE, rejections)
    rejected = dict(Counter(line["reason"] for line in rejections).most_common())
    dataset = datasets.concatenate_datasets([open_shard(directory, shard, len(STANDARD_LEADS)) for shard in shards])
    if not len(dataset):
        raise ValueError(
            f"None of the {len(rejections)} records in {builder.data_dir} is usable: {rejected}; see {directory / REJECTED_FILE}"
        )
    statements_digest = None
    if builder.statements_file:
        copy = shutil.copyfile(builder.data_dir / builder.statements_file, directory / builder.statements_file)
        statements_digest = digest_files([copy])
    columns = {name: dataset.data.column(name).to_numpy().astype(np.int64) for name in dataset.column_names if "num_" in name}
    config, source, label_names = builder.config, builder.source, builder.label_names
    info = DatabaseInfo(
        name=builder.database,
        sampling_rate=config.sampling_rate,
        lead_names=list(STANDARD_LEADS),
        records=len(dataset),
        rejected=rejected,
        hours=float(columns["num_samples"].sum() / config.sampling_rate / 3600),
        megabytes=sum(shard["bytes"] for shard in shards) / 1e6,
        interpolated_samples=int(columns["num_interpolated"].sum()),
        clipped_samples=int(columns["num_clipped"].sum()),
        bad_checksums=int((columns["num_bad_checksums"] > 0).sum()),
        highpass_cutoff=None if config.amplitude_free else builder.highpass_cutoff,
        amplitude_free=config.amplitude_free,
        digest=_digest(builder, (report.digest for report in reports)),
        content_digest=digest_of([shard["content"] for shard in shards]),
        shards=shards,
        label_names=None if label_names is None else list(label_names),
        label_counts=None if label_names is None else count_labels(dataset, label_names),
        ignored_columns=list(builder.ignored_columns),
        **{name: getattr(source, name, None) for name in ("licence", "page", "attribution")},
        population=builder.population,
        statements_digest=statements_digest,
        for_pretraining=builder.for_pretraining,
        source_folder=builder.source_folder,
    )
    # What was published is in mV.
    published = None if config.amplitude_free else PUBLISHED.get(builder.database)
    quality = measure_quality(info, dataset, sum(report.samples_read for report in reports), published)
    if quality["dead_leads"]:
        leads = ", ".join(quality["dead_leads"])
        logger.warning(f"{builder.database}: leads {leads} never change in any record. Nothing can be trained on such records.")
    write_json(directory / QUALITY_FILE, quality)
    write_database_info(directory, info)
    return info
