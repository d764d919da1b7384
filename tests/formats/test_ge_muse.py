import numpy as np
import pytest
from clinical_formats import edited, muse_waveform, write_muse
from raw_databases import STANDARD, ecg

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError

DIGITAL = ecg(1000, 1)


def test_the_rhythm_of_a_muse_and_not_its_median(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(f"<RestingECG>{muse_waveform('Median', DIGITAL, 500, STANDARD, 1)}</RestingECG>")
    with pytest.raises(RecordError, match="it holds Median, expected a waveform of the type Rhythm"):
        read_ecg(path)


def test_a_checksum_and_offsets_of_muse_are_told(tmp_path, caplog):
    offset = "<FirstSampleBaseline>12</FirstSampleBaseline><LeadID>V1<"
    path = write_muse(tmp_path / "a.xml", DIGITAL, 500)
    read = read_ecg(path)
    assert not caplog.text
    edited(path, (r"<LeadDataCRC32>\d+", "<LeadDataCRC32>1"), ("<LeadID>V1<", offset))
    np.testing.assert_array_equal(read_ecg(path).signal, read.signal)
    assert "FirstSampleBaseline of lead V1 is not zero, and not applied" in caplog.text
    assert "lead II contradicts its checksum" in caplog.text
