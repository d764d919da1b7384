"""Embedding of records: pooled tokens of an encoder, for search, clustering or classifiers of other libraries."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .._utils.files import replacing
from .._utils.logs import progress_bar
from ..data.records import write_rejections
from ..evaluation.linear_probe import embed_records
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaModel
from .record_source import RecordSource

_ROWS_AT_ONCE = 4096  # in memory until they are written, as a row group of the file


def find_extractor(
    directory: str | Path, config: EcgJepaConfig, crop_duration: float | None = None, crop_stride: float | None = None
) -> EcgJepaFeatureExtractor:
    """
    Return the feature extractor of an encoder's directory with crops of the given duration and stride in s. The defaults are its
    own, or else the longest input of the encoder without overlap. Raises `ValueError` if it is another encoder's.
    """
    extractor = EcgJepaFeatureExtractor.from_pretrained(directory)
    extractor.check_model(config)
    longest = config.signal_length / config.sampling_rate
    duration = (extractor.crop_duration or longest) if crop_duration is None else crop_duration
    own_stride = extractor.crop_stride if duration == extractor.crop_duration else None
    stride = (own_stride or duration) if crop_stride is None else crop_stride
    return EcgJepaFeatureExtractor.from_pretrained(directory, crop_duration=duration, crop_stride=stride)


def write_embeddings(
    encoder: EcgJepaModel,
    source: RecordSource,
    path: Path,
    pooling: str = "mean",
    batch_size: int = 64,
    metadata: dict[str, str] | None = None,
) -> tuple[int, int, list[dict[str, str]]]:
    """
    Embed all records of a source into a Parquet file: columns `record_id`, `num_crops` and `embedding` (a list of hidden_size
    float32). Unusable records are left out and listed beside it, in `*.rejected.jsonl`. Returns the numbers of records and of
    crops, and the unusable ones.

    Pooled are the "mean" over patches, or the first "register"; `batch_size` crops are encoded together. `metadata` stands in the
    file, beside the pooling. Raises `ValueError` if no record can be used, there is no register, or outputs are not finite.
    """
    if pooling == "register" and not encoder.config.num_register_tokens:
        raise ValueError("The encoder has no register tokens: use --pooling mean.")
    columns = {"record_id": pa.string(), "num_crops": pa.int32(), "embedding": pa.list_(pa.float32(), encoder.config.hidden_size)}
    schema = pa.schema(columns, metadata={**(metadata or {}), "pooling": pooling})
    numbers = progress_bar(range(len(source.names)), unit=" records")
    rejections: list[dict[str, str]] = []
    rows: list[pa.RecordBatch] = []
    num_records = num_crops = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for names, crops, owners in source.batches(numbers, batch_size, rejections):
            (vectors,) = embed_records(encoder, [(crops, owners)], pooling)
            if not np.isfinite(vectors).all():
                raise ValueError("The encoder's outputs are not finite: its weights are broken, or too large to compute with.")
            counts = torch.bincount(owners - owners[0]).numpy()
            embeddings = pa.FixedSizeListArray.from_arrays(vectors.ravel(), type=columns["embedding"])
            rows.append(pa.record_batch([pa.array(names), pa.array(counts, pa.int32()), embeddings], schema=schema))
            num_records, num_crops = num_records + len(names), num_crops + len(crops)
            if sum(map(len, rows)) >= _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_batches(rows))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_batches(rows))
        if not num_records:
            raise ValueError(f"None of {len(source.names)} records can be used; the first: {rejections[0]}.")
    rejected_file = path.with_suffix(".rejected.jsonl")
    rejected_file.unlink(missing_ok=True)
    if rejections:
        write_rejections(rejected_file, rejections)
    return num_records, num_crops, rejections
