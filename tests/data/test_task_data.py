import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from raw_databases import ecg, write_challenge, write_code_15

from ecg_jepa.data.builders.challenge_2021 import Georgia
from ecg_jepa.data.builders.code_15 import Code15
from ecg_jepa.data.builders.ptb_xl import PtbXl
from ecg_jepa.data.task_data import LabelBudget, TaskData


@pytest.fixture
def data(prepared_dir):
    return TaskData.load(prepared_dir, "superdiagnostic")


def test_splits_are_the_folds_and_patients_stay_in_one(data):
    fold, patient = data.database.column("fold"), data.database.column("patient_id")
    assert set(fold[data.splits["train"]]) == set(range(1, 9))
    assert set(fold[data.splits["validation"]]) == {9}
    assert set(fold[data.splits["test"]]) == {10}
    patients = [set(patient[indices]) for indices in data.splits.values()]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]


def test_statistics_come_from_training_records_alone(data):
    samples = np.concatenate([data.database.signal(i) for i in data.splits["train"]], axis=1) / 1000
    np.testing.assert_allclose(data.mean, samples.mean(axis=1), atol=1e-10)
    np.testing.assert_allclose(data.std, samples.std(axis=1), atol=1e-10)


def test_training_batches_shuffle_every_epoch_and_crop_at_random(data):
    size = len(data.splits["train"])
    batches = data.training_batches(size, 500, seed=1)
    (first, labels), (second, _) = next(batches), next(batches)
    assert first.shape == (size, 12, 500)
    assert labels.shape == (size, len(data.task.class_names))
    assert labels.sum(0).tolist() == data.task.labels[data.splits["train"]].sum(0).tolist()  # each record once
    assert not torch.equal(first, second)
    again, _ = next(data.training_batches(size, 500, seed=1))
    assert torch.equal(first, again)


def test_strided_crops_cover_each_record(data):
    indices = data.splits["test"]
    crops, owners = (torch.cat(parts) for parts in zip(*data.strided_crops(indices, 1250, 625, max_crops=30), strict=True))
    assert crops.shape == (7 * len(indices), 12, 1250)
    assert torch.equal(owners, torch.arange(len(indices)).repeat_interleave(7))
    np.testing.assert_array_equal(crops[9], data.normalized(indices[1], 2 * 625, 1250))


def test_single_label_tasks_have_class_indices(prepared_dir):
    data = TaskData.load(prepared_dir, "ST-MEM")
    labels = data.labels(data.splits["train"])
    assert labels.dtype == torch.long
    assert torch.equal(torch.nn.functional.one_hot(labels, 5).float(), torch.from_numpy(data.task.labels[data.splits["train"]]))


def test_crops_longer_than_records_raise(data):
    with pytest.raises(ValueError, match="shorter than the crop of 12 s"):
        next(data.training_batches(4, 6000, 0))


@pytest.fixture(scope="module")
def georgia(tmp_path_factory):
    """60 records without folds and patients, with SNOMED CT codes."""
    directory = tmp_path_factory.mktemp("georgia")
    for number in range(60):
        codes = [code for code, every in (("111", 2), ("222", 3), ("333", 30)) if number % every == 0] or ["444"]
        comments = ["# Age: 61", f"# Dx: {','.join(codes)}"]
        write_challenge(directory, "georgia", f"E{number:05d}", ecg(5000, number), comments=comments)
    Georgia(data_dir=str(directory)).prepare(directory)
    return directory


def test_other_databases_have_their_statements_as_classes(georgia, caplog):
    data = TaskData.load(georgia, "all")
    assert data.task.class_names == ["111", "222", "444"]  # 333 has two records
    assert "georgia: fewer than 10 records have 333, which are no classes then (--min_class_records)." in caplog.messages
    assert sorted(np.concatenate(list(data.splits.values()))) == list(range(60))
    assert all(data.task.labels[indices].any(axis=0).all() for indices in data.splits.values())
    again, other = TaskData.load(georgia, "all"), TaskData.load(georgia, "all", split_seed=1)
    assert all((again.splits[name] == data.splits[name]).all() for name in data.splits)
    assert set(other.splits["test"]) != set(data.splits["test"])
    caplog.clear()
    assert TaskData.load(georgia, "all", min_class_records=1).task.class_names == ["111", "222", "333", "444"]
    assert not caplog.messages
    with pytest.raises(ValueError, match="choose task 'all'"):
        TaskData.load(georgia, "rhythm")


def test_diagnoses_of_code_15_are_judged_on_every_record(tmp_path, caplog):
    tracings = {number: ecg(4096, number, rate=400) / 1000 for number in range(1, 41)}
    patients = [number // 2 for number in range(40)]
    af = [patient % 3 == 0 for patient in patients]
    write_code_15(tmp_path, {"exams_part0.hdf5": tracings}, AF=af, patient_id=patients)
    Code15(data_dir=str(tmp_path)).prepare(tmp_path)
    data = TaskData.load(tmp_path, "all")
    assert data.task.class_names == ["AF"]
    assert "fewer than 10 records have 1dAVb, LBBB, RBBB, SB, ST," in caplog.text  # which nobody has
    assert sum(len(indices) for indices in data.splits.values()) == 40  # those without a diagnosis, too
    patient = data.database.column("patient_id")
    parts = [set(patient[indices]) for indices in data.splits.values()]
    assert not parts[0] & (parts[1] | parts[2])
    assert not parts[1] & parts[2]


@pytest.mark.parametrize("budget", [LabelBudget(fraction=0.25), LabelBudget(per_class=3)])
def test_few_labels_are_training_labels(prepared_dir, data, budget):
    few = TaskData.load(prepared_dir, "superdiagnostic", labels=budget)
    assert set(few.splits["train"]) < set(data.splits["train"])
    assert all((few.splits[name] == data.splits[name]).all() for name in ("validation", "test"))
    counts = few.task.labels[few.splits["train"]].sum(axis=0)
    full = data.task.labels[data.splits["train"]].sum(axis=0)
    wanted = np.maximum(0.25 * full, 1) if budget.per_class is None else np.minimum(full, 3)
    np.testing.assert_allclose(counts, wanted, atol=2.5)
    assert (counts >= 1).all()
    np.testing.assert_array_equal(few.mean, few.database.lead_statistics(few.splits["train"])[0])


def test_a_patient_in_two_folds_is_an_error(raw_database, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(raw_database, raw)
    table = pd.read_csv(raw / "ptbxl_database.csv")
    table.loc[table.strat_fold.isin([3, 10]), "patient_id"] = 4711.0
    table.to_csv(raw / "ptbxl_database.csv", index=False)
    PtbXl(data_dir=str(raw)).prepare(tmp_path)
    with pytest.raises(ValueError, match="Patient 4711 of ptb-xl has records in train and in test"):
        TaskData.load(tmp_path, "superdiagnostic")
