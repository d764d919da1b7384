import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from clinical_formats import WRITERS, write_csv
from raw_databases import STANDARD, ecg, write_record

from ecg_jepa.data.builders.own_records import OwnRecords
from ecg_jepa.data.records import find_database
from ecg_jepa.data.task_data import TaskData

LEADS = " ".join(STANDARD)


@pytest.fixture
def raw(tmp_path):
    """30 records of 15 patients, half of them WFDB and half arrays in uV with other leads first, and two labels."""
    directory = tmp_path / "raw"
    directory.mkdir()
    rows = []
    for number in range(30):
        row = {"patient_id": number // 2, "AF": int(number % 3 == 0), "LVH": int(number % 4 == 0)}
        if number % 2:
            write_record(directory / "wfdb" / f"w{number}", ecg(5000, number))
            rows.append({"path": f"wfdb/w{number}.hea", **row})
        else:
            np.save(directory / f"a{number}.npy", ecg(5000, number)[::-1].astype(np.float32))
            names = " ".join(STANDARD[::-1])
            rows.append({"path": f"a{number}.npy", "sampling_rate": 500, "unit": "uV", "lead_names": names, **row})
    pd.DataFrame(rows).to_csv(directory / "records.csv", index=False)
    return directory


def edit(raw, **columns):
    table = pd.read_csv(raw / "records.csv").astype(object)
    for name, (row, value) in columns.items():
        table.loc[row, name] = value
    table.to_csv(raw / "records.csv", index=False)


def test_signals_labels_and_patients(raw, tmp_path):
    info = OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert (info.records, info.rejected, info.label_names) == (30, {}, ["AF", "LVH"])
    database = find_database(tmp_path)
    for number in range(30):
        np.testing.assert_array_equal(database.signal(number), ecg(5000, number))
    assert database.column("patient_id")[[0, 1, 2]].tolist() == ["0", "0", "1"]
    assert database.statements()[:5] == [["AF", "LVH"], [], [], ["AF"], ["LVH"]]


def test_another_cohort_takes_no_place_unasked(raw, tmp_path):
    first = OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    other = shutil.copytree(raw, tmp_path / "other")
    edit(other, AF=(6, 0))
    with pytest.raises(ValueError, match=r"prepared from .*raw, not from .*other: .* --overwrite_output_dir"):
        OwnRecords(data_dir=str(other)).prepare(tmp_path)
    assert find_database(tmp_path).info == first
    edit(raw, AF=(0, 0))  # the same cohort, mended
    second = OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert second.label_counts != first.label_counts
    replaced = OwnRecords(data_dir=str(other)).prepare(tmp_path, overwrite_output_dir=True)
    assert replaced.source_folder == str(other)


def test_files_of_any_format(raw, tmp_path):
    """Columns say what a file does not; each file is watched."""
    rows = [{"path": write(raw / name, ecg(5000, 1), 500).name} for name, write in WRITERS.items() if name != "muse.xml"]
    write_csv(raw / "bare.csv", ecg(5000, 1), 500, unit=None, time=None)
    rows.append({"path": "bare.csv", "sampling_rate": 500, "unit": "uV"})
    pd.DataFrame(rows).to_csv(raw / "records.csv", index=False)
    info = OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert (info.records, info.rejected) == (9, {})
    database = find_database(tmp_path)
    for number in range(9):
        np.testing.assert_array_equal(database.signal(number), ecg(5000, 1))
    write_csv(raw / "bare.csv", ecg(5000, 2), 500, unit=None, time=None)
    assert OwnRecords(data_dir=str(raw)).prepare(tmp_path).content_digest != info.content_digest
    edit(raw, unit=(8, None))
    with pytest.raises(ValueError, match=r"bare\.csv: undeclared \(it does not say its unit: pass .*, as columns of"):
        OwnRecords(data_dir=str(raw)).prepare(tmp_path, strict=True)
    assert OwnRecords(data_dir=str(raw), amplitude_free=True).prepare(tmp_path, strict=True).records == 9


def test_names_are_what_is_written(raw, tmp_path):
    """Not what numbers they would be: patients must not be merged."""
    numbers = ["007", "7", "9007199254740992", "9007199254740993", "1.0"]
    edit(raw, patient_id=(slice(0, 4), numbers))
    table = pd.read_csv(raw / "records.csv", dtype=str)
    table["record_id"] = [None, *map(str, range(1, 30))]
    table.to_csv(raw / "records.csv", index=False)
    OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    database = find_database(tmp_path)
    assert database.column("patient_id")[:5].tolist() == numbers
    assert database.column("record_id")[:3].tolist() == ["a0.npy", "1", "2"]


def test_a_signal_file_of_any_name_is_watched(raw, tmp_path):
    header = (raw / "wfdb" / "w1.hea").read_text()
    (raw / "wfdb" / "w1.hea").write_text(header.replace("w1.dat", "signal.bin"))
    (raw / "wfdb" / "w1.dat").rename(raw / "wfdb" / "signal.bin")
    first = OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert first.rejected == {}
    content = (raw / "wfdb" / "signal.bin").read_bytes()
    (raw / "wfdb" / "signal.bin").write_bytes(content[24:] + content[:24])
    assert OwnRecords(data_dir=str(raw)).prepare(tmp_path).content_digest != first.content_digest


def test_a_task_of_own_labels(raw, tmp_path):
    OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    data = TaskData.load(tmp_path, "all", min_class_records=5)
    assert data.task.class_names == ["AF", "LVH"]
    assert data.task.included.all()  # a record without a label is a negative
    assert sum(len(indices) for indices in data.splits.values()) == 30


def test_own_splits_are_kept(raw, tmp_path):
    splits = ["train"] * 20 + ["validation"] * 4 + ["test"] * 6
    pd.read_csv(raw / "records.csv").assign(split=splits).to_csv(raw / "records.csv", index=False)
    OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    data = TaskData.load(tmp_path, "all", min_class_records=5)
    assert [len(data.splits[name]) for name in ("train", "validation", "test")] == [20, 4, 6]
    edit(raw, split=(19, "test"))
    OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    with pytest.raises(ValueError, match="Patient 9 of own has records in train and in test"):
        TaskData.load(tmp_path, "all", min_class_records=5)


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"AF": (4, 2)}, "AF is '2', expected one of 0, 1"),
        ({"AF": (4, None)}, "AF is empty, expected one of 0, 1"),
        ({"split": (slice(0, 28), "train")}, "split is empty, expected one of train, validation, test"),
        ({"sex": (4, "W")}, "sex is 'W', expected one of female, male, or nothing"),
        ({"age": (4, "75M")}, "age is '75M', expected a number of years, or nothing"),
        ({"age": (4, "75,5")}, "age is '75,5', expected a number of years, or nothing"),
        ({"age": (4, "75 years")}, "age is '75 years', expected a number of years, or nothing"),
        ({"age": (4, "-1")}, "age is '-1', expected a number of years, or nothing"),
        ({"AF": (4, "maybe"), "sex": (4, "x")}, "sex is 'x', expected one of female, male, or nothing; AF is 'maybe'"),
        ({"unit": (4, None)}, "unit is empty, expected what a .npy file does not say itself"),
        ({"unit": (4, "mmHg")}, "unit is 'mmHg', expected one of mV, uV, V, nV"),
        ({"sampling_rate": (4, -500)}, "sampling_rate is '-500', expected a positive number of Hz"),
        ({"lead_names": (4, "I II")}, "lead_names is 'I II', expected the leads of the file, in its order (Missing leads"),
        ({"lead_names": (4, LEADS.replace("V6", "V5"))}, "repeat"),
        ({"sampling_rate": (1, 250)}, "sampling_rate is declared as 250.0, but the record itself says 500.0"),
        ({"unit": (1, "mV")}, None),
        ({"lead_names": (1, LEADS.replace("I II", "II I"))}, "lead_names is declared as II I III"),
        ({"path": (4, None)}, "no file (row 4).hea"),
        ({"path": (4, "absent.npy")}, "no file absent.npy"),
        ({"path": (4, "a6.npy")}, "is listed before"),
    ],
)
def test_rows_that_cannot_be_used_are_rejected_with_a_reason(raw, tmp_path, columns, detail):
    edit(raw, **columns)
    if detail is None:
        assert OwnRecords(data_dir=str(raw)).prepare(tmp_path, strict=True).records == 30
        return
    with pytest.raises(ValueError, match=re.escape(detail)):
        OwnRecords(data_dir=str(raw), label_columns=["AF", "LVH"]).prepare(tmp_path, strict=True)


@pytest.mark.parametrize(
    "values", [np.zeros(5000), np.full((12, 5000), "x"), np.zeros((12, 5000), complex), np.array([{}], dtype=object)]
)
def test_arrays_of_another_kind_are_rejected(raw, tmp_path, values):
    np.save(raw / "a4.npy", values, allow_pickle=True)
    assert OwnRecords(data_dir=str(raw)).prepare(tmp_path).rejected == {"unreadable signal": 1}


def test_a_table_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"records\.csv"):
        OwnRecords(data_dir=str(tmp_path)).prepare(tmp_path)


def test_implausible_records_are_rejected_with_the_likely_cause(raw, tmp_path):
    edit(raw, unit=(0, "mV"), sampling_rate=(2, 5))
    dead = np.load(raw / "a4.npy")
    dead[:5] = 0
    np.save(raw / "a4.npy", dead)
    np.save(raw / "a6.npy", np.load(raw / "a6.npy") + 200_000)
    sparse = np.full((12, 5000), np.nan, dtype=np.float32)
    sparse[:, 7] = 3.0
    np.save(raw / "a8.npy", sparse)
    info = OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert info.records == 25
    lines = (tmp_path / "own" / "rejected.jsonl").read_text().splitlines()
    rejections = {line["record"]: (line["reason"], line["detail"]) for line in map(json.loads, lines)}
    assert {record: reason for record, (reason, _) in rejections.items()} == {
        "a0.npy": "implausible amplitude",
        "a2.npy": "implausible rate",
        "a4.npy": "flat",
        "a6.npy": "clipped",
        "a8.npy": "mostly missing",
    }
    assert "looks like uV" in rejections["a0.npy"][1]
    assert "leads V2, V3, V4, V5, V6 never change" in rejections["a4.npy"][1]
    kept = OwnRecords(data_dir=str(raw), allow_implausible=True).prepare(tmp_path)
    assert kept.rejected == {"flat": 2}  # of which nothing is left
    assert kept.digest != info.digest


def test_a_dead_lead_is_named_and_nothing_is_divided_by_its_standard_deviation(raw, tmp_path, caplog):
    for path in raw.glob("*.npy"):
        signal = np.load(path)
        signal[0] = 0  # V6
        np.save(path, signal)
    table = pd.read_csv(raw / "records.csv")
    table[table["path"].str.endswith("npy")].to_csv(raw / "records.csv", index=False)
    with caplog.at_level("WARNING"):
        OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert "own: leads V6 never change in any record" in caplog.text
    assert json.loads((tmp_path / "own" / "quality.json").read_text())["dead_leads"] == ["V6"]
    with pytest.raises(ValueError, match="Leads V6 never change in any of these own records: they cannot be normalised"):
        find_database(tmp_path).lead_statistics()


def test_a_patient_in_several_splits_is_told_of_at_preparation(raw, tmp_path, caplog):
    table = pd.read_csv(raw / "records.csv").astype(object)
    table["split"] = ["train"] * 20 + ["validation"] * 5 + ["test"] * 5
    table.to_csv(raw / "records.csv", index=False)
    OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert "1 patient(s) have records in several splits (the first: 12)" in caplog.text


def test_a_file_stands_for_one_record(raw, tmp_path):
    table = pd.read_csv(raw / "records.csv")
    table["record_id"] = [f"r{number}" for number in range(30)]
    table.loc[5, "path"] = "wfdb/../wfdb/w3.hea"
    table.to_csv(raw / "records.csv", index=False)
    info = OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert info.rejected == {"listed twice": 1}
    table.loc[6:12, "path"] = "wfdb/w3.hea"
    table.to_csv(raw / "records.csv", index=False)
    with pytest.raises(ValueError, match="a file of its own for every row, but r3 has it, too"):
        OwnRecords(data_dir=str(raw)).prepare(tmp_path)


def test_rows_without_a_patient_are_told_of(raw, tmp_path, caplog):
    edit(raw, patient_id=(3, None))
    OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert "1 of 30 rows have no patient_id: each counts as a patient of its own." in caplog.text
    table = pd.read_csv(raw / "records.csv", dtype=str)
    table["patient_id"] = ["17 ", " 17"] * 15
    table.to_csv(raw / "records.csv", index=False)
    OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    assert set(find_database(tmp_path).column("patient_id")) == {"17"}
