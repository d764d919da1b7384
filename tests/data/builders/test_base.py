"""PTB-XL's builder and what all builders share, on synthetic and real files."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from raw_databases import read_rejections

from ecg_jepa.data.builders.base import to_microvolts
from ecg_jepa.data.builders.ptb_xl import PtbXl
from ecg_jepa.data.records import PreparedDatabase, find_database, write_database_info
from ecg_jepa.data.synthetic import FILE_LEADS, write_wfdb_record
from ecg_jepa.formats.wfdb_record import read_wfdb


def edit_table(directory, change):
    path = directory / "ptbxl_database.csv"
    table = pd.read_csv(path)
    change(table).to_csv(path, index=False)


@pytest.fixture
def raw(raw_database, tmp_path):
    """A copy with the first 12 records, to change at will."""
    directory = tmp_path / "raw"
    shutil.copytree(raw_database, directory)
    for path in directory.glob("records*/00000/*"):
        if int(path.name[:5]) > 12:
            path.unlink()
    edit_table(directory, lambda table: table.head(12))
    return directory


def test_prepared_records_are_the_files(raw, tmp_path):
    info = PtbXl(data_dir=str(raw)).prepare(tmp_path / "out")
    database = find_database(tmp_path / "out", "ptb-xl")
    assert info.records == len(database) == 12
    assert info.rejected == {}
    assert info.hours == pytest.approx(12 * 10 / 3600)
    for index in range(12):
        expected = read_wfdb(raw / f"records500/00000/{index + 1:05d}_hr").ecg.signal
        np.testing.assert_array_equal(database.signal(index), np.rint(expected * 1000))


def test_columns_are_kept(raw, tmp_path):
    def change(table):
        table = table.astype({"sex": object, "age": object, "patient_id": object})
        table.loc[0, ["age", "sex", "patient_id"]] = [300.0, 1, 4711.0]
        table.loc[1, ["age", "sex", "patient_id"]] = None
        return table.assign(scp_codes=["{'IMI': 35.0, 'SR': 0.0}", *table.scp_codes[1:]])

    edit_table(raw, change)
    PtbXl(data_dir=str(raw)).prepare(tmp_path)
    rows = PreparedDatabase(tmp_path / "ptb-xl").dataset
    table = pd.read_csv(raw / "ptbxl_database.csv")
    assert [rows[0][name] for name in ("record_id", "age", "sex", "patient_id")] == ["1", 300.0, "female", "4711"]
    assert [rows[1][name] for name in ("age", "sex", "patient_id")] == [None, None, None]
    assert rows[0]["statements"] == ["IMI", "SR"]
    assert rows[0]["likelihoods"] == [35.0, 0.0]
    assert list(rows["fold"]) == table.strat_fold.tolist()


def test_missing_values_of_columns(raw, tmp_path):
    edit_table(raw, lambda table: table.assign(patient_id=None, age=None, sex=[None, 0, 1, *table.sex[3:]]))
    PtbXl(data_dir=str(raw)).prepare(tmp_path)
    database = find_database(tmp_path)
    assert all(patient is None for patient in database.column("patient_id"))
    assert np.isnan(database.column("age")).all()
    assert database.column("sex")[:3].tolist() == [None, "male", "female"]


def test_100_hz_comes_from_its_own_files(raw, tmp_path):
    PtbXl(data_dir=str(raw), sampling_rate=100).prepare(tmp_path)
    database = find_database(tmp_path)
    assert database.info.sampling_rate == 100
    assert database.signal(0).shape == (12, 1000)
    expected = read_wfdb(raw / "records100/00000/00001_lr").ecg.signal
    np.testing.assert_array_equal(database.signal(0), np.rint(expected * 1000))


@pytest.mark.slow
def test_processes_change_nothing(raw, tmp_path):
    PtbXl(data_dir=str(raw)).prepare(tmp_path / "one")
    PtbXl(data_dir=str(raw)).prepare(tmp_path / "two", num_proc=2)
    one, two = find_database(tmp_path / "one"), find_database(tmp_path / "two")
    assert list(one.column("record_id")) == list(two.column("record_id"))
    for index in range(12):
        np.testing.assert_array_equal(one.signal(index), two.signal(index))


def test_bad_records_are_rejected_and_counted(raw, tmp_path):
    files = raw / "records500/00000"
    (files / "00002_hr.dat").unlink()
    (files / "00003_hr.dat").write_bytes(b"\0" * 10)
    (files / "00004_hr.dat").write_bytes(b"\0" * (12 * 5000 * 2))
    (files / "00005_hr.dat").write_bytes(b"\x00\x80" * (12 * 5000))
    (files / "00006_hr.hea").write_text((files / "00006_hr.hea").read_text().replace(" V3", " V2"))
    info = PtbXl(data_dir=str(raw)).prepare(tmp_path)
    assert info.records == 7
    assert info.rejected == {
        "missing signal file": 1,
        "truncated signal file": 1,
        "flat": 1,
        "unusable signal": 2,
    }
    rejections = {line["record"]: line["detail"] for line in read_rejections(tmp_path / "ptb-xl")}
    assert "NaN" in rejections["records500/00000/00005_hr"]
    assert "repeat" in rejections["records500/00000/00006_hr"]
    assert list(find_database(tmp_path).column("record_id")) == ["1", "7", "8", "9", "10", "11", "12"]


def test_rows_that_are_missing_twice_there_or_unusable(raw, tmp_path):
    def change(table):
        table = table.astype({"scp_codes": object})
        table.loc[2, "scp_codes"] = "nonsense"
        return pd.concat([table.drop(index=5), table.loc[[0]]])

    edit_table(raw, change)
    PtbXl(data_dir=str(raw)).prepare(tmp_path)
    assert list(find_database(tmp_path).column("record_id")) == ["1", "2", "4", "5", "7", "8", "9", "10", "11", "12"]
    rejections = {line["record"]: line["reason"] for line in read_rejections(tmp_path / "ptb-xl")}
    assert rejections == {
        "records500/00000/00001_hr": "duplicate record",
        "records500/00000/00003_hr": "unusable row",
        "records500/00000/00006_hr": "not in the table",
    }


@pytest.mark.parametrize(
    ("column", "cell", "detail"),
    [
        ("strat_fold", "inf", "strat_fold is 'inf', expected a whole number from 1 to 10"),
        ("strat_fold", "300", "expected a whole number from 1 to 10"),
        ("strat_fold", "3.7", "expected a whole number"),
        ("patient_id", "x", "patient_id is 'x'"),
        ("patient_id", "inf", "expected a whole number"),
        ("sex", "2", "sex is '2'"),
        ("age", "inf", "age is inf, expected years"),
        ("age", "-5", "expected years"),
        ("scp_codes", "-" * 20_000 + "1", "is no dictionary"),
        ("scp_codes", "{'NORM': 1" + "0" * 400 + "}", "is no dictionary"),
        ("scp_codes", r"{'\ud800': 100.0}", "is no dictionary"),
    ],
)
def test_one_odd_cell_is_one_records(raw, tmp_path, column, cell, detail):
    path = raw / "ptbxl_database.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[4, column] = cell
    table.to_csv(path, index=False)
    info = PtbXl(data_dir=str(raw)).prepare(tmp_path)
    assert (info.records, info.rejected) == (11, {"unusable row": 1})
    assert detail in read_rejections(tmp_path / "ptb-xl")[0]["detail"]


def test_amplitude_free_records_have_unit_leads_and_flat_ones_are_rejected(raw, tmp_path):
    plain = PtbXl(data_dir=str(raw)).prepare(tmp_path / "out")
    flat = read_wfdb(raw / "records500/00000/00003_hr").ecg.signal * 1000
    flat[4] = 7.0
    write_wfdb_record(raw / "records500/00000/00003_hr", flat.astype(np.int16), 500, FILE_LEADS)
    info = PtbXl(data_dir=str(raw), amplitude_free=True).prepare(tmp_path / "out")
    assert info.digest != plain.digest
    assert (info.records, info.amplitude_free, plain.amplitude_free) == (11, True, False)
    assert "may have none: aVL. Was an electrode off?" in read_rejections(tmp_path / "out" / "ptb-xl")[0]["detail"]
    database = find_database(tmp_path / "out", "ptb-xl")
    for index in range(len(database)):
        np.testing.assert_allclose(database.signal(index).std(axis=1), 1000, rtol=1e-3)


def test_a_builder_is_one_of_datasets(raw, tmp_path):
    (raw / "records500/00000/00002_hr.dat").unlink()
    builder = PtbXl(data_dir=str(raw), cache_dir=str(tmp_path))
    builder.download_and_prepare()
    rows = builder.as_dataset("records")
    assert rows["record_id"][:2] == ["1", "3"]
    expected = read_wfdb(raw / "records500/00000/00001_hr").ecg.signal
    np.testing.assert_array_equal(np.reshape(rows[0]["signal"], (12, -1)), np.rint(expected * 1000))


def test_nothing_usable_is_an_error(raw, tmp_path):
    shutil.rmtree(raw / "records500")
    with pytest.raises(ValueError, match="None of the 12 records"):
        PtbXl(data_dir=str(raw)).prepare(tmp_path)
    with pytest.raises(FileNotFoundError, match="ecg-jepa prepare"):
        find_database(tmp_path)


def test_unchanged_sources_are_not_read_again(raw, tmp_path, monkeypatch):
    info = PtbXl(data_dir=str(raw)).prepare(tmp_path)
    monkeypatch.setattr(PtbXl, "prepare_record", lambda *_: pytest.fail("read again"))
    assert PtbXl(data_dir=str(raw)).prepare(tmp_path) == info
    monkeypatch.undo()
    signal = np.fromfile(raw / "records500/00000/00001_hr.dat", dtype=np.int16)
    (signal // 2).tofile(raw / "records500/00000/00001_hr.dat")
    assert PtbXl(data_dir=str(raw)).prepare(tmp_path).digest != info.digest
    np.testing.assert_array_equal(find_database(tmp_path).signal(0).T.ravel(), signal // 2)


@pytest.mark.parametrize("column", ["scp_codes", "strat_fold", "filename_hr"])
def test_missing_columns_raise(raw, tmp_path, column):
    edit_table(raw, lambda table: table.drop(columns=column))
    with pytest.raises(ValueError, match=f"lacks the columns {column}"):
        PtbXl(data_dir=str(raw)).prepare(tmp_path)


def test_wrong_folder_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="as downloaded"):
        PtbXl(data_dir=str(tmp_path)).prepare(tmp_path)


def test_to_microvolts_counts_what_it_clips():
    signal, clipped = to_microvolts(np.array([[0.0004, 0.0006, -1.0], [40.0, -40.0, 32.767]]))
    assert signal.tolist() == [[0, 1, -1000], [32767, -32767, 32767]]
    assert clipped == 2


def test_statistics_are_those_of_the_samples(prepared):
    indices = np.array([3, 50, 90])
    samples = np.concatenate([prepared.signal(index) for index in indices], axis=1) / 1000
    mean, std = prepared.lead_statistics(indices)
    np.testing.assert_allclose(mean, samples.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(std, samples.std(axis=1), atol=1e-12)


def test_crops_are_views(prepared):
    whole = prepared.signal(7)
    np.testing.assert_array_equal(prepared.signal(7, 100, 50), whole[:, 100:150])
    assert not whole.flags.writeable
    assert whole.base is not None
    for start, length in ((4990, 20), (-1, 5), (0, 0)):
        with pytest.raises(IndexError):
            prepared.signal(7, start, length)


def test_a_shard_that_is_missing_is_noticed(prepared_dir, tmp_path):
    shutil.copytree(prepared_dir, tmp_path / "copy")
    path = tmp_path / "copy" / "synthetic" / "database.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "records": 121}))
    with pytest.raises(FileNotFoundError):  # an edit shows by itself
        find_database(tmp_path / "copy")
    write_database_info(tmp_path / "copy" / "synthetic", dataclasses.replace(find_database(prepared_dir).info, records=121))
    with pytest.raises(ValueError, match="incomplete"):
        find_database(tmp_path / "copy")


def test_several_databases_need_a_name(prepared_dir, raw, tmp_path):
    shutil.copytree(prepared_dir, tmp_path / "both")
    PtbXl(data_dir=str(raw)).prepare(tmp_path / "both")
    with pytest.raises(FileNotFoundError, match="ptb-xl, synthetic"):
        find_database(tmp_path / "both")
    assert find_database(tmp_path / "both", "ptb-xl").name == "ptb-xl"
    assert find_database(tmp_path / "both" / "synthetic").name == "synthetic"
    with pytest.raises(FileNotFoundError, match="--database georgia"):
        find_database(tmp_path / "both", "georgia")
