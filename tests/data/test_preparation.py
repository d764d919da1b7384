"""A killed preparation leaves nothing that counts as prepared; what is there, whole and up to date, is not prepared again."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from raw_databases import ecg, write_challenge
from tqdm.auto import tqdm

from ecg_jepa._utils.files import digest_of
from ecg_jepa._utils.run_directory import own_directory
from ecg_jepa.data import shards
from ecg_jepa.data.builders.base import EcgDatabaseBuilder
from ecg_jepa.data.builders.challenge_2021 import Georgia
from ecg_jepa.data.preparation import process_map
from ecg_jepa.data.records import find_database, read_database_info, write_database_info
from ecg_jepa.data.shards import records_per_shard, shard_path

NUM_RECORDS = 60


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("raw")
    for number in range(NUM_RECORDS):
        samples = ecg(5000 if number % 7 else 3000, number)  # some are too short
        write_challenge(directory, "georgia", f"E{number:05d}", samples)
    return directory


@pytest.fixture
def raw(original, tmp_path):
    """A copy to change at will; time stamps are kept."""
    return Path(shutil.copytree(original, tmp_path / "raw", copy_function=shutil.copy2))


def prepare(raw, output_dir, **options):
    return Georgia(data_dir=str(raw)).prepare(output_dir, **options)


def contents(output_dir):
    files = sorted((output_dir / "georgia").iterdir())
    return {path.name: path.read_bytes() for path in files}


def test_sizes_of_shards():
    assert [records_per_shard(number) for number in (1, 74, 500, 10_344, 21_799, 800_035)] == [8, 8, 16, 512, 1024, 2048]


def die_after(events, raw, output_dir, num_proc):
    """Prepare, and SIGKILL the main process after so many events: before and after records are read and files put in place."""
    left = multiprocessing.Value("i", events)
    main = os.getpid()

    def count():
        with left.get_lock():
            left.value -= 1
            if left.value == 0:
                os.kill(main, signal.SIGKILL)

    def counted(function):
        def call(*args, **kwargs):
            count()
            result = function(*args, **kwargs)
            count()
            return result

        return call

    EcgDatabaseBuilder.prepare_record = counted(EcgDatabaseBuilder.prepare_record)
    Path.replace = counted(Path.replace)
    prepare(raw, output_dir, num_proc=num_proc)


def run_and_die(*args, target=die_after):
    """In a fork, so that what is patched is patched there, too."""

    def apart():
        tqdm.set_lock(threading.RLock())  # it shares its own with forks: one that is killed while it holds it stops all others
        target(*args)

    process = multiprocessing.get_context("fork").Process(target=apart)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("num_proc", [1, 2])
def test_killed_at_ten_random_moments(original, tmp_path, num_proc):
    prepare(original, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    rng = np.random.default_rng(num_proc)
    killed = 0
    for attempt in range(10):
        output_dir = tmp_path / f"killed-{attempt}"
        # One to three kills in a row, each somewhere in what is left to do.
        for _ in range(rng.integers(1, 4)):
            killed += run_and_die(int(rng.integers(1, 2 * NUM_RECORDS + 30)), original, output_dir, num_proc) == -signal.SIGKILL
            if (output_dir / "georgia" / "database.json").is_file():  # killed after the last file was in place
                assert contents(output_dir) == expected
        prepare(original, output_dir, num_proc=num_proc)
        assert contents(output_dir) == expected
    assert killed >= 10


def test_a_database_that_is_half_renewed_does_not_count_as_prepared(raw, tmp_path):
    prepare(raw, tmp_path)
    write_challenge(raw, "georgia", "E00010", ecg(5000, 99))
    assert run_and_die(3, raw, tmp_path, 1) == -signal.SIGKILL
    with pytest.raises(FileNotFoundError, match="No prepared database"):
        find_database(tmp_path)
    prepare(raw, tmp_path)
    assert len(find_database(tmp_path)) == NUM_RECORDS - 9


def test_only_changed_sources_are_prepared_again(raw, tmp_path, monkeypatch):
    first = prepare(raw, tmp_path)
    read = []
    whole = Georgia.prepare_record
    monkeypatch.setattr(
        Georgia, "prepare_record", lambda self, info, report: read.append(info.record_id) or whole(self, info, report)
    )
    assert prepare(raw, tmp_path) == first
    assert read == []
    # A record is changed, one comes back, one is new.
    folder = raw / "training" / "georgia" / "g1"
    write_challenge(raw, "georgia", "E00010", ecg(5000, 99))
    write_challenge(raw, "georgia", "E00021", ecg(5000, 98))
    write_challenge(raw, "georgia", "E00060", ecg(5000, 97))
    second = prepare(raw, tmp_path)
    assert sorted(read) == [f"E{number:05d}" for number in range(61)]
    assert second.records == first.records + 2
    assert second.digest != first.digest
    database = find_database(tmp_path)
    names = list(database.column("record_id"))
    np.testing.assert_array_equal(database.signal(names.index("E00010")), ecg(5000, 99))
    # And one is taken away.
    (folder / "E00060.hea").unlink()
    (folder / "E00060.mat").unlink()
    assert prepare(raw, tmp_path).records == first.records + 1


def test_fewer_records_leave_no_shards_behind(raw, tmp_path):
    prepare(raw, tmp_path)
    for path in (raw / "training" / "georgia" / "g1").glob("E000[1-9]*"):
        path.unlink()
    assert prepare(raw, tmp_path).records == len(find_database(tmp_path)) == 8
    assert len(list((tmp_path / "georgia").glob("records-*"))) == 2


def test_settings_belong_to_a_preparation(original, tmp_path):
    assert prepare(original, tmp_path).rejected == {"short": 9}
    assert Georgia(data_dir=str(original), min_duration=5).prepare(tmp_path).rejected == {}
    assert Georgia(data_dir=str(original), sampling_rate=250).prepare(tmp_path).sampling_rate == 250


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-8])])
def test_a_shard_that_was_lost_is_made_again(original, tmp_path, damage):
    prepare(original, tmp_path)
    expected = contents(tmp_path)
    damage(shard_path(tmp_path / "georgia", 3))
    prepare(original, tmp_path)
    assert contents(tmp_path) == expected


def test_a_damaged_database_file_is_made_again(original, tmp_path):
    prepare(original, tmp_path)
    expected = contents(tmp_path)
    (tmp_path / "georgia" / "database.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no prepared database"):
        find_database(tmp_path)
    prepare(original, tmp_path)
    assert contents(tmp_path) == expected


def test_a_second_preparation_has_to_wait(original, tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_jepa.data.preparation.LOCK_TIMEOUT", 0)
    with own_directory(tmp_path / "georgia"), pytest.raises(BlockingIOError, match="Another run is writing to"):
        prepare(original, tmp_path)
    prepare(original, tmp_path)


def test_strict_stops_at_the_first_shard(original, tmp_path):
    with pytest.raises(ValueError, match=r"E00000: short \(6 s.*without strict"):
        prepare(original, tmp_path, strict=True)
    assert read_database_info(tmp_path / "georgia") is None
    prepare(original, tmp_path)
    with pytest.raises(ValueError, match="9 records cannot be used"):
        prepare(original, tmp_path, strict=True)
    assert Georgia(data_dir=str(original), min_duration=6).prepare(tmp_path, strict=True).records == NUM_RECORDS


def lose_a_process(raw, output_dir):
    Georgia.prepare_record = lambda *_: os._exit(1)
    with pytest.raises(ChildProcessError, match="lower num_proc"):
        prepare(raw, output_dir, num_proc=2)


def test_a_process_that_dies_is_an_error_that_says_so(original, tmp_path):
    assert run_and_die(original, tmp_path, target=lose_a_process) == 0
    assert prepare(original, tmp_path).records == NUM_RECORDS - 9


def test_beside_a_thread_nothing_is_forked(original, tmp_path):
    """A fork would have the lock that the thread holds, and nobody to let go of it."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with process_map(2) as run:
            statuses = list(run(Path.read_text, [Path("/proc/self/stat")] * 4))
        prepare(original, tmp_path / "two", num_proc=2)
    finally:
        done.set()
        thread.join()
    parents = {int(status.rpartition(")")[2].split()[1]) for status in statuses}
    assert os.getpid() not in parents
    prepare(original, tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def shards_of(output_dir):
    return sorted((output_dir / "georgia").glob("records-*.arrow"))


@pytest.mark.slow
def test_flipped_bytes_are_noticed(original, tmp_path):
    """In the samples when the database is verified, elsewhere when it is opened, unless they change nothing that is read."""
    prepare(original, tmp_path)
    path = shards_of(tmp_path)[2]
    whole = path.read_bytes()
    signal_at = whole.index(
        pa.ipc.open_stream(whole).read_all().column("signal").chunk(0).values.values.to_numpy()[:50].tobytes()
    )
    rng = np.random.default_rng(0)
    samples = rng.integers(signal_at, signal_at + 12 * 5000, 5)
    elsewhere = [*rng.integers(0, 1500, 20), *rng.integers(signal_at - 3000, signal_at, 20), len(whole) - 1]
    table = find_database(tmp_path).dataset.data.table.combine_chunks()
    noticed = 0
    for position in [*elsewhere, *samples]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            find_database(tmp_path)
        except ValueError as error:
            assert "records-00002.arrow is damaged" in str(error)  # noqa: PT017
            noticed += 1
        else:
            if position not in samples:
                assert find_database(tmp_path).dataset.data.table.combine_chunks().equals(table)
            with pytest.raises(ValueError, match=r"records-00002\.arrow is damaged.*SHA-256"):
                find_database(tmp_path).verify()
    assert 10 <= noticed <= len(elsewhere)
    prepare(original, tmp_path)
    assert path.read_bytes() == whole


def test_other_peoples_files_stay(original, tmp_path):
    prepare(original, tmp_path)
    mine = [tmp_path / "georgia" / name for name in ("data-00000-of-00001.arrow", "notes.json")]
    for path in mine:
        path.write_text("mine")
    (tmp_path / "georgia" / "cache-1.arrow").write_text("of datasets")
    (shards_of(tmp_path)[0]).unlink()
    prepare(original, tmp_path)
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    assert not (tmp_path / "georgia" / "cache-1.arrow").exists()


def swap(one, other):
    one.rename(one.with_suffix(".aside"))
    other.rename(one)
    one.with_suffix(".aside").rename(other)


def test_swapped_and_missing_shards_are_noticed(raw, tmp_path):
    for path in (raw / "training" / "georgia" / "g1").glob("E0000[07]*"):
        path.unlink()
    prepare(raw, tmp_path)
    one, other = shards_of(tmp_path)[1:3]
    assert one.stat().st_size == other.stat().st_size
    swap(one, other)
    with pytest.raises(ValueError, match=r"records-00001\.arrow is damaged.*its columns are not those"):
        find_database(tmp_path)
    prepare(raw, tmp_path)
    find_database(tmp_path).verify()
    one.rename(one.with_suffix(".aside"))
    with pytest.raises(ValueError, match=r"records-00001\.arrow is damaged.*missing"):
        find_database(tmp_path)
    one.with_suffix(".aside").rename(one)
    one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"records-00001\.arrow is damaged.*bytes"):
        find_database(tmp_path)


def make_flat(directory, monkeypatch):
    """Write a prepared database in the layout that had one list of samples a record, and a `.json` beside each shard."""
    info = read_database_info(directory)
    summaries = []
    for shard in info.shards:
        table = datasets.Dataset.from_file(str(directory / shard["file"])).data.table
        batches = [
            batch.set_column(batch.schema.get_field_index("signal"), "signal", flattened(batch.column("signal")))
            for batch in table.to_batches()
        ]
        monkeypatch.setattr(shards, "SCHEMA", shards._FLAT_SCHEMA)
        summaries.append(
            shards.write_shard(directory / shard["file"], map(pa.Table.from_batches, ([batch] for batch in batches)))
        )
        monkeypatch.undo()
        summary = {**summaries[-1], "digest": "", "samples_read": 0, "rejections": []}
        del summary["file"]
        (directory / shard["file"]).with_suffix(".json").write_text(json.dumps(summary))
    content_digest = digest_of([summary["content"] for summary in summaries])
    write_database_info(directory, dataclasses.replace(info, shards=[], content_digest=content_digest))


def flattened(signal):
    offsets = signal.values.offsets.take(signal.offsets)
    return pa.ListArray.from_arrays(offsets, signal.values.values)


def test_databases_with_flat_signals_open_with_the_same_values(raw, tmp_path, monkeypatch):
    write_challenge(raw, "georgia", "E00001", ecg(6000, 1))  # records of several lengths
    prepare(raw, tmp_path / "new")
    prepare(raw, tmp_path / "old")
    make_flat(tmp_path / "old" / "georgia", monkeypatch)
    new, old = find_database(tmp_path / "new"), find_database(tmp_path / "old")
    old.verify()
    assert len(old) == len(new)
    for number in range(len(new)):
        np.testing.assert_array_equal(old.signal(number), new.signal(number))
    assert old.to_dataset().features == new.to_dataset().features
    np.testing.assert_array_equal(old.to_dataset()[20]["signal"], new.to_dataset()[20]["signal"])
    monkeypatch.setattr(Georgia, "prepare_record", lambda *_: pytest.fail("read again"))
    assert prepare(raw, tmp_path / "old") == old.info
    shutil.copy(shard_path(tmp_path / "new" / "georgia", 0), shard_path(tmp_path / "old" / "georgia", 0))
    with pytest.raises(ValueError, match=r"records-00000\.arrow is damaged"):
        find_database(tmp_path / "old")
    monkeypatch.undo()
    assert prepare(raw, tmp_path / "old") == new.info
    assert not list((tmp_path / "old" / "georgia").glob("records-*.json"))
