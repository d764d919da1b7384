"""Prepared shards as a `datasets.Dataset` with signals of shape (leads, samples), which stay in the mapped files."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import ConcatenationTable, InMemoryTable, MemoryMappedTable

# Columns of the shards that are handed on, the signal first.
_COLUMNS = ("signal", "record_id", "patient_id", "age", "sex", "fold", "statements")


def _open_shaped(path: str) -> pa.Table:
    """The columns of a shard that are handed on; `signal` gets offsets per lead, over the same mapped samples."""
    with pa.memory_map(path) as file:
        table = pa.ipc.open_stream(file).read_all()
    num_leads = len(table.column("lead_mean")[0])
    chunks = []
    samples = np.split(table.column("num_samples").to_numpy(), np.cumsum([len(c) for c in table.column("signal").chunks])[:-1])
    for chunk, num_samples in zip(table.column("signal").chunks, samples, strict=True):
        first = chunk.offsets[0].as_py()
        of_leads = np.concatenate([[first], first + np.cumsum(np.repeat(num_samples, num_leads))]).astype(np.int32)
        of_records = np.arange(0, len(of_leads), num_leads, dtype=np.int32)
        chunks.append(pa.ListArray.from_arrays(of_records, pa.ListArray.from_arrays(of_leads, chunk.values)))
    shaped = table.set_column(table.column_names.index("signal"), "signal", pa.chunked_array(chunks))
    return shaped.select(_COLUMNS).replace_schema_metadata(None)


class ShapedShard(MemoryMappedTable):
    """
    A shard, mapped from disk, whose `signal` is (leads, samples). Like its base class, it is pickled as a path and what was done
    to it since, so that worker processes map the file themselves.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        table = self._apply_replays(_open_shaped(state["path"]), state["replays"])
        MemoryMappedTable.__init__(self, table, path=state["path"], replays=state["replays"])


def _stay_shaped(method: Callable) -> Callable:
    """The base class makes its results of its own class, which would be unpickled with flat signals."""

    @functools.wraps(method)
    def wrapper(self: ShapedShard, *args: Any, **kwargs: Any) -> ShapedShard:
        result = method(self, *args, **kwargs)
        return ShapedShard(result.table, result.path, result.replays)

    return wrapper


for _name, _method in list(vars(MemoryMappedTable).items()):
    if callable(_method) and not _name.startswith("_"):
        setattr(ShapedShard, _name, _stay_shaped(_method))


def multi_hot(statements: Sequence[Sequence[str]], label_names: Sequence[str]) -> np.ndarray:
    """(records, labels) float32 zeros and ones; statements that are no labels do not show."""
    column = {name: index for index, name in enumerate(label_names)}
    labels = np.zeros((len(statements), len(label_names)), dtype=np.float32)
    for row, of_record in enumerate(statements):
        labels[row, [column[name] for name in of_record if name in column]] = 1.0
    return labels


def record_dataset(
    paths: Sequence[Path], sampling_rate: int, unit: str, lead_names: Sequence[str], labels: np.ndarray, fingerprint: str
) -> datasets.Dataset:
    """
    The records of shards, with what is the same for all of them in every row.

    Args:
        paths: of the shards, in order.
        sampling_rate: in Hz.
        unit: of the samples.
        lead_names: in the order of the rows of each signal.
        labels: (records, labels) float32; no column if there are none.
        fingerprint: of all of this, by which `datasets` tells what it has computed before.
    """
    blocks, begin = [], 0
    for path in paths:
        shard = ShapedShard(_open_shaped(str(path)), str(path))
        size = shard.num_rows
        columns = {
            "sampling_rate": pa.array(np.full(size, sampling_rate, dtype=np.int32)),
            "lead_names": pa.array([list(lead_names)] * size, pa.list_(pa.string())),
            "unit": pa.array([unit] * size, pa.string()),
        }
        if labels.shape[1]:
            offsets = np.arange(0, (size + 1) * labels.shape[1], labels.shape[1], dtype=np.int32)
            columns["labels"] = pa.ListArray.from_arrays(offsets, labels[begin : begin + size].ravel())
        blocks.append([shard, InMemoryTable(pa.table(columns))])
        begin += size
    table = ConcatenationTable.from_blocks(blocks)
    features = datasets.Features.from_arrow_schema(table.schema)
    dataset = datasets.Dataset(table, datasets.DatasetInfo(features=features), fingerprint=fingerprint)
    return dataset.with_format("numpy")
