import numpy as np
import pydicom
import pytest
from clinical_formats import channel, group, write_dicom_groups
from raw_databases import STANDARD, ecg

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError


def channels(step=1.0, **more):
    return [channel(name, step, **more) for name in STANDARD]


def test_sensitivity_correction_baseline_and_unit_of_each_channel(tmp_path):
    digital = ecg(1000, 1)
    own = [
        channel(name, 1.25, unit, ChannelSensitivityCorrectionFactor=factor, ChannelBaseline=baseline)
        for name, unit, factor, baseline in zip(STANDARD, ["uV", "mV"] * 6, [1, 0.9] * 6, [0, 0.5] * 6, strict=True)
    ]
    read = read_ecg(write_dicom_groups(tmp_path / "a.dcm", [group(digital, 500, own)]), check_plausibility=False)
    scale = np.array([1.25e-3, 1.25 * 0.9] * 6)[:, None]
    np.testing.assert_allclose(read.signal, digital * scale + np.array([0, 0.5] * 6)[:, None], rtol=1e-6, atol=1e-6)


def test_no_sensitivity_is_no_unit(tmp_path):
    path = write_dicom_groups(tmp_path / "a.dcm", [group(ecg(1000, 1), 500, channels(unit=None))])
    read = read_ecg(path)
    assert read.unit is None
    np.testing.assert_array_equal(read.signal, ecg(1000, 1))
    assert read_ecg(path, unit="uV").unit == "mV"
    some = channels()
    some[3] = channel("aVR", 1.0, unit=None)
    with pytest.raises(RecordError, match=r"unit of some leads only \(leads \[3\]"):
        read_ecg(write_dicom_groups(tmp_path / "b.dcm", [group(ecg(1000, 1), 500, some)]))


@pytest.mark.parametrize(
    ("label", "origin", "is_read"),
    [
        *(("RHYTHM", "ORIGINAL", True), ("RHYTHM", "DERIVED", True), ("", "ORIGINAL", True), ("", "DERIVED", False)),
        *(("MEDIAN BEAT", "DERIVED", False), ("Median", "ORIGINAL", False), ("Representative Beat", "ORIGINAL", False)),
    ],
)
def test_median_beats_are_never_taken_for_a_rhythm(tmp_path, label, origin, is_read):
    """Wherever they stand, and however long they are."""
    beat = group(ecg(4000, 2), 1000, channels(), label, origin)
    rhythm = group(ecg(1000, 1), 500, channels())
    alone = write_dicom_groups(tmp_path / "alone.dcm", [beat])
    if is_read:
        assert read_ecg(alone).sampling_rate == 1000
        return
    with pytest.raises(RecordError, match=r"no rhythm .*, all median beats or derived, expected a rhythm"):
        read_ecg(alone)
    for number, groups in enumerate(([beat, rhythm], [rhythm, beat])):
        read = read_ecg(write_dicom_groups(tmp_path / f"{number}.dcm", groups))
        np.testing.assert_allclose(read.signal, ecg(1000, 1) / 1000, atol=1e-6)


def test_of_several_rhythms_the_one_with_most_of_the_standard_leads(tmp_path, caplog):
    strip = group(ecg(2000, 1)[:1], 500, [channel("II", 1.0)], "RHYTHM")
    short = group(ecg(1000, 2), 500, channels(), "RHYTHM 1")
    long = group(ecg(1500, 3), 500, channels(), "RHYTHM 2")
    read = read_ecg(write_dicom_groups(tmp_path / "a.dcm", [strip, short, long]))
    np.testing.assert_allclose(read.signal, ecg(1500, 3) / 1000, atol=1e-6)
    assert "of several rhythms, RHYTHM 2 is read, not RHYTHM, RHYTHM 1" in caplog.text


@pytest.mark.parametrize(
    ("scheme", "code", "meaning", "name"),
    [
        *(("MDC", "2:61", "?", "III"), ("SCPECG", "5.6.3-9-62", "?", "aVR"), ("99X", "7", "Lead aVL", "aVL")),
        *(("MDC", "MDC_ECG_LEAD_V3", "?", "V3"), ("99X", "1", "Lead I (Einthoven)", "I"), ("MDC", "2:8", "wrong", "V6")),
    ],
)
def test_names_of_channels(tmp_path, scheme, code, meaning, name):
    item = channel("II", 1.0)
    source = item.ChannelSourceSequence[0]
    source.CodingSchemeDesignator, source.CodeValue, source.CodeMeaning = scheme, code, meaning
    path = write_dicom_groups(tmp_path / "a.dcm", [group(ecg(1000, 1)[:1], 500, [item])])
    assert read_ecg(path).lead_names == [name]
    del item.ChannelSourceSequence
    nameless = group(ecg(1000, 1)[:1], 500, [item])
    assert read_ecg(write_dicom_groups(tmp_path / "b.dcm", [nameless])).lead_names is None
    item.ChannelLabel = "EKG aVF"
    labelled = group(ecg(1000, 1)[:1], 500, [item])
    assert read_ecg(write_dicom_groups(tmp_path / "c.dcm", [labelled])).lead_names == ["aVF"]


def test_padding_is_missing(tmp_path):
    digital = ecg(1000, 1)
    digital[:, 900:] = -32768
    item = group(digital, 500, channels())
    item.add_new("WaveformPaddingValue", "OW", np.int16(-32768).tobytes())
    read = read_ecg(write_dicom_groups(tmp_path / "a.dcm", [item]))
    assert np.isnan(read.signal[:, 900:]).all()
    np.testing.assert_allclose(read.signal[:, :900], digital[:, :900] / 1000, atol=1e-6)


def test_dicom_objects_that_are_no_ecg(tmp_path):
    with pytest.raises(RecordError, match=r"no waveform .*kind 12-lead ECG Waveform Storage, expected an ECG waveform"):
        read_ecg(write_dicom_groups(tmp_path / "a.dcm", []))
    deflated = pydicom.uid.DeflatedExplicitVRLittleEndian
    path = write_dicom_groups(tmp_path / "b.dcm", [group(np.zeros((12, 10000)), 500, channels())], deflated)
    with pytest.raises(RecordError, match="a deflated DICOM object could grow without bounds"):
        read_ecg(path)
    item = group(ecg(1000, 1), 500, channels())
    item.NumberOfWaveformSamples = 2**31
    with pytest.raises(RecordError, match=r"too large \(12 leads of 2,147,483,648 samples"):
        read_ecg(write_dicom_groups(tmp_path / "c.dcm", [item]))
    with pytest.raises(RecordError, match="infinite values"):
        read_ecg(write_dicom_groups(tmp_path / "d.dcm", [group(ecg(1000, 1), 500, channels(1e300, unit="V"))]))
