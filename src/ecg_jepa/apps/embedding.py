"""Embedding of records: pooled tokens of an encoder, for search, clustering or classifiers of other libraries."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .._utils.files import replacing
from .._utils.logs import progress_bar
from ..data.crops import batch_crops
from ..data.records import write_rejections
from ..evaluation.linear_probe import embed_records
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaModel
from .record_source import RecordSource


class EmbeddingSummary(NamedTuple):
    """Numbers of embedded records and of their crops, and the file that lists the `rejected` ones."""

    records: int
    crops: int
    rejected: int
    rejected_file: Path


def find_extractor(
    directory: str | Path, config: EcgJepaConfig, crop_duration: float | None = None, crop_stride: float | None = None
) -> EcgJepaFeatureExtractor:
    """
    Return the feature extractor of an encoder's directory with crops of the given duration and stride in s. The defaults are its
    own, or else the longest input of the encoder without overlap.

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
    float32). Unusable records are left out and listed beside it, in `*.rejected.jsonl`.

    Args:
        encoder: on any device.
        source: of the records.
        path: of the file.
        pooling: "mean" over patches, or the first "register".
        batch_size: crops that are encoded together.
        metadata: for the file, beside the pooling.

    Raises:
        ValueError: if no record can be used, the encoder has no register to pool, or its outputs are not finite.
    """
    if pooling == "register" and not encoder.config.num_register_tokens:
        raise ValueError("The encoder has no register tokens: use --pooling mean.")
    count = len(source.names)
    usable: list[str] = []
    rejections: list[dict[str, str]] = []
    num_crops: list[int] = []
    embeddings: list[pa.Array] = []
    records = source.read_usable(progress_bar(range(count), unit=" records"), usable, rejections)
    for crops, owners in batch_crops(records, batch_size):
        (vectors,) = embed_records(encoder, [(crops, owners)], pooling)
        if not np.isfinite(vectors).all():
            raise ValueError("The encoder's outputs are not finite: its weights are broken, or too large to compute with.")
        num_crops += torch.bincount(owners - owners[0]).tolist()
        embeddings.append(pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]))
    if not usable:
        raise ValueError(f"None of {count} records can be used; the first: {rejections[0]}.")
    columns = {
        "record_id": [name.encode(errors="backslashreplace").decode() for name in usable],  # names of files need not be UTF-8
        "num_crops": pa.array(num_crops, pa.int32()),
        "embedding": pa.chunked_array(embeddings),
    }
    table = pa.table(columns).replace_schema_metadata({**(metadata or {}), "pooling": pooling})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
    rejected_file = path.with_suffix(".rejected.jsonl")
    rejected_file.unlink(missing_ok=True)
    if rejections:
        write_rejections(rejected_file, rejections)
    return EmbeddingSummary(len(usable), sum(num_crops), len(rejections), rejected_file)
