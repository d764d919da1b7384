import numpy as np
import pytest
from clinical_formats import channel, write_edf
from raw_databases import STANDARD, ecg

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError


def channels(step=1.0, **more):
    return [channel(name, step, **more) for name in STANDARD]


def test_edf_leads_are_chosen_among_channels(tmp_path, caplog):
    labels = [f"ECG {name}" for name in STANDARD]
    path = write_edf(tmp_path / "a.edf", ecg(1000, 1), 500, labels, extra=(("Resp", 25), ("SpO2", 1)))
    read = read_ecg(path)
    assert (read.lead_names, read.sampling_rate) == (list(STANDARD), 500)
    np.testing.assert_allclose(read.signal, ecg(1000, 1) / 1000, atol=1e-6)
    assert "channels Resp, SpO2 are no leads of the ECG and are left out" in caplog.text
    single = write_edf(tmp_path / "b.edf", ecg(1000, 1)[:1], 500, ["EKG"], extra=(("Resp", 25),))
    assert read_ecg(single).lead_names == ["EKG"]


@pytest.mark.parametrize("suffix", [".edf", ".bdf"])
def test_edf_in_words(tmp_path, suffix):
    with pytest.raises(RecordError, match=r"several rates .*I 500 Hz, V1 250 Hz: save the leads of the ECG at one rate"):
        read_ecg(write_edf(tmp_path / f"a{suffix}", ecg(1000, 1)[:1], 500, ["I"], extra=(("V1", 250),)))
    with pytest.raises(RecordError, match=r"unknown unit .*'mmHg'"):
        read_ecg(write_edf(tmp_path / f"b{suffix}", ecg(1000, 1), 500, unit="mmHg"))
    assert read_ecg(write_edf(tmp_path / f"c{suffix}", ecg(1000, 1), 500, unit=""), unit="uV").unit == "mV"
    path = write_edf(tmp_path / f"d{suffix}", ecg(1000, 1), 500)
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    with pytest.raises(RecordError, match="truncated signal file"):
        read_ecg(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(RecordError, match="wrong length"):
        read_ecg(path)
    path.write_bytes(content[:236] + b"-1      " + content[244:])
    with pytest.raises(RecordError, match="was the recording never closed"):
        read_ecg(path)
