import numpy as np
import pytest
from clinical_formats import write_csv
from raw_databases import STANDARD, ecg

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError

DIGITAL = ecg(1000, 1)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("time", "rate"), [("time", 500), ("t_ms", 500), ("time (ms)", 250), ("Time [s]", 360), ("t", 1000), ("time_s", 500)]
)
def test_times_and_delimiters(tmp_path, delimiter, time, rate):
    read = read_ecg(write_csv(tmp_path / "a.csv", DIGITAL, rate, unit="mV", time=time, delimiter=delimiter))
    assert read[1:] == (rate, list(STANDARD), "mV")
    np.testing.assert_allclose(read.signal, DIGITAL / 1000, atol=1e-6)


def edited(tmp_path, change, **options):
    path = write_csv(tmp_path / "a.csv", DIGITAL, 500, **options)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    return path


def in_header(old, new):
    return lambda lines: [lines[0].replace(old, new), *lines[1:]]


def in_row(number, old, new):
    return lambda lines: [line.replace(old, new, 1) if row == number else line for row, line in enumerate(lines)]


def without_first_cell(lines):
    return [lines[0], *(line[line.index(",") :] for line in lines[1:])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:1], "it has a header, but no samples"),
        (lambda lines: lines[:2], "there is one row alone, expected the same to 0.1 %"),
        (lambda lines: [*lines[:500], *lines[501:]], "its steps range from 0.002 to 0.004, expected the same to 0.1 %"),
        (in_row(5, "0.008", "0.0081"), "irregular times .*declare sampling_rate"),
        (in_row(5, "0.008", "noon"), "could not convert string 'noon' to float64 at row 4, column 1"),
        (in_row(5, ",", ",1,"), "row 5"),
        (in_header("I (uV)", "I (Einthoven)"), "Unknown unit 'Einthoven'"),
        (in_header("V6 (uV)", "V6"), r"unit of some leads only \(leads \[11\]"),
        (in_header("V6 (uV)", ""), r"columns \[13\] \(counted from 1\) have no name"),
        (in_header("time (s)", "time (fortnights)"), "unknown unit of time"),
        (in_header("V6 (uV)", "t"), "2 of 13 columns are times"),
        (without_first_cell, "irregular times"),
    ],
)
def test_tables_in_words(tmp_path, change, message):
    with pytest.raises(RecordError, match=message):
        read_ecg(edited(tmp_path, change))


def test_units_of_each_column(tmp_path):
    path = edited(tmp_path, in_header("V6 (uV)", "V6 [mV]"))
    read = read_ecg(path, check_plausibility=False)
    np.testing.assert_allclose(read.signal[11], DIGITAL[11], rtol=1e-6)
    np.testing.assert_allclose(read.signal[:11], DIGITAL[:11] / 1000, atol=1e-6)
    with pytest.raises(RecordError, match="unit is declared as uV, but the record itself says mV, uV"):
        read_ecg(path, unit="uV")


def test_empty_cells_are_missing(tmp_path):
    def change(lines):
        cells = [line.split(",") for line in lines]
        cells[10][3] = cells[11][12] = cells[12][1] = cells[12][2] = ""
        return [",".join(row) for row in cells]

    read = read_ecg(edited(tmp_path, change))
    missing = np.argwhere(np.isnan(read.signal)).tolist()
    assert missing == [[0, 11], [1, 11], [2, 9], [11, 10]]


def test_a_header_is_needed(tmp_path):
    with pytest.raises(RecordError, match=r"no header .*expected a header with the names of leads"):
        read_ecg(edited(tmp_path, lambda lines: lines[1:]))


def test_decimal_commas_are_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", DIGITAL, 500, unit="mV", delimiter=";")
    path.write_text(path.read_text().replace(".", ","))
    with pytest.raises(RecordError, match="Decimal commas are not read: write points"):
        read_ecg(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_encodings_and_the_micro_sign(tmp_path, encoding):
    path = write_csv(tmp_path / "a.csv", DIGITAL, 500, unit="µV")
    text = path.read_text()
    for line_end in ("\r\n", "\r"):
        path.write_bytes(text.replace("\n", line_end).encode(encoding))
        np.testing.assert_allclose(read_ecg(path).signal, DIGITAL / 1000, atol=1e-6)


def test_one_lead_and_quoted_names(tmp_path):
    (tmp_path / "a.csv").write_text("II\n" + "\n".join(map(str, DIGITAL[0])))
    assert read_ecg(tmp_path / "a.csv").signal.shape == (1, 1000)
    (tmp_path / "b.csv").write_text('"I","II"\n' + "\n".join(f'"{i}","{j}"' for i, j in DIGITAL[:2].T))
    np.testing.assert_array_equal(read_ecg(tmp_path / "b.csv").signal, DIGITAL[:2])


@pytest.mark.parametrize(("delimiter", "names"), [("\t", "I II V1"), (",", "I II V1"), (",", "I")])
def test_samples_that_are_missing_keep_their_time(tmp_path, delimiter, names):
    names = names.split()
    rows = [delimiter.join(["0.1"] * len(names)) for _ in range(100)]
    rows[30:60] = [delimiter * (len(names) - 1)] * 30
    (tmp_path / "a.csv").write_text("\n".join([delimiter.join(names), *rows, "", ""]))
    signal = read_ecg(tmp_path / "a.csv", 100, unit="mV", check_plausibility=False).signal
    assert signal.shape == (len(names), 100)
    assert np.isnan(signal[:, 30:60]).all()
    assert not np.isnan(signal[:, :30]).any()


@pytest.mark.parametrize("header", ["I,II" + " " * 100_000 + "(x", "I" + " " * 100_000 + "x,II"])
def test_a_header_of_spaces_takes_no_time(tmp_path, header):
    """Regular expressions that try everything would take hours."""
    (tmp_path / "a.csv").write_text(f"{header}\n0.1,0.2\n")
    with pytest.raises(RecordError, match=r"unnamed leads|unknown format|no header|wrong number|contradicted"):
        read_ecg(tmp_path / "a.csv", 100, lead_names=["I", "II"], unit="mV")
