import json

import numpy as np
import pytest
import torch
import wfdb
from clinical_formats import write_wfdb
from transformers import AutoFeatureExtractor

from ecg_jepa import Ecg, EcgJepaConfig, EcgJepaFeatureExtractor, read_ecg
from ecg_jepa.data.synthetic import Synthetic
from ecg_jepa.data.task_data import TaskData
from ecg_jepa.formats.wfdb_record import read_wfdb
from ecg_jepa.model.configuration_ecg_jepa import STANDARD_LEADS
from ecg_jepa.model.signal_processing_ecg_jepa import ImplausibleSignalError

MEAN, STD = np.linspace(-0.1, 0.1, 12).tolist(), np.linspace(0.1, 0.4, 12).tolist()
RECORD = np.random.default_rng(0).normal(scale=0.2, size=(12, 5000))


@pytest.fixture
def record() -> np.ndarray:
    return RECORD.copy()


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
    raw = read_wfdb(raw_database / "records500" / "00000" / "00006_hr").ecg
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


def test_a_record_shorter_than_a_crop(record):
    extractor = EcgJepaFeatureExtractor(crop_duration=2.5, crop_stride=1.25)
    with pytest.raises(
        ImplausibleSignalError, match=r"too short: the record lasts 1\.2 s, the model was trained on crops of 2\.5 s"
    ):
        extractor(record[:, :600], sampling_rate=500)
    shorter = extractor(record[:, :600], sampling_rate=500, check_plausibility=False, return_tensors="pt").input_values
    assert shorter.shape == (1, 1, 12, 600)
    assert extractor(record[:, :1250], sampling_rate=500, return_tensors="pt").input_values.shape == (1, 1, 12, 1250)
    assert EcgJepaFeatureExtractor()(record[:, :25], sampling_rate=500)["input_values"][0].shape == (12, 25)


def test_records_that_describe_themselves(record, tmp_path):
    """Paths, an Ecg, a wfdb.Record, alone and in lists with arrays, whatever rates they have."""
    digital = np.rint(record * 1000).astype(np.int16)
    path = write_wfdb(tmp_path / "record.hea", digital[::-1], 500, STANDARD_LEADS[::-1])
    extractor = EcgJepaFeatureExtractor(mean=MEAN, std=STD)
    expected = extractor(digital, 500, unit="uV")["input_values"][0]
    forms = [path, str(path), read_ecg(path), wfdb.rdrecord(str(path.with_suffix("")))]
    for form in forms:
        np.testing.assert_allclose(extractor(form)["input_values"][0], expected, atol=1e-5)
    mixed = extractor([*forms, digital / 1000], 500, return_tensors="np")["input_values"][:4]
    np.testing.assert_allclose(mixed, np.stack([expected] * 4), atol=1e-5)
    assert extractor(tuple(forms), return_tensors="pt").input_values.shape == (4, 12, 5000)
    with pytest.raises(ValueError, match="sampling_rate is declared as 250, but the record itself says 500"):
        extractor(forms[3], sampling_rate=250)
    with pytest.raises(ValueError, match="unit is declared as mV, but the record itself says uV"):
        extractor(path, unit="mV")
    with pytest.raises(ValueError, match="does not say its sampling_rate"):
        extractor([*forms, digital / 1000])


def test_a_unit_that_nobody_says(record):
    bare = Ecg(record.astype(np.float32), 500, list(STANDARD_LEADS), None)
    with pytest.raises(ValueError, match="does not say its lead_names: pass lead_names="):
        EcgJepaFeatureExtractor()(bare._replace(lead_names=None), unit="mV")
    with pytest.raises(ValueError, match="does not say its unit"):
        EcgJepaFeatureExtractor()(bare)
    assert len(EcgJepaFeatureExtractor()(bare, unit="mV")["input_values"]) == 1
    assert len(EcgJepaFeatureExtractor(amplitude_free=True)(bare)["input_values"]) == 1
    digital = wfdb.Record(record_name="d", n_sig=12, fs=500, sig_name=list(STANDARD_LEADS), units=["mV"] * 12)
    with pytest.raises(ValueError, match="read it with physical=True"):
        EcgJepaFeatureExtractor()(digital)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": True}, "never padded"),
        ({"padding": "max_length"}, "never padded"),
        ({"truncation": True}, "never truncated"),
        ({"max_length": 5000}, "never truncated"),
        ({"lead_names": "I II III"}, "lead_names must be a list of names"),
        ({"sampling_rate": "500"}, "sampling_rate='500' must be a positive number of Hz"),
    ],
)
def test_what_other_extractors_take_is_answered(record, arguments, message):
    with pytest.raises(ValueError, match=message):
        EcgJepaFeatureExtractor()(record, **({"sampling_rate": 500} | arguments))
    assert len(EcgJepaFeatureExtractor()(record, 500, padding=False, truncation=False, max_length=None)["input_values"]) == 1


def test_other_rates_are_resampled(record):
    values = EcgJepaFeatureExtractor()(record[:, :4000], sampling_rate=400, return_tensors="pt").input_values
    assert values.shape == (1, 12, 5000)


def test_partial_patches_are_cut_off(record):
    values = EcgJepaFeatureExtractor()(record[:, :1013], sampling_rate=500, return_tensors="pt").input_values
    assert values.shape == (1, 12, 1000)


@pytest.mark.parametrize(
    ("signal", "arguments", "message"),
    [
        (np.zeros((12, 500)), {}, "does not say its sampling_rate"),
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
        ([RECORD[:, :500], RECORD[:, :250]], {"sampling_rate": 500, "return_tensors": "pt"}, "different lengths"),
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


def microvolts(record):
    return record * 1000


def raw_numbers(record):
    return (record * 200).astype(np.int16)


def one_valid_sample(record):
    record[6, 1:] = np.nan
    return record


def mostly_flat(record):
    record[:4] = 0
    return record


def offset(record):
    record[6] += 400
    return record


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (microvolts, "looks like uV"),
        (raw_numbers, "raw numbers"),
        (one_valid_sample, r"lead V1 has no value \(NaN\)"),
        (mostly_flat, "leads I, II, III, aVR never change"),
        (offset, "100.0% of lead V1 lie beyond 5 standard deviations"),
    ],
)
def test_what_cannot_be_an_ecg_raises_unless_it_is_let_pass(record, change, reason):
    extractor = EcgJepaFeatureExtractor(mean=MEAN, std=STD)
    implausible = change(record)
    with pytest.raises(ImplausibleSignalError, match=reason):
        extractor(implausible, sampling_rate=500)
    with pytest.raises(ValueError, match=reason):
        extractor([np.ones((12, 5000)) * np.sin(np.arange(5000)), implausible], sampling_rate=500)
    values = extractor(implausible, sampling_rate=500, check_plausibility=False, return_tensors="pt").input_values
    assert torch.isfinite(values).all()


def test_a_flat_lead_is_named(record, caplog):
    record[8] = 1.0
    with caplog.at_level("WARNING", logger="ecg_jepa"):
        EcgJepaFeatureExtractor()(record, sampling_rate=500)
    assert "Of a record, leads V3 do not change" in caplog.text


@pytest.mark.parametrize("rate", [10, 5000, float("nan"), float("inf"), "500", None, True, [500]])
def test_bad_rates_raise(record, rate):
    with pytest.raises(ValueError, match=r"implausible rate|sampling_rate"):
        EcgJepaFeatureExtractor()(record, sampling_rate=rate)


@pytest.mark.parametrize(
    "signal",
    [
        None,
        3.0,
        "path",
        "",
        object(),
        {"signal": 1},
        np.zeros((12, 500), complex),
        np.zeros((12, 500), bool),
        np.zeros((12, 500), "timedelta64[s]"),
        np.zeros((12, 500), "datetime64[s]"),
        np.zeros((12, 500), object),
        np.zeros((12, 500), [("a", float)]),
        np.zeros((2, 2, 12, 500)),
        [[1.0, 2.0], [3.0]],
        [np.zeros((12, 500)), "path"],
        np.ma.masked_array(np.zeros((12, 500)), mask=True),
        [np.ma.masked_array(np.zeros((12, 500)), mask=True)],
    ],
)
def test_what_is_no_record_raises_in_words(signal):
    with pytest.raises((ValueError, TypeError), match=r"record|mask|plain file"):
        EcgJepaFeatureExtractor()(signal, sampling_rate=500)


def test_tensors_of_every_kind(record):
    expected = EcgJepaFeatureExtractor()(record, sampling_rate=500)["input_values"][0]
    for tensor in (torch.tensor(record, requires_grad=True), torch.tensor(record, dtype=torch.bfloat16)):
        np.testing.assert_allclose(EcgJepaFeatureExtractor()(tensor, 500)["input_values"][0], expected, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("std", float("nan")),
        ("mean", [0.0] * 11 + [float("inf")]),
        ("std", "large"),
        ("clip", 0),
        ("clip", -5.0),
        ("clip", float("nan")),
        ("highpass_cutoff", -0.5),
        ("sampling_rate", 0),
        ("sampling_rate", 500.5),
        ("patch_size", 0),
        ("signal_length", "long"),
        ("lead_names", []),
        ("lead_names", "I"),
        ("lead_names", [1, 2]),
    ],
)
def test_saved_values_are_checked(tmp_path, name, value):
    EcgJepaFeatureExtractor(mean=MEAN, std=STD).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError, match=name):
        AutoFeatureExtractor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        {"sampling_rate": 250},
        {"patch_size": 50},
        {"signal_length": 5025},
        {"lead_names": STANDARD_LEADS[::-1]},
        {"amplitude_free": True},
    ],
)
def test_another_models_extractor_is_refused(other):
    config = EcgJepaConfig()
    EcgJepaFeatureExtractor.for_model(config, 0, 1).check_model(config)
    with pytest.raises(ValueError, match=f"does not fit the model: its {next(iter(other))}"):
        EcgJepaFeatureExtractor(**other).check_model(config)


@pytest.mark.parametrize("name", ["mean", "std", "highpass_cutoff", "clip", "lead_names", "sampling_rate"])
def test_what_decides_on_the_numbers_is_not_filled_in(tmp_path, name):
    EcgJepaFeatureExtractor(mean=0.01, std=0.2, highpass_cutoff=0.5).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    values = json.loads(path.read_text())
    del values[name]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"lacks {name}: the model's inputs would be others than in training"):
        EcgJepaFeatureExtractor.from_pretrained(tmp_path)
    given = {"lead_names": list(STANDARD_LEADS), "sampling_rate": 500}.get(name, 0.3)
    assert EcgJepaFeatureExtractor.from_pretrained(tmp_path, **{name: given}) is not None


@pytest.mark.parametrize("options", [{"std": 300.0}, {"std": 0.2, "highpass_cutoff": 200.0}])
def test_statistics_of_another_unit_are_noticed(options):
    slow = np.sin(np.arange(5000) / 30) * np.linspace(0.2, 0.5, 12)[:, None]
    with pytest.raises(ValueError, match=r"span .* standard deviations of the training records, at least 0\.05 are expected"):
        EcgJepaFeatureExtractor(mean=0.0, **options)(slow, 500)
    EcgJepaFeatureExtractor(mean=0.0, std=0.2)(slow, 500)


@pytest.mark.parametrize("names", [set(STANDARD_LEADS), dict.fromkeys(STANDARD_LEADS), (name for name in STANDARD_LEADS)])
def test_names_without_an_order_are_refused(names):
    with pytest.raises(ValueError, match="lead_names must be a list of names"):
        EcgJepaFeatureExtractor(std=0.2)(np.random.default_rng(0).normal(size=(12, 5000)) / 5, 500, names)


def test_rows_of_a_list_keep_what_they_are():
    rows = list(np.random.default_rng(0).normal(size=(12, 5000)) / 5)
    extractor = EcgJepaFeatureExtractor(std=0.2)
    expected = extractor(np.stack(rows), 500)["input_values"][0]
    tensors = [torch.tensor(row).bfloat16() for row in rows]
    np.testing.assert_allclose(extractor(tensors, 500)["input_values"][0], expected, atol=0.02)
    rows[3] = np.ma.masked_greater(rows[3], 0.1)
    with pytest.raises(TypeError, match="would lose its mask"):
        extractor(rows, 500)


@pytest.mark.parametrize("signal", [np.zeros((12, 0)), torch.zeros(12, 5000, device="meta"), np.zeros((0, 5000))])
def test_nothing_is_no_record(signal):
    with pytest.raises(ValueError, match="A record must be numbers"):
        EcgJepaFeatureExtractor()(signal, 100)


def test_a_record_that_would_take_gigabytes_at_the_models_rate():
    with pytest.raises(ValueError, match="36,000,000 values at the higher of 50 and 500 Hz, more than 30,000,000"):
        EcgJepaFeatureExtractor(std=0.2)(np.broadcast_to(np.float32(0.1), (12, 300_000)), 50)


def test_a_unit_that_is_said_counts_for_models_that_see_no_amplitudes_too(record):
    extractor = EcgJepaFeatureExtractor(amplitude_free=True)
    assert len(extractor(record, 500, unit="unknown")["input_values"]) == 1
    assert len(extractor(1000 * record, 500, unit="uV")["input_values"]) == 1
    assert len(extractor(1000 * record, 500, unit="unknown")["input_values"]) == 1
    with pytest.raises(ValueError, match="looks like uV"):
        extractor(1000 * record, 500, unit="mV")
