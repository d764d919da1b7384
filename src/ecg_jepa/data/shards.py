"""
The files of a prepared database, each written whole or not at all: a preparation that was killed goes on where it was.

A shard is `records-<number>.arrow` with a `.json` beside it, which is written last and says what the shard was made from.
"""

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from ..common.files import digest_files, write_json
from .records import FEATURES, SHARDS

# Shards are a power of two of records, so that databases that grow keep theirs. At least 16 can be shared among processes and
# little is lost with one; not too many, for each is a file that every opening of the corpus maps into memory.
_LARGEST_SHARD = 2048
_SMALLEST_SHARD = 8
_SHARDS_PER_DATABASE = 16

# Workers of a run that was just killed take a moment to notice, and hold on to its lock until then.
LOCK_TIMEOUT = 10  # seconds


@dataclass
class ShardSummary:
    """What stands in the `.json` of a shard: where it came from, and what its rows cannot tell."""

    digest: str  # of the sources and settings
    bytes: int = 0
    content: str = ""  # SHA-256 of the file; empty if an earlier version wrote it
    samples_read: int = 0  # over all leads, at the files' own rate
    rejections: list[dict[str, str]] = field(default_factory=list)


def records_per_shard(num_records: int) -> int:
    """How many records go into a shard."""
    size = 1 << max(0, (num_records // _SHARDS_PER_DATABASE).bit_length() - 1)
    return min(max(size, _SMALLEST_SHARD), _LARGEST_SHARD)


def shard_path(directory: Path, number: int) -> Path:
    """The file of a shard."""
    return directory / SHARDS.replace("*", f"{number:05d}")


def read_summary(directory: Path, number: int) -> ShardSummary | None:
    """The summary of a finished shard; `None` if it is not there or does not belong to the file beside it."""
    path = shard_path(directory, number)
    try:
        summary = ShardSummary(**json.loads(path.with_suffix(".json").read_text()))
        return summary if path.stat().st_size == summary.bytes else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_shard(directory: Path, number: int, tables: Iterable[pa.Table], summary: ShardSummary) -> None:
    """Write the tables, then the summary (`bytes` and `content` filled in; `tables` may fill in the rest while it is read)."""
    path = shard_path(directory, number)
    temporary = path.with_name(f".{path.name}.tmp")
    schema = FEATURES.arrow_schema
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for table in tables:
            writer.write_table(table)
    temporary.replace(path)
    summary.bytes, summary.content = path.stat().st_size, digest_files([path])
    write_json(path.with_suffix(".json"), dataclasses.asdict(summary))


def remove_other_files(directory: Path, num_shards: int) -> None:
    """Remove what killed, larger or older preparations left."""
    keep = {shard_path(directory, number).stem for number in range(num_shards)}
    for path in [*directory.glob(".*.tmp"), *directory.glob("*.arrow"), *directory.glob("records-*.json")]:
        if path.stem not in keep:
            path.unlink()


@contextmanager
def preparation_lock(directory: Path) -> Iterator[None]:
    """Keep a second preparation out of the folder. Raises `BlockingIOError` if one is running."""
    try:
        with FileLock(directory / ".lock", timeout=LOCK_TIMEOUT):
            yield
    except Timeout:
        raise BlockingIOError(f"Another process is preparing {directory}: wait for it, or stop it.") from None


@contextmanager
def process_map(num_proc: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """
    `map` over `num_proc` processes, in order; in this one if `num_proc` is 1.

    Raises:
        ChildProcessError: if a process dies, as it does when memory runs out.
    """
    if num_proc == 1:
        yield map
        return
    pool = ProcessPoolExecutor(num_proc, initializer=_end_with_parent)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A process of the preparation died, perhaps for lack of memory. What it had finished is kept: run the same command "
            "again, with a lower num_proc."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent is gone: workers of a killed preparation must not go on writing."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
