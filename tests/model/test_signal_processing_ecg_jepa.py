from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_jepa.data.raw_files import record_files
from ecg_jepa.formats.wfdb_record import read_wfdb
from ecg_jepa.model.signal_processing_ecg_jepa import (
    STANDARD_LEADS,
    Ecg,
    ImplausibleSignalError,
    RecordError,
    check_clipped,
    check_complete,
    check_plausible,
    check_rate,
    crop_starts,
    declare,
    flat_leads,
    highpass,
    interpolate_nans,
    lead_name,
    missing_declarations,
    normalize,
    resample,
    select_leads,
    standardize,
    to_millivolts,
    unit_factor,
)

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
NO_CHEST_LEADS = ("JS45542", "JS45544")  # of Ningbo


@pytest.mark.parametrize(
    ("label", "name"),
    [
        *(("ECG I", "I"), ("EKG aVR", "aVR"), ("I-Ref", "I"), ("ECG II-REF", "II"), ("MDC_ECG_LEAD_AVL", "aVL"), ("avf", "aVF")),
        *(
            ("Lead I (Einthoven)", "I"),
            ("ECG Lead V1", "V1"),
            ("Lead_v6", "V6"),
            (" III ", "III"),
            ("V3r", "V3R"),
            ("AVR", "aVR"),
        ),
        *(
            ("aVR (-)", "aVR (-)"),
            ("V1 (inverted)", "V1 (inverted)"),
            ("I (average beat)", "I (average beat)"),
            ("V1 (raw)", "V1"),
        ),
        *(("-aVR", "-aVR"), ("I-II", "I-II"), ("ECG", "ECG"), ("EKG", "EKG"), ("Resp", "Resp"), ("Lead", "Lead"), ("", "")),
    ],
)
def test_names_of_leads(label, name):
    assert lead_name(label) == name


def test_units_are_of_all_leads_or_of_none():
    values = np.ones((2, 3))
    signal, units = to_millivolts("r", values, ["uV", " mV"])
    np.testing.assert_allclose(signal, [[1e-3] * 3, [1.0] * 3])
    assert units == ["uV", "mV"]
    assert to_millivolts("r", values, [None, ""])[1] is None
    with pytest.raises(RecordError, match="unit of some leads only"):
        to_millivolts("r", values, ["mV", None])
    with pytest.raises(RecordError, match="Unknown unit 'mmHg'"):
        to_millivolts("r", values, ["mV", "mmHg"])


def raw(values=((0.0,) * 9,), sampling_rate=None, lead_names=None, unit=None) -> Ecg:
    return Ecg(np.array(values), sampling_rate, lead_names, unit)


def test_rates_that_are_written_in_two_ways_do_not_contradict():
    assert declare("r", raw(sampling_rate=1e6 / 3333), sampling_rate=300).sampling_rate == 1e6 / 3333
    with pytest.raises(RecordError, match="contradicted sampling_rate"):
        declare("r", raw(sampling_rate=300.0), sampling_rate=301)


def test_units_of_one_size_do_not_contradict():
    converted = raw(np.ones((2, 3)), unit="mV")
    assert declare("r", converted, unit="UV", file_units=["uV", "µV"]).unit == "mV"
    with pytest.raises(RecordError, match="says mV, uV"):
        declare("r", converted, unit="mV", file_units=["uV", "mV"])
    with pytest.raises(RecordError, match="unit is declared as uV, but the record itself says mV"):
        declare("r", converted, unit="uV")


def test_leads_without_a_name():
    assert declare("r", raw(np.ones((2, 3)), lead_names=[None, None])).lead_names is None
    with pytest.raises(RecordError, match=r"unnamed leads \(1 of 2 leads have no name"):
        declare("r", raw(np.ones((2, 3)), lead_names=["I", None]))


def test_what_nobody_says_is_missing():
    bare = raw()
    assert missing_declarations(bare) == ["sampling_rate", "unit", "lead_names"]
    assert missing_declarations(bare, any_unit=True) == ["sampling_rate", "lead_names"]
    with pytest.raises(RecordError, match=r"r: undeclared \(it does not say its unit: pass unit=\.\.\. \(\"mV\", \"uV\""):
        check_complete("r", declare("r", bare, 500, ["I"]))
    check_complete("r", declare("r", bare, 500, ["I"], "uV"))


def test_derived_leads_obey_einthoven_and_goldberger():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(8, 100))
    names = ["V6", "v1", "II", "V2", "V3", "i", "V4", "V5"]
    leads = dict(zip(STANDARD_LEADS, select_leads(signal, names, STANDARD_LEADS), strict=True))
    np.testing.assert_array_equal(leads["I"], signal[5])
    np.testing.assert_array_equal(leads["V6"], signal[0])
    np.testing.assert_allclose(leads["I"] + leads["III"], leads["II"])
    np.testing.assert_allclose(leads["aVR"] + leads["aVL"] + leads["aVF"], 0, atol=1e-12)
    np.testing.assert_allclose(leads["aVL"], (leads["I"] - leads["III"]) / 2)
    np.testing.assert_allclose(leads["aVF"], (leads["II"] + leads["III"]) / 2)


@given(st.permutations(range(12)))
def test_any_order_and_case(order):
    signal = np.arange(12.0)[:, None] * np.ones(3)
    names = [STANDARD_LEADS[i].upper() if i % 2 else STANDARD_LEADS[i].lower() for i in order]
    np.testing.assert_array_equal(select_leads(signal[list(order)], names, STANDARD_LEADS), signal)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["I", "II"], "Missing leads V1"),
        (["I", "i"], "repeat"),
        (["I"], "1 lead names for a signal of 2"),
    ],
)
def test_bad_leads_raise(names, message):
    with pytest.raises(ValueError, match=message):
        select_leads(np.zeros((2, 5)), names, STANDARD_LEADS)


def test_interpolation():
    nan = np.nan
    signal = np.array([[nan, 1.0, nan, nan, 4.0, nan], [0.0, 1, 2, 3, 4, 5]])
    np.testing.assert_allclose(interpolate_nans(signal), [[1, 1, 2, 3, 4, 4], [0, 1, 2, 3, 4, 5]])
    assert np.isnan(signal[0, 0])  # the caller's array stays as it is


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN throughout"), (np.inf, "infinite")])
def test_signals_without_values_raise(bad, message):
    with pytest.raises(ValueError, match=message):
        interpolate_nans(np.full((2, 5), bad))


def test_highpass_removes_the_baseline_and_keeps_the_beat():
    time = np.arange(5000) / 500
    beat = np.sin(2 * np.pi * 8 * time)[None]
    filtered = highpass(beat + 2.0 + np.sin(2 * np.pi * 0.05 * time), 500)
    # 0.05 Hz is a tenth of the cutoff: eight poles in all leave 1e-8 of it, away from the edges.
    np.testing.assert_allclose(filtered[:, 2000:-2000], beat[:, 2000:-2000], atol=0.02)
    with pytest.raises(ValueError, match="greater than padlen, which is 15"):
        highpass(beat[:, :10], 500)


@pytest.mark.parametrize("rate", [100, 257, 500, 1000])
def test_amplitude_free_signals_know_no_gain_offset_or_wander(rate):
    rng, time = np.random.default_rng(0), np.arange(10 * rate) / rate
    beats = np.stack([np.sin(2 * np.pi * f * time) for f in (3.0, 8.0, 20.0)])
    inner = slice(3 * rate, -3 * rate)  # a filter at 0.5 Hz feels the edges for seconds
    plain = standardize(beats, rate)
    np.testing.assert_allclose(plain.std(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(plain[:, inner], np.sqrt(2) * beats[:, inner], atol=0.05)
    spoilt = rng.uniform(0.01, 1000, (3, 1)) * (beats + rng.normal(size=(3, 1)) + 0.5 * np.sin(2 * np.pi * 0.05 * time))
    np.testing.assert_allclose(standardize(spoilt, rate)[:, inner], plain[:, inner], atol=0.02)
    if rate > 200:
        hum = beats + 0.5 * np.sin(2 * np.pi * 100 * time)
        np.testing.assert_allclose(standardize(hum, rate)[:, inner], plain[:, inner], atol=0.02)


def test_what_cannot_be_made_amplitude_free_raises():
    signal = np.random.default_rng(0).normal(size=(3, 1000))
    signal[1] = 0.7
    with pytest.raises(ValueError, match=r"Flat leads, .*: number 1 \(counted from 0\)\. Was an electrode off"):
        standardize(signal, 100)
    signal[1, 500:503] = 1e-30  # nothing to blow up
    with pytest.raises(ValueError, match=r"Flat leads, .*: number 1 \(counted from 0\)\. Was an electrode off"):
        standardize(signal, 100)
    signal[1] = np.arange(1000)
    with pytest.raises(ValueError, match=r"fs=80\.0 -> fs/2=40\.0"):
        standardize(signal[:1], 80)
    with pytest.raises(ValueError, match="more than 200 samples, but the record has 150"):
        standardize(signal[:1, :150], 100)


@given(st.sampled_from([100, 257, 360, 400, 1000]))
@settings(deadline=None)
def test_resampling_keeps_duration_and_shape(rate):
    time = np.arange(10 * rate) / rate
    resampled = resample(np.sin(2 * np.pi * 5 * time)[None].astype(np.float32), rate, 500)
    assert resampled.shape == (1, 5000)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled[0], np.sin(2 * np.pi * 5 * np.arange(5000) / 500), atol=1e-3)


def test_normalize_clips():
    result = normalize(np.array([[0.0, 1.0, 100.0]]), np.array([1.0]), np.array([0.5]))
    np.testing.assert_allclose(result, [[-2, 0, 5]])


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1), ("mv", 1), ("uV", 1e-3), ("µV", 1e-3), ("V", 1000)])
def test_units(unit, factor):
    assert unit_factor(unit) == factor


@pytest.mark.parametrize("unit", ["", "volts", "mmHg", None])
def test_unknown_units_raise(unit):
    with pytest.raises(ValueError, match="Unknown unit"):
        unit_factor(unit)


@given(st.integers(1, 3000), st.integers(1, 1500), st.integers(1, 1500))
def test_crops_lie_inside_and_reach_the_end(samples, length, stride):
    starts = crop_starts(samples, length, stride)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, samples - length)


def test_crops_of_the_paper():
    assert crop_starts(5000, 1250, 625) == [0, 625, 1250, 1875, 2500, 3125, 3750]


@pytest.fixture
def signal() -> np.ndarray:
    return np.random.default_rng(0).normal(scale=0.2, size=(12, 5000)).astype(np.float32)


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (1e3, "looks like uV (or a converter's raw numbers) declared as mV, or mV declared as V"),
        (200.0, "looks like uV (or a converter's raw numbers) declared as mV"),
        (1e6, "looks like nV declared as mV, or uV declared as V"),
        (1e-3, "looks like mV declared as uV, or V declared as mV"),
        (1e-6, "e-07 mV, expected 0.02 to 20 mV"),
    ],
)
def test_units_taken_for_others(signal, factor, cause):
    with pytest.raises(ImplausibleSignalError) as raised:
        check_plausible(signal * factor, STANDARD_LEADS)
    assert raised.value.reason == "implausible amplitude"
    assert cause in str(raised.value)
    check_plausible(signal * factor, STANDARD_LEADS, any_amplitude=True)


def test_what_happens_to_real_records_passes(signal):
    spikes = signal.copy()
    spikes[:, ::500] = 40.0  # of a pacemaker
    wandering = signal + 5 * np.sin(np.arange(5000) / 1000)
    offset = signal + 300
    low_voltage = signal / 5
    gaps = signal.copy()
    gaps[:, 1000:3000] = np.nan
    flat = signal.copy()
    flat[[7, 9, 11]] = 0.0  # as in Ningbo's JS20004
    for ecg in (spikes, wandering, offset, low_voltage, signal[:, :40]):
        assert check_plausible(ecg, STANDARD_LEADS) == []
    (told,) = check_plausible(flat, STANDARD_LEADS)
    assert told.startswith("leads V2, V4, V6 do not change")
    assert len(check_plausible(gaps, STANDARD_LEADS)) == 1
    gaps[3:] = signal[3:]
    (told,) = check_plausible(gaps, STANDARD_LEADS)
    assert told == "straight lines take the place of what is missing (NaN) in leads I (40%), II (40%), III (40%)"
    assert flat_leads(flat, STANDARD_LEADS) == ["V2", "V4", "V6"]


def test_a_lead_in_another_unit(signal):
    signal[3] *= 1000
    with pytest.raises(ImplausibleSignalError, match=r"lead aVR span .* is it in another unit than the others"):
        check_plausible(signal, STANDARD_LEADS)


def test_flat_leads_and_the_names_of_them(signal):
    signal[[0, 2, 4, 11]] = [[0.0], [1.0], [2.0], [np.nan]]
    signal[11, 7] = 3.0
    with pytest.raises(ImplausibleSignalError, match=r"mostly missing: lead V6 has no value \(NaN\) in 100.0% of its samples"):
        check_plausible(signal, STANDARD_LEADS)
    signal[11, :2600] = 3.0
    with pytest.raises(ImplausibleSignalError, match=r"flat: leads I, III, aVL, V6 never change, .* at most 3"):
        check_plausible(signal, STANDARD_LEADS)
    with pytest.raises(ImplausibleSignalError, match="flat: no lead ever changes"):
        check_plausible(np.zeros((12, 5000)), STANDARD_LEADS)


def test_leads_that_hardly_change_beside_the_others(signal):
    signal[2] = np.random.default_rng(0).integers(0, 2, 5000) / 1000  # a converter's last bit
    signal[7] /= 1000
    assert flat_leads(signal, STANDARD_LEADS) == ["III", "V2"]
    assert "leads III, V2 do not change" in check_plausible(signal, STANDARD_LEADS)[0]
    assert check_plausible(signal, STANDARD_LEADS, any_amplitude=True) == []  # each lead may have a gain of its own
    signal[[0, 1]] /= 1000
    with pytest.raises(ImplausibleSignalError, match=r"flat: leads I, II, III, V2 .* or are they in another unit\?"):
        check_plausible(signal, STANDARD_LEADS)


@pytest.mark.parametrize("value", [0.0, -32.768])
@pytest.mark.parametrize(("begin", "end"), [(0, 1010), (3990, 5000), (1003, 2013), (2995, 4005)])
def test_padded_records(signal, value, begin, end):
    padded = signal.copy()
    padded[:, begin:end] = value
    for any_amplitude in (False, True):
        with pytest.raises(ImplausibleSignalError, match=r"long constant stretch: lead I holds one value for 20\.2%"):
            check_plausible(padded, STANDARD_LEADS, any_amplitude)
    padded[:, (begin + end) // 2] = 0.1
    check_plausible(padded, STANDARD_LEADS, any_amplitude=True)  # broken in the middle: two shorter stretches
    signal[5, begin:end] = value  # a single lead, too
    with pytest.raises(ImplausibleSignalError, match=r"long constant stretch: lead aVF"):
        check_plausible(signal, STANDARD_LEADS, any_amplitude=True)


def test_seven_seconds_padded_to_ten(signal):
    signal[:, 3500:] = 0.0
    with pytest.raises(ImplausibleSignalError, match=r"30\.0% of the record .* was the record padded\? Cut it"):
        check_plausible(signal, STANDARD_LEADS)


@pytest.mark.parametrize("value", [-9999.0, 1e6])
def test_a_single_absurd_sample(signal, value):
    signal[7, 1234] = value
    with pytest.raises(ImplausibleSignalError, match=r"implausible sample: lead V2 spans .* a code for what is missing"):
        check_plausible(signal, STANDARD_LEADS)
    with pytest.raises(ImplausibleSignalError, match=r"implausible sample: lead V2 spans .* times what a typical lead does"):
        check_plausible(signal * 37, STANDARD_LEADS, any_amplitude=True)


def test_spikes_of_a_pacemaker_pass(signal):
    signal[7, ::1000] = 20.0
    check_plausible(signal, STANDARD_LEADS)
    check_plausible(signal * 37, STANDARD_LEADS, any_amplitude=True)


@pytest.mark.parametrize("rate", [0.5, 49.9, 4000.1, 1e9, float("nan")])
def test_rates(rate):
    with pytest.raises(ImplausibleSignalError, match="implausible rate"):
        check_rate(rate)
    for plausible in (50, 100, 257, 1000, 4000):
        check_rate(plausible)


def test_clipped(signal):
    clipped = np.zeros((12, 100), dtype=bool)
    clipped[:, :45] = clipped[5, :90] = True
    check_clipped(clipped, STANDARD_LEADS, "a limit")
    clipped[5] = True
    with pytest.raises(ImplausibleSignalError, match=r"100\.0% of lead aVF lie beyond a limit"):
        check_clipped(clipped, STANDARD_LEADS, "a limit")
    clipped[:, :52] = True
    clipped[5, 52:] = False
    with pytest.raises(ImplausibleSignalError, match=r"52\.0% of all samples"):
        check_clipped(clipped, STANDARD_LEADS, "a limit")


@pytest.mark.parametrize("database", [pytest.param("ptb-xl-1732-mv", marks=pytest.mark.slow), "ptb-xl-500", "cinc2021", "ptb"])
def test_real_records_are_plausible(database):
    directory = SHARED_DATA / database
    if not directory.is_dir():
        pytest.skip(f"no real records in {directory}")
    for name in record_files(directory, directory):
        record = read_wfdb(directory / name).ecg
        check_rate(record.sampling_rate)
        if name in NO_CHEST_LEADS:
            with pytest.raises(ImplausibleSignalError, match=r"flat: leads .*V3, V4, V5, V6 never change"):
                check_plausible(record.signal, record.lead_names)
            continue
        check_plausible(record.signal, record.lead_names)
        with pytest.raises(ImplausibleSignalError, match="looks like uV"):
            check_plausible(record.signal * 1000, record.lead_names)
        with pytest.raises(ImplausibleSignalError, match="looks like mV declared as uV"):
            check_plausible(record.signal / 1000, record.lead_names)
