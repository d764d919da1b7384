import pytest
from clinical_formats import WRITERS
from raw_databases import ecg

from ecg_jepa.data.raw_files import files_digest, find_ecg_files, read_csv, record_files, whole_number


def test_an_extra_field_in_the_first_row_is_no_index(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(ValueError, match=r"t\.csv cannot be read as a table"):
        read_csv(tmp_path / "t.csv", ["a"])


def test_tables_of_spreadsheets_are_answered_with_what_to_do(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path;weight\na;1,5\nb;2,5\n")
    with pytest.raises(ValueError, match="cannot be read as a table of cells separated by commas"):
        read_csv(tmp_path / "t.csv", ["path"], all_named=True)
    (tmp_path / "t.csv").write_bytes("path,näme\na,b\n".encode("latin-1"))
    with pytest.raises(ValueError, match="in UTF-8"):
        read_csv(tmp_path / "t.csv", ["path"], all_named=True)


def test_csv_names_missing_columns(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert read_csv(tmp_path / "t.csv", ["a"]).b.tolist() == ["2"]
    with pytest.raises(ValueError, match=r"lacks the columns c; it has a, b"):
        read_csv(tmp_path / "t.csv", ["a", "c"])
    with pytest.raises(FileNotFoundError, match="as downloaded"):
        read_csv(tmp_path / "u.csv", ["a"])


@pytest.mark.parametrize("headings", ["a,a", "a,", "a,b,a"])
def test_columns_have_names_of_their_own(tmp_path, headings):
    (tmp_path / "t.csv").write_text(headings + "\n" + ",".join("1" for _ in headings.split(",")) + "\n")
    with pytest.raises(ValueError, match=r"t\.csv has columns without a name, or two of one name"):
        read_csv(tmp_path / "t.csv", ["a"])


def test_an_index_without_a_name_may_come_first(tmp_path):
    (tmp_path / "t.csv").write_text(",a\n0,007\n1,7\n")
    assert read_csv(tmp_path / "t.csv", ["a"]).a.tolist() == ["007", "7"]
    with pytest.raises(ValueError, match="without a name"):
        read_csv(tmp_path / "t.csv", ["a"], all_named=True)


@pytest.mark.parametrize("text", ["1.5", "x", "inf", "-1", "nan", "", "1" * 30, "11"])
def test_whole_numbers(text):
    with pytest.raises(ValueError, match=r"fold is .*, expected a whole number from 0 to 10"):
        whole_number(text, "fold", 0, 10)
    assert (whole_number("3", "fold"), whole_number("3.0", "fold"), whole_number(" 15709. ", "id")) == (3, 3, 15709)


def test_links_between_folders_are_followed_once(tmp_path):
    for folder in ("a", "elsewhere/deep"):
        (tmp_path / folder).mkdir(parents=True)
    root = tmp_path / "root"
    (root / "b" / "c").mkdir(parents=True)
    for place in (root / "b", root / "b" / "c", tmp_path / "elsewhere" / "deep"):
        (place / "r.hea").touch()
    for link, target in {
        "here": ".",
        "b/up": "..",
        "b/c/b": "../../b",
        "disk": "/",
        "out": "../elsewhere",
        "too": "../elsewhere",
    }.items():
        (root / link).symlink_to(target)
    (tmp_path / "elsewhere" / "round").symlink_to(".")
    found = record_files(root, root)
    assert found[:2] == ["b/c/r", "b/r"]
    assert len(found) == 3
    assert found[2] in ("out/deep/r", "too/deep/r")


def test_digest_notices_changes(tmp_path):
    path = tmp_path / "f"
    path.write_text("one")
    digest = files_digest([path], "salt")
    assert digest == files_digest([path], "salt")
    assert digest != files_digest([path], "pepper")
    path.write_text("three")
    assert digest != files_digest([path], "salt")


def test_ecgs_of_all_formats_are_found(tmp_path, caplog):
    """WFDB records once, others with their suffix, DICOM without one by its content; what is left out is told."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, write in WRITERS.items():
        write(tmp_path / "deep" / name, ecg(500, 1), 500)
    for name in ("lost.dat", "deep/er/lost.mat", "deep/wfdb.atr", "empty.xml", "broken.dcm", "notes.txt", "README", "a.html"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deep" / "object.dcm").rename(tmp_path / "IM000001")
    (tmp_path / "ptbxl_database.csv").write_text("ecg_id,filename_lr\n1,a\n")
    (tmp_path / "settings.xml").write_text("<settings/>")
    (tmp_path / "deep" / "er" / "loop").symlink_to(tmp_path)
    found = ["IM000001", "broken.dcm", "deep/aecg.xml", "deep/er/lost", "deep/file.bdf", "deep/file.edf", "deep/file.scp"]
    found += ["deep/muse.xml", "deep/philips.xml", "deep/table.csv", "deep/wfdb", "empty.xml", "lost"]
    found += ["ptbxl_database.csv", "settings.xml"]  # which may be damaged ECGs: why they are none is said when they are read
    assert find_ecg_files(tmp_path, tmp_path) == found
    assert "left out: 1 .html, 1 .txt, 1 no extension" in caplog.text
    assert find_ecg_files(tmp_path / "deep", tmp_path)[0] == "deep/aecg.xml"
