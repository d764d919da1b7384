import numpy as np
import pytest
import wfdb
from clinical_formats import WRITERS
from raw_databases import ecg

from ecg_jepa.data.raw_files import files_digest, find_ecg_files, read_csv, record_files, whole_number
from ecg_jepa.data.synthetic import FILE_LEADS, write_wfdb_record
from ecg_jepa.formats.ecg import RecordError
from ecg_jepa.formats.wfdb_record import read_wfdb


@pytest.fixture
def record(tmp_path):
    """A record of 12 x 400 samples with values of its own in every place."""
    signal = np.random.default_rng(0).integers(-3000, 3000, (12, 400)).astype(np.int16)
    write_wfdb_record(tmp_path / "r", signal, 500, FILE_LEADS)
    return tmp_path / "r", signal


def header_of(path):
    return path.parent / f"{path.name}.hea"


def test_signal_rate_and_leads(record):
    path, signal = record
    for name in (path, header_of(path)):
        read = read_wfdb(name)
        np.testing.assert_allclose(read.ecg.signal, signal / 1000, atol=1e-6)
        assert read.ecg.signal.dtype == np.float32
        assert read.ecg.sampling_rate == 500
        assert read.ecg.lead_names == list(FILE_LEADS)


def test_written_records_are_valid_wfdb(record):
    path, signal = record
    read = wfdb.rdrecord(str(path), physical=False)
    np.testing.assert_array_equal(read.d_signal.T, signal)
    assert read.checksum == read.calc_checksum()


@pytest.mark.parametrize(("unit", "factor"), [("mv", 1), ("uV", 1e-3), ("V", 1000)])
def test_units_of_the_header(record, unit, factor):
    path, signal = record
    header_of(path).write_text(header_of(path).read_text().replace("/mV", f"/{unit}"))
    np.testing.assert_allclose(read_wfdb(path).ecg.signal, signal / 1000 * factor, rtol=1e-5)


def test_gain_baseline_and_missing_samples(record):
    path, signal = record
    header_of(path).write_text(header_of(path).read_text().replace("1000.0(0)/mV", "200.0(50)/mV"))
    signal[3, 7] = -32768
    signal.T.tofile(f"{path}.dat")
    read = read_wfdb(path).ecg.signal
    assert np.isnan(read[3, 7])
    assert np.isnan(read).sum() == 1
    np.testing.assert_allclose(read[0], (signal[0] - 50.0) / 200, atol=1e-5)


def damage_missing_header(path):
    header_of(path).unlink()


def damage_missing_signal(path):
    (path.parent / "r.dat").unlink()


def damage_truncated(path):
    (path.parent / "r.dat").write_bytes((path.parent / "r.dat").read_bytes()[:-100])


def damage_too_long(path):
    with (path.parent / "r.dat").open("ab") as file:
        file.write(b"\0" * 24)


def damage_empty_header(path):
    header_of(path).write_text("")


def damage_garbage_header(path):
    header_of(path).write_bytes(b"\x00\xff\x13 nothing to see\n")


def damage_count_of_signals(path):
    header_of(path).write_text(header_of(path).read_text().replace("r 12 500", "r 11 500"))


def damage_greek_unit(path):
    header_of(path).write_text(header_of(path).read_text().replace("1000.0(0)/mV", "1.0(0)/µV"))


def damage_unit(path):
    header_of(path).write_text(header_of(path).read_text().replace("/mV", "/mmHg"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_missing_header, "missing header"),
        (damage_missing_signal, "missing signal file"),
        (damage_truncated, "truncated signal file"),
        (damage_too_long, "wrong length"),
        (damage_empty_header, "unreadable header"),
        (damage_garbage_header, "unreadable header"),
        (damage_unit, "unknown unit"),
        (damage_count_of_signals, "unreadable header"),
        (damage_greek_unit, "unreadable header"),  # wfdb would drop the letter and read volts
    ],
)
def test_damaged_records_are_rejected_with_a_reason(record, damage, reason):
    damage(record[0])
    with pytest.raises(RecordError) as error:
        read_wfdb(record[0])
    assert error.value.reason == reason
    assert "r: " in str(error.value)


def write_with_wfdb(directory, fmt):
    signal = np.random.default_rng(0).normal(0, 0.5, (200, 3))
    wfdb.wrsamp(
        "w", fs=360, units=["mV", "uV", "mV"], sig_name=["I", "II", "V1"], p_signal=signal * [1, 1000, 1], fmt=[fmt] * 3,
        adc_gain=[20.0, 0.02, 20.0], baseline=[0, 10, 0], write_dir=str(directory), comments=["Age: 61"],
    )  # fmt: skip


@pytest.mark.parametrize("fmt", ["16", "212", "24", "32", "80"])
def test_other_formats_are_read_through_wfdb(tmp_path, fmt):
    write_with_wfdb(tmp_path, fmt)
    expected = wfdb.rdrecord(str(tmp_path / "w"))
    read = read_wfdb(tmp_path / "w")
    np.testing.assert_array_equal(read.ecg.signal, (expected.p_signal.T * [[1.0], [1e-3], [1.0]]).astype(np.float32))
    assert (read.ecg.lead_names, read.ecg.sampling_rate, read.num_bad_checksums) == (["I", "II", "V1"], 360, 0)
    assert read.comments == ["Age: 61"]


def test_checksums_are_counted_not_judged(record):
    path, signal = record
    signal[[2, 5], 7] += 1
    signal.T.tofile(f"{path}.dat")
    read = read_wfdb(path)
    assert read.num_bad_checksums == 2
    np.testing.assert_allclose(read.ecg.signal, signal / 1000, atol=1e-6)


def test_an_extra_field_in_the_first_row_is_no_index(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(ValueError, match=r"t\.csv cannot be read as a table"):
        read_csv(tmp_path / "t.csv", ["a"])


def test_tables_of_spreadsheets_are_answered_with_what_to_do(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"path;weight\na;1,5\nb;2,5\n")
    with pytest.raises(ValueError, match="cells must be separated by commas"):
        read_csv(tmp_path / "t.csv", ["path"], all_named=True)
    (tmp_path / "t.csv").write_bytes("path,näme\na,b\n".encode("latin-1"))
    with pytest.raises(ValueError, match='save it as "CSV UTF-8"'):
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


@pytest.mark.real_data
def test_every_real_record_equals_wfdb(real_data, monkeypatch):
    headers = sorted(real_data.rglob("*.hea"))
    assert len(headers) >= 551
    through_wfdb = wfdb.rdrecord
    for header in headers:
        expected = through_wfdb(str(header.with_suffix("")))
        monkeypatch.setattr(wfdb, "rdrecord", lambda *_, **__: pytest.fail("not read directly"))
        read = read_wfdb(header)
        monkeypatch.undo()
        np.testing.assert_array_equal(read.ecg.signal, expected.p_signal.T.astype(np.float32))
        assert read.ecg.lead_names == expected.sig_name
        assert read.ecg.sampling_rate == expected.fs
        assert read.comments == [comment.strip() for comment in expected.comments]
        assert read.num_bad_checksums == 0


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
