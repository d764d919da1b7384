import h5py
import numpy as np
import pandas as pd
import pytest
from raw_databases import ecg, read_rejections, write_code_15

from ecg_jepa.data.builders.code_15 import Code15
from ecg_jepa.data.records import find_database
from ecg_jepa.model.signal_processing_ecg_jepa import condition


def tracing(seed, drift=0.0):
    return ecg(4096, seed, rate=400) / 1000 + drift * np.linspace(0, 1, 4096)


def padded(seed):
    signal = tracing(seed)
    signal[:, :648] = signal[:, -648:] = 0
    return signal


@pytest.fixture
def raw(tmp_path):
    files = {
        "exams_part1.hdf5": {11: tracing(1), 12: padded(2)},
        "exams_part0.hdf5": {3: tracing(3, drift=2.0), 4: tracing(4)},
    }
    write_code_15(
        tmp_path / "raw", files, AF=[True, False, False, False], SB=[True, False, True, False], is_male=[True, True, False, True]
    )
    return tmp_path / "raw"


def rejections(directory):
    return {line["record"]: line["reason"] for line in read_rejections(directory / "code-15")}


def test_records_of_full_length_with_their_diagnoses(raw, tmp_path):
    info = Code15(data_dir=str(raw)).prepare(tmp_path)
    assert info.rejected == {"zero-padded": 1}
    rows = find_database(tmp_path).dataset
    assert list(rows["record_id"]) == ["3", "4", "11"]
    assert list(rows["statements"]) == [["SB"], [], ["SB", "AF"]]
    assert list(rows["sex"]) == ["female", "male", "male"]
    assert list(rows["num_samples"]) == [5120] * 3


def test_highpass_comes_before_resampling(raw, tmp_path):
    Code15(data_dir=str(raw)).prepare(tmp_path)
    prepared = find_database(tmp_path).signal(0)
    expected = condition(tracing(3, drift=2.0).astype(np.float32), 400, 500, highpass_cutoff=0.5)
    np.testing.assert_allclose(prepared, expected * 1000, atol=0.51)
    assert abs(prepared[:, 1000:-1000].mean()) < 20  # of a drift of 2000 uV


def test_strict_lets_padding_pass_but_nothing_else(raw, tmp_path):
    assert Code15(data_dir=str(raw)).prepare(tmp_path, strict=True).records == 3
    pd.read_csv(raw / "exams.csv").iloc[:3].to_csv(raw / "exams.csv", index=False)
    with pytest.raises(ValueError, match="not in the table"):
        Code15(data_dir=str(raw)).prepare(tmp_path, strict=True)


def test_what_does_not_fit_together_is_reported(raw, tmp_path):
    table = pd.read_csv(raw / "exams.csv", dtype=object)
    table.loc[0, "exam_id"] = 99  # 11 has no row now, and 99 no tracing
    table.loc[2, "AF"] = "maybe"
    table.to_csv(raw / "exams.csv", index=False)
    Code15(data_dir=str(raw)).prepare(tmp_path)
    assert rejections(tmp_path) == {
        "exams_part0.hdf5#0": "unusable row",
        "exams_part1.hdf5#0": "not in the table",
        "exams_part1.hdf5#1": "zero-padded",
        "exams_part1.hdf5#99": "missing signal",
    }


def test_odd_ids_in_the_table_are_their_rows(raw, tmp_path):
    table = pd.read_csv(raw / "exams.csv", dtype=object)
    table.loc[0, ["exam_id", "patient_id"]] = ["x", "inf"]
    table.loc[2, "patient_id"] = "nobody"
    table.to_csv(raw / "exams.csv", index=False)
    assert Code15(data_dir=str(raw)).prepare(tmp_path).records == 1
    assert rejections(tmp_path) == {
        "exams_part0.hdf5#0": "unusable row",
        "exams_part1.hdf5#x": "unusable row",
        "exams_part1.hdf5#0": "not in the table",
        "exams_part1.hdf5#1": "zero-padded",
    }


def linked(path):
    """Both datasets are in another file."""
    path.rename(path.with_name("outside.h5"))
    with h5py.File(path, "w") as file:
        for name in ("exam_id", "tracings"):
            file[name] = h5py.ExternalLink(str(path.with_name("outside.h5")), name)


def stored_outside(path):
    values = np.zeros((2, 4096, 12), dtype="f4")
    path.with_name("raw.bin").write_bytes(values.tobytes())
    with h5py.File(path, "a") as file:
        del file["tracings"]
        place = [(str(path.with_name("raw.bin")), 0, values.nbytes)]
        file.create_dataset("tracings", values.shape, "f4", external=place)


def complex_tracings(path):
    with h5py.File(path, "a") as file:
        values = file["tracings"][:].astype("c8")
        del file["tracings"]
        file["tracings"] = values


def fractions_as_ids(path):
    with h5py.File(path, "a") as file:
        del file["exam_id"]
        file["exam_id"] = np.array([3.5, 4.0])


def sixty_million_exams(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("exam_id", (60_000_000,), "i8", chunks=True)
        file.create_dataset("tracings", (60_000_000, 4096, 12), "f4", chunks=(1, 4096, 12))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        *((make, "outside the folder") for make in (linked, stored_outside)),
        *((make, "unreadable signal") for make in (complex_tracings, fractions_as_ids)),
        (sixty_million_exams, "too large"),
    ],
)
def test_odd_hdf5_files_cost_their_own_records(raw, tmp_path, make, reason):
    make(raw / "exams_part0.hdf5")
    assert Code15(data_dir=str(raw)).prepare(tmp_path).records == 1
    assert rejections(tmp_path) == {
        "exams_part0.hdf5#3": reason,
        "exams_part0.hdf5#4": reason,
        "exams_part1.hdf5#1": "zero-padded",
    }


def without_ids(path):
    with h5py.File(path, "a") as file:
        del file["exam_id"]


def without_tracings(path):
    with h5py.File(path, "a") as file:
        del file["tracings"]


def other_shape(path):
    with h5py.File(path, "a") as file:
        values = file["tracings"][:, :, :8]
        del file["tracings"]
        file["tracings"] = values


def no_hdf5(path):
    path.write_bytes(b"nothing of the kind" * 100)


def truncated(path):
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize("damage", [without_ids, without_tracings, other_shape, no_hdf5, truncated])
def test_a_damaged_file_costs_its_own_records_only(raw, tmp_path, damage):
    damage(raw / "exams_part1.hdf5")
    info = Code15(data_dir=str(raw)).prepare(tmp_path)
    assert info.records == 2
    assert info.rejected == {"unreadable signal": 2}


def test_a_missing_file_costs_its_own_records_only(raw, tmp_path):
    (raw / "exams_part0.hdf5").unlink()
    assert Code15(data_dir=str(raw)).prepare(tmp_path).rejected == {"missing signal file": 2, "zero-padded": 1}


@pytest.mark.real_data
def test_real_exams(real_data, tmp_path):
    info = Code15(data_dir=str(real_data / "code-15")).prepare(tmp_path)
    assert info.records == 4
    assert info.rejected == {"zero-padded": 6}
    database = find_database(tmp_path)
    assert set(database.column("record_id")) == {"2969044", "270272", "1594286", "975093"}
    assert (database.num_samples == 5120).all()
    with h5py.File(real_data / "code-15" / "exams_part13.hdf5") as file:
        expected = condition(file["tracings"][0].T, 400, 500, highpass_cutoff=0.5)
    index = list(database.column("record_id")).index("270272")
    np.testing.assert_allclose(database.signal(index), expected * 1000, atol=0.51)
