"""
The files of a prepared database, each written whole or not at all: a preparation that was killed goes on where it was.

A shard is `records-<number>.arrow` with a `.json` beside it, which is written last and says what the shard was made from and what
its bytes are. Opening a shard checks all but the samples themselves, which [`check_content`] reads.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from .._utils.files import digest_files, digest_of, write_json

SHARDS = "records-*.arrow"

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
    columns: str = ""  # SHA-256 of all but the samples; empty if an earlier version wrote it
    samples_read: int = 0  # over all leads, at the files' own rate
    rejections: list[dict[str, str]] = field(default_factory=list)


def records_per_shard(num_records: int) -> int:
    """How many records go into a shard."""
    size = 1 << max(0, (num_records // _SHARDS_PER_DATABASE).bit_length() - 1)
    return min(max(size, _SMALLEST_SHARD), _LARGEST_SHARD)


def shard_path(directory: Path, number: int) -> Path:
    """The file of a shard."""
    return directory / SHARDS.replace("*", f"{number:05d}")


def read_summary(directory: Path, number: int, digest: str) -> ShardSummary | None:
    """
    The summary of a finished shard; `None` if it is not there, was made from other sources or settings than `digest` stands for,
    or the file beside it is not the one it describes.
    """
    path = shard_path(directory, number)
    try:
        summary = summary_of(path)
        if summary.digest != digest:  # before all of its bytes are read
            return None
        check_content(path, summary)
        return summary
    except (FileNotFoundError, ValueError):
        return None


def summary_of(path: Path) -> ShardSummary:
    """The summary of the shard at `path`. Raises `ValueError` if it is damaged, or has another size than the file."""
    try:
        summary = ShardSummary(**json.loads(path.with_suffix(".json").read_text()))
    except (ValueError, TypeError) as error:
        raise _damaged(path.with_suffix(".json"), f"it is no summary of a shard ({error})") from None
    if path.stat().st_size != summary.bytes:
        raise _damaged(path, f"it has {path.stat().st_size:,} bytes, {path.with_suffix('.json').name} says {summary.bytes}")
    return summary


def _damaged(path: Path, detail: str) -> ValueError:
    return ValueError(
        f"{path} is damaged, or not the file that was prepared: {detail}. Run the preparation again, which makes anew what is "
        "damaged."
    )


def check_content(path: Path, summary: ShardSummary) -> None:
    """Read all bytes of a shard. Raises `ValueError` if they are not those that its summary was written for."""
    if summary.content and digest_files([path]) != summary.content:
        raise _damaged(path, "its SHA-256 is not the one in its .json")


def open_shards(directory: str | Path, schema: pa.Schema, num_leads: int) -> tuple[datasets.Dataset | None, str | None]:
    """
    The records of a folder as one memory-mapped dataset, in the order of its shards, and the digest of their content.

    Args:
        directory: of a prepared database.
        schema: of its rows.
        num_leads: of its records.

    Returns:
        The dataset, or `None` if the folder has none, and the digest, or `None` if shards of an earlier version have none.

    Raises:
        ValueError: that names the file, if one is missing, has another size or schema, is not valid Arrow data, or holds other
            values than its summary was written for. Samples alone are not read: see [`check_content`].
    """
    directory = Path(directory)
    paths = sorted({path.with_suffix(".arrow") for path in [*directory.glob(SHARDS), *directory.glob("records-*.json")]})
    parts, contents = [], []
    for path in paths:
        for file in (path, path.with_suffix(".json")):
            if not file.is_file():
                raise _damaged(file, "it is missing")
        summary = summary_of(path)
        parts.append(_open_shard(path, summary, schema, num_leads))
        contents.append(summary.content)
    dataset = datasets.concatenate_datasets(parts) if parts else None
    return dataset, digest_of(contents) if contents and all(contents) else None


def _open_shard(path: Path, summary: ShardSummary, schema: pa.Schema, num_leads: int) -> datasets.Dataset:
    try:
        part = datasets.Dataset.from_file(str(path))
    except Exception as error:  # whatever the libraries' parsing happens to run into
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    table = part.data.table
    if not table.schema.equals(schema):
        raise _damaged(path, "its columns are not those of prepared records")
    try:
        # Before any value is looked at: a wrong offset would have it read from memory that is not the file's.
        for name in schema.names:
            for chunk in table.column(name).chunks:
                chunk.validate(full=name != "signal")
    except pa.ArrowException as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if summary.columns and _digest_columns(table) != summary.columns:
        raise _damaged(path, "its columns are not those that its .json was written for")
    num_samples = table.column("num_samples").to_numpy()
    for name, expected in (("signal", num_samples * num_leads), ("lead_mean", num_leads), ("lead_std", num_leads)):
        lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in table.column(name).chunks]
        if not (np.concatenate(lengths or [np.zeros(0)]) == expected).all():
            raise _damaged(path, f"{name} does not have the length that its rows state")
    return part


def _digest_columns(table: pa.Table) -> str:
    """SHA-256 of all of a shard but the samples: little enough to be read whenever it is opened."""
    digest = hashlib.sha256()
    for name in table.column_names:
        for chunk in table.column(name).chunks:
            buffers = chunk.buffers()[:-1] if name == "signal" else chunk.buffers()
            for buffer in buffers:
                digest.update(buffer if buffer is not None else b"none")
    return digest.hexdigest()


def rows_to_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows -> a table of the schema; signals go in as one array, not value by value."""
    columns = {}
    for name in schema.names:
        values = [row[name] for row in rows]
        if isinstance(values[0], np.ndarray):
            offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
            columns[name] = pa.ListArray.from_arrays(offsets, np.concatenate(values)).cast(schema.field(name).type)
        else:
            columns[name] = pa.array(values, schema.field(name).type)
    return pa.table(columns, schema=schema)


def write_shard(directory: Path, number: int, schema: pa.Schema, tables: Iterable[pa.Table], summary: ShardSummary) -> None:
    """Write the tables, then the summary (sizes and digests filled in; `tables` may fill in the rest while it is read)."""
    path = shard_path(directory, number)
    temporary = path.with_name(f".{path.name}.tmp")
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for table in tables:
            writer.write_table(table)
    temporary.replace(path)
    summary.bytes, summary.content = path.stat().st_size, digest_files([path])
    with pa.memory_map(str(path)) as file:
        summary.columns = _digest_columns(pa.ipc.open_stream(file).read_all())
    write_json(path.with_suffix(".json"), dataclasses.asdict(summary))


def remove_other_files(directory: Path, num_shards: int) -> None:
    """Remove what killed, larger or older preparations left, and what `datasets` made of their records; no other files."""
    keep = {shard_path(directory, number).stem for number in range(num_shards)}
    patterns = (".*.tmp", SHARDS, "records-*.json", "cache-*.arrow")
    for path in itertools.chain.from_iterable(map(directory.glob, patterns)):
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
    context: BaseContext = get_context("fork")
    if threading.active_count() > 1:
        # Of a page or a tracker: forks would wait for ever for a lock that one of these threads held.
        context = get_context("forkserver")
        context.set_forkserver_preload(["ecg_jepa.data.builders.base"])
    pool = ProcessPoolExecutor(num_proc, mp_context=context, initializer=_end_with_parent)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A process of the preparation died, perhaps for lack of memory, or in a script of `if __name__ == '__main__':`. What "
            "it had finished is kept: run the same again, with a lower num_proc."
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
