"""The small checkpoints that come with the repository: complete, as their records say, and what the README does with them."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
import wfdb
from tiny_classifier import CODE
from transformers import AutoFeatureExtractor, AutoModel, pipeline

from ecg_jepa._utils.files import read_json
from ecg_jepa._utils.model_directory import weights_digest
from ecg_jepa._utils.settings import parse_settings
from ecg_jepa.pretraining.objectives.jepa import JepaRecipe
from ecg_jepa.publishing.hub import publishable_files

REPOSITORY = Path(__file__).parents[1]
ENCODER = REPOSITORY / "checkpoints" / "ecg-jepa-xs-100hz"
CLASSIFIER = REPOSITORY / "checkpoints" / "ecg-jepa-xs-100hz-superdiagnostic"
RECORDS = ("00003_lr", "00286_lr", "00703_lr")
both = pytest.mark.parametrize("directory", [ENCODER, CLASSIFIER], ids=lambda path: path.name)


@both
def test_directories_are_complete_and_small(directory):
    assert set(publishable_files(directory)) == {path.name for path in directory.iterdir()} | CODE
    assert read_json(directory / "training_info.json")["weights"] == weights_digest(directory)
    assert sum(path.stat().st_size for path in (REPOSITORY / "checkpoints").rglob("*") if path.is_file()) < 30e6


@both
def test_their_auto_map_names_the_packages_classes(directory):
    maps = [read_json(directory / name)["auto_map"] for name in ("config.json", "preprocessor_config.json")]
    assert not list(directory.glob("*.py"))  # saving and publishing write the code
    for reference in {name for auto_map in maps for name in auto_map.values()}:
        module, name = reference.split(".")
        assert getattr(import_module(f"ecg_jepa.model.{module}"), name).__module__ == f"ecg_jepa.model.{module}"


@both
def test_cards_state_limits_first_then_results_and_whom_to_name(directory):
    card = (directory / "README.md").read_text()
    headings = re.findall(r"^## (.*)$", card, flags=re.MULTILINE)
    assert headings[0] == "Intended use and limits"
    assert "Results" in headings
    assert "patients of one country (Germany)" in card
    assert "CC BY 4.0" in card
    assert "Wagner, P., Strodthoff, N." in card
    assert re.search(r"0\.\d{3,4} \(0\.\d{3} to 0\.\d{3}\)|\| 0\.\d{4} to 0\.\d{4} \|", card)  # figures with intervals


def test_the_encoder_is_of_the_shipped_configuration():
    info = read_json(ENCODER / "training_info.json")
    assert info["configuration"] == "vit_xs_100hz_plus"
    assert parse_settings(JepaRecipe, ["--config", str(ENCODER / "training_config.yaml")]).configuration() == "vit_xs_100hz_plus"
    start = read_json(CLASSIFIER / "metrics.json")["encoder"]
    assert start["digest"] == weights_digest(ENCODER)


def test_records_to_labels():
    classify = pipeline("ecg-classification", model=str(CLASSIFIER))
    found = [{label["label"]: label["score"] for label in classify(str(REPOSITORY / "examples" / name))} for name in RECORDS]
    assert max(found[0], key=found[0].get) in ("NORM", "SR")
    assert max(found[1], key=found[1].get) == "CD"  # a complete left bundle branch block
    assert found[2]["AFIB"] > 2 * max(found[0]["AFIB"], found[1]["AFIB"])


def test_a_record_to_an_embedding():
    extractor, model = AutoFeatureExtractor.from_pretrained(ENCODER), AutoModel.from_pretrained(ENCODER).eval()
    vectors = []
    for name in RECORDS:
        record = wfdb.rdrecord(str(REPOSITORY / "examples" / name))
        inputs = extractor(record.p_signal.T, record.fs, record.sig_name, record.units[0], return_tensors="pt")
        vectors.append(model(**inputs).pooler_output)
    assert torch.cat(vectors).shape == (3, 192)
    assert torch.cat(vectors).isfinite().all()
    assert torch.pdist(torch.cat(vectors)).min() > 1
