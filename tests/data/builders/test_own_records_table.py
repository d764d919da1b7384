"""What is a label in the table of own records, and what is said of columns that are none, misspelt, or odd in many rows."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from raw_databases import STANDARD, ecg

from ecg_jepa.data.builders.own_records import (
    CellError,
    OwnRecords,
    choose_labels,
    parse_cell,
    refuse_columns,
)
from ecg_jepa.data.records import find_database, read_database_info

LEADS = " ".join(STANDARD)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    directory = tmp_path_factory.mktemp("arrays")
    for number in range(20):
        np.save(directory / f"a{number}.npy", ecg(5000, number))
    return directory


@pytest.fixture
def write(arrays):
    """Writes a table of 20 rows beside the arrays, with columns of its own."""

    def write_table(**columns):
        rows = {
            "path": [f"a{number}.npy" for number in range(20)],
            "sampling_rate": 500,
            "unit": "uV",
            "lead_names": LEADS,
            "AF": [1, 0, 0, 0] * 5,
        }
        pd.DataFrame(rows | columns).to_csv(arrays / "records.csv", index=False)
        return arrays

    return write_table


def refusal(directory, **options):
    with pytest.raises(ValueError, match=r"records\.csv") as caught:
        OwnRecords(data_dir=str(directory), **options).list_records()
    return str(caught.value)


def test_labels_are_counted_in_all_records_and_in_each_split(write, tmp_path):
    splits = ["train"] * 12 + ["validation"] * 3 + ["test"] * 5
    directory = write(split=splits, LVH=[1.0] + [0.0] * 19)
    info = OwnRecords(data_dir=str(directory)).prepare(tmp_path)
    assert info.label_names == ["AF", "LVH"]
    assert info.label_counts == [
        {"split": "all", "records": 20, "positives": {"AF": 5, "LVH": 1}},
        {"split": "train", "records": 12, "positives": {"AF": 3, "LVH": 1}},
        {"split": "validation", "records": 3, "positives": {"AF": 1, "LVH": 0}},
        {"split": "test", "records": 5, "positives": {"AF": 1, "LVH": 0}},
    ]
    assert read_database_info(tmp_path / "own") == info


def test_counts_are_of_the_records_that_were_kept(write, tmp_path):
    directory = write(age=["x", *[50] * 19])
    info = OwnRecords(data_dir=str(directory)).prepare(tmp_path)
    assert info.rejected == {"unusable row": 1}
    assert info.label_counts == [{"split": "all", "records": 19, "positives": {"AF": 4}}]


def test_the_summary_names_labels_their_counts_and_what_is_ignored(write, tmp_path, run_script, capsys):
    directory = write(notes="seen", split=["train"] * 15 + ["test"] * 5)
    flags = ("--database", "own", "--data_dir", directory, "--output_dir", tmp_path)
    run_script("prepare_data", *flags, "--label_columns", "AF")
    printed = capsys.readouterr().out
    assert "taken as labels: the columns AF\n" in printed
    assert "AF: 5 of 20 records (train 4 of 15, validation 0 of 0, test 1 of 5)" in printed
    assert "ignored: the columns notes" in printed
    run_script("prepare_data", *flags, "--label_columns")
    printed = capsys.readouterr().out
    assert "taken as labels: the columns none" in printed
    assert "ignored: the columns AF, notes" in printed


def test_columns_that_are_no_labels_are_named_with_what_they_hold_and_what_to_do(write):
    message = refusal(write(notes=["sinus"] * 13 + ["?"] * 7, heart_rate=range(60, 80), LVH=0))
    assert "notes holds 'sinus' in 13 rows and '?' in 7 rows" in message
    assert "heart_rate holds '60' in 1 row, '61' in 1 row, '62' in 1 row and 17 other values" in message
    assert "--label_columns AF LVH; what is not listed (notes, heart_rate) is then ignored" in message


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"AF": [True, False] * 10}, "AF holds 'True' in 10 rows and 'False' in 10 rows. Write 0 or 1 in every row, or list"),
        ({"AF": ["yes", "no"] * 10}, "such as --label_columns AF; what is not listed is then ignored"),
        ({"AF": [True, 0] * 10, "notes": "x"}, "such as --label_columns AF; what is not listed (notes) is then ignored"),
        ({"AF": [None, 1] * 10}, "AF holds nothing in 10 rows. Write 0 or 1 in every row, or list"),
        ({"AF": [None, *[1] * 19], "site": "x"}, "such as --label_columns AF; what is not listed (site) is then ignored"),
        ({"AF": [1, 0] * 10, "empty": None}, "such as --label_columns AF; what is not listed (empty) is then ignored"),
        ({"lead_name": "I"}, "lead_name holds 'I' in 20 rows"),
        ({"AF": "x"}, "--label_columns without any name, if none are"),
    ],
)
def test_what_may_have_been_meant_by_a_column_is_said(write, columns, words):
    assert words in refusal(write(**columns))


@pytest.mark.parametrize("values", [[True, False], ["yes", "No"], ["1.0", 0], ["TRUE", "0"]])
def test_listed_labels_may_be_words(write, tmp_path, values):
    directory = write(AF=values * 10, notes="seen")
    OwnRecords(data_dir=str(directory), label_columns=["AF"]).prepare(tmp_path)
    assert find_database(tmp_path).statements() == [["AF"], []] * 10


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (["af"], "no column 'af'; those that may be labels are AF, LVH."),
        (["LHV"], "no column 'LHV'; those that may be labels are AF, LVH."),
        (["age"], "'age' is no label"),
        (["AF", "AF"], "names a column twice: AF AF"),
    ],
)
def test_lists_of_labels_that_cannot_be(listed, words):
    table = pd.DataFrame({"path": ["a"], "age": ["1"], "AF": ["0"], "LVH": ["1"]})
    with pytest.raises(ValueError, match=re.escape(words)):
        choose_labels(table, listed)


@pytest.mark.parametrize("heading", ["patientid", "Patient_ID", "PatientID", " patient_id", "patient-id"])
@pytest.mark.parametrize("listed", [None, ["AF"]])
def test_headings_in_another_spelling_are_neither_taken_nor_ignored(write, heading, listed):
    directory = write(**{heading: range(20)})
    assert f"column {heading!r}: did you mean 'patient_id'?" in refusal(directory, label_columns=listed)


def test_headings_beside_the_right_one_and_the_path(write, arrays):
    assert "column 'Sex' stands beside 'sex': keep one of the two" in refusal(write(sex="male", Sex="male"))
    pd.DataFrame({"Path": ["a0.npy"]}).to_csv(arrays / "records.csv", index=False)
    assert "column 'Path': did you mean 'path'?" in refusal(arrays)
    pd.DataFrame({"file": ["a0.npy"], "AF": [1]}).to_csv(arrays / "records.csv", index=False)
    assert "lacks the column path; it has file, AF." in refusal(arrays)
    (arrays / "records.csv").write_text("path;AF\na0.npy;1\n")
    assert "must be separated by commas" in refusal(arrays)


def test_a_heading_that_is_listed_as_a_label_is_one(write, tmp_path):
    directory = write(Sex=[0, 1] * 10)
    assert OwnRecords(data_dir=str(directory), label_columns=["Sex"]).prepare(tmp_path).label_names == ["Sex"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"split": ["val"] * 3 + ["train"] * 17},
            "'split' makes 3 of 20 rows unusable. It holds 'val' in 3 rows; expected one of ",
        ),
        ({"split": ["val"] * 3 + ["train"] * 17}, "expected one of train, validation, test. Mend the column"),
        ({"split": ["trian"] * 20}, "It holds 'trian' in 20 rows; expected one of train, validation, test."),
        (
            {"sex": ["W"] * 9 + ["D"] * 2 + ["female"] * 9},
            "'sex' makes 11 of 20 rows unusable. It holds 'W' in 9 rows and 'D' in 2",
        ),
        ({"age": ["018M"] * 20}, "'age' makes 20 of 20 rows unusable. It holds '018M' in 20 rows; expected a number of years"),
        ({"AF": ["?", "1", "-", "1"] * 5}, "'AF' makes 10 of 20 rows unusable. It holds '?' in 5 rows and '-' in 5 rows"),
        (
            {"unit": "mmHg"},
            "'unit' makes 20 of 20 rows unusable. It holds 'mmHg' in 20 rows; expected one of mV, uV, V, nV",
        ),
        ({"unit": None}, "'unit' makes 20 of 20 rows unusable. It holds nothing in 20 rows"),
        (
            {"sampling_rate": "500 Hz"},
            "'sampling_rate' makes 20 of 20 rows unusable. It holds '500 Hz' in 20 rows; expected a positive number",
        ),
        ({"sampling_rate": -1}, "expected a positive number of Hz"),
        ({"lead_names": "I II"}, "'lead_names' makes 20 of 20 rows unusable. It holds 'I II' in 20 rows"),
        ({"path": [f"x{n}.npy" for n in range(20)]}, "'path' makes 20 of 20 rows unusable. It holds 'x0.npy' in 1 row"),
        (
            {"path": [None, None, None, *(f"a{n}.npy" for n in range(17))]},
            "'path' makes 3 of 20 rows unusable. It holds nothing in",
        ),
        ({"record_id": [1, 2] * 10}, "'record_id' makes 18 of 20 rows unusable. It holds '1' in 9 rows and '2' in 9 rows"),
        ({"path": "a0.npy"}, "'path' makes 19 of 20 rows unusable"),
    ],
)
def test_a_column_that_costs_more_than_a_tenth_of_the_rows_is_one_error(write, tmp_path, columns, words):
    directory = write(**columns)
    assert words in refusal(directory, label_columns=["AF"])
    with pytest.raises(ValueError, match="Mend the column"):
        OwnRecords(data_dir=str(directory), label_columns=["AF"]).prepare(tmp_path)
    assert not (tmp_path / "own").exists()


def test_all_columns_at_fault_are_in_the_one_error(write):
    message = refusal(write(split="val", age="old"))
    assert "column 'split' makes 20" in message
    assert "column 'age' makes 20" in message


def test_a_tenth_of_the_rows_is_rejected_row_by_row(write, tmp_path):
    directory = write(split=["val"] * 2 + ["train"] * 18, sex=["female"] * 18 + ["W"] * 2)
    info = OwnRecords(data_dir=str(directory)).prepare(tmp_path)
    assert info.rejected == {"unusable row": 4}
    lines = [json.loads(line) for line in (tmp_path / "own" / "rejected.jsonl").read_text().splitlines()]
    assert lines[0]["detail"].endswith("split is 'val', expected one of train, validation, test")


def test_one_row_alone_never_condemns_its_column():
    fault = CellError("split", "val", "one of train, validation, test")
    refuse_columns([fault], 2)
    with pytest.raises(ValueError, match="2 of 19 rows"):
        refuse_columns([fault, fault], 19)


def test_other_labels_are_prepared_anew(write, tmp_path):
    directory = write(LVH=0, AFIB=[0, 1] * 10)
    prepare = lambda listed: OwnRecords(data_dir=str(directory), label_columns=listed).prepare(tmp_path)  # noqa: E731
    everything = prepare(None)
    assert everything.label_names == ["AF", "LVH", "AFIB"]
    assert prepare(None) == everything
    fewer = prepare(["AF", "AFIB"])  # the same statements of every record: no record has LVH
    assert fewer.label_names == ["AF", "AFIB"]
    assert fewer.ignored_columns == ["LVH"]
    assert fewer.digest != everything.digest
    assert fewer.content_digest == everything.content_digest
    one = prepare(["AFIB"])
    assert one.content_digest != everything.content_digest
    assert find_database(tmp_path).statements() == [[], ["AFIB"]] * 10


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("age", "75", 75.0),
        ("age", "075Y", 75.0),
        ("age", "0.5", 0.5),
        ("age", None, None),
        ("sex", "F", "female"),
        ("sex", "Male", "male"),
        ("sex", None, None),
        ("split", "Validation", 9),
        ("split", "test", 10),
    ],
)
def test_what_can_mean_one_thing_only_is_accepted(column, text, value):
    assert parse_cell(column, text) == value


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *(("age", text) for text in ("75M", "nan years", "1e9", "75,5")),
        *(("sex", text) for text in ("1", "femal", "W")),
        *(("split", text) for text in ("dev", "training", "1")),
        *(("AF", text) for text in ("treu", "2")),
    ],
)
def test_what_can_mean_several_things_is_refused(column, text):
    with pytest.raises(CellError, match=rf"is '{text}', expected ") as caught:
        parse_cell(column, text)
    assert caught.value.value == text


def test_labels_are_listed_for_own_records_only(run_script, tmp_path, capsys):
    flags = ("--database", "ptb-xl", "--data_dir", tmp_path, "--output_dir", tmp_path, "--label_columns", "AF")
    with pytest.raises(SystemExit):
        run_script("prepare_data", *flags)
    assert "label_columns is for own records (--database own), not for ptb-xl" in capsys.readouterr().err
