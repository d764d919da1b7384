import numpy as np
import pytest
import torch

from ecg_jepa.evaluation.task_data import TaskData


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
