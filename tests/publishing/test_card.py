"""Cards that the Hub's own parser reads."""

import importlib.util
from pathlib import Path

import jinja2
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from ecg_jepa import EcgJepaConfig
from ecg_jepa._utils.files import shipped
from ecg_jepa.evaluation.published import paper_run, published_rows
from ecg_jepa.publishing.card import CardResult, as_eval_results, classifier_results, write_model_card

REPOSITORY = Path(__file__).parents[2]
CONFIGS = [path for path in sorted((REPOSITORY / "training" / "configs").glob("vit_*.yaml")) if paper_run(path.stem)]


def parsed(path):
    """Name and results of the model index, through huggingface_hub's parser."""
    index = yaml.safe_load(path.read_text().split("---")[1])["model-index"]
    name, results = model_index_to_eval_results(index)
    assert len(ModelCard.load(path).data.eval_results) == len(results)
    return name, results


def test_metrics_with_intervals_reach_the_model_index(tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_jepa.publishing.card.shipped", lambda kind: tmp_path)
    metrics = {
        "test_metrics": {
            "macro": {
                "auroc": {"value": 0.9, "interval": [0.85, 0.93]},
                "average_precision": {"value": None, "interval": None},
                "f1": {"value": 0.4, "interval": None},
            }
        },
        "test_accuracy": 0.7,
        "test_accuracy_interval": None,
    }
    results = classifier_results(metrics)
    assert results == [
        CardResult("macro AUROC", "roc_auc", 0.9, [0.85, 0.93]),
        CardResult("macro F1", "f1", 0.4),
        CardResult("accuracy", "accuracy", 0.7),
    ]
    (tmp_path / "t.jinja").write_text("---\n{{ metadata }}\n---\n# {{ title }}\n")
    write_model_card(tmp_path / "a.md", "t.jinja", "m", as_eval_results(results, "all", "ptb-xl"), title="A")
    name, found = parsed(tmp_path / "a.md")
    assert name == "m"
    assert [(r.metric_type, r.metric_value, r.dataset_type, r.dataset_config) for r in found] == [
        (result.metric_type, result.value, "ptb-xl", "all") for result in results
    ]
    assert found[0].metric_name == "macro AUROC (95% interval 0.8500 to 0.9300)"
    assert found[0].metric_args == {"confidence_level": 0.95, "interval": [0.85, 0.93]}
    with pytest.raises(jinja2.UndefinedError, match="title"):
        write_model_card(tmp_path / "a.md", "t.jinja", "m")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("cards", REPOSITORY / "training" / "write_published_cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_published_configuration_has_its_card(script, config, tmp_path):
    card = REPOSITORY / "model_cards" / f"{config.stem}.md"
    script.write_card(config, tmp_path / "card.md")
    assert card.read_text() == (tmp_path / "card.md").read_text(), "run training/write_published_cards.py"
    name, results = parsed(card)
    assert "the paper's" in name
    assert all("the paper's result" in result.metric_name for result in results)
    assert all(result.source_name == "Weimann & Conrad 2024" for result in results)
    size, corpus = config.stem.split("_")[1:]
    expected = [row["auroc"] for row in published_rows(size, corpus.replace("ptbxl", "ptb-xl"))]
    assert sorted(result.metric_value for result in results) == sorted(expected)
    assert "There are no weights here" in card.read_text()
    assert "Not a medical device" in card.read_text()


def test_clinical_metrics_on_a_card(tmp_path, monkeypatch):
    def entry(value, *interval):
        return {"value": value, "interval": list(interval) or None}

    sections = (shipped("model_cards") / "sections").resolve()
    monkeypatch.setattr("ecg_jepa.publishing.card.shipped", lambda kind: tmp_path)
    (tmp_path / "sections").symlink_to(sections)
    (tmp_path / "t.jinja").write_text('---\n{{ metadata }}\n---\n{% include "sections/clinical.md.jinja" %}')
    names = ("sensitivity", "specificity", "ppv")
    means = {name: entry(0.5, 0.4, 0.6) for name in (*names, "brier", "expected_calibration_error")}
    group = {"records": 40, "positives": {"a|b": 20, "c": 1}, "macro_auroc": 0.9, "interval": [0.8, 0.95]}
    metrics = {
        "test_metrics": {
            "macro": means | {f"{name}_at_0.90": entry(0.7, 0.6, 0.8) for name in names},
            "per_class": {"a|b": {"sensitivity": entry(0.8, 0.7, 0.9), "specificity": entry(1.0), "ppv": entry(None)}},
            "left_out": {"c": "1 positives"},
            "undefined": {"ppv": ["a|b"]},
        },
        "test_support": {"a|b": 20, "c": 1},
        "decision_thresholds": {"a|b": 0.25, "c": 0.5},
        "sensitivity_thresholds": {"0.90": {"a|b": 0.1}},
        "calibration": {"bins": "equal mass", "temperature": 1.5, "before": means},
        "subgroups": {
            "sex": {"female": group | {"classes_left_out": ["c"], "left_out": None}},
            "age": {
                "< 40": {**group, "macro_auroc": None, "interval": None, "classes_left_out": ["a|b", "c"], "left_out": "too few"}
            },
        },
    }
    values = {"metrics": metrics, "config": EcgJepaConfig(id2label={0: "a|b", 1: "c"}), "database": None}
    write_model_card(tmp_path / "a.md", "t.jinja", "m", **values)
    text = (tmp_path / "a.md").read_text()
    assert "| a&#124;b | 20 | 0.250 | 0.800 (0.700 to 0.900) | 1.000 | - |" in text
    assert "| mean of these | | | 0.500 (0.400 to 0.600) |" in text
    assert "| 0.90 | 0.700 (0.600 to 0.800) | 0.700 (0.600 to 0.800) |" in text
    assert "among the validation and the test records: c." in text
    assert "No ppv, because none or all of the records are predicted: a&#124;b." in text
    assert "a temperature of 1.500" in text
    assert "| sex female | 40 | 0.900 (0.800 to 0.950) | 1 of 2 | c |" in text
    assert "| age &#60; 40 | 40 | - | 0 of 2 | too few |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {7, 5, 6}  # every row as long as its table's head
    del metrics["subgroups"]
    write_model_card(tmp_path / "a.md", "t.jinja", "m", **values | {"database": {"name": "x"}})
    assert "of x, have no sex and age" in (tmp_path / "a.md").read_text()


def test_cards_say_of_whom_records_are_and_whom_to_name(tmp_path, monkeypatch):
    sections = (shipped("model_cards") / "sections").resolve()
    monkeypatch.setattr("ecg_jepa.publishing.card.shipped", lambda kind: tmp_path)
    (tmp_path / "sections").symlink_to(sections)
    both = '{% include "sections/limits.md.jinja" %}{% include "sections/citation.md.jinja" %}'
    (tmp_path / "t.jinja").write_text("---\n{{ metadata }}\n---\n{% set seen = databases -%}" + both)
    known = {"name": "a", "records": 2494, "population": "patients of one country", "attribution": "A. and B., 2020"}
    unknown = {"name": "b", "records": 3, "population": None, "attribution": None}
    write_model_card(tmp_path / "a.md", "t.jinja", "m", databases=[known, unknown])
    text = (tmp_path / "a.md").read_text()
    assert "Of a, it was trained on 2,494 records: patients of one country. Of b, it was trained on 3 records." in text
    assert text.endswith("their pages say how. a: A. and B., 2020.")


def test_text_from_data_stays_text(tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_jepa.publishing.card.shipped", lambda kind: tmp_path)
    (tmp_path / "t.jinja").write_text(
        "| {{ names | cells }} |\n`{{ code }}` {{ html }} {{ link(*good) }} {{ link(*bad) }} {{ link('none', None) }} {{ 1.5 }}\n"
    )
    write_model_card(
        *(tmp_path / "a.md", "t.jinja", "m"),
        names=[
            "a|b",
            "c\nd\n---",
            "*b* ~~s~~ _i_ st_depression __init__ 3:1",
            "https://e.org www.e.org",
            "CC BY-NC 4.0 (100% 'x')",
        ],
        code="a`b",
        html="<script>alert(1)</script> [click](javascript:x) \\| &lt;",
        good=("A|[B]", "https://example.org/a?b=1#c"),
        bad=("C", "javascript:alert(1)"),
    )
    row, line = (tmp_path / "a.md").read_text().splitlines()[-2:]
    assert row == (
        "| a&#124;b | c d --- | &#42;b&#42; &#126;&#126;s&#126;&#126; &#95;i&#95; st_depression &#95;&#95;init&#95;&#95; 3:1 "
        "| https&#58;//e.org www&#46;e.org | CC BY-NC 4.0 (100% 'x') |"
    )
    assert line == (
        "`a&#96;b` &#60;script&#62;alert(1)&#60;/script&#62; &#91;click&#93;(javascript:x) &#92;&#124; &#38;lt; "
        "[A&#124;&#91;B&#93;](https://example.org/a?b=1#c) C none 1.5"
    )
