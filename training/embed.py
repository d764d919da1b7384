"""
Embed records: a vector per record, into one Parquet file.

    python training/embed.py --model_name_or_path RUN --data_dir PREPARED --output_file embeddings.parquet
    python training/embed.py --model_name_or_path RUN --records_dir FOLDER_OF_WFDB_RECORDS --output_file embeddings.parquet
"""

import time
from pathlib import Path

from accelerate import Accelerator

from ecg_jepa import EcgJepaModel
from ecg_jepa.arguments import inputs_of, parse_arguments
from ecg_jepa.cores import use_all_cores
from ecg_jepa.evaluation.embedding import EmbeddingArguments, open_source, rejected_file, write_embeddings


def main() -> None:
    arguments = parse_arguments(EmbeddingArguments, description=__doc__)
    accelerator = Accelerator(mixed_precision=arguments.mixed_precision)
    use_all_cores(accelerator)
    with inputs_of("embed.py"):
        encoder = EcgJepaModel.from_pretrained(arguments.model_name_or_path).to(accelerator.device)
        source = open_source(arguments, encoder)
        started = time.perf_counter()
        with accelerator.autocast():
            summary = write_embeddings(encoder, source, arguments)
    seconds = time.perf_counter() - started
    print(
        f"{summary.records} records as vectors of {encoder.config.hidden_size} in {arguments.output_file}: {seconds:.1f} s, "
        f"{summary.records / seconds:.0f} records/s ({summary.crops / seconds:.0f} crops/s)"
    )
    if summary.rejections:
        rejected = rejected_file(Path(arguments.output_file))
        print(f"  {len(summary.rejections)} records cannot be used and are left out; each with its reason in {rejected}")


if __name__ == "__main__":
    main()
