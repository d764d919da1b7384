import numpy as np
import pytest
from clinical_formats import write_dicom, write_edf, write_scp
from ecgdatakit.parsing.parser import FileParser
from raw_databases import ecg

from ecg_jepa import read_ecg


def by_ecgdatakit(path):
    """Leads in mV as that library reads them, which is trusted with SCP-ECG alone."""
    return {lead.label: lead.samples for lead in FileParser.parse(path).leads}


@pytest.mark.parametrize("write", [write_dicom, write_edf, write_scp])
def test_libraries_agree(tmp_path, write):
    path = write(tmp_path / "file.edf", ecg(1000, 1), 500, step=2.5)
    read = read_ecg(path)
    for name, row in zip(read.lead_names, read.signal, strict=True):
        np.testing.assert_allclose(row, by_ecgdatakit(path)[name], atol=1e-6)
