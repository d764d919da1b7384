import numpy as np
import pytest
from clinical_formats import aecg_series, edited, write_aecg
from raw_databases import STANDARD, ecg

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError

DIGITAL = ecg(1000, 1)


def aecg(tmp_path, *series):
    parts = [f'<component><series><code code="{code}"/>{content}</series></component>' for code, content in series]
    (tmp_path / "a.xml").write_text(f'<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="x">{"".join(parts)}</AnnotatedECG>')
    return tmp_path / "a.xml"


def test_origin_scale_and_unit_of_aecg(tmp_path):
    read = read_ecg(aecg(tmp_path, ("RHYTHM", aecg_series(DIGITAL, 500, STANDARD, 0.0025, "mV", origin=0.125))))
    np.testing.assert_allclose(read.signal, 0.125 + DIGITAL * 0.0025, atol=1e-6)
    assert read.sampling_rate == 500


def test_increments_of_any_unit(tmp_path):
    for increment, rate in (('value="2" unit="ms"', 500), ('value="4000" unit="us"', 250), ('value="0.003333" unit="s"', 300)):
        path = edited(write_aecg(tmp_path / "a.xml", DIGITAL, 500), (r'<increment [^>]*"s"/>', f"<increment {increment}/>"))
        assert read_ecg(path).sampling_rate == pytest.approx(rate, rel=2e-4)


def test_the_rhythm_of_an_aecg_and_not_its_beat(tmp_path, caplog):
    beat = ("REPRESENTATIVE_BEAT", aecg_series(ecg(4000, 9), 1000, STANDARD, 1))
    short, long = (("RHYTHM", aecg_series(ecg(samples, samples), 500, STANDARD, 1)) for samples in (500, 1000))
    with pytest.raises(RecordError, match="it holds REPRESENTATIVE_BEAT, expected a series of the code RHYTHM"):
        read_ecg(aecg(tmp_path, beat))
    read = read_ecg(aecg(tmp_path, beat, short, long))
    np.testing.assert_allclose(read.signal, ecg(1000, 1000) / 1000, atol=1e-6)
    assert "of 2 rhythms, number 2 is read, the longest" in caplog.text
