import base64
import shutil

import numpy as np
import pytest
import torch
from raw_databases import STANDARD, ecg, write_record
from tiny_classifier import save_classifier
from transformers import pipeline

from ecg_jepa import EcgJepaConfig, EcgJepaModel
from ecg_jepa.apps.page_analysis import analyse, find_examples, gather_files, image, note, read_upload, refusal, table
from ecg_jepa.apps.prediction import Classifier
from ecg_jepa.formats.ecg import Ecg

RECORD = Ecg((ecg(6100, 1) / 1000).astype(np.float32), 500.0, list(STANDARD), "mV")


def test_says_what_the_pipeline_says(classifier_dir):
    analysis = analyse(Classifier(classifier_dir), RECORD)
    expected = pipeline("ecg-classification", model=str(classifier_dir))(RECORD)
    assert [(label["label"], label["score"]) for label in analysis.labels] == [(e["label"], e["score"]) for e in expected]
    decided = {label["label"]: label["decision"] for label in analysis.labels}
    assert decided == {"AF": True, "NORM": False, "<b>odd</b>": None}
    assert analysis.embedding.shape == (32,)


def test_the_vector_is_that_of_the_crops(classifier_dir):
    classifier = Classifier(classifier_dir)
    crops = classifier.extractor(RECORD.signal, 500, list(STANDARD), "mV", return_tensors="pt")["input_values"][0]
    with torch.no_grad():
        expected = EcgJepaModel.from_pretrained(classifier_dir)(crops).pooler_output.mean(dim=0)
    np.testing.assert_allclose(analyse(classifier, RECORD).embedding, expected, atol=1e-6)


@pytest.mark.parametrize("num_samples", [1250, 5000, 6100])
def test_draws_ten_seconds_and_where_it_looked(classifier_dir, num_samples):
    ecg = Ecg(RECORD.signal[:, :num_samples], 500.0, list(STANDARD), "mV")
    paper, attention = analyse(Classifier(classifier_dir), ecg).plot.axes[:2]
    assert paper.get_xlim()[1] == pytest.approx(min(10.0, num_samples / 500))
    assert len(attention.patches[0].get_data().values) == min(5000, num_samples) // 25


def test_without_a_query_and_without_leads_there_is_less_to_draw(tmp_path):
    register = Classifier(save_classifier(tmp_path / "register", classifier_pooling="register"))
    assert len(analyse(register, RECORD).plot.axes) == 1
    few = Classifier(save_classifier(tmp_path / "few", lead_names=["I", "II"]))
    assert analyse(few, Ecg(RECORD.signal[:2], 500.0, ["I", "II"], "mV")).plot is None


def test_a_record_without_unit_is_for_amplitude_free_models(classifier_dir, tmp_path):
    nobody_knows = Ecg(7 * RECORD.signal, 500.0, list(STANDARD), None)
    with pytest.raises(ValueError, match="unknown"):
        analyse(Classifier(classifier_dir), nobody_knows)
    analysis = analyse(Classifier(save_classifier(tmp_path / "free", amplitude_free=True)), nobody_knows)
    assert "standard deviations" in analysis.plot.axes[0].get_ylabel()


def test_an_encoder_is_no_classifier(tmp_path):
    EcgJepaModel(EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no classifier"):
        Classifier(tmp_path)


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
        found = read_upload(uploads)
        assert found.name == "r1.hea"
        assert found.ecg.sampling_rate == 500
        assert found.ecg.signal.shape == (12, 5000)
        assert not found.missing
        with gather_files(uploads) as path:
            folder = path.parent
            assert sorted(file.name for file in folder.iterdir()) == ["r1.dat", "r1.hea"]
        assert not folder.exists()


def test_what_a_file_does_not_say_is_asked_for(csv):
    found = read_upload([csv])
    assert found.missing == ["sampling_rate"]
    assert found.ecg.unit == "mV"
    # The file says its unit: what the form holds of it does not count.
    again = read_upload([csv], {"sampling_rate": 500, "unit": "uV", "lead_names": None})
    assert again.missing == []
    assert again.ecg.sampling_rate == 500
    np.testing.assert_array_equal(again.ecg.signal, found.ecg.signal)


def test_what_cannot_be_an_ecg_is_looked_at_and_refused(tmp_path):
    write_record(tmp_path / "r1", ecg(5000), gain="1.0(0)/mV")
    files = [tmp_path / "r1.hea", tmp_path / "r1.dat"]
    assert read_upload(files).ecg.signal.max() > 100
    with pytest.raises(ValueError, match=r"^implausible amplitude: r1\.hea: .* looks like uV"):
        read_upload(files, {})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "No file was given"),
        (["a.dat"], "a header .* Upload them together"),
        (["a.dat", "a.mat"], "a header .* Upload them together"),
        (["a.csv", "b.csv"], "2 files .*: upload one ECG at a time"),
        (["a.hea", "b.hea", "a.dat"], "upload one ECG at a time"),
        (["x/a.hea", "y/a.hea"], "the same name"),
    ],
)
def test_it_must_be_clear_what_is_meant(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=message), gather_files([tmp_path / name for name in names]):
        pass


def test_examples_are_records_with_their_files(tmp_path):
    for name in ("b.hea", "b.dat", "a.csv", "README.md", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.csv").mkdir()
    found = find_examples(tmp_path)
    assert {name: [path.name for path in files] for name, files in found.items()} == {
        "a": ["a.csv"],
        "b": ["b.dat", "b.hea"],
    }


ODD = '<script>alert("x")</script>'
SAFE = "&lt;script&gt;"


def test_text_of_files_and_checkpoints_is_text():
    ecg = Ecg(np.zeros((1, 100), np.float32), None, [ODD], None)
    labels = [{"label": ODD, "score": 0.25, "threshold": None, "decision": None}]
    shown = (image(b"png", ODD), table(labels, False), table([{"label": "a", "score": 0.5}], False, {"a": ODD}))
    for text in (refusal(ValueError(ODD)), note(ODD, ecg, ["unit"]), *shown):
        assert "<script" not in text
        assert SAFE in text


def test_what_a_file_says_and_what_it_does_not():
    ecg = Ecg(np.zeros((2, 1000), np.float32), 250.0, ["I", "II"], "mV")
    assert "2 leads (I, II), 250 Hz, amplitudes in mV, 4 s." in note("a.csv", ecg, [])
    bare = Ecg(np.zeros((2, 1000), np.float32), None, None, None)
    text = note("a.csv", bare, ["sampling_rate", "unit", "lead_names"])
    assert "2 leads without names, no sampling rate, no unit, 1,000 samples." in text
    assert "does not say the sampling rate and the unit and the leads: fill in what is missing, and analyse" in text


def test_decisions_stand_out_and_no_threshold_is_no_decision():
    labels = [
        {"label": "AF", "score": 0.75, "threshold": 0.5, "decision": True},
        {"label": "NORM", "score": 0.25, "threshold": 0.3, "decision": False},
    ]
    text = table(labels, exclusive=False, descriptions={"AF": "atrial fibrillation"})
    assert "atrial fibrillation" in text
    assert text.count('class="decided"') == 1
    assert text.index("decided") < text.index("AF") < text.index("NORM")
    assert "0.750" in text
    assert "0.500" in text
    assert "Any number of these may apply" in text
    assert "Not a medical device" in text
    without = table([{"label": "AF", "score": 0.75}], exclusive=True)
    assert "brings no thresholds" in without
    assert "Exactly one of these applies" in without
    assert 'class="decided"' not in without


def test_an_image_is_in_the_page_itself():
    assert base64.b64encode(b"content").decode() in image(b"content", "an ECG")
