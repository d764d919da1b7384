from pathlib import Path

import numpy as np
import pytest

from ecg_jepa.data.raw_files import record_files
from ecg_jepa.formats.wfdb_record import read_wfdb
from ecg_jepa.model.configuration_ecg_jepa import STANDARD_LEADS
from ecg_jepa.model.plausibility_ecg_jepa import ImplausibleSignalError, check_clipped, check_plausible, check_rate, flat_leads

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


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


@pytest.mark.parametrize("database", ["ptb-xl-1732-mv", "ptb-xl-500", "cinc2021", "ptb"])
def test_real_records_are_plausible(database):
    directory = SHARED_DATA / database
    if not directory.is_dir():
        pytest.skip(f"no real records in {directory}")
    for name in record_files(directory, directory):
        record = read_wfdb(directory / name)
        check_rate(record.sampling_rate)
        check_plausible(record.signal, record.lead_names)
        with pytest.raises(ImplausibleSignalError, match="looks like uV"):
            check_plausible(record.signal * 1000, record.lead_names)
        with pytest.raises(ImplausibleSignalError, match="looks like mV declared as uV"):
            check_plausible(record.signal / 1000, record.lead_names)
