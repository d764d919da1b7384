"""The page as a client calls it, over loopback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from raw_databases import ecg, write_record

pytest.importorskip("gradio", reason='the page needs gradio: pip install "ecg_jepa[demo]"')

from gradio_client import Client, handle_file

from ecg_jepa.apps.page import served


@pytest.fixture
def client(classifier_dir, tmp_path):
    write_record(tmp_path / "examples" / "r1", ecg(5000))
    with served(classifier_dir, "tiny", tmp_path / "examples") as page:
        yield Client(page.local_url, verbose=False, download_files=str(tmp_path / "downloads"))


def test_a_record_that_says_everything_is_analysed_at_once(client, tmp_path):
    files = [handle_file(tmp_path / "examples" / f"r1{suffix}") for suffix in (".hea", ".dat")]
    rate, unit, leads, message, ecg_html, labels, vector = client.predict(files, api_name="/show")
    assert rate["value"] == 500
    assert rate["interactive"] is False
    assert (unit["value"], leads["value"].split()[:3]) == ("mV", ["I", "II", "III"])
    assert "r1.hea" in message
    assert "data:image/png;base64," in ecg_html
    assert "AF" in labels
    assert "Not a medical device" in labels
    assert vector["visible"]
    assert Path(vector["value"]).name.endswith(".npy")


def test_what_is_missing_is_filled_in(client, csv):
    rate, _, _, message, ecg_html, labels, _ = client.predict([handle_file(csv)], api_name="/show")
    assert rate["interactive"] is True
    assert "fill in what is missing" in message
    assert not ecg_html
    assert not labels
    message, ecg_html, _, _ = client.predict([handle_file(csv)], None, "", "", api_name="/analyse")
    assert "does not say the sampling rate" in message  # and there is no result before it does
    assert not ecg_html
    message, ecg_html, labels, _ = client.predict([handle_file(csv)], 500, "", "", api_name="/analyse")
    assert "500 Hz" in message
    assert ecg_html
    assert "NORM" in labels


def test_a_refusal_is_in_words(client, tmp_path):
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.7 no ECG at all")
    *_, message, ecg_html, labels, _ = client.predict([handle_file(tmp_path / "notes.pdf")], api_name="/show")
    assert "This record was refused" in message
    assert "notes.pdf" in message
    assert not ecg_html
    assert not labels


def test_nothing_is_left_when_it_is_closed(classifier_dir, tmp_path):
    write_record(tmp_path / "r1", ecg(5000))
    with served(classifier_dir, "tiny") as page:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        client = Client(page.local_url, verbose=False, download_files=str(tmp_path / "downloads"))
        client.predict([handle_file(tmp_path / f"r1{suffix}") for suffix in (".hea", ".dat")], api_name="/show")
        assert list(folder.rglob("*.dat"))
    assert not folder.exists()
    assert "GRADIO_TEMP_DIR" not in os.environ


@pytest.mark.slow
def test_the_command_ends_as_it_is_told_and_leaves_nothing(classifier_dir, tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    words = [sys.executable, "-m", "ecg_jepa", "demo", str(classifier_dir), "--examples_dir", str(tmp_path)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line
        assert list(tmp_path.glob("ecg-jepa-demo-*"))
        process.terminate()
        assert process.wait(timeout=60) == 143
    assert not list(tmp_path.glob("ecg-jepa-demo-*"))


def test_examples_from_anywhere_can_be_picked(classifier_dir, tmp_path, monkeypatch):
    write_record(tmp_path / "far" / "r1", ecg(5000))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with served(classifier_dir, "tiny", tmp_path / "far") as page:
        client = Client(page.local_url, verbose=False, download_files=str(tmp_path / "downloads"))
        files = client.predict("r1", api_name="/pick")
        assert sorted(Path(file).suffix for file in files) == [".dat", ".hea"]
