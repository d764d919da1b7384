"""Records -> vectors: pooled tokens of an encoder, for search, clustering or classifiers of other libraries."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .._utils.logs import progress_bar
from ..data.crops import batch_crops
from ..data.raw_files import faults_of, find_ecg_files
from ..data.records import MICROVOLTS_PER_MILLIVOLT, PreparedDatabase, write_rejections
from ..formats import ecg as record_ecg_jepa
from ..formats.read import as_ecg
from ..formats.wfdb_record import RecordError
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaModel

_RECORDS_PER_ROW_GROUP = 4096
_RECORDS_AHEAD = 32  # few enough that recordings of 30 minutes fit into memory


@dataclass
class RecordSource:
    """
    Records to embed.

    Args:
        record_ids: of all records.
        read: number of a record -> its crops as the model takes them, (crops, leads, samples). Raises `RecordError`.
    """

    record_ids: Sequence[str]
    read: Callable[[int], np.ndarray]


@dataclass
class EmbeddingSummary:
    """What [`write_embeddings`] did; `rejections` have record, reason and detail."""

    records: int
    crops: int
    rejections: list[dict[str, str]]


@torch.no_grad()
def embed(
    encoder: EcgJepaModel, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], pooling: str = "mean"
) -> Iterator[np.ndarray]:
    """
    Vectors of records, averaged over their crops.

    Args:
        encoder: on any device; it is put into evaluation mode.
        batches: as [`batch_crops`] makes them.
        pooling: "mean" over patches, or the first "register".

    Yields:
        For each batch, (records of the batch, hidden_size) float32, in order.
    """
    encoder.eval()
    for crops, owners in batches:
        outputs = encoder(crops.to(encoder.device))
        pooled = outputs.pooler_output if pooling == "mean" else outputs.last_hidden_state[:, 0]
        counts = owners.unique_consecutive(return_counts=True)[1]
        yield torch.stack([rows.mean(dim=0) for rows in pooled.float().cpu().split(counts.tolist())]).numpy()


def find_extractor(
    directory: str | Path, config: EcgJepaConfig, crop_duration: float | None = None, crop_stride: float | None = None
) -> EcgJepaFeatureExtractor:
    """
    The feature extractor of an encoder's directory, which cuts crops: those asked for, or else its own, or else as long as the
    encoder takes, without overlap. Durations in s.

    Raises:
        ValueError: if crops are no whole patches, or the extractor is another encoder's.
    """
    extractor = EcgJepaFeatureExtractor.from_pretrained(directory)
    extractor.check_model(config)
    for name, value in (("crop_duration", crop_duration), ("crop_stride", crop_stride)):
        if value is not None and value <= 0:
            raise ValueError(f"{name}={value} must be a positive number of seconds.")
    duration = crop_duration or extractor.crop_duration or config.signal_length / config.sampling_rate
    own_stride = extractor.crop_stride if duration == extractor.crop_duration else None
    stride = crop_stride or own_stride or duration
    return EcgJepaFeatureExtractor.from_pretrained(directory, crop_duration=duration, crop_stride=stride)


def prepared_records(database: PreparedDatabase, extractor: EcgJepaFeatureExtractor) -> RecordSource:
    """Records of a prepared database. Raises `ValueError` unless leads, rate and kind of signal are the extractor's."""
    database.info.check_fits(extractor.sampling_rate, extractor.lead_names, extractor.amplitude_free)
    ids = database.column("record_id").astype(str).tolist()

    def read(index: int) -> np.ndarray:
        return extractor.normalize_and_crop(database.signal(index) / np.float32(MICROVOLTS_PER_MILLIVOLT))

    return RecordSource(ids, read)


def folder_records(directory: str | Path, extractor: EcgJepaFeatureExtractor, allow_implausible: bool = False) -> RecordSource:
    """
    ECGs of all formats in a folder and below; their ids are paths relative to it. Those that cannot be ECGs in the unit that they
    declare are refused unless `allow_implausible`; those shorter than a crop are taken as they are. Raises `FileNotFoundError`
    if there are none.
    """
    ids = find_ecg_files(directory, directory)
    if not ids:
        raise FileNotFoundError(f"{directory} has no ECG in it or below: no WFDB record, and no file of another format.")
    whole = EcgJepaFeatureExtractor.from_dict({**extractor.to_dict(), "crop_duration": None, "crop_stride": None})

    def read(index: int) -> np.ndarray:
        with faults_of(ids[index]):
            ecg = as_ecg(Path(directory, ids[index]))
            is_short = ecg.sampling_rate and ecg.signal.shape[1] / ecg.sampling_rate < (extractor.crop_duration or 0)
            if is_short:
                return whole(ecg, check_plausibility=not allow_implausible)["input_values"][0][None]
            return extractor(ecg, check_plausibility=not allow_implausible)["input_values"][0]

    return RecordSource(ids, read)


def write_embeddings(
    encoder: EcgJepaModel,
    source: RecordSource,
    path: Path,
    pooling: str = "mean",
    batch_size: int = 64,
    metadata: dict[str, str] | None = None,
) -> EmbeddingSummary:
    """
    Embed all records of a source into a Parquet file: columns `record_id`, `num_crops` and `embedding` (a list of hidden_size
    float32). Records that cannot be used are left out and listed beside it, in `*.rejected.jsonl`.

    Args:
        encoder: on any device.
        source: of the records.
        path: of the file.
        pooling: "mean" over patches, or the first "register".
        batch_size: crops that are encoded together.
        metadata: for the file, beside the pooling.

    Raises:
        ValueError: if no record can be used, or the encoder has no register to pool.
    """
    if pooling == "register" and not encoder.config.num_register_tokens:
        raise ValueError("The encoder has no register tokens: use --pooling mean.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    rejections: list[dict[str, str]] = []
    kept: deque[tuple[str, int]] = deque()  # id and number of crops of records that are read, but not yet encoded
    num_crops = num_records = 0

    def usable() -> Iterator[np.ndarray]:
        nonlocal num_crops
        for number, crops in progress:
            record_id = source.record_ids[number]
            if isinstance(crops, RecordError):
                rejections.append({"record": record_id, "reason": crops.reason, "detail": crops.detail})
                continue
            kept.append((record_id, len(crops)))
            num_crops += len(crops)
            yield crops

    count = len(source.record_ids)
    schema = _schema(encoder.config.hidden_size, {**(metadata or {}), "pooling": pooling})
    progress = progress_bar(read_ahead(source, range(count)), total=count, unit=" records")
    rows: list[pa.RecordBatch] = []
    with pq.ParquetWriter(temporary, schema) as writer:
        for vectors in embed(encoder, batch_crops(usable(), batch_size), pooling):
            if not np.isfinite(vectors).all():
                raise ValueError("The encoder's outputs are not finite: its weights are broken, or too large to compute with.")
            rows.append(_to_rows([kept.popleft() for _ in vectors], vectors, schema))
            num_records += len(vectors)
            if sum(map(len, rows)) >= _RECORDS_PER_ROW_GROUP:
                writer.write_table(pa.Table.from_batches(rows))
                rows = []
        writer.write_table(pa.Table.from_batches(rows, schema))
    if not num_records:
        temporary.unlink()
        raise ValueError(f"None of {len(source.record_ids)} records can be used; the first: {rejections[0]}.")
    temporary.replace(path)
    rejected_file(path).unlink(missing_ok=True)
    if rejections:
        write_rejections(rejected_file(path), rejections)
    return EmbeddingSummary(num_records, num_crops, rejections)


def rejected_file(path: Path) -> Path:
    """Where [`write_embeddings`] lists the records that it left out."""
    return path.with_suffix(".rejected.jsonl")


def read_ahead(source: RecordSource, numbers: Iterable[int]) -> Iterator[tuple[int, np.ndarray | RecordError]]:
    """Records of these numbers in their order, or why one cannot be used, read by threads while others are encoded."""

    def read(number: int) -> tuple[int, np.ndarray | RecordError]:
        try:
            return number, source.read(number)
        except RecordError as error:
            return number, error
        except Exception as error:  # whatever a reader did not foresee is one record's, and must not end the others
            return number, RecordError(source.record_ids[number], "unforeseen error", f"{type(error).__name__}: {error}")

    return record_ecg_jepa.read_ahead(read, numbers, _RECORDS_AHEAD, min(8, len(os.sched_getaffinity(0))))


def _schema(hidden_size: int, metadata: dict[str, str]) -> pa.Schema:
    columns = {"record_id": pa.string(), "num_crops": pa.int32(), "embedding": pa.list_(pa.float32(), hidden_size)}
    return pa.schema(columns, metadata=metadata)


def _to_rows(records: list[tuple[str, int]], vectors: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    names, num_crops = zip(*records, strict=True)
    ids = [name.encode(errors="backslashreplace").decode() for name in names]  # names of files need not be UTF-8
    embeddings = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    return pa.record_batch([pa.array(ids), pa.array(num_crops, pa.int32()), embeddings], schema=schema)
