import shutil

import numpy as np
import pytest
from raw_databases import ecg, write_record

from ecg_jepa.apps.page.reading import Declaration, examples_in, look_at, read, together


@pytest.fixture
def wfdb_files(tmp_path):
    """Header and signals, each in a folder of its own, as uploads are."""
    write_record(tmp_path / "whole" / "r1", ecg(5000))
    files = []
    for suffix in (".hea", ".dat"):
        (tmp_path / suffix[1:]).mkdir()
        files.append(shutil.copy(tmp_path / "whole" / f"r1{suffix}", tmp_path / suffix[1:]))
    return files


def test_files_of_a_wfdb_record_come_together_in_any_order(wfdb_files):
    for uploads in (wfdb_files, wfdb_files[::-1]):
        found = look_at(uploads)
        assert found.name == "r1.hea"
        assert found.ecg.sampling_rate == 500
        assert found.ecg.signal.shape == (12, 5000)
        assert not found.missing
        with together(uploads) as path:
            folder = path.parent
            assert sorted(file.name for file in folder.iterdir()) == ["r1.dat", "r1.hea"]
        assert not folder.exists()


def test_what_a_file_does_not_say_is_asked_for(csv):
    found = look_at([csv])
    assert found.missing == ["sampling_rate"]
    assert found.ecg.unit == "mV"
    declared = Declaration.parse(500, "uV", "")  # the unit is said by the file: what the form holds of it does not count
    again = read([csv], declared)
    assert again.missing == []
    assert again.ecg.sampling_rate == 500
    np.testing.assert_array_equal(again.ecg.signal, found.ecg.signal)


def test_nothing_is_an_empty_field():
    assert Declaration.parse(0, "", " ") == Declaration()
    assert Declaration.parse(250.0, "uV", "I, II;III\taVR") == Declaration(250.0, "uV", ["I", "II", "III", "aVR"])


def test_what_cannot_be_an_ecg_is_looked_at_and_refused(tmp_path):
    write_record(tmp_path / "r1", ecg(5000), gain="1.0(0)/mV")
    files = [tmp_path / "r1.hea", tmp_path / "r1.dat"]
    assert look_at(files).ecg.signal.max() > 100
    with pytest.raises(ValueError, match=r"^implausible amplitude: r1\.hea: .* looks like uV"):
        read(files, Declaration())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "No file was given"),
        (["a.dat"], "a header .* Upload them together"),
        (["a.dat", "a.mat"], "a header .* Upload them together"),
        (["a.csv", "b.csv"], "2 files were given .*: upload one ECG at a time"),
        (["a.hea", "b.hea", "a.dat"], "upload one ECG at a time"),
        (["x/a.hea", "y/a.hea"], "the same name"),
    ],
)
def test_it_must_be_clear_what_is_meant(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=message), together([tmp_path / name for name in names]):
        pass


def test_examples_are_records_with_their_files(tmp_path):
    for name in ("b.hea", "b.dat", "a.csv", "README.md", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.csv").mkdir()
    found = examples_in(tmp_path)
    assert {name: [path.rpartition("/")[2] for path in files] for name, files in found.items()} == {
        "a": ["a.csv"],
        "b": ["b.dat", "b.hea"],
    }
