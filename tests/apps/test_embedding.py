import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ecg_jepa import EcgJepaConfig, EcgJepaModel
from ecg_jepa.apps import embedding
from ecg_jepa.apps.record_source import RecordSource
from ecg_jepa.data.crops import batch_crops
from ecg_jepa.evaluation.linear_probe import embed_records
from ecg_jepa.formats.ecg import RecordError


@pytest.fixture
def encoder():
    return EcgJepaModel(EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)).eval()


def records(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(crops, 12, samples)).astype(np.float32) for crops, samples in shapes]


def test_batches_hold_whole_records_of_one_length():
    parts = records((2, 500), (3, 500), (1, 500), (1, 250), (7, 500))
    batches = list(batch_crops(parts, 5))
    assert [owners.tolist() for _, owners in batches] == [[0, 0, 1, 1, 1], [2], [3], [4] * 7]
    assert torch.equal(batches[0][0], torch.from_numpy(np.concatenate(parts[:2])))
    assert list(batch_crops([], 5)) == []


@pytest.mark.parametrize("pooling", ["mean", "register"])
def test_vectors_are_means_over_crops(encoder, pooling):
    parts = records((2, 500), (3, 500), (1, 250), (4, 500))
    vectors = np.concatenate(list(embed_records(encoder.train(), batch_crops(parts, 5), pooling)))
    assert vectors.dtype == np.float32
    for crops, vector in zip(parts, vectors, strict=True):
        with torch.no_grad():
            outputs = encoder(torch.from_numpy(crops))
        pooled = outputs.last_hidden_state[:, 1:].mean(1) if pooling == "mean" else outputs.last_hidden_state[:, 0]
        np.testing.assert_allclose(vector, pooled.mean(0), atol=1e-5)


def test_reading_ahead_keeps_the_order_and_goes_on_after_bad_records():
    def read(number):
        if number % 7 == 3:
            raise RecordError(str(number), "bad")
        return np.full((1, 1, 1), number)

    source = RecordSource([f"r{number}" for number in range(100)], read)
    for numbers in (range(100), range(40, 90)):
        rejections = []
        results = [(names, crops.item()) for names, crops, _ in source.batches(numbers, 1, rejections)]
        assert results == [([f"r{number}"], number) for number in numbers if number % 7 != 3]
        expected = [{"record": f"r{number}", "reason": "bad", "detail": ""} for number in numbers if number % 7 == 3]
        assert rejections == expected
    together = [names for names, _, _ in source.batches(range(8), 3, [])]
    assert together == [["r0", "r1", "r2"], ["r4", "r5", "r6"], ["r7"]]


def test_vectors_are_written_in_row_groups_as_they_come(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "_ROWS_AT_ONCE", 4)
    parts = records(*[(number % 3 + 1, 500) for number in range(10)])
    source = RecordSource([f"r{number}" for number in range(10)], parts.__getitem__)
    summary = embedding.write_embeddings(encoder, source, tmp_path / "v.parquet", batch_size=4, metadata={"model": "m"})
    assert summary == (10, sum(map(len, parts)), [])
    file = pq.ParquetFile(tmp_path / "v.parquet")
    assert file.num_row_groups > 1
    table = file.read()
    assert table["record_id"].to_pylist() == list(source.names)
    assert table["num_crops"].to_pylist() == [len(part) for part in parts]
    assert table.schema.metadata == {b"model": b"m", b"pooling": b"mean"}
    expected = np.concatenate(list(embed_records(encoder, batch_crops(parts, 4))))
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), expected)
