import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_jepa.model.configuration_ecg_jepa import STANDARD_LEADS
from ecg_jepa.model.signal_processing_ecg_jepa import (
    crop_starts,
    highpass,
    interpolate_nans,
    normalize,
    resample,
    select_leads,
    standardize,
    unit_factor,
)


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
    with pytest.raises(ValueError, match="more than 15 samples"):
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
    with pytest.raises(ValueError, match="more than twice that rate, not 80 Hz"):
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
