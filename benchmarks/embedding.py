"""
Measure embeddings end to end against the encoder alone on the same batches: records/s by the number of crops encoded together.

    python benchmarks/embedding.py --model_name_or_path RUN --data_dir PREPARED [--batch_sizes 8 16 32 64]
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from ecg_jepa._utils.hardware import set_up_cpu
from ecg_jepa._utils.settings import option, parse_settings, settings
from ecg_jepa.apps.embedding import find_extractor, write_embeddings
from ecg_jepa.apps.record_source import RecordSource, file_source, files_in_folder, prepared_source
from ecg_jepa.data.crops import batch_crops
from ecg_jepa.data.records import find_database
from ecg_jepa.evaluation.linear_probe import embed_records
from ecg_jepa.model.modeling_ecg_jepa import EcgJepaModel


@settings
class Arguments:
    """Arguments of this script."""

    model_name_or_path: str = option("checkpoints/ecg-jepa-xs-100hz", "directory of an encoder")
    data_dir: str = option("data/prepared", "prepared database that fits it")
    database: str | None = option(None, "which one, if data_dir has several")
    records_dir: str | None = option(None, "or a folder of files")
    batch_sizes: list[int] = option([8, 16, 32, 64], "crops that are encoded together")
    num_records: int = option(400, "from the beginning of the database")
    repeats: int = option(5, "measurements of each, in turn")


def main() -> None:
    """Measure and print."""
    arguments = parse_settings(Arguments)
    accelerator = Accelerator()
    set_up_cpu(accelerator)
    encoder = EcgJepaModel.from_pretrained(arguments.model_name_or_path).to(accelerator.device)
    extractor = find_extractor(arguments.model_name_or_path, encoder.config)
    if arguments.records_dir is not None:
        source = file_source(files_in_folder(arguments.records_dir), extractor)
    else:
        source = prepared_source(find_database(arguments.data_dir, arguments.database), extractor)
    source = RecordSource(source.names[: arguments.num_records], source.read)
    crops = [source.read(number) for number in range(len(source.names))]
    batches = {size: list(batch_crops(crops, size)) for size in arguments.batch_sizes}

    def alone(size: int) -> None:
        for _ in embed_records(encoder, batches[size]):
            pass

    rates: dict[tuple[int, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.repeats + 1):
            for size in arguments.batch_sizes:
                kinds = {
                    "encoder alone": lambda size=size: alone(size),
                    "end to end": lambda size=size: write_embeddings(encoder, source, Path(folder, "v.parquet"), batch_size=size),
                }
                for name, work in kinds.items():
                    started = time.perf_counter()
                    work()
                    if turn:  # the first warms up
                        rates.setdefault((size, name), []).append(len(crops) / (time.perf_counter() - started))
    print(f"{len(crops)} records, {torch.get_num_threads()} threads; records/s, median (smallest to largest):")
    for size in arguments.batch_sizes:
        both = [rates[size, name] for name in ("encoder alone", "end to end")]
        shares = [b / a for a, b in zip(*both, strict=True)]
        texts = [f"{statistics.median(r):.1f} ({min(r):.1f} to {max(r):.1f})" for r in both]
        print(f"{size} crops: alone {texts[0]}, end to end {texts[1]}, share {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
