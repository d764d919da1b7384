import struct

import pytest
from clinical_formats import write_scp
from raw_databases import ecg

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError


def test_an_scp_that_contradicts_its_checksums(tmp_path):
    path = write_scp(tmp_path / "a.scp", ecg(1000, 1), 500)
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"bad checksum|unreadable SCP-ECG"):
        read_ecg(path)


def test_more_samples_than_bits_are_not_waited_for(tmp_path):
    """Room for them would take gigabytes before the first is read."""
    path = write_scp(tmp_path / "a.scp", ecg(1000, 1), 500)
    content = path.read_bytes()
    definition = struct.pack("<IIB", 1, 1000, 1)
    path.write_bytes(content.replace(definition, struct.pack("<IIB", 1, 2**31, 1)))
    with pytest.raises(RecordError, match="lead 1 is said to have 2,147,483,648 samples"):
        read_ecg(path)
