"""One odd file among good ones: it is left out with its reason, and ends or hangs nothing."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from raw_databases import ecg

from ecg_jepa.data.builders.own_records import OwnRecords
from ecg_jepa.data.records import find_database

NAMES = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
GOOD = 50


def header(*signal_files, samples=5000):
    lines = [f"odd {len(signal_files)} 500 {samples}"]
    return "\n".join(
        [*lines, *(f"{name} 16 1000/mV 16 0 0 0 0 {lead}" for name, lead in zip(signal_files, NAMES.split(), strict=True))]
    )


def pipe(directory):
    os.mkfifo(directory / "odd.npy")


def folder(directory):
    (directory / "odd.npy").mkdir()


def device(directory):
    (directory / "odd.npy").symlink_to("/dev/zero")


def links_in_a_circle(directory):
    (directory / "odd.npy").symlink_to(directory / "other.npy")
    (directory / "other.npy").symlink_to(directory / "odd.npy")


def link_to_outside(directory):
    np.save(directory.parent / "outside.npy", ecg(5000, 0) / 200)
    (directory / "odd.npy").symlink_to(directory.parent / "outside.npy")


def pickled(directory):
    np.save(directory / "odd.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def more_than_it_holds(directory):
    with (directory / "odd.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (12, 10**11)})


def fifty_gigabytes(directory):
    """As large as its header says, and sparse: nothing is written."""
    with (directory / "odd.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (12, 520_000_000)})
        file.truncate(file.tell() + 12 * 520_000_000 * 8)


def fifty_gigabytes_of_signal(directory):
    (directory / "odd.hea").write_text(header(*["odd.dat"] * 12, samples=2_080_000_000))
    with (directory / "odd.dat").open("wb") as file:
        file.truncate(2_080_000_000 * 12 * 2)


def not_an_array(directory):
    (directory / "odd.npy").write_bytes(bytes(range(256)))


def pipe_as_header(directory):
    os.mkfifo(directory / "odd.hea")


def long_header(directory):
    (directory / "odd.hea").write_text(header(*["odd.dat"] * 12) + "\n#" + "x" * (2 << 20))


def signal_elsewhere(directory):
    (directory / "odd.hea").write_text(header(*["../odd.dat"] * 12))
    (directory.parent / "odd.dat").write_bytes(bytes(2 * 12 * 5000))


def signal_of_another_name(directory):
    (directory / "odd.hea").write_text(header(*["leak.bin"] * 12))
    (directory / "leak.bin").symlink_to(directory.parent / "odd.dat")
    (directory.parent / "odd.dat").write_bytes(bytes(2 * 12 * 5000))


def device_as_signal(directory):
    (directory / "odd.hea").write_text(header(*["odd.dat"] * 12))
    (directory / "odd.dat").symlink_to("/dev/zero")


def endless_signal(directory):
    (directory / "odd.hea").write_text(header(*["odd.dat"] * 12, samples=10**13))
    (directory / "odd.dat").write_bytes(bytes(100))


def nothing(directory):
    pass


ODD = [
    *((make, "odd.npy", "no plain file") for make in (pipe, folder)),
    *((make, "odd.npy", "outside the folder") for make in (device, link_to_outside)),
    (links_in_a_circle, "odd.npy", "unreadable file"),
    *((make, "odd.npy", "unreadable signal") for make in (pickled, more_than_it_holds)),
    (not_an_array, "odd.npy", "unknown format"),
    (pipe_as_header, "odd", "no plain file"),
    (long_header, "odd", "too large"),
    (signal_elsewhere, "odd", "outside the folder"),
    (signal_of_another_name, "odd", "outside the folder"),
    (device_as_signal, "odd", "outside the folder"),
    (endless_signal, "odd", "truncated signal file"),
    (fifty_gigabytes, "odd.npy", "too large"),
    (fifty_gigabytes_of_signal, "odd", "too large"),
    (nothing, "x" * 300 + ".npy", "unreadable file"),
    (nothing, "a\0b.npy", "unreadable file"),
    (nothing, "../elsewhere.npy", "outside the folder"),
    (nothing, "/etc/hostname", "outside the folder"),
]


@pytest.fixture
def raw(tmp_path):
    """Good records, and a function that adds a row for another."""
    directory = tmp_path / "raw"
    directory.mkdir()
    row = {"sampling_rate": 500, "unit": "mV", "lead_names": NAMES, "AF": 1}
    rows = []
    for number in range(GOOD):
        np.save(directory / f"a{number}.npy", ecg(5000, number).astype(np.float32) / 200)
        rows.append({"path": f"a{number}.npy", **row})

    def add(path):
        pd.DataFrame([*rows, {"path": path, **row}]).to_csv(directory / "records.csv", index=False)
        return directory

    return add


@pytest.mark.parametrize(("make", "path", "reason"), ODD, ids=[f"{make.__name__}-{path[:12]!r}" for make, path, _ in ODD])
def test_an_odd_file_costs_nothing_but_itself(raw, tmp_path, make, path, reason):
    directory = raw(path)
    make(directory)
    info = OwnRecords(data_dir=str(directory)).prepare(tmp_path / "prepared")
    assert info.records == GOOD
    assert info.rejected == {reason: 1}
    (line,) = (tmp_path / "prepared" / "own" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["detail"]


def test_files_outside_can_be_allowed(raw, tmp_path):
    directory = raw("odd.npy")
    link_to_outside(directory)
    for allowed, records in ((False, GOOD), (True, GOOD + 1)):
        builder = OwnRecords(data_dir=str(directory), allow_outside_paths=allowed)
        assert builder.prepare(tmp_path / "prepared").records == records


def test_a_data_directory_may_be_a_link(raw, tmp_path):
    directory = raw("a0.npy")
    (tmp_path / "link").symlink_to(directory)
    assert OwnRecords(data_dir=str(tmp_path / "link")).prepare(tmp_path / "prepared").records == GOOD


def test_an_error_that_no_reader_foresaw_is_one_records(raw, tmp_path, monkeypatch):
    read = OwnRecords.read_record

    def fail_once(self, info):
        if info.path == "a3.npy":
            raise ZeroDivisionError("nobody thought of this")
        return read(self, info)

    monkeypatch.setattr(OwnRecords, "read_record", fail_once)
    info = OwnRecords(data_dir=str(raw("a0.npy"))).prepare(tmp_path / "prepared")
    assert info.rejected == {"unforeseen error": 1, "duplicate record": 1}
    database = find_database(tmp_path / "prepared", "own")
    assert "a3.npy" not in database.column("record_id").tolist()
