import numpy as np
import pytest
from raw_databases import STANDARD, ecg, write_mimic

from ecg_jepa.data.builders.mimic_iv_ecg import MimicIvEcg
from ecg_jepa.data.lead_statistics import outlying
from ecg_jepa.data.records import find_database


def test_no_single_record_moves_the_statistics_of_a_database(tmp_path):
    signals = [ecg(5000, seed) for seed in range(30)]
    signals[7][9] *= 8  # a loose electrode; still plausible
    write_mimic(tmp_path / "raw", signals)
    MimicIvEcg(data_dir=str(tmp_path / "raw")).prepare(tmp_path)
    database = find_database(tmp_path)
    mean, std = database.lead_statistics()
    samples = [database.signal(index) / 1000 for index in range(30)]
    pooled = np.concatenate(samples, axis=1)
    others = [lead for lead in range(12) if lead != 9]
    np.testing.assert_allclose(std[others], pooled[others].std(axis=1), atol=1e-6)
    without = np.concatenate([*samples[:7], *samples[8:]], axis=1)
    assert std[9] == pytest.approx(without[9].std(), abs=1e-6)
    assert mean[9] == pytest.approx(without[9].mean(), abs=1e-6)
    assert std[9] < pooled[9].std() / 1.5
    assert STANDARD[9] == "V4"


def test_outlying_records():
    stds, means, weights = np.full((100, 2), 0.2), np.zeros((100, 2)), np.full(100, 5000.0)
    stds[:30, 0] = 0.9  # a group of large ones: none moves the statistics by itself
    assert not outlying(means, stds, weights).any()
    stds[50, 0], stds[60, 0], means[70, 1] = 1000, 8, 4  # the second is hidden behind the first
    found = outlying(means, stds, weights)
    assert np.argwhere(found).tolist() == [[50, 0], [60, 0], [70, 1]]
    assert not outlying(means[45:60], stds[45:60], weights[45:60]).any()  # too few to say what is typical
