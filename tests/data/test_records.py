"""Prepared records as a `datasets.Dataset`: what rows hold, that nothing is copied, and that Trainer learns from it."""

import pickle

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from raw_databases import STANDARD, ecg
from transformers import AutoFeatureExtractor, Trainer, TrainingArguments

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaForSequenceClassification
from ecg_jepa.data.builders.own_records import OwnRecords
from ecg_jepa.data.records import find_database

NUM_RECORDS = 40


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Records of 10, 11 and 12 s with two labels, some of unknown age."""
    directory = tmp_path_factory.mktemp("raw")
    rows = []
    for number in range(NUM_RECORDS):
        np.save(directory / f"a{number}.npy", ecg(5000 + 500 * (number % 3), number))
        known = {"age": 40 + number, "sex": "female", "patient_id": f"p{number}"} if number % 5 else {}
        split = ("train", "train", "train", "validation", "test")[number % 5]
        labels = {"LVH": int(number % 4 == 0), "AF": int(number % 3 == 0)}
        layout = {"sampling_rate": 500, "unit": "uV", "lead_names": " ".join(STANDARD)}
        rows.append({"path": f"a{number}.npy", "split": split, **layout, **labels, **known})
    pd.DataFrame(rows).to_csv(directory / "records.csv", index=False)
    return directory


@pytest.fixture
def database(raw, tmp_path):
    OwnRecords(data_dir=str(raw)).prepare(tmp_path)
    return find_database(tmp_path)


@pytest.fixture
def extractor(database, tmp_path):
    """As a checkpoint brings it: 100 Hz, 10 s."""
    mean, std = database.lead_statistics()
    EcgJepaFeatureExtractor(
        sampling_rate=100, patch_size=25, signal_length=1000, mean=mean, std=std, crop_duration=10.0, crop_stride=10.0
    ).save_pretrained(tmp_path / "checkpoint")
    return AutoFeatureExtractor.from_pretrained(tmp_path / "checkpoint")


def test_rows_hold_what_an_extractor_asks_for_and_what_is_known(database):
    dataset = database.to_dataset()
    assert len(dataset) == NUM_RECORDS
    assert dataset.features["signal"] == datasets.List(datasets.List(datasets.Value("int16")))
    for number, row in enumerate(dataset):
        np.testing.assert_array_equal(row["signal"], ecg(5000 + 500 * (number % 3), number))
        assert (row["sampling_rate"], row["unit"], list(row["lead_names"])) == (500, "uV", list(STANDARD))
        assert row["record_id"] == f"a{number}.npy"
        assert row["fold"] == (1, 1, 1, 9, 10)[number % 5]
        assert row["labels"].tolist() == [number % 4 == 0, number % 3 == 0]
        assert row["labels"].dtype == np.float32
        assert (row["patient_id"], row["sex"]) == ((f"p{number}", "female") if number % 5 else (None, None))
        assert row["age"] == 40 + number if number % 5 else np.isnan(row["age"])
    assert database.label_names == ["LVH", "AF"]


def test_labels_can_be_chosen(database):
    assert [row["labels"].tolist() for row in database.to_dataset(["AF"])] == [[n % 3 == 0] for n in range(NUM_RECORDS)]
    assert "labels" not in database.to_dataset([]).column_names
    with pytest.raises(ValueError, match="No record of own has AFIB; there are AF, LVH"):
        database.to_dataset(["AF", "AFIB"])


def test_without_judged_labels_all_statements_are_labels(prepared):
    dataset = prepared.to_dataset()
    assert prepared.label_names == sorted({name for of_record in prepared.statements() for name in of_record})
    first = dataset[0]
    given = [name for name, label in zip(prepared.label_names, first["labels"], strict=True) if label]
    assert given == sorted(first["statements"].tolist())
    np.testing.assert_array_equal(first["signal"], prepared.signal(0))


def test_nothing_is_copied_neither_here_nor_into_workers(database):
    before = pa.total_allocated_bytes()
    dataset = database.to_dataset()
    size = sum(database.signal(number).nbytes for number in range(NUM_RECORDS))
    assert pa.total_allocated_bytes() - before < size / 20
    assert len(pickle.dumps(dataset)) < size / 20
    assert dataset.cache_files == database.dataset.cache_files
    assert database.to_dataset()._fingerprint == dataset._fingerprint
    assert database.to_dataset(["AF"])._fingerprint != dataset._fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda dataset: dataset,
        lambda dataset: dataset.select(range(3, 30)),
        lambda dataset: dataset.select([7, 3, 31]),
        lambda dataset: dataset.shuffle(seed=1),
        lambda dataset: dataset.shard(3, 1, contiguous=True),
        lambda dataset: dataset.filter(lambda fold: fold == 9, input_columns="fold"),
        lambda dataset: dataset.remove_columns(["statements", "age"]).rename_column("labels", "label"),
        lambda dataset: dataset.add_column("number", list(range(NUM_RECORDS))),
        lambda dataset: dataset.cast_column("fold", datasets.Value("int32")),
        lambda dataset: datasets.concatenate_datasets([dataset, dataset.select(range(5))]),
    ],
)
def test_what_datasets_does_to_rows_survives_the_way_to_a_worker(database, change):
    changed = change(database.to_dataset())
    there = pickle.loads(pickle.dumps(changed))
    assert len(there) == len(changed) > 0
    for ours, theirs in zip(changed, there, strict=True):
        number = int(ours["record_id"][1:].removesuffix(".npy"))
        np.testing.assert_array_equal(ours["signal"], ecg(5000 + 500 * (number % 3), number))
        np.testing.assert_array_equal(theirs["signal"], ours["signal"])
        assert theirs["record_id"] == ours["record_id"]


def test_amplitude_free_records_have_no_unit(raw, tmp_path):
    OwnRecords(data_dir=str(raw), amplitude_free=True).prepare(tmp_path)
    database = find_database(tmp_path)
    row = database.to_dataset()[0]
    assert row["unit"] == "unknown"
    arguments = (row["signal"], row["sampling_rate"], row["lead_names"], row["unit"])
    free = EcgJepaFeatureExtractor(amplitude_free=True)(*arguments)["input_values"][0]
    # Band-passed twice: what is left of it is the same but for the edges of the band.
    middle = slice(1000, 4000)
    assert np.corrcoef(free[1, middle], database.signal(0)[1, middle])[0, 1] > 0.99
    with pytest.raises(ValueError, match="Unknown unit"):
        EcgJepaFeatureExtractor()(*arguments)


def train(dataset, database, tmp_path, **options):
    """Two steps, and whether they changed the weights."""
    config = EcgJepaConfig(
        sampling_rate=100,
        signal_length=1000,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        id2label=dict(enumerate(database.label_names)),
        problem_type="multi_label_classification",
    )
    model = EcgJepaForSequenceClassification(config)
    before = model.classifier.weight.clone()
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    arguments = TrainingArguments(
        tmp_path / "run", max_steps=2, per_device_train_batch_size=8, learning_rate=1e-2, logging_steps=1, **quiet, **options
    )
    trainer = Trainer(model, arguments, train_dataset=dataset)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert not torch.equal(model.classifier.weight, before)
    return losses


def test_trainer_learns_the_same_by_map_and_lazily(database, extractor, tmp_path):
    def to_inputs(record):
        inputs = extractor(record["signal"], record["sampling_rate"], record["lead_names"], record["unit"])
        return {"input_values": inputs["input_values"][0][0]}  # the first 10 s

    def to_batch(records):
        rows = [dict(zip(records, values, strict=True)) for values in zip(*records.values(), strict=True)]
        return {"input_values": [to_inputs(row)["input_values"] for row in rows], "labels": records["labels"]}

    dataset = database.to_dataset().filter(lambda fold: fold < 9, input_columns="fold")
    mapped = dataset.map(to_inputs, remove_columns=[name for name in dataset.column_names if name != "labels"])
    assert mapped.column_names == ["labels", "input_values"]
    assert mapped[0]["input_values"].shape == (12, 1000)
    expected = extractor(database.signal(1), 500, STANDARD, "uV")["input_values"][0][0]
    np.testing.assert_array_equal(mapped[1]["input_values"], expected)
    again = dataset.map(to_inputs, remove_columns=[name for name in dataset.column_names if name != "labels"])
    assert again.cache_files == mapped.cache_files
    lazy = dataset.with_transform(to_batch)
    np.testing.assert_array_equal(lazy[1]["input_values"], expected)
    torch.manual_seed(1)
    losses = train(mapped, database, tmp_path)
    torch.manual_seed(1)
    assert train(lazy, database, tmp_path, remove_unused_columns=False) == pytest.approx(losses)
