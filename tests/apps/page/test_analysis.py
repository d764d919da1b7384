import numpy as np
import pytest
import torch
from raw_databases import STANDARD, ecg
from tiny_classifier import save_classifier
from transformers import pipeline

from ecg_jepa import EcgJepaConfig, EcgJepaModel
from ecg_jepa.apps.page.analysis import Analyst
from ecg_jepa.formats.read import Ecg

RECORD = Ecg((ecg(6100, 1) / 1000).astype(np.float32), 500.0, list(STANDARD), "mV")


def test_says_what_the_pipeline_says(classifier_dir):
    analysis = Analyst(classifier_dir).analyse(RECORD)
    expected = pipeline("ecg-classification", model=str(classifier_dir))(RECORD)
    assert [(label["label"], label["score"]) for label in analysis.labels] == [(e["label"], e["score"]) for e in expected]
    decided = {label["label"]: label["decision"] for label in analysis.labels}
    assert decided == {"AF": True, "NORM": False, "<b>odd</b>": None}
    assert analysis.embedding.shape == (32,)


def test_the_vector_is_that_of_the_crops(classifier_dir):
    analyst = Analyst(classifier_dir)
    crops = analyst.extractor(RECORD.signal, 500, list(STANDARD), "mV", return_tensors="pt")["input_values"][0]
    with torch.no_grad():
        expected = EcgJepaModel.from_pretrained(classifier_dir)(crops).pooler_output.mean(dim=0)
    np.testing.assert_allclose(analyst.analyse(RECORD).embedding, expected, atol=1e-6)


@pytest.mark.parametrize("num_samples", [1250, 5000, 6100])
def test_draws_ten_seconds_and_where_it_looked(classifier_dir, num_samples):
    figure = Analyst(classifier_dir).analyse(Ecg(RECORD.signal[:, :num_samples], 500.0, list(STANDARD), "mV")).figure
    paper, attention = figure.axes[:2]
    assert paper.get_xlim()[1] == pytest.approx(min(10.0, num_samples / 500))
    assert len(attention.patches[0].get_data().values) == min(5000, num_samples) // 25


def test_without_a_query_and_without_leads_there_is_less_to_draw(tmp_path):
    register = Analyst(save_classifier(tmp_path / "register", classifier_pooling="register"))
    assert len(register.analyse(RECORD).figure.axes) == 1
    few = Analyst(save_classifier(tmp_path / "few", lead_names=["I", "II"]))
    assert few.analyse(Ecg(RECORD.signal[:2], 500.0, ["I", "II"], "mV")).figure is None


def test_a_record_without_unit_is_for_amplitude_free_models(classifier_dir, tmp_path):
    nobody_knows = Ecg(7 * RECORD.signal, 500.0, list(STANDARD), None)
    with pytest.raises(ValueError, match="unknown"):
        Analyst(classifier_dir).analyse(nobody_knows)
    analysis = Analyst(save_classifier(tmp_path / "free", amplitude_free=True)).analyse(nobody_knows)
    assert "standard deviations" in analysis.figure.axes[0].get_ylabel()


def test_an_encoder_is_no_classifier(tmp_path):
    EcgJepaModel(EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no classifier"):
        Analyst(tmp_path)
