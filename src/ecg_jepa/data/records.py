"""
Prepared databases: folders with `records-*.arrow` (see `shards.py`), `quality.json`, `rejected.jsonl`, PTB-XL's
`scp_statements.csv`, and `database.json` ([`DatabaseInfo`]), which is written last: a folder without it is not prepared.
"""

import dataclasses
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
from datasets.table import InMemoryTable, concat_tables

from .._utils.files import digest_files, digest_of, read_json, replace_file, write_json
from ..model.signal_processing_ecg_jepa import UNKNOWN_UNIT
from .record_statistics import lead_statistics
from .shards import check_shard, damaged, open_shard
from .tasks import multi_hot

logger = logging.getLogger(__name__)

DATABASE_FILE = "database.json"
REJECTED_FILE = "rejected.jsonl"
QUALITY_FILE = "quality.json"
STATEMENTS_FILE = "scp_statements.csv"

MICROVOLTS_PER_MILLIVOLT = 1000.0  # a record is int16 in microvolts: the resolution of PTB-XL, and finer than MIMIC's


@dataclass
class DatabaseInfo:
    """The content of `database.json`."""

    name: str
    sampling_rate: int
    lead_names: list[str]
    records: int
    rejected: dict[str, int]  # reason -> count
    hours: float
    megabytes: float
    interpolated_samples: int
    clipped_samples: int
    bad_checksums: int  # records of which a signal contradicts the checksum in its header
    highpass_cutoff: float | None  # Hz, applied before resampling; None where there was none
    digest: str  # of source files and settings: tells whether a preparation is still up to date
    content_digest: str  # of the prepared records themselves, on any machine: equal for runs trained on the same records
    shards: list[dict[str, Any]] = field(default_factory=list)  # see `shards.write_shard`
    label_names: list[str] | None = None  # statements that were looked for in every record; None where absence says little
    label_counts: list[dict[str, Any]] | None = None  # of all records and of each split: its records and the positives per label
    ignored_columns: list[str] = field(default_factory=list)  # of the table of own records
    licence: str | None = None  # as the page of the database states it
    page: str | None = None  # of the database
    attribution: str | None = None  # whom the licence asks to name
    population: str | None = None  # whose records they are, where, when and with what devices, as far as that is published
    statements_digest: str | None = None  # of the database's own table of statements, if it has one
    for_pretraining: bool = True  # False where records may be another database's test records
    amplitude_free: bool = False  # band-passed, and each lead divided by its own standard deviation
    source_folder: str | None = None  # that own records were prepared from: another one's must not take their place unasked

    def what_models_see(self) -> dict[str, Any]:
        """Return what a training on the records depends on, as plain values."""
        names = ("sampling_rate", "lead_names", "highpass_cutoff", "amplitude_free")
        return {"digest": self.content_digest, **{name: getattr(self, name) for name in names}}

    def check_fits(self, sampling_rate: float, lead_names: list[str], amplitude_free: bool) -> None:
        """Raise `ValueError` if an encoder for `sampling_rate` (Hz), `lead_names` and kind of signal cannot take the records."""
        if amplitude_free != self.amplitude_free:
            kind, was = ("amplitude-free records", "in mV") if amplitude_free else ("mV", "amplitude-free")
            flag = "with" if amplitude_free else "without"
            raise ValueError(f"The encoder takes {kind}, but {self.name} was prepared {was}: prepare it {flag} --amplitude_free.")
        if sampling_rate != self.sampling_rate or lead_names != self.lead_names:
            raise ValueError(
                f"The encoder takes {sampling_rate} Hz and leads {', '.join(lead_names)}, but {self.name} was prepared at "
                f"{self.sampling_rate} Hz with {', '.join(self.lead_names)}: prepare it to match."
            )


def write_database_info(directory: str | Path, info: DatabaseInfo) -> None:
    """Write `database.json`, with a digest of its content."""
    values = dataclasses.asdict(info)
    write_json(Path(directory, DATABASE_FILE), {**values, "sha256": digest_of(values)})


def read_database_info(directory: str | Path) -> DatabaseInfo | None:
    """Read `database.json`. Return `None` if there is none, or it is damaged or was edited: the database is to be prepared."""
    path = Path(directory, DATABASE_FILE)
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        if values.pop("sha256") != digest_of(values):
            raise ValueError("its SHA-256 is another")
        return DatabaseInfo(**values)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        logger.warning(f"{path} is not as it was written ({type(error).__name__}: {error}): it does not count as prepared.")
        return None


def write_rejections(path: str | Path, rejections: Iterable[dict[str, str]]) -> None:
    """Write a line per record that was left out: record, reason and detail."""
    replace_file(path, "".join(json.dumps(line) + "\n" for line in rejections))


class PreparedDatabase:
    """
    A prepared database, opened without reading the signals. Raises `FileNotFoundError` if `directory` holds none, which says how
    to make one, and `ValueError` that names a damaged file of it.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        info = read_database_info(self.directory)
        if info is None:
            raise FileNotFoundError(
                f"{self.directory} holds no prepared database (no {DATABASE_FILE} of this version). Prepare one with: "
                "ecg-jepa prepare --database NAME --data_dir RAW --output_dir PREPARED"
            )
        self.info, self.name = info, info.name
        # Old databases have what describes a shard in a file of its own.
        old = sorted({path.stem for path in self.directory.glob("records-*.*")})
        self._shards = info.shards or [{**read_json(self.directory / f"{name}.json"), "file": f"{name}.arrow"} for name in old]
        shards = [open_shard(self.directory, shard, len(info.lead_names)) for shard in self._shards]
        if (found := sum(map(len, shards))) != info.records:
            raise ValueError(f"{self.directory} is incomplete: {found} records of {info.records} are there. Prepare it again.")
        if digest_of([shard["content"] for shard in self._shards]) != info.content_digest:
            raise damaged(self.directory, f"the .arrow files are not those, in the order, that {DATABASE_FILE} was written for")
        self.dataset = datasets.concatenate_datasets(shards)
        # Per chunk the flat samples, and per record its chunk and first sample: crops are then views of mapped memory.
        chunks = self.dataset.data.column("signal").chunks
        self._samples = [chunk.values.values.to_numpy(zero_copy_only=True) for chunk in chunks]
        self._chunk = np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks])
        self._begin = np.concatenate([c.values.offsets.to_numpy()[c.offsets.to_numpy()[:-1]] for c in chunks])
        self.num_samples = self.column("num_samples")

    def __len__(self) -> int:
        return len(self.dataset)

    def verify(self) -> None:
        """Read every byte of the records. Raises `ValueError` that names the files that are not as they were prepared."""
        problems = []
        for shard in self._shards:
            try:
                check_shard(self.directory, shard)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("\n".join(problems))

    def column(self, name: str) -> np.ndarray:
        """Return a column of plain values; missing numbers are NaN, missing strings None."""
        column = self.dataset.data.column(name)
        return column.to_numpy() if pa.types.is_string(column.type) else column.to_pandas().to_numpy()

    def statements(self) -> list[list[str]]:
        """Return the statements of each record."""
        return self.dataset.data.column("statements").to_pylist()

    @property
    def label_names(self) -> list[str]:
        """Labels of [`to_dataset`]: those looked for in every record, or else all statements that some record has."""
        if self.info.label_names is None:
            return sorted({name for of_record in self.statements() for name in of_record})
        return list(self.info.label_names)

    def to_dataset(self, label_names: Sequence[str] | None = None) -> datasets.Dataset:
        """
        Return the records for `map` and `Trainer`, without copying a sample. A row has

        - `signal`: (leads, samples) int16, as long as the record is, `unit` ("uV", or "unknown" if amplitude-free),
          `sampling_rate` in Hz and `lead_names`: what a feature extractor asks for,
        - `record_id`, `patient_id`, `age`, `sex`, `fold` (1 to 8 training, 9 validation, 10 test; NaN or None if not known),
        - `statements`, and `labels`, if there are any: zeros and ones (float32) for `label_names` (default: the database's).

        Rows come in `datasets`' NumPy format, which makes int64 of int16 when they are read. Records are filtered as
        `info.highpass_cutoff` says. Raises `ValueError` for a label that no record has.
        """
        names, statements = self.label_names if label_names is None else list(label_names), self.statements()
        known = sorted({*(self.info.label_names or ()), *(name for of_record in statements for name in of_record)})
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"No record of {self.name} has {', '.join(unknown)}; there are {', '.join(known) or 'none'}.")
        size = len(self)
        added = {
            "sampling_rate": pa.array(np.full(size, self.info.sampling_rate, dtype=np.int32)),
            "lead_names": pa.array([self.info.lead_names] * size),
            "unit": pa.array([UNKNOWN_UNIT if self.info.amplitude_free else "uV"] * size),
        }
        if names:
            offsets = np.arange(0, (size + 1) * len(names), len(names), dtype=np.int32)
            added["labels"] = pa.ListArray.from_arrays(offsets, multi_hot(statements, names).ravel())
        columns = ["signal", "record_id", "patient_id", "age", "sex", "fold", "statements"]
        records = self.dataset.select_columns(columns).data
        table = concat_tables([records, InMemoryTable(pa.table(added))], axis=1)
        features = datasets.Features.from_arrow_schema(pa.schema(list(table.schema)))
        # `datasets` finds results of `map` again by the fingerprint.
        fingerprint = digest_of([self.info.what_models_see(), names])[:32]
        return datasets.Dataset(table, datasets.DatasetInfo(features=features), fingerprint=fingerprint).with_format("numpy")

    def statement_table(self) -> pd.DataFrame | None:
        """Read the database's own table of statements, if it has one. Raises `ValueError` if it is not what was prepared."""
        if self.info.statements_digest is None:
            return None
        path = self.directory / STATEMENTS_FILE
        if not path.is_file() or digest_files([path]) != self.info.statements_digest:
            raise ValueError(f"{path} is missing, or not what was prepared (SHA-256). Prepare the database again.")
        return pd.read_csv(path, index_col=0)

    def signal(self, index: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Return a record or crop, (leads, samples) int16 in uV: a read-only view of the mapped file. Raises `IndexError`."""
        num_samples, begin, leads = int(self.num_samples[index]), int(self._begin[index]), len(self.info.lead_names)
        stop = num_samples if length is None else start + length
        if not 0 <= start < stop <= num_samples:
            raise IndexError(f"Samples {start} to {stop} of record {index}, which has {num_samples}.")
        flat = self._samples[self._chunk[index]][begin : begin + leads * num_samples]
        return flat.reshape(leads, num_samples)[:, start:stop]

    def lead_statistics(self, indices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """
        Return mean and standard deviation per lead in mV of the records `indices` (default: all; see `record_statistics`).
        Raises `ValueError` if there is no record, or a lead never changes in any: nothing can be divided by its deviation.
        """
        if indices is not None and len(indices) == 0:
            raise ValueError(f"No record of {self.name} to take the mean and standard deviation of.")
        mean, std = lead_statistics(self.dataset, indices)
        dead = [name for name, value in zip(self.info.lead_names, std, strict=True) if not value > 0]
        if dead:
            raise ValueError(
                f"Leads {', '.join(dead)} never change in any of these {self.name} records: they cannot be normalised. Prepare "
                "the database without records that lack them, or leave it out."
            )
        return mean, std


def find_database(data_dir: str | Path, name: str | None = None) -> PreparedDatabase:
    """
    Open the prepared database `name` below `data_dir`, or the only one there; `data_dir` may also be its own folder. Raises
    `FileNotFoundError`, which lists what is there, if there is none of that name, or several and no name is given.
    """
    data_dir = Path(data_dir)
    own = read_database_info(data_dir)
    if own is not None and name in (None, own.name):
        return PreparedDatabase(data_dir)
    found = {path.parent.name: path.parent for path in sorted(data_dir.glob(f"*/{DATABASE_FILE}"))}
    available = ", ".join(found) or "none"
    if name is None and len(found) > 1:
        raise FileNotFoundError(f"{data_dir} holds several prepared databases ({available}): name one with --database.")
    if not found or name not in (None, *found):
        raise FileNotFoundError(
            f"No prepared database{f' {name!r}' if name else ''} in {data_dir} (found: {available}). Prepare it with: "
            f"ecg-jepa prepare --database {name or 'NAME'} --data_dir RAW --output_dir {data_dir}"
        )
    database = PreparedDatabase(found[name] if name else next(iter(found.values())))
    if name not in (None, database.name):
        raise ValueError(f"{database.directory} holds {database.name}: give the folder its name back.")
    return database
