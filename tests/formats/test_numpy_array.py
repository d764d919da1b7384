import numpy as np
import pytest

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError


@pytest.mark.parametrize("values", [np.zeros(5000), np.full((12, 50), "x"), np.zeros((12, 50), complex), np.zeros((0, 5))])
def test_arrays_of_another_kind(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(RecordError, match="expected numbers"):
        read_ecg(tmp_path / "a.npy")


def test_arrays_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(RecordError, match="unreadable signal"):
        read_ecg(tmp_path / "a.npy")
