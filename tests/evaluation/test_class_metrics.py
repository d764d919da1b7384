"""Figures of the test records with their intervals."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from ecg_jepa.evaluation.bootstrap import exact_bounds, resample_counts, resampled_ranking
from ecg_jepa.evaluation.calibration import brier, expected_calibration_error
from ecg_jepa.evaluation.class_metrics import FigureTable, Thresholds

NAMES = ["common", "other", "rare"]
DECISIONS = ("sensitivity", "specificity", "ppv", "npv")


def records(seed=0, count=400):
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < [0.4, 0.2, 0.01]).astype(int)
    labels[:3, 2] = 1
    return labels, (4 * labels - 3 + 2 * rng.normal(size=labels.shape)).astype(np.float32)


def figures(labels, logits, thresholds=(0.5, 0.4, 0.3), reliable=(True, True, True), names=NAMES):
    chosen = Thresholds(np.array(thresholds), {0.9: np.array(thresholds) / 2}, np.array(reliable))
    return FigureTable(labels, logits, 1 / (1 + np.exp(-logits)), names, chosen, num_resamples=300)


@pytest.fixture(scope="module")
def found():
    labels, logits = records()
    return labels, logits, figures(labels, logits).as_metrics()


def test_values_are_scikit_learns(found):
    labels, logits, metrics = found
    scores = 1 / (1 + np.exp(-logits))
    for column, name in enumerate(NAMES[:2]):
        truth, predicted = labels[:, column], scores[:, column] >= (0.5, 0.4)[column]
        lower = scores[:, column] >= (0.25, 0.2)[column]
        expected = {
            "auroc": roc_auc_score(truth, logits[:, column]),
            "average_precision": average_precision_score(truth, logits[:, column]),
            "f1": f1_score(truth, predicted),
            "sensitivity": recall_score(truth, predicted),
            "specificity": recall_score(truth, predicted, pos_label=0),
            "ppv": precision_score(truth, predicted),
            "npv": precision_score(truth, predicted, pos_label=0),
            "sensitivity_at_0.90": recall_score(truth, lower),
            "specificity_at_0.90": recall_score(truth, lower, pos_label=0),
            "ppv_at_0.90": precision_score(truth, lower),
            "brier": brier(labels, scores)[column],
            "expected_calibration_error": expected_calibration_error(labels, scores)[column],
        }
        assert {key: entry["value"] for key, entry in metrics["per_class"][name].items()} == pytest.approx(expected)


def test_intervals_hold_their_values(found):
    metrics = found[2]
    assert set(metrics["macro"]) == set(metrics["per_class"]["common"])
    for entries in (metrics["macro"], metrics["per_class"]["common"], metrics["per_class"]["other"]):
        for figure, entry in entries.items():
            low, high = entry["interval"]
            assert 0 <= low < entry["value"] < high <= 1, figure


def test_means_are_over_the_classes_that_have_the_figure(found):
    metrics = found[2]
    per_class = metrics["per_class"]
    for figure in DECISIONS:
        values = [per_class[name][figure]["value"] for name in NAMES]
        assert values[2] is None
        assert metrics["macro"][figure]["value"] == pytest.approx(np.mean(values[:2]))
    values = [per_class[name]["auroc"]["value"] for name in NAMES]
    assert metrics["macro"]["auroc"]["value"] == pytest.approx(np.mean(values))


def test_classes_with_few_records_are_named_and_have_no_intervals(found):
    labels, logits, metrics = found
    count = labels[:, 2].sum()
    assert 3 <= count < 10
    assert metrics["left_out"] == {"rare": f"{count} positives among the test records, fewer than 10"}
    rare = metrics["per_class"]["rare"]
    assert {name: rare[name] for name in DECISIONS} == {key: {"value": None, "interval": None} for key in DECISIONS}
    assert rare["auroc"]["value"] is not None
    assert all(entry["interval"] is None for entry in rare.values())
    assert (
        figures(labels, logits, reliable=(True, False, True))
        .as_metrics()["left_out"]["other"]
        .endswith("among the validation records")
    )


def test_all_is_strict_json(found):
    labels, logits, metrics = found
    json.dumps(metrics, allow_nan=False)
    labels = labels.copy()
    labels[:, 1] = 0  # no positives: no figure
    nothing = figures(labels, logits, thresholds=(np.inf, np.inf, 0.5)).as_metrics()  # of the first, nothing is predicted
    json.dumps(nothing, allow_nan=False)
    assert nothing["undefined"] == {"ppv": ["common"], "ppv_at_0.90": ["common"]}
    assert nothing["left_out"]["other"].startswith("0 positives")
    few = figures(labels[:12], logits[:12]).as_metrics()
    json.dumps(few, allow_nan=False)
    assert few["macro"]["sensitivity"] == {"value": None, "interval": None}


def test_intervals_hold_figures_that_repeating_records_moves():
    """Calibrated probabilities of many classes: every resample has a larger calibration error than the records themselves."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 20)).astype(np.float32) - 2
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    names = [str(column) for column in range(20)]
    measured = figures(labels, logits, np.full(20, 0.2), np.ones(20, bool), names)
    errors = measured.measured["expected_calibration_error"]
    assert errors.resampled.mean(axis=1).min() > errors.values.mean()
    for figure in ("expected_calibration_error", "average_precision", "f1"):
        entry = measured.as_metrics()["macro"][figure]
        assert entry["interval"][0] < entry["value"] < entry["interval"][1], figure


def test_none_and_all_are_no_certainty():
    """Ten of ten found: resamples know no other, but the sensitivity may be 0.7."""
    labels = np.repeat([1, 0], [10, 90])[:, None]
    logits = np.where(labels, 5, -5).astype(np.float32)
    entry = figures(labels, logits, [0.5], [True], ["a"]).as_metrics()["per_class"]["a"]
    exact = binomtest(10, 10).proportion_ci(0.95, "exact")
    assert entry["sensitivity"] == {"value": 1.0, "interval": [pytest.approx(exact.low), 1.0]}
    exact = binomtest(0, 90).proportion_ci(0.95, "exact")
    assert exact_bounds(0, 90) == (0.0, pytest.approx(exact.high))
    with pytest.raises(ValueError, match="neither none nor all"):
        exact_bounds(3, 10)


def test_average_precision_of_resamples_is_scikit_learns():
    labels, logits = records(count=120)
    logits = logits.round(0)  # with ties
    counts = resample_counts(120, 30, seed=0)
    ranked = resampled_ranking(labels, logits, counts)
    for resample, auroc, precision in zip(counts, *ranked, strict=True):
        drawn = np.repeat(np.arange(120), resample)
        for column in range(3):
            truth = labels[drawn, column]
            if 0 < truth.sum() < len(truth):
                assert precision[column] == pytest.approx(average_precision_score(truth, logits[drawn, column]))
                assert auroc[column] == pytest.approx(roc_auc_score(truth, logits[drawn, column]))
            else:
                assert np.isnan(precision[column])
                assert np.isnan(auroc[column])
