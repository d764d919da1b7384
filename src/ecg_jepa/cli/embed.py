"""`ecg-jepa embed`: records -> vectors."""

import time
from pathlib import Path

from accelerate import Accelerator

from .._utils.hardware import crops_at_once, set_up_cpu
from .._utils.model_directory import model_directory
from ..apps.embedding import find_extractor, folder_records, prepared_records, rejected_file, write_embeddings
from ..data.records import find_database
from ..model.modeling_ecg_jepa import EcgJepaModel
from .command_settings import EmbeddingSettings


def run(settings: EmbeddingSettings) -> None:
    """Embed the records and say how many, and how fast."""
    path = Path(settings.output_file)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it as --output_file.")
    if path.exists() and not settings.overwrite_output_file:
        raise FileExistsError(
            f"{path} is there already: replace it with --overwrite_output_file, or choose another --output_file."
        )
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    set_up_cpu(accelerator)
    directory = model_directory(settings.model_name_or_path)
    encoder = EcgJepaModel.from_pretrained(directory).to(accelerator.device)
    extractor = find_extractor(directory, encoder.config, settings.crop_duration, settings.crop_stride)
    if settings.records_dir is not None:
        source = folder_records(settings.records_dir, extractor, settings.allow_implausible)
    else:
        source = prepared_records(find_database(settings.data_dir or "", settings.database), extractor)
    started = time.perf_counter()
    with accelerator.autocast():
        summary = write_embeddings(
            encoder,
            source,
            path,
            settings.pooling,
            settings.batch_size or crops_at_once(accelerator.device),
            {"model": settings.model_name_or_path},
        )
    seconds = time.perf_counter() - started
    print(
        f"{summary.records} records as vectors of {encoder.config.hidden_size} in {path}: {seconds:.1f} s, "
        f"{summary.records / seconds:.0f} records/s ({summary.crops / seconds:.0f} crops/s)"
    )
    if summary.rejections:
        rejected = rejected_file(path)
        print(f"  {len(summary.rejections)} records cannot be used and are left out; each with its reason in {rejected}")
