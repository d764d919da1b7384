import numpy as np
import pytest
from clinical_formats import edited, write_philips

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError


def test_what_xli_would_grow_to_is_bounded(tmp_path):
    """A flat line takes next to nothing."""
    path = write_philips(tmp_path / "a.xml", np.zeros((12, 20_000), np.int16), 500)
    assert path.stat().st_size < 50_000
    edited(path, (r'durationperchannel="\d+"', 'durationperchannel="1000"'))
    with pytest.raises(RecordError, match="wrong length"):
        read_ecg(path)
