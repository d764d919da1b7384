"""
Measure how fast a large corpus opens and is read, and its memory.

    python benchmarks/corpus.py --source PREPARED/ptb-xl --directory BIG --num_records 200000

Writes a database of `num_records` to `directory` by repeating the records of a small one, unless it is there.
"""

import dataclasses
import shutil
import statistics
import threading
import time
from pathlib import Path

import pyarrow as pa

from ecg_jepa._utils.files import digest_of
from ecg_jepa._utils.settings import option, parse_settings, settings
from ecg_jepa.data.corpus import Corpus
from ecg_jepa.data.records import PreparedDatabase, write_database_info
from ecg_jepa.data.shards import shard_path, write_shard

RECORDS_PER_SHARD = 2000
RECORDS_PER_TABLE = 250


@settings
class Arguments:
    """Arguments of this script."""

    source: str = option(text="folder of a small prepared database")
    directory: str = option(text="where to make, or find, the large one")
    num_records: int = option(200_000, "records of the large one; rounded to shards of 2,000")
    sampled_records: int = option(0, "sample from this many of its first records only, so that they fit into memory; 0: all")
    batch_size: int = option(2048, "records per batch")
    num_batches: int = option(40, "batches per measurement")
    repeats: int = option(5, "measurements")


def make_large(arguments: Arguments) -> None:
    """Write a shard with the repeated records of the source, and copy it."""
    directory = Path(arguments.directory)
    if (directory / "database.json").is_file():
        return
    directory.mkdir(parents=True)
    source = PreparedDatabase(arguments.source)
    table = pa.concat_tables([source.dataset.data.table] * -(-RECORDS_PER_SHARD // len(source))).slice(0, RECORDS_PER_SHARD)
    parts = range(0, RECORDS_PER_SHARD, RECORDS_PER_TABLE)
    tables = (table.slice(begin, RECORDS_PER_TABLE).combine_chunks() for begin in parts)
    first = write_shard(shard_path(directory, 0), tables)
    shards = [{**first, "file": shard_path(directory, n).name} for n in range(max(1, arguments.num_records // RECORDS_PER_SHARD))]
    for shard in shards[1:]:
        shutil.copyfile(directory / first["file"], directory / shard["file"])
    contents = digest_of([shard["content"] for shard in shards])
    info = dataclasses.replace(source.info, records=len(shards) * RECORDS_PER_SHARD, shards=shards, content_digest=contents)
    write_database_info(directory, info)


class PeakMemory:
    """Track the largest anonymous (not file-backed) resident memory of this process in MB, every 10 ms."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.megabytes = max(self.megabytes, kilobytes / 1024)
            time.sleep(0.01)


def main() -> None:
    """Measure and print."""
    arguments = parse_settings(Arguments, description=__doc__)
    make_large(arguments)
    peak = PeakMemory()
    begin = time.perf_counter()
    database = PreparedDatabase(arguments.directory)
    corpus = Corpus([database], [1.0], batch_size=arguments.batch_size, crop_length=10 * database.info.sampling_rate)
    _ = corpus.lead_statistics
    opened = time.perf_counter() - begin
    print(f"{len(database)} records ({database.info.name}), opened in {opened:.2f} s with their statistics")
    if arguments.sampled_records:
        corpus.records[0] = corpus.records[0][corpus.records[0] < arguments.sampled_records]
        print(f"sampling from {len(corpus.records[0])} of them")
    rates = []
    for repeat in range(arguments.repeats):
        batches = corpus.batches(start=repeat * arguments.num_batches)
        next(batches)
        begin = time.perf_counter()
        for _ in range(arguments.num_batches):
            batch = next(batches)
            int(batch.signal[-1, -1, -1])
        rates.append(arguments.num_batches * arguments.batch_size / (time.perf_counter() - begin))
        batches.close()
        print(f"  {rates[-1]:,.0f} records/s")
    print(
        f"median {statistics.median(rates):,.0f} records/s in batches of {arguments.batch_size}; "
        f"peak anonymous memory {peak.megabytes:.0f} MB"
    )


if __name__ == "__main__":
    main()
