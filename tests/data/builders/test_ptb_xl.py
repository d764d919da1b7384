import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_jepa.data.builders.ptb_xl import PtbXl, describe_classes, make_task, parse_scp_codes
from ecg_jepa.data.splits import FOLDS_OF_SPLIT
from ecg_jepa.data.tasks import TASKS

TABLE = pd.DataFrame.from_dict(
    {
        "NORM": (1.0, None, None, "NORM", "NORM"),
        "IMI": (1.0, None, None, "MI", "IMI"),
        "AMI": (1.0, None, None, "MI", "AMI"),
        "NDT": (1.0, 1.0, None, "STTC", "STTC"),
        "PVC": (None, 1.0, None, None, None),
        "SR": (None, None, 1.0, None, None),
        "AFIB": (None, None, 1.0, None, None),
    },
    orient="index",
    columns=["diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"],
)
STATEMENTS = [["NORM", "SR"], ["AMI", "IMI"], ["SR"], ["PVC", "NDT", "IMI"], []]


@pytest.mark.parametrize(
    ("name", "classes", "labels"),
    [
        ("all", ["AMI", "IMI", "NDT", "NORM", "PVC", "SR"], ["000101", "110000", "000001", "011010", None]),
        ("diagnostic", ["AMI", "IMI", "NDT", "NORM"], ["0001", "1100", None, "0110", None]),
        ("subdiagnostic", ["AMI", "IMI", "NORM", "STTC"], ["0010", "1100", None, "0101", None]),
        ("superdiagnostic", ["MI", "NORM", "STTC"], ["010", "100", None, "101", None]),
        ("form", ["NDT", "PVC"], [None, None, None, "11", None]),
        ("rhythm", ["SR"], ["1", None, "1", None, None]),
        ("ST-MEM", ["MI", "NORM"], ["01", "10", None, None, None]),
    ],
)
def test_tasks(name, classes, labels):
    task = make_task(name, STATEMENTS, TABLE)
    assert task.class_names == classes
    assert task.included.tolist() == [row is not None for row in labels]
    for actual, expected in zip(task.labels, labels, strict=True):
        assert "".join(str(int(value)) for value in actual) == (expected or "0" * len(classes))
    assert task.single_label == (name == "ST-MEM")


def test_unknown_tasks_and_statements_raise():
    with pytest.raises(ValueError, match="choose one of all"):
        make_task("everything", STATEMENTS, TABLE)
    with pytest.raises(ValueError, match="does not know: XYZ"):
        make_task("all", [["XYZ"]], TABLE)


def test_joined_tasks_have_the_classes_of_both():
    statements = [["NORM", "SR"], ["IMI"], ["SR"], ["IMI", "AFIB"]]
    task = make_task("superdiagnostic+rhythm", statements, TABLE)
    assert task.name == "superdiagnostic+rhythm"
    assert task.class_names == ["MI", "NORM", "AFIB", "SR"]
    assert task.parts == {"superdiagnostic": ["MI", "NORM"], "rhythm": ["AFIB", "SR"]}
    # A record that lacks a label in one of them is left out: it is no negative.
    assert task.included.tolist() == [True, False, False, True]
    assert task.labels[task.included].tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]


def test_joined_tasks_take_a_shared_class_once():
    table = TABLE.assign(form=TABLE["form"].where(TABLE.index != "IMI", 1.0))
    task = make_task("form+diagnostic", [["IMI"], ["IMI", "NORM"]], table)
    assert task.class_names == ["IMI", "NORM"]
    assert task.labels.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("name", "message"), [("rhythm+no", "Unknown task 'no'"), ("form+form", "twice"), ("form+ST-MEM", "exclude each other")]
)
def test_tasks_that_cannot_be_joined(name, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, [["NORM"]], TABLE)


@pytest.mark.real_data
def test_real_labels_are_the_references(real_data):
    folder = Path(os.environ.get("ECG_JEPA_REFERENCE_DIR", real_data.parent / "reference"))
    expected = json.loads((folder / "ptbxl_labels_500_records.json").read_text())
    directory = real_data / "ptb-xl-500"
    records = PtbXl(data_dir=str(directory)).list_records()
    table = pd.read_csv(directory / "scp_statements.csv")
    table = table.set_index(table.columns[0])
    fold = np.array([record.fold for record in records])
    for name in TASKS:
        task = make_task(name, [list(record.statements) for record in records], table)
        reference = expected[name]
        assert task.class_names == reference["classes"], name
        assert task.included.sum() == reference["records"]
        assert task.labels.sum(axis=0).astype(int).tolist() == reference["positives"]
        splits = {"train": FOLDS_OF_SPLIT["train"], "val": FOLDS_OF_SPLIT["validation"], "test": FOLDS_OF_SPLIT["test"]}
        sizes = {split: int((task.included & np.isin(fold, folds)).sum()) for split, folds in splits.items()}
        assert sizes == reference["fold_sizes"]
        if "first_ecg_ids" in reference:
            ids = [int(records[i].record_id) for i in np.flatnonzero(task.included)]
            assert ids[:5] == reference["first_ecg_ids"]


def test_classes_are_described():
    table = pd.DataFrame(
        {
            "description": ["anterior MI", "anteroseptal MI", "sinus rhythm"],
            "diagnostic": [1.0, 1.0, np.nan],
            "form": np.nan,
            "rhythm": [np.nan, np.nan, 1.0],
            "diagnostic_class": ["MI", "MI", None],
            "diagnostic_subclass": ["AMI", "AMI", None],
        },
        index=["AMI", "ASMI", "SR"],
    )
    assert describe_classes("rhythm", table) == {"SR": "sinus rhythm"}
    assert describe_classes("subdiagnostic", table) == {"AMI": "anterior MI; anteroseptal MI"}
    assert describe_classes("ST-MEM", table)["MI"] == "myocardial infarction"
    assert describe_classes("all", table.drop(columns="description")) == {}


def test_scp_codes():
    assert parse_scp_codes("{'NORM': 100.0, 'SR': 0.0}", "1") == {"NORM": 100.0, "SR": 0.0}
    for bad in ("nonsense", "[1]", "{'A': 'x'}"):
        with pytest.raises(ValueError, match="record 7"):
            parse_scp_codes(bad, "record 7")
