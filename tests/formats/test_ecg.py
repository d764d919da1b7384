from pathlib import Path

import numpy as np
import pytest

from ecg_jepa.formats.ecg import RecordError, as_read, check_length, split_names, whole_rate
from ecg_jepa.model.signal_processing_ecg_jepa import declare


def test_rates_of_rounded_times():
    assert (whole_rate(499.99999), whole_rate(499.5)) == (500.0, 499.5)


def test_a_file_in_microvolts_may_be_declared_in_microvolts():
    ecg, units = as_read(Path("r"), np.ones((2, 3)), units=["uV", "µV"])
    assert (ecg.unit, units) == ("mV", ["uV", "µV"])
    np.testing.assert_allclose(ecg.signal, np.full((2, 3), 1e-3))
    assert declare("r", ecg, unit="UV", file_units=units).unit == "mV"
    with pytest.raises(RecordError, match="contradicted unit"):
        declare("r", ecg, unit="mV", file_units=units)


def test_names_between_spaces_commas_and_semicolons():
    assert split_names(" I,II; V1\nV2 ") == ["I", "II", "V1", "V2"]


@pytest.mark.parametrize(("actual", "reason"), [(9, "truncated signal file"), (1011, "wrong length")])
def test_files_of_another_length_than_stated(actual, reason):
    check_length(Path("r"), "r.dat", 1010, 1010)
    with pytest.raises(RecordError, match=rf"{reason} \(r\.dat has {actual:,} bytes, its header says 1,010\)"):
        check_length(Path("r"), "r.dat", actual, 1010)
