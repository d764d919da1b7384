import shutil

import numpy as np
import pytest
import torch

from ecg_jepa.data.builders.ptb_xl import PtbXl
from ecg_jepa.data.corpus import BatchNormalizer, Corpus, CorpusBatch
from ecg_jepa.data.records import find_database


@pytest.fixture(scope="module")
def two_databases(prepared_dir, raw_database, tmp_path_factory):
    directory = tmp_path_factory.mktemp("two") / "prepared"
    shutil.copytree(prepared_dir, directory)
    PtbXl(data_dir=str(raw_database)).prepare(directory)
    return directory


@pytest.fixture
def corpus(two_databases):
    return Corpus.from_weights(two_databases, {"synthetic": 0.75, "ptb-xl": 0.25}, batch_size=64, crop_length=1000, seed=5)


def test_a_batch_is_a_function_of_seed_and_index(corpus, two_databases):
    first = corpus.batch(3)
    assert first.signal.shape == (64, 12, 1000)
    assert first.signal.dtype == torch.int16
    assert torch.equal(first.signal, corpus.batch(3).signal)
    assert not torch.equal(first.signal, corpus.batch(4).signal)
    other = Corpus.from_weights(two_databases, {"synthetic": 0.75, "ptb-xl": 0.25}, batch_size=64, crop_length=1000, seed=6)
    assert not torch.equal(first.signal, other.batch(3).signal)


def test_processes_share_a_batch(corpus):
    whole = corpus.batch(9)
    parts = [corpus.batch(9, rank, 4) for rank in range(4)]
    assert torch.equal(torch.cat([part.signal for part in parts]), whole.signal)
    assert torch.equal(torch.cat([part.database for part in parts]), whole.database)
    with pytest.raises(ValueError, match="cannot be shared by 3"):
        corpus.batch(0, 0, 3)


def test_threads_change_nothing(two_databases, corpus):
    for num_threads in (1, 3, 200):
        other = Corpus(corpus.databases, corpus.weights, batch_size=64, crop_length=1000, seed=5, num_threads=num_threads)
        assert torch.equal(other.batch(2).signal, corpus.batch(2).signal)


def test_memory_is_used_again_but_never_while_somebody_holds_it(corpus):
    batches = corpus.batches()
    kept = [next(batches).signal for _ in range(5)]
    for index, signal in enumerate(kept):
        assert torch.equal(signal, corpus.batch(index).signal)
    address = kept[1].data_ptr()
    row = kept[1][3, 2:4]  # a view holds on to all of it
    expected = row.clone()
    del kept, signal
    addresses = {next(batches).signal.data_ptr() for _ in range(20)}
    assert address not in addresses
    assert len(addresses) < 8
    assert torch.equal(row, expected)


def test_batches_start_anywhere(corpus):
    batches = corpus.batches(start=7)
    for index in (7, 8, 9):
        assert torch.equal(next(batches).signal, corpus.batch(index).signal)


def test_weights_are_kept(corpus):
    drawn = torch.cat([corpus.batch(index).database for index in range(40)])
    share = (drawn == 0).float().mean().item()
    assert share == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / len(drawn)) ** 0.5)


def test_crops_come_from_training_folds_and_everywhere_in_the_record(prepared_dir):
    corpus = Corpus.from_weights(prepared_dir, {"synthetic": 1.0}, batch_size=128, crop_length=2500)
    database = find_database(prepared_dir)
    fold = database.column("fold")
    assert set(fold[corpus.records[0]]) == set(range(1, 9))
    drawn = set()
    starts = []
    views = {i: database.signal(i) for i in range(len(database))}
    for crop in corpus.batch(0).signal.numpy():
        for record, whole in views.items():
            for start in np.flatnonzero((crop[:, 0] == whole[:, :2501].T).all(axis=1)):
                if np.array_equal(whole[:, start : start + 2500], crop):
                    drawn.add(record)
                    starts.append(start)
    assert len(starts) == 128
    assert len(drawn) > 40
    assert set(fold[list(drawn)]) <= set(range(1, 9))
    assert min(starts) < 300
    assert max(starts) > 2200


def test_normalisation_is_the_databases_own(corpus):
    mean, std = corpus.lead_statistics
    expected_mean, expected_std = corpus.databases[1].lead_statistics(corpus.records[1])
    np.testing.assert_array_equal(mean[1], expected_mean)
    np.testing.assert_array_equal(std[1], expected_std)
    mean[1] += 0.5
    batch = CorpusBatch(torch.full((2, 12, 3), 400, dtype=torch.int16), torch.tensor([0, 1]))
    values = BatchNormalizer(mean, std)(batch)
    expected = ((0.4 - mean) / std).clip(-5, 5)
    np.testing.assert_allclose(values[:, :, 0].numpy(), expected, rtol=1e-4)


def test_mixture_statistics(corpus):
    mean, std = corpus.mixture_statistics()
    means, stds = corpus.lead_statistics
    np.testing.assert_allclose(mean, 0.75 * means[0] + 0.25 * means[1])
    second_moment = 0.75 * (stds[0] ** 2 + means[0] ** 2) + 0.25 * (stds[1] ** 2 + means[1] ** 2)
    np.testing.assert_allclose(std, np.sqrt(second_moment - mean**2))


def test_bad_mixtures_raise(two_databases, prepared_dir):
    with pytest.raises(ValueError, match="sum to 1"):
        Corpus.from_weights(two_databases, {"synthetic": 0.5, "ptb-xl": 0.4}, batch_size=4, crop_length=100)
    with pytest.raises(FileNotFoundError, match="--database mimic-iv-ecg"):
        Corpus.from_weights(prepared_dir, {"mimic-iv-ecg": 1.0}, batch_size=4, crop_length=100)
    with pytest.raises(ValueError, match="no record of at least 5025 samples"):
        Corpus.from_weights(prepared_dir, {"synthetic": 1.0}, batch_size=4, crop_length=5025)


def test_amplitude_free_records_do_not_mix_with_others(two_databases, raw_database, tmp_path):
    shutil.copytree(two_databases / "synthetic", tmp_path / "synthetic")
    PtbXl(data_dir=str(raw_database), amplitude_free=True).prepare(tmp_path)
    with pytest.raises(ValueError, match="one is amplitude-free and one in mV"):
        Corpus.from_weights(tmp_path, {"synthetic": 0.5, "ptb-xl": 0.5}, batch_size=4, crop_length=100)


def test_a_high_pass_that_all_databases_had(corpus, monkeypatch):
    assert corpus.highpass_cutoff() is None
    for database in corpus.databases:
        monkeypatch.setattr(database.info, "highpass_cutoff", 0.5)
    assert corpus.highpass_cutoff() == 0.5
    monkeypatch.setattr(corpus.databases[0].info, "highpass_cutoff", None)
    assert corpus.highpass_cutoff() is None
