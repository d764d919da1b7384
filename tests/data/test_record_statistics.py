import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from raw_databases import STANDARD, ecg, write_challenge, write_mimic

from ecg_jepa.data.builders import challenge_2021
from ecg_jepa.data.builders.code_15 import Code15
from ecg_jepa.data.builders.mimic_iv_ecg import MimicIvEcg
from ecg_jepa.data.builders.ptb_xl import PtbXl
from ecg_jepa.data.record_statistics import PUBLISHED, outlying
from ecg_jepa.data.records import find_database
from ecg_jepa.model.configuration_ecg_jepa import STANDARD_LEADS

REPOSITORY = Path(__file__).parents[2]
BUILDERS = [MimicIvEcg, Code15, PtbXl, *(b for b in challenge_2021.Challenge2021.__subclasses__() if b.for_pretraining)]


def quality_of(directory):
    return json.loads((directory / "quality.json").read_text())


def test_what_is_measured(tmp_path):
    signals = [ecg(5000, seed) for seed in range(4)]
    signals[0][3, 10:20] = -32768  # missing
    signals[1][7] = 0  # a flat lead
    signals[2][0, :5] = 20_000  # 100 mV at 200 units per mV
    write_mimic(tmp_path / "raw", [*signals, np.zeros((12, 5000), np.int16)])
    path = next((tmp_path / "raw").rglob("40000021.hea"))
    path.write_text(path.read_text().replace(" 16 0 ", " 16 0 1", 1).replace(" 0 I\n", "1 0 I\n"))  # another checksum for I
    info = MimicIvEcg(data_dir=str(tmp_path / "raw")).prepare(tmp_path)
    quality = quality_of(tmp_path / "mimic-iv-ecg")
    assert (quality["records"], quality["rejected"]) == (4, {"flat": 1})
    assert quality["hours"] == pytest.approx(40 / 3600)
    assert quality["nan_share"] == pytest.approx(10 / (4 * 12 * 5000))
    assert (quality["clipped_samples"], quality["records_with_flat_leads"]) == (5, 1)
    assert quality["records_with_bad_checksums"] == info.bad_checksums == 1
    assert (quality["shortest_seconds"], quality["longest_seconds"]) == (10, 10)
    database = find_database(tmp_path)
    samples = np.concatenate([database.signal(index) for index in range(4)], axis=1) / 1000
    np.testing.assert_allclose(quality["training_mean_mv"], samples.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(quality["training_std_mv"], samples.std(axis=1), atol=1e-6)
    assert quality["published_training_records"] == 800_035


def test_measured_on_training_folds_only(raw_database, tmp_path):
    PtbXl(data_dir=str(raw_database)).prepare(tmp_path)
    database = find_database(tmp_path)
    fold = database.column("fold")
    quality = quality_of(tmp_path / "ptb-xl")
    assert quality["training_records"] == (fold <= 8).sum() < len(fold)
    _, std = database.lead_statistics(np.flatnonzero(fold <= 8))
    np.testing.assert_allclose(quality["training_std_mv"], std, atol=1e-6)
    assert not np.allclose(std, database.lead_statistics()[1], atol=1e-6)


def test_length_of_records(tmp_path):
    for seconds in (10, 30):
        write_challenge(tmp_path, "cpsc_2018", f"A{seconds:04d}", ecg(500 * seconds, seconds))
    challenge_2021.Cpsc(data_dir=str(tmp_path)).prepare(tmp_path)
    quality = quality_of(tmp_path / "cpsc")
    assert (quality["shortest_seconds"], quality["longest_seconds"]) == (10, 30)


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.database)
def test_published_figures_are_complete(builder):
    published = PUBLISHED[builder.database]
    assert len(published.mean) == len(published.std) == 12
    assert all(0.1 < std < 1 for std in published.std)


def test_published_figures_of_mimic_are_in_our_order():
    """The reference states aVR, aVF, aVL as the files have them: std .133 .143 .141, mean -.019 .004 .014."""
    avl, avf = STANDARD_LEADS.index("aVL"), STANDARD_LEADS.index("aVF")
    assert (PUBLISHED["mimic-iv-ecg"].std[avl], PUBLISHED["mimic-iv-ecg"].std[avf]) == (0.141, 0.143)
    assert (PUBLISHED["mimic-iv-ecg"].mean[avl], PUBLISHED["mimic-iv-ecg"].mean[avf]) == (0.014, 0.004)


def test_the_published_corpus_is_all_there():
    corpus = yaml.safe_load((REPOSITORY / "training" / "configs" / "vit_s_all.yaml").read_text())["databases"]
    assert sorted(PUBLISHED) == sorted(builder.database for builder in BUILDERS)
    assert sorted(PUBLISHED) == sorted(entry.partition("=")[0] for entry in corpus)
    assert sum(published.records for published in PUBLISHED.values()) == pytest.approx(1_011_000, rel=0.01)


@pytest.mark.slow
@pytest.mark.real_data
def test_real_ptb_xl_is_near_its_published_figures(real_data, tmp_path):
    PtbXl(data_dir=str(real_data / "ptb-xl-500")).prepare(tmp_path)
    quality = quality_of(tmp_path / "ptb-xl")
    ratio = np.array(quality["training_std_mv"]) / quality["published_std_mv"]
    assert ((ratio > 0.7) & (ratio < 1.4)).all()


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
