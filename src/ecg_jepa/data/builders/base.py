"""What the builders of all databases share: listing, reading, conditioning and rejecting records."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ...formats.ecg import RecordError
from ...formats.wfdb_record import read_wfdb
from ...model.signal_processing_ecg_jepa import (
    STANDARD_LEADS,
    Ecg,
    check_clipped,
    check_plausible,
    check_rate,
    condition,
    select_leads,
)
from ..download import PhysioNet, Zenodo, download
from ..preparation import ShardReport, prepare_database
from ..raw_files import faults_of
from ..records import MICROVOLTS_PER_MILLIVOLT, DatabaseInfo
from ..shards import FEATURES, rows_to_table

_VALUES_PER_TABLE = 16_000_000  # samples: 32 MB, so that 30 minutes of 12 leads need no more memory than 10 seconds
_INT16_LIMIT = np.iinfo(np.int16).max  # symmetric: +-32.767 mV

_real_folder = lru_cache(maxsize=4096)(os.path.realpath)  # the records of a folder ask one after the other


@dataclass
class EcgDatabaseConfig(datasets.BuilderConfig):
    """
    Args:
        sampling_rate: of the prepared records, in Hz.
        amplitude_free: band-pass each record and divide each lead by its own standard deviation: for sources whose gain is not
            known. "1 mV" in the prepared records is then one standard deviation.
        min_duration: shorter records are rejected, in seconds; the paper leaves out what is shorter than its crops of 10 s.
        allow_implausible: keep records that cannot be ECGs in the unit that their files declare.
        allow_outside_paths: also read files outside the database's folder, which tables name or links lead to.
    """

    sampling_rate: int = 500
    min_duration: float = 10.0
    amplitude_free: bool = False
    allow_implausible: bool = False
    allow_outside_paths: bool = False


@dataclass(frozen=True, slots=True)
class RecordInfo:
    """What a database says of a record beside its signal."""

    record_id: str
    path: str
    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    fold: int | None = None
    statements: dict[str, float] = field(default_factory=dict)  # name -> likelihood in percent, 0 where it is not given
    problem: tuple[str, str] | None = None  # reason and detail, if it is known to be unusable before it is read
    layout: tuple[float | None, str | None, tuple[str, ...] | None] | None = None  # rate (Hz), unit, leads that the file lacks
    num_bad_checksums: int = field(default=0, repr=False)  # known once the file is read, so not part of the digest


def to_microvolts(signal: np.ndarray) -> tuple[np.ndarray, int]:
    """Return a signal in mV as int16 in uV, and how many samples were clipped to +-32.767 mV."""
    rounded = np.rint(signal * MICROVOLTS_PER_MILLIVOLT)
    num_clipped = int((np.abs(rounded) > _INT16_LIMIT).sum())
    return rounded.clip(-_INT16_LIMIT, _INT16_LIMIT).astype(np.int16), num_clipped


def not_in_table(paths: Iterable[str], listed: set[str], table: str) -> Iterator[RecordInfo]:
    """Yield records at `paths` that are not `listed` in the table: they are rejected, not overlooked."""
    for path in paths:
        if path not in listed:
            yield RecordInfo(Path(path).name, path, problem=("not in the table", f"{table} has no row for it"))


class EcgDatabaseBuilder(datasets.ArrowBasedBuilder):
    """
    Base of the builders: a subclass says which records there are ([`list_records`]) and, if need be, how to read one.

    [`prepare`] writes a database for training. As a builder of `datasets`, it also works with `download_and_prepare` and
    `as_dataset`, which keep no reasons of rejections.
    """

    BUILDER_CONFIG_CLASS = EcgDatabaseConfig
    VERSION = datasets.Version("1.0.0")

    database: str  # name on the command line and of the prepared folder
    highpass_cutoff: float | None = None  # Hz
    statements_file: str | None = None  # in data_dir; copied beside the prepared records
    label_names: tuple[str, ...] | None = None  # statements that were looked for in every record
    ignored_columns: tuple[str, ...] = ()  # of a table whose columns are the user's own
    has_own_labels: bool = False  # of own records: labels are known once they are listed
    for_pretraining: bool = True  # False where records may be another database's test records
    left_out_on_purpose: frozenset[str] = frozenset()  # reasons that `strict` lets pass
    signal_suffix = ".dat"  # of the WFDB records

    source: PhysioNet | Zenodo | None = None  # where the database is published
    population: str | None = None  # whose records they are, where, when and with what devices

    @property
    def data_dir(self) -> Path:
        """Folder of the database as downloaded."""
        return Path(self.config.data_dir)

    def wants_file(self, path: str) -> bool:
        """Return whether preparation needs this file of the published ones; `path` as the host lists it."""
        return True

    def download(self, address: str | None = None) -> None:
        """
        Fetch what is missing of the database into `data_dir`, from its host or from the mirror at `address`. Raises `ValueError`
        if it has no host, or none of its files is there, and `ConnectionError`; what did arrive is kept for the next try.
        """
        if self.source is None:
            raise ValueError(f"{self.database} has no host to download it from.")
        files = [file for file in self.source.list_files(address) if self.wants_file(file.path)]
        if not files:
            raise ValueError(f"{address or self.source.address} lists no file of {self.database}.")
        download(files, self.data_dir)

    def list_records(self) -> list[RecordInfo]:
        """Return all records of the database, in a fixed order. Raises `FileNotFoundError` or `ValueError` for bad tables."""
        raise NotImplementedError

    def source_files(self, record: RecordInfo) -> Iterable[str]:
        """Return the files that a record is read from; as text, which for a million of them is faster."""
        path = os.path.join(self.config.data_dir, record.path)
        return [f"{path}{suffix}" for suffix in (".hea", self.signal_suffix)]

    def read_record(self, info: RecordInfo) -> tuple[Ecg, RecordInfo]:
        """Read one record. Return it with `info`, completed by what its file says. Raises `RecordError`."""
        record = read_wfdb(self.data_dir / info.path, any_gain=self.config.amplitude_free)
        return record.ecg, self.complete(dataclasses.replace(info, num_bad_checksums=record.num_bad_checksums), record.comments)

    def complete(self, info: RecordInfo, comments: list[str]) -> RecordInfo:
        """Return `info` completed by the comments of a WFDB header; unchanged here."""
        return info

    @property
    def source_folder(self) -> str | None:
        """Folder of own records, of which there can be several cohorts under one name; `None` of a published database."""
        return str(self.data_dir.resolve()) if self.has_own_labels else None

    def prepare_record(self, info: RecordInfo, report: ShardReport) -> dict[str, Any]:
        """Return one row of the prepared table; adds to `report`. Raises `RecordError` if the record cannot be used."""
        if info.problem is not None:
            raise RecordError(info.path, *info.problem)
        if not self.config.allow_outside_paths:
            self._check_inside(info)
        ecg, info = self.read_record(info)
        signal, source, num_clipped = self._condition(info.path, ecg)
        report.samples_read += source.size
        millivolts = signal / MICROVOLTS_PER_MILLIVOLT
        columns = ("record_id", "patient_id", "age", "sex", "fold", "num_bad_checksums")
        return {
            **{name: getattr(info, name) for name in columns},
            "statements": list(info.statements),
            "likelihoods": list(info.statements.values()),
            "num_samples": signal.shape[1],
            "num_interpolated": int(np.isnan(source).sum()),
            "num_clipped": num_clipped,
            "lead_mean": millivolts.mean(axis=1),
            "lead_std": millivolts.std(axis=1),
            "signal": signal,
        }

    def _condition(self, path: str, ecg: Ecg) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the prepared signal (int16 in uV), its source (standard leads in mV), and how many samples were clipped."""
        rate, amplitude_free = ecg.sampling_rate or 0.0, self.config.amplitude_free
        if (duration := ecg.signal.shape[1] / rate) < self.config.min_duration:
            raise RecordError(path, "short", f"{duration:g} s, at least {self.config.min_duration:g} s are wanted")
        check = not self.config.allow_implausible
        with faults_of(path):
            if check:
                check_rate(rate)
            source = select_leads(ecg.signal, ecg.lead_names or [], STANDARD_LEADS)
            conditioned = condition(source, rate, self.config.sampling_rate, self.highpass_cutoff, amplitude_free, STANDARD_LEADS)
            if check:
                check_plausible(source, STANDARD_LEADS, amplitude_free)
            signal, num_clipped = to_microvolts(conditioned)
            if check and num_clipped:
                check_clipped(np.abs(signal) == _INT16_LIMIT, STANDARD_LEADS, "the +-32.767 mV of prepared records")
        if (signal == signal[:, :1]).all():
            raise RecordError(path, "flat", "no lead ever changes")
        return signal, source, num_clipped

    def _check_inside(self, info: RecordInfo) -> None:
        """Raise `RecordError` if a table names, or a link leads to, a file outside the database's folder."""
        root = _real_folder(str(self.data_dir))
        for file in self.source_files(info):
            folder, name = os.path.split(file)
            real = os.path.join(_real_folder(folder), name)
            if name in ("", ".", "..") or os.path.islink(real):
                real = os.path.realpath(real)
            if not real.startswith(root + os.sep):
                detail = f"{file} is {real}: if that is meant, prepare with --allow_outside_paths"
                raise RecordError(info.path, "outside the folder", detail)

    def prepare_records(self, records: Iterable[RecordInfo], report: ShardReport) -> Iterator[pa.Table]:
        """Yield the rows of `records` as tables of bounded size; adds rejections and sums to `report`."""
        rows: list[dict[str, Any]] = []
        for info in records:
            try:
                rows.append(self.prepare_record(info, report))
            except Exception as error:  # whatever a reader did not foresee is one record's, and must not end the others
                unforeseen = ("unforeseen error", f"{type(error).__name__}: {error}")
                reason, detail = (error.reason, error.detail) if isinstance(error, RecordError) else unforeseen
                report.rejections.append({"record": info.path, "reason": reason, "detail": detail})
            if sum(row["signal"].size for row in rows) >= _VALUES_PER_TABLE:
                yield rows_to_table(rows)
                rows = []
        if rows:
            yield rows_to_table(rows)

    def records_to_prepare(self) -> list[RecordInfo]:
        """Return [`list_records`], where a repeated record id is a problem."""
        records = self.list_records()
        if not records:
            raise ValueError(f"{self.data_dir} lists no record of {self.database}: is it the folder as downloaded?")
        seen: set[str] = set()
        for index, record in enumerate(records):
            if record.record_id in seen and record.problem is None:
                problem = ("duplicate record", f"{record.record_id} is listed before")
                records[index] = dataclasses.replace(record, problem=problem)
            seen.add(record.record_id)
        return records

    def prepare(
        self, output_dir: str | Path, num_proc: int = 1, strict: bool = False, overwrite_output_dir: bool = False
    ) -> DatabaseInfo:
        """
        Prepare the database in `output_dir/<database>`, unless it is there, whole and up to date.

        Args:
            output_dir: a folder for prepared databases.
            num_proc: processes; they change nothing in the result.
            strict: stop at the first shard with a rejected record, instead of leaving it out.
            overwrite_output_dir: replace own records that were prepared from another folder.

        Raises:
            ValueError: if no record can be used, or, when strict, one cannot, or own records of another folder are there.
            BlockingIOError: if another process is preparing the same folder.
            ChildProcessError: if one of ours dies.
        """
        return prepare_database(self, output_dir, num_proc, strict, overwrite_output_dir)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description=(self.__doc__ or "").strip(), features=FEATURES)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name="records", gen_kwargs={"records": self.records_to_prepare()})]

    def _generate_tables(self, records: list[RecordInfo]) -> Iterator[tuple[int, pa.Table]]:
        yield from enumerate(self.prepare_records(records, ShardReport()))
