"""A thousand damaged inputs: each is read as wfdb or h5py read it, or rejected with a reason; nothing crashes."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import wfdb
from raw_databases import STANDARD, ecg, read_rejections, write_code_15, write_mimic, write_record

from ecg_jepa.data.builders.code_15 import Code15, read_tracing
from ecg_jepa.data.builders.mimic_iv_ecg import MimicIvEcg
from ecg_jepa.data.records import find_database
from ecg_jepa.formats.ecg import RecordError
from ecg_jepa.formats.wfdb_record import read_wfdb
from ecg_jepa.model.signal_processing_ecg_jepa import unit_factor

NUM_WFDB, NUM_HDF5, NUM_TABLES = 200, 150, 50


def flip_bytes(path, rng):
    content = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def empty(path, rng):
    path.write_bytes(b"")


def extend(path, rng):
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 50))))


def change_count(path, rng):
    """Another number somewhere in the first line of the header."""
    header = path.with_suffix(".hea")
    lines = header.read_text().splitlines()
    words = lines[0].split()
    words[rng.integers(1, 4)] = str(rng.integers(0, 2000))
    header.write_text("\n".join([" ".join(words), *lines[1:]]))


def drop_line(path, rng):
    header = path.with_suffix(".hea")
    lines = header.read_text().splitlines()
    del lines[rng.integers(len(lines))]
    header.write_text("\n".join(lines))


def swap(path, rng):
    """Header or signal of another record."""
    other = path.with_name("other" + path.suffix)
    path.write_bytes(other.read_bytes().replace(b"other", path.stem.encode()))


REASONS = {
    "missing header",
    "unreadable header",
    "amplitude not known",
    "missing signal file",
    "truncated signal file",
    "wrong length",
    "unknown unit",
    "unreadable signal",
}
DAMAGES = [flip_bytes, flip_bytes, flip_bytes, truncate, empty, extend, change_count, drop_line, swap]


def write_originals(directory):
    """Records in the three layouts that occur, each with another of the same kind to swap files with."""
    kinds = {"dat": {}, "mat": {"suffix": ".mat"}, "uv": {"gain": "1(0)/uV", "leads": STANDARD[::-1]}}
    for seed, (kind, options) in enumerate(kinds.items()):
        for name, length in (("record", 400), ("other", 300)):
            write_record(directory / kind / name, ecg(length, 2 * seed + length), comments=["# Age: 61", "# Dx: 1,2"], **options)
    return [path for kind in ("dat", "mat", "uv") for path in sorted((directory / kind).glob("record.*"))]


@pytest.mark.parametrize(
    "number", [NUM_WFDB, pytest.param(800, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.stress)]
)
def test_damaged_wfdb_records(tmp_path, number):
    originals = write_originals(tmp_path / "originals")
    outcomes = {"read": 0, "rejected": 0}
    for case in range(number):
        rng = np.random.default_rng([1, case])
        original = originals[rng.integers(len(originals))]
        folder = tmp_path / "case"
        shutil.copytree(original.parent, folder)
        DAMAGES[rng.integers(len(DAMAGES))](folder / original.name, rng)
        try:
            record = read_wfdb(folder / "record")
        except RecordError as error:
            outcomes["rejected"] += error.reason in REASONS
        else:
            expected = wfdb.rdrecord(str(folder / "record"))
            factors = np.array([[unit_factor(unit)] for unit in expected.units])
            np.testing.assert_array_equal(record.ecg.signal, (expected.p_signal.T * factors).astype(np.float32), str(case))
            assert (record.ecg.lead_names, record.ecg.sampling_rate) == (expected.sig_name, expected.fs), case
            outcomes["read"] += 1
        shutil.rmtree(folder)
    assert sum(outcomes.values()) == number
    assert min(outcomes.values()) > number / 10  # both do happen


def drop_dataset(path, rng):
    with h5py.File(path, "a") as file:
        del file[rng.choice(["exam_id", "tracings"])]


def test_damaged_hdf5_files(tmp_path):
    exams = {11: ecg(4096, 1, rate=400) / 1000, 12: ecg(4096, 2, rate=400) / 1000}
    write_code_15(tmp_path / "original", {"exams_part0.hdf5": exams})
    outcomes = {"read": 0, "rejected": 0}
    for case in range(NUM_HDF5):
        rng = np.random.default_rng([2, case])
        path = tmp_path / f"{case}.hdf5"
        shutil.copyfile(tmp_path / "original" / "exams_part0.hdf5", path)
        damage = [flip_bytes, flip_metadata, truncate, empty, drop_dataset][case % 5]
        damage(path, rng)
        try:
            record = read_tracing(path, 1)
        except RecordError as error:
            outcomes["rejected"] += error.reason == "unreadable signal"
        else:
            with h5py.File(path) as file:
                np.testing.assert_array_equal(record.signal, file["tracings"][1].T.astype(np.float32), str(case))
            outcomes["read"] += 1
        path.unlink()
    assert sum(outcomes.values()) == NUM_HDF5
    assert min(outcomes.values()) > NUM_HDF5 / 10


def flip_metadata(path, rng):
    """Bytes of the first 2 kB, where HDF5 describes its datasets."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(2048)] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def test_damaged_tables(tmp_path):
    """Rows that are missing, twice there or garbled: every record of the files is prepared as it is, or reported."""
    signals = [ecg(5000, seed) for seed in range(4)]
    paths = write_mimic(tmp_path / "mimic", signals)
    original = (tmp_path / "mimic" / "record_list.csv").read_text().splitlines()
    order = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]
    expected = {Path(path).name: signal[order] * 5 for path, signal in zip(paths, signals, strict=True)}
    refused = 0  # a row with a field too many could be shifted any way: the whole table is
    for case in range(NUM_TABLES):
        rng = np.random.default_rng([3, case])
        lines = list(original)
        row = int(rng.integers(1, len(lines)))
        if case % 3 == 0:
            del lines[row]
        elif case % 3 == 1:
            lines.insert(row, lines[rng.integers(1, len(lines))])
        else:
            letters = list(lines[row])
            letters[rng.integers(len(letters))] = str(rng.choice(list("x,9/")))
            lines[row] = "".join(letters)
        (tmp_path / "mimic" / "record_list.csv").write_text("\n".join(lines))
        try:
            MimicIvEcg(data_dir=str(tmp_path / "mimic")).prepare(tmp_path / "out")
        except ValueError as error:
            if "record_list.csv cannot be read as a table" not in str(error):
                raise
            refused += 1
            continue
        database = find_database(tmp_path / "out")
        names = list(database.column("record_id"))
        for index, name in enumerate(names):
            np.testing.assert_array_equal(database.signal(index), expected[name], str(case))
        rejected = {Path(line["record"]).name for line in read_rejections(tmp_path / "out" / "mimic-iv-ecg")}
        assert expected.keys() <= set(names) | rejected, case
        assert len(set(names)) == len(names)
    assert refused < NUM_TABLES / 4


def test_exams_whose_rows_are_missing(tmp_path):
    tracings = {number: ecg(4096, number, rate=400) / 1000 for number in range(1, 6)}
    write_code_15(tmp_path / "raw", {"exams_part0.hdf5": tracings})
    table = pd.read_csv(tmp_path / "raw" / "exams.csv")
    for case in range(5):
        table.drop(index=case).to_csv(tmp_path / "raw" / "exams.csv", index=False)
        info = Code15(data_dir=str(tmp_path / "raw")).prepare(tmp_path / "out")
        assert (info.records, info.rejected) == (4, {"not in the table": 1})
