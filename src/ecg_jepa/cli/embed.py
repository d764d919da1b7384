"""`ecg-jepa embed`: records -> vectors."""

import time
from pathlib import Path
from typing import Literal

from .._utils.settings import check_at_least, option, settings


@settings
class EmbedSettings:
    """Settings of `ecg-jepa embed`. Raises `ValueError` unless exactly one source of records is named."""

    model_name_or_path: str = option(text="pre-trained directory or Hub repository, or a classifier's, whose encoder is taken")
    data_dir: str | None = option(None, "prepared database, or a folder of several")
    database: str | None = option(None, "which one, if data_dir has several")
    records_dir: str | None = option(None, "or a folder of ECG files of any format, at any depth")
    output_file: str = option("embeddings.parquet", "Parquet file to write, a row per record")
    overwrite_output_file: bool = option(False, "replace a file that is there")
    pooling: Literal["mean", "register"] = option("mean", "of tokens: mean over patches, or the first register")
    crop_duration: float | None = option(None, "s; default: the extractor's, or else the longest input of the encoder")
    crop_stride: float | None = option(None, "s between crops, whose vectors are averaged; default: extractor's, or no overlap")
    allow_implausible: bool = option(False, "records_dir: also embed records that cannot be ECGs in the unit that they declare")
    batch_size: int | None = option(None, "crops encoded together; default: 16 on a CPU, whose caches they fit into, or 256")
    mixed_precision: Literal["no", "bf16"] = option("no", "compute in bfloat16")

    def __post_init__(self) -> None:
        if (self.data_dir is None) == (self.records_dir is None):
            raise ValueError("name either data_dir, with a prepared database, or records_dir, with ECG files.")
        check_at_least(self, 1, "batch_size")


def run(settings: EmbedSettings) -> None:
    """Embed the records, and print how many and how fast."""
    from accelerate import Accelerator

    from .._utils.hardware import crops_at_once, set_up_cpu, use_faster_attention
    from .._utils.model_directory import model_directory
    from ..apps.embedding import find_extractor, write_embeddings
    from ..apps.record_source import file_source, files_in_folder, prepared_source
    from ..data.records import find_database
    from ..model.modeling_ecg_jepa import EcgJepaModel

    path = Path(settings.output_file)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it as --output_file.")
    if path.exists() and not settings.overwrite_output_file:
        advice = "replace it with --overwrite_output_file, or choose another --output_file."
        raise FileExistsError(f"{path} is there already: {advice}")
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    set_up_cpu(accelerator)
    directory = model_directory(settings.model_name_or_path)
    encoder = EcgJepaModel.from_pretrained(directory).to(accelerator.device)
    use_faster_attention(encoder, encoder.config.num_patches + encoder.config.num_register_tokens, settings.mixed_precision)
    extractor = find_extractor(directory, encoder.config, settings.crop_duration, settings.crop_stride)
    if settings.records_dir is not None:
        files, allow_implausible = files_in_folder(settings.records_dir), settings.allow_implausible
        source = file_source(files, extractor, allow_implausible=allow_implausible, allow_short=True)
    else:
        source = prepared_source(find_database(settings.data_dir or "", settings.database), extractor)
    batch_size, about = settings.batch_size or crops_at_once(accelerator.device), {"model": settings.model_name_or_path}
    started = time.perf_counter()
    with accelerator.autocast():
        records, crops, rejections = write_embeddings(encoder, source, path, settings.pooling, batch_size, about)
    seconds = time.perf_counter() - started
    print(
        f"{records} records as vectors of {encoder.config.hidden_size} in {path}: {seconds:.1f} s, "
        f"{records / seconds:.0f} records/s ({crops / seconds:.0f} crops/s)"
    )
    if rejections:
        place = path.with_suffix(".rejected.jsonl")
        print(f"  {len(rejections)} records cannot be used and are left out; each with its reason in {place}")
