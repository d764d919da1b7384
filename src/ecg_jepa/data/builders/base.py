"""What the preparation of every database shares: conditioning, the record schema, rejections and the closing figures."""

import dataclasses
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..._utils.files import digest_files, write_json
from ..._utils.logs import progress_bar
from ...formats.wfdb_record import EcgRecord, RecordError, read_wfdb
from ...model.plausibility_ecg_jepa import check_clipped, check_plausible, check_rate
from ...model.signal_processing_ecg_jepa import STANDARD_LEADS, condition, select_leads
from ..download import PhysioNet, Zenodo, download
from ..quality import PublishedFigures, column_sum, count_labels, measure_quality
from ..raw_files import faults_of, files_digest
from ..records import (
    DATABASE_FILE,
    FEATURES,
    MICROVOLTS_PER_MILLIVOLT,
    QUALITY_FILE,
    REJECTED_FILE,
    DatabaseInfo,
    RecordInfo,
    read_database_info,
    write_database_info,
    write_rejections,
)
from ..shards import (
    ShardSummary,
    open_shards,
    preparation_lock,
    process_map,
    read_summary,
    records_per_shard,
    remove_other_files,
    rows_to_table,
    write_shard,
)

logger = logging.getLogger(__name__)

# Part of the digest of a prepared database: raise it when preparation changes what it writes.
PREPARATION_VERSION = 4

_VALUES_PER_TABLE = 16_000_000  # samples: 32 MB, so that 30 minutes of 12 leads need no more memory than 10 seconds
_INT16_LIMIT = np.iinfo(np.int16).max  # symmetric: +-32.767 mV


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


@dataclass(frozen=True)
class Shard:
    """A stretch of a database's records that is prepared as one."""

    number: int
    records: list[RecordInfo]


def to_microvolts(signal: np.ndarray) -> tuple[np.ndarray, int]:
    """Signal in mV -> int16 in uV, and how many samples were clipped to +-32.767 mV."""
    rounded = np.rint(signal * MICROVOLTS_PER_MILLIVOLT)
    if max(rounded.max(), -rounded.min()) <= _INT16_LIMIT:
        return rounded.astype(np.int16), 0
    num_clipped = int((np.abs(rounded) > _INT16_LIMIT).sum())
    return rounded.clip(-_INT16_LIMIT, _INT16_LIMIT).astype(np.int16), num_clipped


def not_in_table(paths: Iterable[str], listed: set[str], table: str) -> Iterator[RecordInfo]:
    """Records at `paths` that `table` has no row for (it has those `listed`): they are rejected, not overlooked."""
    for path in paths:
        if path not in listed:
            yield RecordInfo(Path(path).name, path, problem=("not in the table", f"{table} has no row for it"))


class EcgDatabaseBuilder(datasets.ArrowBasedBuilder):
    """
    Base of the builders. A subclass says which records there are ([`list_records`]) and, where they differ from the
    defaults, how to read one and at which cutoff to high-pass it.

    [`prepare`] writes a database for training. As a builder of `datasets`, it also works with `download_and_prepare` and
    `as_dataset`, which know neither resuming nor rejections' reasons.
    """

    BUILDER_CONFIG_CLASS = EcgDatabaseConfig
    VERSION = datasets.Version("1.0.0")

    database: str  # name on the command line and of the prepared folder
    highpass_cutoff: float | None = None  # Hz
    statements_file: str | None = None  # in data_dir; travels with the prepared records
    published: PublishedFigures | None = None
    label_names: tuple[str, ...] | None = None  # statements that were judged on every record
    ignored_columns: tuple[str, ...] = ()  # of a table whose columns are the user's own
    for_pretraining: bool = True  # False where records may be another database's test records
    left_out_on_purpose: frozenset[str] = frozenset()  # reasons that `strict` lets pass

    source: PhysioNet | Zenodo | None = None  # where the database is published
    population: str | None = None  # of whom, where, when and with what its records were taken

    @property
    def data_dir(self) -> Path:
        """The folder of the database as downloaded."""
        return Path(self.config.data_dir)

    def wants_file(self, path: str) -> bool:
        """Whether preparation needs this file of the published ones; `path` as the host lists it."""
        return True

    def download(self, address: str | None = None) -> None:
        """
        Fetch what is missing of the database into `data_dir`.

        Args:
            address: of a mirror of the host.

        Raises:
            ValueError: if the database has no host, or the host lists none of its files.
            ConnectionError: if a file cannot be had; what did arrive is kept for the next try.
        """
        if self.source is None:
            raise ValueError(f"{self.database} has no host to download it from.")
        files = [file for file in self.source.list_files(address) if self.wants_file(file.path)]
        if not files:
            raise ValueError(f"{address or self.source.address} lists no file of {self.database}.")
        download(files, self.data_dir)

    def list_records(self) -> list[RecordInfo]:
        """All records of the database, in a fixed order. Raises `FileNotFoundError` or `ValueError` for bad tables."""
        raise NotImplementedError

    def source_files(self, record: RecordInfo) -> Iterable[str]:
        """The files that a record is read from, for the digest of its shard; as text, which for a million of them is faster."""
        path = os.path.join(self.config.data_dir, record.path)
        return [f"{path}{suffix}" for suffix in (".hea", ".dat")]

    def read_record(self, info: RecordInfo) -> EcgRecord:
        """Read one record. Raises `RecordError`."""
        return read_wfdb(self.data_dir / info.path, any_gain=self.config.amplitude_free)

    def describe(self, info: RecordInfo, record: EcgRecord) -> RecordInfo:
        """What is known of a record once its file is read; here nothing more than before."""
        return info

    def prepare_record(self, info: RecordInfo, summary: ShardSummary) -> dict[str, Any]:
        """One row of the prepared table; adds to the sums of `summary`. Raises `RecordError` if the record cannot be used."""
        if info.problem is not None:
            raise RecordError(info.path, *info.problem)
        if not self.config.allow_outside_paths:
            self._check_inside(info)
        record = self.read_record(info)
        info = self.describe(info, record)
        try:
            info.check()
        except ValueError as error:
            raise RecordError(info.path, "unusable row", str(error)) from error
        check = not self.config.allow_implausible
        duration = record.signal.shape[1] / record.sampling_rate
        if duration < self.config.min_duration:
            raise RecordError(info.path, "short", f"{duration:g} s, at least {self.config.min_duration:g} s are wanted")
        with faults_of(info.path):
            if check:
                check_rate(record.sampling_rate)
            selected = select_leads(record.signal, record.lead_names, STANDARD_LEADS)
            rates = record.sampling_rate, self.config.sampling_rate
            conditioned = condition(selected, *rates, self.highpass_cutoff, self.config.amplitude_free, STANDARD_LEADS)
            if check:
                check_plausible(selected, STANDARD_LEADS, self.config.amplitude_free)
            signal, num_clipped = to_microvolts(conditioned)
            if check and num_clipped:
                check_clipped(np.abs(signal) == _INT16_LIMIT, STANDARD_LEADS, "the +-32.767 mV of prepared records")
        if (signal == signal[:, :1]).all():
            raise RecordError(info.path, "flat", "no lead ever changes")
        summary.samples_read += selected.size
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
            "num_bad_checksums": record.num_bad_checksums,
            "lead_mean": millivolts.mean(axis=1),
            "lead_std": millivolts.std(axis=1),
            "signal": signal.ravel(),
        }

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

    def prepare_records(self, records: Iterable[RecordInfo], summary: ShardSummary) -> Iterator[pa.Table]:
        """The rows of `records` as tables of bounded size; adds rejections and sums to `summary`."""
        rows: list[dict[str, Any]] = []
        num_values = 0
        for info in records:
            try:
                rows.append(self.prepare_record(info, summary))
            except RecordError as error:
                summary.rejections.append({"record": info.path, "reason": error.reason, "detail": error.detail})
                continue
            except Exception as error:  # whatever a reader did not foresee is one record's, and must not end the others
                detail = f"{type(error).__name__}: {error}"
                summary.rejections.append({"record": info.path, "reason": "unforeseen error", "detail": detail})
                continue
            num_values += len(rows[-1]["signal"])
            if num_values >= _VALUES_PER_TABLE:
                yield rows_to_table(rows, FEATURES.arrow_schema)
                rows, num_values = [], 0
        if rows:
            yield rows_to_table(rows, FEATURES.arrow_schema)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description=(self.__doc__ or "").strip(), features=FEATURES)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name="records", gen_kwargs={"records": self._records_to_prepare()})]

    def _generate_tables(self, records: list[RecordInfo]) -> Iterator[tuple[int, pa.Table]]:
        yield from enumerate(self.prepare_records(records, ShardSummary(digest="")))

    def prepare(
        self, output_dir: str | Path, num_proc: int = 1, strict: bool = False, overwrite_output_dir: bool = False
    ) -> DatabaseInfo:
        """
        Prepare the database in `output_dir/<database>`.

        What is there and up to date is kept: shards of a run that was killed, and those whose files did not change since.

        Args:
            output_dir: a folder for prepared databases.
            num_proc: processes; they change nothing in the result.
            strict: stop at the first shard with a rejected record, instead of leaving it out.
            overwrite_output_dir: replace own records that were prepared from another folder.

        Raises:
            ValueError: if no record can be used, or, when strict, one cannot; the message counts the reasons. If own records of
                another folder were prepared there.
            BlockingIOError: if another process is preparing the same folder.
            ChildProcessError: if one of ours dies.
        """
        records = self._records_to_prepare()
        size = records_per_shard(len(records))
        shards = [Shard(n, records[begin : begin + size]) for n, begin in enumerate(range(0, len(records), size))]
        directory = Path(output_dir, self.database)
        directory.mkdir(parents=True, exist_ok=True)
        with preparation_lock(directory), process_map(num_proc) as run:
            digests = dict(enumerate(run(self._digest_shard, shards)))
            digest = files_digest(self._table_files(), "".join(digests.values()) + self.table_digest())
            summaries_there = run(partial(read_summary, directory), digests, digests.values())
            finished = dict(zip(digests, summaries_there, strict=True))
            stale = [shard for shard in shards if finished[shard.number] is None]
            existing = read_database_info(directory)
            is_current = existing is not None and existing.digest == digest and not stale
            if not is_current:
                if not overwrite_output_dir:
                    self._check_cohort(directory, existing)
                # From here until the end, the folder does not count as prepared.
                (directory / DATABASE_FILE).unlink(missing_ok=True)
                done = len(records) - sum(len(shard.records) for shard in stale)
                with progress_bar(
                    total=len(records), initial=done, desc=f"Preparing {self.database}", unit=" records"
                ) as progress:
                    for shard, summary in zip(stale, run(partial(self._write_shard, directory, digests), stale), strict=True):
                        progress.update(len(shard.records))
                        tenths, done = 10 * done // len(records), done + len(shard.records)
                        if 10 * done // len(records) > tenths:
                            logger.info(f"{self.database}: {done} of {len(records)} records")
                        finished[shard.number] = summary
                        self._check_strict(strict, [summary], directory)
            summaries = [summary for summary in finished.values() if summary is not None]
            self._check_strict(strict, summaries, directory)
            if is_current and existing is not None:
                return existing
            return self._finish(directory, summaries, digest)

    def _check_cohort(self, directory: Path, existing: DatabaseInfo | None) -> None:
        if existing is not None and existing.source_folder not in (None, self.source_folder()):
            raise ValueError(
                f"{directory} holds {existing.records} records prepared from {existing.source_folder}, not from "
                f"{self.source_folder()}: choose another output_dir, or replace them with --overwrite_output_dir."
            )

    def _records_to_prepare(self) -> list[RecordInfo]:
        """[`list_records`], where a record id that was there before is a problem."""
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

    def _digest_shard(self, shard: Shard) -> str:
        """Of everything that a shard's content depends on."""
        config = self.config
        settings: tuple[Any, ...] = (self.database, PREPARATION_VERSION, config.sampling_rate, config.min_duration)
        settings += ("amplitude-free",) if config.amplitude_free else (self.highpass_cutoff,)
        settings += ("implausible",) if config.allow_implausible else ()
        settings += ("outside paths",) if config.allow_outside_paths else ()
        files = (file for record in shard.records for file in self.source_files(record))
        return files_digest(files, repr((settings, shard.records)))

    def source_folder(self) -> str | None:
        """The folder of records of which there can be several cohorts under one name; `None` of a published database."""
        return None

    def table_digest(self) -> str:
        """Of what the closing figures depend on beside the records; nothing more here."""
        return ""

    def _table_files(self) -> list[Path]:
        return [self.data_dir / self.statements_file] if self.statements_file else []

    def _write_shard(self, directory: Path, digests: dict[int, str], shard: Shard) -> ShardSummary:
        summary = ShardSummary(digest=digests[shard.number])
        write_shard(directory, shard.number, FEATURES.arrow_schema, self.prepare_records(shard.records, summary), summary)
        return summary

    def _check_strict(self, strict: bool, summaries: list[ShardSummary], directory: Path) -> None:
        rejections = [line for s in summaries for line in s.rejections if line["reason"] not in self.left_out_on_purpose]
        if strict and rejections:
            first = rejections[0]
            raise ValueError(
                f"{len(rejections)} records cannot be used, the first of them {first['record']}: {first['reason']} "
                f"({first['detail']}). Mend or remove them, or prepare without strict, which leaves them out and lists them in "
                f"{directory / REJECTED_FILE}."
            )

    def _finish(self, directory: Path, summaries: list[ShardSummary], digest: str) -> DatabaseInfo:
        """Write what stands beside the shards, `database.json` last."""
        remove_other_files(directory, len(summaries))
        rejections = [line for summary in summaries for line in summary.rejections]
        write_rejections(directory / REJECTED_FILE, rejections)
        counts = dict(Counter(line["reason"] for line in rejections).most_common())
        dataset, content_digest = open_shards(directory, FEATURES.arrow_schema, len(STANDARD_LEADS))
        if not dataset:
            raise ValueError(
                f"None of the {len(rejections)} records in {self.data_dir} can be used: {counts}. {directory / REJECTED_FILE} "
                "has the details of each."
            )
        if self.statements_file:
            shutil.copyfile(self.data_dir / self.statements_file, directory / self.statements_file)
        samples = column_sum(dataset, "num_samples")
        info = DatabaseInfo(
            name=self.database,
            sampling_rate=self.config.sampling_rate,
            lead_names=list(STANDARD_LEADS),
            records=len(dataset),
            rejected=counts,
            hours=samples / self.config.sampling_rate / 3600,
            megabytes=sum(summary.bytes for summary in summaries) / 1e6,
            interpolated_samples=column_sum(dataset, "num_interpolated"),
            clipped_samples=column_sum(dataset, "num_clipped"),
            bad_checksums=int((dataset.data.column("num_bad_checksums").to_numpy() > 0).sum()),
            highpass_cutoff=None if self.config.amplitude_free else self.highpass_cutoff,
            amplitude_free=self.config.amplitude_free,
            digest=digest,
            content_digest=content_digest,
            label_names=None if self.label_names is None else list(self.label_names),
            label_counts=None if self.label_names is None else count_labels(dataset, self.label_names),
            ignored_columns=list(self.ignored_columns),
            licence=self.source.licence if self.source else None,
            page=self.source.page if self.source else None,
            attribution=self.source.attribution if self.source else None,
            population=self.population,
            statements_digest=digest_files([directory / self.statements_file]) if self.statements_file else None,
            for_pretraining=self.for_pretraining,
            source_folder=self.source_folder(),
        )
        samples_read = sum(summary.samples_read for summary in summaries)
        # What was published is in mV.
        quality = measure_quality(info, dataset, samples_read, None if self.config.amplitude_free else self.published)
        if quality["dead_leads"]:
            leads = ", ".join(quality["dead_leads"])
            logger.warning(f"{self.database}: leads {leads} never change in any record. Nothing can be trained on such records.")
        write_json(directory / QUALITY_FILE, quality)
        write_database_info(directory, info)
        return info


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    """Where a folder is when all links are followed; the records of a folder ask one after the other."""
    return os.path.realpath(path)
