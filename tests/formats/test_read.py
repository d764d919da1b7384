"""One record in every format: the same signal, the same labels; what contradicts, is missing or is no ECG is said in words."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from clinical_formats import (
    WRITERS,
    write_aecg,
    write_csv,
    write_dicom,
    write_edf,
    write_muse,
    write_philips,
    write_scp,
    write_wfdb,
)
from raw_databases import STANDARD, ecg
from transformers import pipeline

import ecg_jepa
from ecg_jepa import Ecg, read_ecg
from ecg_jepa.formats.ecg import RecordError
from ecg_jepa.formats.read import files_of, is_ecg_file, recognize
from ecg_jepa.formats.wfdb_record import read_wfdb
from ecg_jepa.model.signal_processing_ecg_jepa import ImplausibleSignalError

REPOSITORY = Path(__file__).parents[2]
EVERY_FORMAT = pytest.mark.parametrize("name", WRITERS)
MUSE_LEADS = [name for name in STANDARD if name not in ("III", "aVR", "aVL", "aVF")]


@EVERY_FORMAT
@pytest.mark.parametrize(("rate", "step"), [(500, 1.0), (250, 2.5), (1000, 4.88)])
def test_round_trip(tmp_path, name, rate, step):
    """To the resolution of float32: each format has room for whole steps."""
    digital = ecg(2 * rate, 1, rate)
    read = read_ecg(WRITERS[name](tmp_path / name, digital, rate, step=step))
    signal, sampling_rate, lead_names, unit = read
    assert isinstance(read, Ecg)
    assert (sampling_rate, unit, signal.dtype) == (rate, "mV", np.float32)
    assert lead_names == (MUSE_LEADS if name == "muse.xml" else list(STANDARD))
    rows = [STANDARD.index(lead) for lead in lead_names]
    np.testing.assert_allclose(signal, digital[rows] * step / 1000, atol=2e-7 * np.abs(digital).max() * step / 1000)


@pytest.mark.parametrize("differences", [0, 1, 2])
@pytest.mark.parametrize("huffman", [False, True])
def test_every_coding_of_scp(tmp_path, differences, huffman):
    digital = ecg(800, 2, 400)
    path = write_scp(tmp_path / "file.scp", digital, 400, differences=differences, huffman=huffman)
    np.testing.assert_allclose(read_ecg(path).signal, digital / 1000, atol=1e-6)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_coding_of_philips(tmp_path, compressed):
    digital = ecg(800, 2, 400)
    path = write_philips(tmp_path / "file.xml", digital, 400, compressed=compressed, step=5)
    np.testing.assert_allclose(read_ecg(path).signal, digital * 5 / 1000, atol=1e-6)


@pytest.mark.real_data
@EVERY_FORMAT
def test_real_records(real_data, tmp_path, name):
    headers = sorted((real_data / "ptb-xl-500" / "records500" / "00000").glob("*.hea"))[:20:5]
    for header in headers:
        record = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
        signal = record.d_signal.T / np.array(record.adc_gain)[:, None]
        path = WRITERS[name](tmp_path / name, np.rint(signal * 1000).astype(np.int16), record.fs)
        read = read_ecg(path)
        rows = [STANDARD.index(lead) for lead in read.lead_names]
        np.testing.assert_allclose(read.signal, signal[rows], atol=1e-6)


def test_the_same_labels_from_every_format(tmp_path):
    """Real records, through the checkpoint that comes along. MUSE keeps eight leads: the others are compared as derived, too."""
    classify = pipeline("ecg-classification", model=str(REPOSITORY / "checkpoints" / "ecg-jepa-xs-100hz-superdiagnostic"))

    def scores(record, **declared):
        return {label["label"]: label["score"] for label in classify(record, **declared)}

    for example in ("00003_lr", "00286_lr", "00703_lr"):
        source = REPOSITORY / "examples" / example
        signal = read_wfdb(source).ecg.signal
        digital = np.rint(signal * 1000).astype(np.int16)
        expected = dict.fromkeys(WRITERS, scores(source))
        eight = signal[[STANDARD.index(name) for name in MUSE_LEADS]]
        expected["muse.xml"] = scores(eight, sampling_rate=100, lead_names=MUSE_LEADS, unit="mV")
        assert expected["muse.xml"] == pytest.approx(scores(source), abs=5e-3)  # limb leads are rounded to 1 uV each
        for name, write in WRITERS.items():
            assert scores(write(tmp_path / name, digital, 100)) == pytest.approx(expected[name], abs=1e-3), (example, name)
        np.save(tmp_path / "array.npy", digital)
        found = scores(tmp_path / "array.npy", sampling_rate=100, unit="uV")
        assert found == pytest.approx(scores(source), abs=1e-3)


def test_leads_of_any_order_and_spelling(tmp_path):
    digital, spelled = ecg(1000, 3), [f"EKG {name.upper()}" for name in STANDARD[::-1]]
    read = read_ecg(write_csv(tmp_path / "a.csv", digital, 500, spelled))
    assert read.lead_names == list(STANDARD[::-1])
    assert read_ecg(write_wfdb(tmp_path / "w.hea", digital, 500, [name.lower() for name in STANDARD])).lead_names == list(
        STANDARD
    )


def test_what_nobody_says_is_none(tmp_path):
    np.save(tmp_path / "a.npy", ecg(1000, 1))
    assert read_ecg(tmp_path / "a.npy")[1:] == (None, None, None)
    np.testing.assert_array_equal(read_ecg(tmp_path / "a.npy").signal, ecg(1000, 1))
    declared = read_ecg(tmp_path / "a.npy", 500, list(STANDARD), "uV")
    assert declared[1:] == (500, list(STANDARD), "mV")
    np.testing.assert_allclose(declared.signal, ecg(1000, 1) / 1000, atol=1e-6)
    assert read_ecg(tmp_path / "a.npy", unit="unknown").unit is None
    path = write_csv(tmp_path / "b.csv", ecg(1000, 1), 500, unit=None, time=None)
    assert read_ecg(path)[1:] == (None, list(STANDARD), None)
    assert read_ecg(path, sampling_rate=500, unit="uV")[1:] == (500, list(STANDARD), "mV")


@EVERY_FORMAT
def test_contradictions_raise(tmp_path, name):
    path = WRITERS[name](tmp_path / name, ecg(1000, 1), 500)
    said = read_ecg(path)
    same = read_ecg(path, 500, [lead.upper() for lead in said.lead_names], "uV")
    np.testing.assert_array_equal(same.signal, said.signal)
    assert same[1:] == said[1:]
    for declared, what in (
        ({"sampling_rate": 250}, "sampling_rate is declared as 250"),
        ({"unit": "mV"}, "unit is declared as mV, but the record itself says uV"),
        ({"lead_names": said.lead_names[::-1]}, "lead_names is declared as V6 V5"),
    ):
        with pytest.raises(RecordError, match=what) as caught:
            read_ecg(path, **declared)
        assert caught.value.reason == f"contradicted {next(iter(declared))}"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"sampling_rate": "500"}, "sampling_rate='500' must be a positive number"),
        ({"sampling_rate": True}, "must be a positive number"),
        ({"sampling_rate": float("nan")}, "must be a positive number"),
        ({"lead_names": "I II III"}, "lead_names must be a list of names"),
        ({"lead_names": ["I", "II"]}, r"shape \(12, 1000\) with 2 lead names"),
        ({"unit": "furlong"}, "Unknown unit 'furlong'"),
    ],
)
def test_declarations_that_are_none(tmp_path, declared, message):
    np.save(tmp_path / "a.npy", ecg(1000, 1))
    with pytest.raises(ValueError, match=message):
        read_ecg(tmp_path / "a.npy", **declared)


@EVERY_FORMAT
def test_what_cannot_be_an_ecg_is_refused(tmp_path, name):
    path = WRITERS[name](tmp_path / name, ecg(1000, 1), 500, step=0.01)
    with pytest.raises(ImplausibleSignalError, match=f"implausible amplitude: .*{name.partition('.')[0]}") as caught:
        read_ecg(path)
    assert caught.value.reason == "implausible amplitude"
    assert np.abs(read_ecg(path, check_plausibility=False).signal).max() < 0.01


def test_rates_that_no_device_has(tmp_path):
    path = write_csv(tmp_path / "a.csv", ecg(1000, 1), 0.5, unit=None, time="time")
    with pytest.raises(ImplausibleSignalError, match=r"implausible rate: .*a\.csv: 0\.5 Hz"):
        read_ecg(path)
    assert read_ecg(path, check_plausibility=False).sampling_rate == 0.5


def test_files_are_known_by_their_content(tmp_path, caplog):
    """However they are named."""
    for name, write in WRITERS.items():
        if name == "wfdb.hea":
            continue
        path = write(tmp_path / name, ecg(1000, 1), 500)
        for other in ("renamed.csv", "renamed.dcm", "renamed", "renamed.txt", "renamed.dat"):
            path = path.rename(tmp_path / other)
            assert read_ecg(path).sampling_rate == 500
    assert "renamed.dcm is named as DICOM, but is CSV" in caplog.text


def test_any_file_of_a_wfdb_record(tmp_path):
    write_wfdb(tmp_path / "a_b.hea", ecg(1000, 1), 500)
    for name in ("a_b", "a_b.hea", "a_b.dat"):
        assert read_ecg(tmp_path / name).sampling_rate == 500
    with pytest.raises(RecordError, match=r"missing signal file \(no file c, and no WFDB record of that name: no file c\.hea"):
        read_ecg(tmp_path / "c")
    with pytest.raises(RecordError, match=r"missing header \(no file c\.hea\)"):
        read_ecg(tmp_path / "c.dat")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.edf",
            b"not an EDF, but long enough to be text",
            r"it is named \.edf, but is no EDF file; formats that are read: WFDB",
        ),
        ("a.dcm", bytes(1000), r"it is named \.dcm, but is no DICOM file"),
        ("a.csv", b"1,2,3\n4,5,6\n", r"its first row is '1,2,3', expected a header with the names of leads"),
        ("a.csv", bytes(100), "its first row is 'binary data'"),
        ("a.csv", b"", "the file is empty"),
        ("a.mat", b"MATLAB 5.0 MAT-file", "a MATLAB file without a WFDB header beside it"),
        ("a.dat", bytes(100), r"missing header \(no file a\.hea beside it"),
        ("a.npz", b"PK\x03\x04", "it is a ZIP archive"),
        ("a.pdf", b"%PDF-1.7", "it is a PDF: it holds a picture of an ECG"),
        ("a", b"\x89HDF\r\n", "it is an HDF5 file"),
        ("a.xyz", b"\x01\x02\x03", "its content is that of no known format"),
        ("a.xml", b"<html><body/></html>", "the document is a 'html', expected one of AnnotatedECG"),
    ],
)
def test_unknown_files_are_answered_in_their_own_terms(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=message):
        read_ecg(tmp_path / name)


@pytest.mark.parametrize("name", ["a.edf", "a.xml", "b\0.edf", "x" * 300 + ".dcm"])
def test_files_that_are_not_there(tmp_path, name):
    with pytest.raises(RecordError, match=r"missing signal file|unreadable file"):
        read_ecg(f"{tmp_path}/{name}")
    with pytest.raises(ValueError, match="path must be the path of a file, but is a int"):
        read_ecg(3)


@pytest.mark.parametrize("suffix", ["", ".csv", ".dcm", ".edf", ".npy", ".scp", ".xml"])
def test_only_plain_files_are_opened(tmp_path, suffix):
    """A pipe would be waited for without end."""
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(RecordError, match="no plain file"):
            read_ecg(tmp_path / f"{name}{suffix}")


@pytest.mark.parametrize(
    ("write", "module", "library"),
    [
        (write_dicom, "pydicom", "DICOM is read with the library pydicom"),
        (write_edf, "pyedflib", "EDF is read with the library pyedflib"),
        (write_philips, "ecgdatakit.parsing.codecs.xli", "XML is read with the library ecgdatakit"),
        (write_scp, "ecgdatakit.parsing.parsers.scp_ecg", "SCP-ECG is read with the library ecgdatakit"),
    ],
)
def test_a_missing_library_is_named_with_what_to_install(tmp_path, monkeypatch, write, module, library):
    path = write(tmp_path / "file.xml", ecg(500, 1), 500)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecordError, match=rf'{library}.*: pip install "ecg_jepa\[formats\]"') as caught:
        read_ecg(path)
    assert caught.value.reason == f"{module.partition('.')[0]} is missing"


@pytest.mark.parametrize("write", [write_csv, write_aecg, write_muse, write_wfdb])
def test_other_formats_need_no_library(tmp_path, monkeypatch, write):
    path = write(tmp_path / "file.xml", ecg(500, 1), 500)
    for library in ("pydicom", "pyedflib", "sierraecg", "ecgdatakit", "defusedxml", "pandas"):
        monkeypatch.setitem(sys.modules, library, None)
    assert read_ecg(path).sampling_rate == 500


def test_what_is_listed_and_read(tmp_path):
    for name, write in WRITERS.items():
        path = write(tmp_path / name, ecg(500, 1), 500)
        assert is_ecg_file(path) == (name != "wfdb.hea")
        assert [Path(file).name for file in files_of(path)] == ([name] if name != "wfdb.hea" else ["wfdb.hea", "wfdb.dat"])
    assert [Path(file).name for file in files_of(tmp_path / "absent")] == ["absent.hea", "absent.dat", "absent.mat"]
    assert [Path(file).name for file in files_of(tmp_path / "absent.edf")] == ["absent.edf"]
    (tmp_path / "object.dcm").rename(tmp_path / "1.2.840.1")
    assert is_ecg_file(tmp_path / "1.2.840.1")
    assert recognize(tmp_path / "1.2.840.1") == "DICOM"


def test_what_lies_beside_ecgs_is_no_ecg(tmp_path):
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.6\r%\xe2\xe3\xcf\xd3\r\n1 0 obj\r")
    (tmp_path / "old.txt").write_bytes(b"made on a Macintosh,\rwith returns\ralone\r")
    os.mkfifo(tmp_path / "pipe")
    for name in ("report.pdf", "old.txt", "pipe"):
        assert not is_ecg_file(tmp_path / name)
    with pytest.raises(RecordError, match="it is a PDF"):
        read_ecg(tmp_path / "report.pdf")
    with pytest.raises(RecordError, match="unknown format"):
        read_ecg(tmp_path / "old.txt")


def test_they_are_exported():
    assert ecg_jepa.read_ecg is read_ecg
    assert ecg_jepa.Ecg._fields == ("signal", "sampling_rate", "lead_names", "unit")
