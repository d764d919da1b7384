"""The direct parser against wfdb, on headers of every plausible form."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_jepa.data.synthetic import FILE_LEADS, write_wfdb_record
from ecg_jepa.formats.ecg import RecordError
from ecg_jepa.formats.read import read_ecg
from ecg_jepa.formats.wfdb_record import parse_header, read_wfdb
from ecg_jepa.model.signal_processing_ecg_jepa import unit_factor

NAMES = ["I", "II", "aVR", "avf", "V1", "v 2", "Lead (III)", "MLII#"]
LINE = "r.dat 16 1000.0(0)/mV 16 0 -4 77 0 V1"


@st.composite
def records(draw):
    """Header text and the content of its signal files; samples often are NaN codes or at the ends of the range."""
    num_samples = draw(st.integers(1, 30))
    files = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))  # signals per file
    rate = draw(st.sampled_from(["500", "257", "1000.0", "99.5"]))
    ends = draw(st.sampled_from(["", " 9:05:30", " 12:36:00 13/09/2180", " 23:59:59.25 29/02/2024"]))
    lines = [f"r {sum(files)} {rate} {num_samples}{ends}"]
    contents = {}
    for number, num_signals in enumerate(files):
        offset = draw(st.sampled_from([0, 0, 24, 3]))
        form = draw(st.sampled_from(["16", "16x1"])) + (f"+{offset}" if offset else "")
        values = draw(
            st.lists(
                st.one_of(st.integers(-32768, 32767), st.sampled_from([-32768, 32767, 0])),
                min_size=num_samples * num_signals,
                max_size=num_samples * num_signals,
            )
        )
        samples = np.array(values, "<i2")
        name = f"r{number}.dat"
        contents[name] = b"#" * offset + samples.tobytes()
        for signal in range(num_signals):
            gain = draw(st.sampled_from(["1000", "1000.0", "200.", "4880.5", "0.05"]))
            baseline = draw(st.sampled_from(["", "(0)", "(-512)", "(32767)"]))
            unit = draw(st.sampled_from(["", "/mV", "/mv", "/uV", "/V"]))
            zero = draw(st.sampled_from([0, 1024, -5]))
            checksum = int(samples[signal::num_signals].sum(dtype=np.int64)) + draw(st.sampled_from([0, 65536, -65536, 1]))
            lead = draw(st.sampled_from(NAMES))
            gap = draw(st.sampled_from([" ", "  ", "\t"]))
            fields = (name, form, gain + baseline + unit, "16", str(zero), str(samples[signal]), str(checksum), "0", lead)
            lines.append(gap.join(fields))
    comments = draw(st.lists(st.sampled_from(["# Age: 61", "#Dx: 1,2", "", "#", "  # Sex: Ä"]), max_size=3))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return end.join([*lines, *comments]) + end, contents


@settings(max_examples=120, deadline=None)
@given(record=records())
def test_equal_to_wfdb(record):
    text, contents = record
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r")
        Path(f"{path}.hea").write_bytes(text.encode())
        for name, content in contents.items():
            Path(folder, name).write_bytes(content)
        expected = wfdb.rdrecord(str(path))
        digital = wfdb.rdrecord(str(path), physical=False)
        read = read_wfdb(path)
    assert parse_header(text) is not None
    factors = [[unit_factor(unit)] for unit in expected.units]
    np.testing.assert_array_equal(read.ecg.signal, (expected.p_signal.T * factors).astype(np.float32))
    assert read.ecg.lead_names == expected.sig_name
    assert read.ecg.sampling_rate == expected.fs
    assert [c.encode("ascii", "ignore").decode().strip() for c in read.comments] == [c.strip() for c in expected.comments]
    wrong = np.array(digital.checksum) % 65536 != digital.d_signal.sum(axis=0, dtype=np.int64) % 65536
    assert read.num_bad_checksums == wrong.sum()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        f"r/2 1 500 100\n{LINE}",  # two segments
        f"r 2 500 100\n{LINE}",  # one line for two signals
        f"r 1 500\n{LINE}",  # no length
        f"r 1 500 0\n{LINE}",
        f"r 1 0 100\n{LINE}",
        f"r 1 500/250 100\n{LINE}",  # counter frequency
        f"r 1 500 100 25:00:00\n{LINE}",
        f"r 1 500 100 12:00:00 31/02/2020\n{LINE}",
        f"r 1 500 {'9' * 5000}\n{LINE}",
        "r 1 500 100\n" + LINE.replace(" 16 1", " 212 1"),
        "r 1 500 100\n" + LINE.replace(" 16 1", " 16x2 1"),
        "r 1 500 100\n" + LINE.replace(" 16 1", " 16:3 1"),  # skew
        "r 1 500 100\n" + LINE.replace("1000.0", "-1000.0"),
        "r 1 500 100\n" + LINE.replace("1000.0", "1e3"),
        "r 1 500 100\nr.dat 16 1000",
        f"r 3 500 100\n{LINE}\n{LINE.replace('r.dat', 's.dat')}\n{LINE}",  # a file in two places
        f"r 2 500 100\n{LINE}\n{LINE.replace(' 16 1', ' 16+24 1')}",  # a file with two beginnings
    ],
)
def test_what_is_not_plain_is_left_to_wfdb(text):
    assert parse_header(text) is None


@pytest.mark.parametrize("gain", ["0", "0.0(0)/mV", "-0", "(12)/mV", "/mV", None])
@pytest.mark.parametrize("form", ["16", "212"])
def test_a_gain_that_is_not_known_is_not_taken_for_wfdb_s_200(tmp_path, gain, form):
    line = f"r.dat {form}" if gain is None else LINE.replace("1000.0", gain, 1).replace(" 16 ", f" {form} ", 1)
    (tmp_path / "r.hea").write_text(f"r 1 500 2\n# comment 0\n{line}\n")
    (tmp_path / "r.dat").write_bytes(np.array([-4, 81], "<i2").tobytes())
    assert wfdb.rdheader(str(tmp_path / "r")).adc_gain == [200.0]
    with pytest.raises(RecordError, match=r"amplitude not known .* has no gain: write the units per mV there"):
        read_wfdb(tmp_path / "r")
    record = read_wfdb(tmp_path / "r", any_gain=True)
    np.testing.assert_allclose(record.ecg.signal, wfdb.rdrecord(str(tmp_path / "r")).p_signal.T, rtol=1e-6)  # of any scale
    assert record.units is None
    with pytest.raises(RecordError, match="amplitude not known"):
        read_ecg(tmp_path / "r")
    assert read_ecg(tmp_path / "r", unit="unknown", check_plausibility=False).unit is None


def test_other_channels_without_a_gain_are_missing_throughout(tmp_path):
    other = LINE.replace("1000.0", "0", 1).rsplit(" ", 1)[0] + " RESP"
    (tmp_path / "r.hea").write_text(f"r 2 500 2\n{LINE}\n{other}\n")
    (tmp_path / "r.dat").write_bytes(np.array([[-4, 7], [81, 8]], "<i2").tobytes())
    record = read_wfdb(tmp_path / "r")
    np.testing.assert_allclose(record.ecg.signal[0], [-0.004, 0.081], rtol=1e-6)
    assert np.isnan(record.ecg.signal[1]).all()


def test_plain_headers_are_not_left_to_wfdb(tmp_path, monkeypatch):
    monkeypatch.setattr(wfdb, "rdrecord", lambda *_, **__: pytest.fail("wfdb was asked"))
    (tmp_path / "r.hea").write_text(f"r 1 500 2\n{LINE}\n")
    (tmp_path / "r.dat").write_bytes(np.array([-4, 81], "<i2").tobytes())
    record = read_wfdb(tmp_path / "r")
    np.testing.assert_allclose(record.ecg.signal, [[-0.004, 0.081]], rtol=1e-6)
    assert record.num_bad_checksums == 0


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


@pytest.mark.slow
@pytest.mark.real_data
def test_every_real_record_equals_wfdb(real_data, monkeypatch):
    headers = sorted(real_data.rglob("*.hea"))
    assert len(headers) >= 551
    through_wfdb = wfdb.rdrecord
    directly = 0
    for header in headers:
        expected = through_wfdb(str(header.with_suffix("")))
        # Some headers of the challenge write the month of their date in letters: these are left to wfdb.
        if parse_header(header.read_bytes().decode("ascii", errors="ignore")) is not None:
            directly += 1
            monkeypatch.setattr(wfdb, "rdrecord", lambda *_, **__: pytest.fail("not read directly"))
        read = read_wfdb(header)
        monkeypatch.undo()
        np.testing.assert_array_equal(read.ecg.signal, expected.p_signal.T.astype(np.float32))
        assert read.ecg.lead_names == expected.sig_name
        assert read.ecg.sampling_rate == expected.fs
        assert read.comments == [comment.strip() for comment in expected.comments]
        assert read.num_bad_checksums == 0
    assert directly >= 551
