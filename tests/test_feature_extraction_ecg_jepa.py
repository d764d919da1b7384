import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor
from ecg_jepa.configuration_ecg_jepa import STANDARD_LEADS
from ecg_jepa.data.synthetic import Synthetic
from ecg_jepa.finetuning.task_data import TaskData
from ecg_jepa.wfdb_ecg_jepa import read_wfdb

MEAN, STD = np.linspace(-0.1, 0.1, 12).tolist(), np.linspace(0.1, 0.4, 12).tolist()


@pytest.fixture
def record() -> np.ndarray:
    return np.random.default_rng(0).normal(scale=0.2, size=(12, 5000))


def test_bare_extractor_has_mean_0_and_std_1(record):
    extractor = EcgJepaFeatureExtractor()
    assert extractor.mean == [0.0] * 12
    assert extractor.std == [1.0] * 12
    values = extractor(record, sampling_rate=500, return_tensors="pt").input_values
    assert values.shape == (1, 12, 5000)
    torch.testing.assert_close(values[0], torch.from_numpy(record.astype(np.float32)))


def test_round_trip(tmp_path):
    extractor = EcgJepaFeatureExtractor(mean=MEAN, std=STD, crop_duration=2.5, crop_stride=1.25, highpass_cutoff=0.5)
    extractor.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is EcgJepaFeatureExtractor
    assert loaded.to_dict() == extractor.to_dict()


def test_order_case_unit_and_container_do_not_matter(record):
    extractor = EcgJepaFeatureExtractor(mean=MEAN, std=STD)
    expected = extractor(record, sampling_rate=500, return_tensors="np").input_values
    order = np.random.default_rng(1).permutation(12)
    names = [STANDARD_LEADS[i].upper() for i in order]
    for signal, unit in ((record[order] * 1000, "uV"), (torch.from_numpy(record[order]) / 1000, "V")):
        actual = extractor(signal, sampling_rate=500, lead_names=names, unit=unit, return_tensors="np").input_values
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    for container in ([record, record], np.stack([record, record]), torch.from_numpy(np.stack([record, record]))):
        assert extractor(container, sampling_rate=500, return_tensors="pt").input_values.shape == (2, 12, 5000)


def test_does_what_training_did(prepared_dir):
    data = TaskData.load(prepared_dir, "superdiagnostic")
    config = EcgJepaConfig(signal_length=5000)
    extractor = EcgJepaFeatureExtractor.for_model(config, data.mean, data.std)
    millivolts = data.database.signal(5) / 1000
    values = extractor(millivolts, sampling_rate=500, lead_names=data.database.info.lead_names, return_tensors="np")
    np.testing.assert_allclose(values.input_values[0], data.normalized(5), atol=1e-6)


def test_amplitude_free_is_what_training_did(raw_database, tmp_path):
    builder = Synthetic(data_dir=str(raw_database), amplitude_free=True)
    assert builder.prepare(tmp_path).amplitude_free
    data = TaskData.load(tmp_path, "superdiagnostic")
    raw = read_wfdb(raw_database / "records500" / "00000" / "00006_hr")
    config = EcgJepaConfig(signal_length=5000, amplitude_free=True)
    extractor = EcgJepaFeatureExtractor.for_model(config, data.mean, data.std)
    extractor.save_pretrained(tmp_path / "extractor")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "extractor")
    values = extractor(raw.signal, raw.sampling_rate, raw.lead_names).input_values[0]
    np.testing.assert_allclose(values, data.normalized(5), atol=3e-3)  # whole thousandths of a standard deviation
    gains = np.random.default_rng(0).uniform(0.1, 50, (12, 1))
    unknown = extractor(raw.signal * gains, raw.sampling_rate, raw.lead_names, unit="unknown").input_values[0]
    np.testing.assert_allclose(unknown, values, atol=1e-4)
    with pytest.raises(ValueError, match="Unknown unit 'unknown'"):
        EcgJepaFeatureExtractor()(raw.signal, raw.sampling_rate, raw.lead_names, unit="unknown")


def test_crops(record):
    extractor = EcgJepaFeatureExtractor(crop_duration=2.5, crop_stride=1.25)
    crops = extractor([record, record], sampling_rate=500, return_tensors="pt").input_values
    assert crops.shape == (2, 7, 12, 1250)
    np.testing.assert_allclose(crops[0, 3], record[:, 1875:3125].astype(np.float32))
    assert extractor(record[:, :600], sampling_rate=500, return_tensors="pt").input_values.shape == (1, 1, 12, 600)


def test_other_rates_are_resampled(record):
    values = EcgJepaFeatureExtractor()(record[:, :4000], sampling_rate=400, return_tensors="pt").input_values
    assert values.shape == (1, 12, 5000)


def test_partial_patches_are_cut_off(record):
    values = EcgJepaFeatureExtractor()(record[:, :1013], sampling_rate=500, return_tensors="pt").input_values
    assert values.shape == (1, 12, 1000)


@pytest.mark.parametrize(
    ("signal", "arguments", "message"),
    [
        (np.zeros((12, 500)), {}, "sampling_rate of the signal is not given"),
        (np.zeros((12, 500)), {"sampling_rate": 0}, "positive"),
        (np.zeros((12, 500)), {"sampling_rate": 500, "unit": "furlong"}, "Unknown unit"),
        (np.zeros((500, 12)), {"sampling_rate": 500}, "transposed"),
        (np.zeros((8, 500)), {"sampling_rate": 500}, "8 leads"),
        (np.zeros((2, 500)), {"sampling_rate": 500, "lead_names": ["I", "II"]}, "Missing leads V1"),
        (np.full((12, 500), np.nan), {"sampling_rate": 500}, "NaN throughout"),
        (np.zeros((12, 24)), {"sampling_rate": 500}, "fewer than one patch"),
        (np.zeros((12, 5025)), {"sampling_rate": 500}, "at most 5000"),
        ([], {"sampling_rate": 500}, "No record"),
        (np.zeros(500), {"sampling_rate": 500}, "leads, samples"),
        ([np.zeros((12, 500)), np.zeros((12, 250))], {"sampling_rate": 500, "return_tensors": "pt"}, "different lengths"),
    ],
)
def test_what_does_not_fit_raises(signal, arguments, message):
    with pytest.raises(ValueError, match=message):
        EcgJepaFeatureExtractor()(signal, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mean": [0.0] * 3},
        {"std": 0.0},
        {"crop_duration": 2.5},
        {"crop_duration": 0.03, "crop_stride": 1.0},
        {"crop_duration": 20.0, "crop_stride": 1.0},
    ],
)
def test_bad_settings_raise(arguments):
    with pytest.raises(ValueError, match=r"mean|std|crop_duration"):
        EcgJepaFeatureExtractor(**arguments)
