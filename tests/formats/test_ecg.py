import numpy as np
import pytest

from ecg_jepa.formats.ecg import Ecg, RecordError, as_read, whole_rate
from ecg_jepa.model.signal_processing_ecg_jepa import declare, lead_name, to_millivolts


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


def test_rates_that_are_written_in_two_ways_do_not_contradict():
    assert declare("r", Ecg(np.zeros((1, 9)), 1e6 / 3333, None, None), sampling_rate=300).sampling_rate == 1e6 / 3333
    with pytest.raises(RecordError, match="contradicted sampling_rate"):
        declare("r", Ecg(np.zeros((1, 9)), 300.0, None, None), sampling_rate=301)
    assert (whole_rate(499.99999), whole_rate(499.5)) == (500.0, 499.5)


def test_units_of_one_size_do_not_contradict():
    ecg, units = as_read("r", np.ones((2, 3)), units=["uV", "µV"])
    assert declare("r", ecg, unit="UV", file_units=units).unit == "mV"
    with pytest.raises(RecordError, match="says mV, uV"):
        declare("r", ecg, unit="mV", file_units=["uV", "mV"])


def test_leads_without_a_name():
    assert declare("r", Ecg(np.ones((2, 3)), None, [None, None], None)).lead_names is None
    with pytest.raises(RecordError, match=r"unnamed leads \(1 of 2 leads have no name"):
        declare("r", Ecg(np.ones((2, 3)), None, ["I", None], None))
