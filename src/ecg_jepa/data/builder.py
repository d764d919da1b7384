"""What the preparation of every database shares: conditioning, the record schema, rejections and the closing figures."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..configuration_ecg_jepa import STANDARD_LEADS
from ..signal_processing_ecg_jepa import condition, select_leads
from .readers import files_digest, read_wfdb
from .records import (
    FEATURES,
    MICROVOLTS_PER_MILLIVOLT,
    DatabaseInfo,
    EcgRecord,
    RecordError,
    RecordInfo,
    append_rejection,
    open_shards,
    read_database_info,
    read_rejections,
    write_database_info,
)

# Part of the digest of a prepared database: raise it when preparation changes what it writes.
PREPARATION_VERSION = 1

_RECORDS_PER_TABLE = 64
_INT16_LIMIT = np.iinfo(np.int16).max  # symmetric: +-32.767 mV


@dataclass
class EcgDatabaseConfig(datasets.BuilderConfig):
    """`sampling_rate`: of the prepared records, in Hz."""

    sampling_rate: int = 500


def to_microvolts(signal: np.ndarray) -> tuple[np.ndarray, int]:
    """Signal in mV -> int16 in uV, and how many samples were clipped to +-32.767 mV."""
    rounded = np.rint(signal * MICROVOLTS_PER_MILLIVOLT)
    num_clipped = int((np.abs(rounded) > _INT16_LIMIT).sum())
    return rounded.clip(-_INT16_LIMIT, _INT16_LIMIT).astype(np.int16), num_clipped


class EcgDatabaseBuilder(datasets.ArrowBasedBuilder):
    """
    Base of the builders. A subclass says which records there are ([`list_records`]) and, where they differ from the
    defaults, how to read one and at which cutoff to high-pass it.
    """

    BUILDER_CONFIG_CLASS = EcgDatabaseConfig
    VERSION = datasets.Version("1.0.0")

    database: str  # name on the command line and of the prepared folder
    highpass_cutoff: float | None = None  # Hz
    statements_file: str | None = None  # in data_dir; travels with the prepared records

    @property
    def data_dir(self) -> Path:
        """The folder of the database as downloaded."""
        return Path(self.config.data_dir)

    def list_records(self) -> list[RecordInfo]:
        """All records of the database, in a fixed order. Raises `FileNotFoundError` or `ValueError` for bad tables."""
        raise NotImplementedError

    def source_files(self, records: list[RecordInfo]) -> Iterator[Path]:
        """The files that a preparation depends on, for its digest."""
        if self.statements_file:
            yield self.data_dir / self.statements_file
        for record in records:
            for suffix in (".hea", ".dat"):
                yield self.data_dir / (record.path + suffix)

    def read_record(self, info: RecordInfo) -> EcgRecord:
        """Read one record. Raises `RecordError`."""
        return read_wfdb(self.data_dir / info.path)

    def prepare_record(self, info: RecordInfo) -> dict[str, Any]:
        """One row of the prepared table. Raises `RecordError` if the record cannot be used."""
        record = self.read_record(info)
        try:
            selected = select_leads(record.signal, record.lead_names, STANDARD_LEADS)
            conditioned = condition(selected, record.sampling_rate, self.config.sampling_rate, self.highpass_cutoff)
        except ValueError as error:
            raise RecordError(info.path, "unusable signal", str(error)) from error
        if (np.ptp(conditioned, axis=1) == 0).all():
            raise RecordError(info.path, "flat", "no lead ever changes")
        signal, num_clipped = to_microvolts(conditioned)
        millivolts = signal / MICROVOLTS_PER_MILLIVOLT
        return {
            "record_id": info.record_id,
            "patient_id": info.patient_id,
            "age": info.age,
            "sex": info.sex,
            "fold": info.fold,
            "statements": list(info.statements),
            "likelihoods": list(info.statements.values()),
            "num_samples": signal.shape[1],
            "num_interpolated": int(np.isnan(selected).sum()),
            "num_clipped": num_clipped,
            "lead_mean": millivolts.mean(axis=1),
            "lead_std": millivolts.std(axis=1),
            "signal": signal.ravel(),
        }

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description=(self.__doc__ or "").strip(), features=FEATURES)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        records = self.list_records()
        if not records:
            raise ValueError(f"{self.data_dir} lists no record of {self.database}.")
        split = datasets.SplitGenerator(name="records", gen_kwargs={"records": records})
        split.split_info.num_examples = len(records)  # the progress bar's total
        return [split]

    def _generate_tables(self, records: list[RecordInfo]) -> Iterator[tuple[int, pa.Table]]:
        for begin in range(0, len(records), _RECORDS_PER_TABLE):
            rows = []
            for info in records[begin : begin + _RECORDS_PER_TABLE]:
                try:
                    rows.append(self.prepare_record(info))
                except RecordError as error:
                    append_rejection(self._output_dir, error)
            if rows:
                yield begin, _to_table(rows)

    def prepare(self, output_dir: str | Path, num_proc: int | None = None) -> DatabaseInfo:
        """
        Prepare the database in `output_dir/<database>`, unless that is there and up to date.

        Raises:
            ValueError: if no record can be used; the message counts the reasons.
        """
        directory = Path(output_dir, self.database)
        records = self.list_records()
        settings = f"{self.database} {PREPARATION_VERSION} {self.config.sampling_rate} {self.highpass_cutoff} {records}"
        digest = files_digest(self.source_files(records), settings)
        existing = read_database_info(directory)
        if existing is not None and existing.digest == digest:
            return existing
        self.download_and_prepare(str(directory), download_mode="force_redownload", num_proc=num_proc)
        for lock in ("_builder.lock", ".incomplete_info.lock"):
            Path(f"{directory}{lock}").unlink(missing_ok=True)
        if self.statements_file:
            shutil.copyfile(self.data_dir / self.statements_file, directory / self.statements_file)
        info = self._summarize(directory, digest)
        if not info.records:
            shutil.rmtree(directory)
            raise ValueError(f"None of the {len(records)} records in {self.data_dir} could be used: {info.rejected}.")
        write_database_info(directory, info)  # last: without it the folder does not count as prepared
        return info

    def _summarize(self, directory: Path, digest: str) -> DatabaseInfo:
        dataset = open_shards(directory)
        assert dataset is not None  # datasets writes a file even for no rows
        table = dataset.data
        totals = {
            name: int(np.sum(table.column(name).to_numpy(), dtype=np.int64))
            for name in ("num_samples", "num_interpolated", "num_clipped")
        }
        return DatabaseInfo(
            name=self.database,
            sampling_rate=self.config.sampling_rate,
            lead_names=list(STANDARD_LEADS),
            records=len(table),
            rejected=dict(Counter(line["reason"] for line in read_rejections(directory))),
            hours=totals["num_samples"] / self.config.sampling_rate / 3600,
            megabytes=sum(shard.stat().st_size for shard in directory.glob("*.arrow")) / 1e6,
            interpolated_samples=totals["num_interpolated"],
            clipped_samples=totals["num_clipped"],
            digest=digest,
        )


def _to_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows -> a table of the schema; signals go in as one array, not value by value."""
    schema = FEATURES.arrow_schema
    columns = {}
    for name in schema.names:
        values = [row[name] for row in rows]
        if isinstance(values[0], np.ndarray):
            offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
            columns[name] = pa.ListArray.from_arrays(offsets, np.concatenate(values)).cast(schema.field(name).type)
        else:
            columns[name] = pa.array(values, schema.field(name).type)
    return pa.table(columns, schema=schema)
