"""
Arrow files of a prepared database: `records-<number>.arrow`, memory-mapped when read, written whole or not at all.

`database.json` keeps a digest of each, and a second one of all but the samples, which is checked whenever a database is opened.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from .._utils.files import digest_files, replacing

FEATURES = datasets.Features(
    {
        "record_id": datasets.Value("string"),
        "patient_id": datasets.Value("string"),
        "age": datasets.Value("float32"),  # years; PTB-XL writes 300 for patients older than 89
        "sex": datasets.Value("string"),  # "female", "male"
        "fold": datasets.Value("int8"),
        "statements": datasets.List(datasets.Value("string")),
        "likelihoods": datasets.List(datasets.Value("float32")),  # percent, 0 where the database does not say
        "num_samples": datasets.Value("int32"),  # per lead
        "num_interpolated": datasets.Value("int32"),  # samples that were NaN, over all leads
        "num_clipped": datasets.Value("int32"),  # samples beyond +-32.767 mV, over all leads
        "num_bad_checksums": datasets.Value("int32"),  # signals of the file that contradict the checksum in its header
        "lead_mean": datasets.List(datasets.Value("float64")),  # mV
        "lead_std": datasets.List(datasets.Value("float64")),  # mV
        "signal": datasets.List(datasets.List(datasets.Value("int16"))),  # uV, (leads, samples)
    }
)
SCHEMA = FEATURES.arrow_schema

# Of databases prepared before each lead had a list of its own.
_FLAT_SCHEMA = SCHEMA.set(SCHEMA.get_field_index("signal"), pa.field("signal", pa.list_(pa.int16())))


def records_per_shard(num_records: int) -> int:
    """Return how many records go into a shard, a power of two from 8 to 2048."""
    # At least 16 shards can be shared among processes; not too many, for every opening of the corpus maps each into memory.
    size = 1 << max(0, (num_records // 16).bit_length() - 1)
    return min(max(size, 8), 2048)


def shard_path(directory: Path, number: int) -> Path:
    """Return the file of a shard."""
    return directory / f"records-{number:05d}.arrow"


def rows_to_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Make a table of rows; `signal` (leads, samples) goes in as one array, not value by value."""
    columns = {name: pa.array([row[name] for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names if name != "signal"}
    samples = pa.array(np.concatenate([row["signal"].ravel() for row in rows]))
    columns["signal"] = _nested(samples, [row["num_samples"] for row in rows], len(rows[0]["signal"]))
    return pa.table(columns, schema=SCHEMA)


def _nested(samples: pa.Array, lengths: list[int], num_leads: int, start: int = 0) -> pa.ListArray:
    """Make lists of leads over flat samples from `start` without copying them; `lengths` are samples per lead of each record."""
    ends = start + np.cumsum(np.repeat(lengths, num_leads))
    of_leads = pa.ListArray.from_arrays(np.concatenate([[start], ends]).astype(np.int32), samples)
    return pa.ListArray.from_arrays(np.arange(0, len(of_leads) + 1, num_leads, dtype=np.int32), of_leads)


def write_shard(path: Path, tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Write the tables to a file. Return its name, size and digests, as [`open_shard`] takes them."""
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)
    with pa.memory_map(str(path)) as file:
        columns = _digest_columns(pa.ipc.open_stream(file).read_all())
    return {"file": path.name, "bytes": path.stat().st_size, "content": digest_files([path]), "columns": columns}


def damaged(path: Path, detail: str) -> ValueError:
    """Return the error for a file that is not as it was prepared."""
    return ValueError(f"{path} is damaged, or not the file that was prepared: {detail}. Run the preparation again.")


def check_shard(directory: Path, shard: dict[str, Any], content: bool = True) -> Path:
    """Return the path of a shard. Raises `ValueError` if its size or, where `content` is to be read, any byte is another."""
    path = directory / shard["file"]
    if not path.is_file():
        raise damaged(path, "it is missing")
    if path.stat().st_size != shard["bytes"]:
        raise damaged(path, f"it has {path.stat().st_size:,} bytes, {shard['bytes']:,} are expected")
    if content and digest_files([path]) != shard["content"]:
        raise damaged(path, f"its SHA-256 is not {shard['content']}")
    return path


def open_shard(directory: Path, shard: dict[str, Any], num_leads: int) -> datasets.Dataset:
    """Map a shard into memory; only [`check_shard`] reads its samples. Raises `ValueError` that names it if it is damaged."""
    path = check_shard(directory, shard, content=False)
    try:
        dataset = datasets.Dataset.from_file(str(path))
        table = dataset.data.table
        # Before any value is used: a wrong offset would have it read from memory that is not the file's.
        table.validate()
        columns = _digest_columns(table)
    except Exception as error:  # the libraries raise many kinds for damaged bytes
        raise damaged(path, f"{type(error).__name__}: {error}") from None
    if columns == shard["columns"] and table.schema.equals(SCHEMA):
        return dataset
    if columns == shard["columns"] and table.schema.equals(_FLAT_SCHEMA):
        chunks = []
        for batch in table.to_batches():
            flat = batch.column("signal")
            chunks.append(_nested(flat.values, batch.column("num_samples").to_pylist(), num_leads, flat.offsets[0].as_py()))
        signal = SCHEMA.field("signal")
        table = table.set_column(SCHEMA.get_field_index("signal"), signal, pa.chunked_array(chunks, signal.type))
        return datasets.Dataset(datasets.table.InMemoryTable(table), datasets.DatasetInfo(features=FEATURES))
    raise damaged(path, "its columns are not those that were prepared")


def _digest_columns(table: pa.Table) -> str:
    """Return the SHA-256 of all of a shard but the samples."""
    digest = hashlib.sha256()
    for name in table.column_names:
        for chunk in table.column(name).chunks:
            for buffer in chunk.buffers()[: -1 if name == "signal" else None]:
                digest.update(buffer if buffer is not None else b"none")
    return digest.hexdigest()
