import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from ecg_jepa.data.ptb_xl_tasks import Task
from ecg_jepa.evaluation.bootstrap import macro_auroc_interval
from ecg_jepa.evaluation.class_metrics import Thresholds
from ecg_jepa.evaluation.results import Predictions, probabilities, summarize
from ecg_jepa.evaluation.subgroups import groups_of

NAMES = ["a", "b", "c"]


def predictions(seed, single_label=False):
    rng = np.random.default_rng(seed)
    labels = np.eye(3)[rng.integers(0, 3, 150)] if single_label else (rng.random((150, 3)) < 0.4).astype(float)
    return Predictions(labels, (3 * labels - 2 + 2 * rng.normal(size=labels.shape)).astype(np.float32))


def task(single_label=False):
    return Task("t", NAMES, np.zeros((0, 3)), np.zeros(0, dtype=bool), single_label)


def test_probabilities():
    logits = np.array([[0.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(probabilities(logits, single_label=True).sum(), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities(logits, single_label=False), [[0.5, 0.880797]], atol=1e-6)


def test_metrics_of_the_test_records():
    validation, test = predictions(0), predictions(1)
    metrics = summarize(task(), validation, test, num_resamples=200)
    assert metrics["test_macro_auroc"] == pytest.approx(roc_auc_score(test.labels, test.logits), abs=1e-12)
    low, high = metrics["test_macro_auroc_interval"]
    assert low < metrics["test_macro_auroc"] < high
    assert metrics["test_support"] == dict(zip(NAMES, test.labels.sum(axis=0), strict=True))
    assert list(metrics["test_average_precision"]) == NAMES
    assert "test_accuracy" not in metrics


def test_parts_of_a_joined_task_are_scored_alone():
    joined = Task("u+v", NAMES, np.zeros((0, 3)), np.zeros(0, dtype=bool), False, {"u": ["c", "a"], "v": ["b"]})
    validation, test = predictions(0), predictions(1)
    parts = summarize(joined, validation, test, num_resamples=200)["test_parts"]
    assert parts["u"]["macro_auroc"] == pytest.approx(roc_auc_score(test.labels[:, [0, 2]], test.logits[:, [0, 2]]))
    assert parts["v"]["macro_auroc"] == pytest.approx(roc_auc_score(test.labels[:, 1], test.logits[:, 1]))
    assert parts["v"]["interval"][0] < parts["v"]["macro_auroc"] < parts["v"]["interval"][1]


def test_a_part_that_cannot_be_scored_has_no_figure():
    joined = Task("u+v", NAMES, np.zeros((0, 3)), np.zeros(0, dtype=bool), False, {"u": ["c", "a"], "v": ["b"]})
    validation, test = predictions(0), predictions(1)
    test.labels[:, 1] = 0
    parts = summarize(joined, validation, test, num_resamples=20)["test_parts"]
    assert parts["v"] == {"macro_auroc": None, "interval": None}
    assert parts["u"]["macro_auroc"] > 0.5


def test_thresholds_come_from_validation():
    validation, test = predictions(0), predictions(1)
    metrics = summarize(task(), validation, test, num_resamples=20)
    chosen = np.array(list(metrics["f1_thresholds"].values()))
    scores = probabilities(validation.logits, False)
    best = [max(f1_score(validation.labels[:, c], scores[:, c] >= t) for t in scores[:, c]) for c in range(3)]
    assert f1_score(validation.labels, scores >= chosen, average=None) == pytest.approx(best)
    expected = f1_score(test.labels, probabilities(test.logits, False) >= chosen, average="macro")
    assert metrics["test_macro_f1"] == pytest.approx(expected)


def test_test_labels_choose_nothing():
    """Neither thresholds nor the temperature change with test records; with validation records, all do."""
    validation, test, other = predictions(0), predictions(1), predictions(2)
    chosen = ("decision_thresholds", "f1_thresholds", "sensitivity_thresholds")
    metrics, again, moved = (
        summarize(task(), *pair, num_resamples=20, calibrate=True)
        for pair in ((validation, test), (validation, other), (other, test))
    )
    assert [metrics[name] for name in chosen] == [again[name] for name in chosen]
    assert metrics["calibration"]["temperature"] == again["calibration"]["temperature"]
    assert metrics["calibration"]["temperature"] != moved["calibration"]["temperature"]
    for name in NAMES:
        assert metrics["decision_thresholds"][name] != moved["decision_thresholds"][name]
        for target in ("0.90", "0.95"):
            assert metrics["sensitivity_thresholds"][target][name] != moved["sensitivity_thresholds"][target][name]


def test_sensitivities_are_reached_on_validation_and_told_of_test_records():
    validation, test = predictions(0), predictions(1)
    metrics = summarize(task(), validation, test, num_resamples=20)
    for target in (0.9, 0.95):
        thresholds = np.array(list(metrics["sensitivity_thresholds"][f"{target:.2f}"].values()))
        reached = recall_score(validation.labels, probabilities(validation.logits, False) >= thresholds, average=None)
        assert (reached >= target).all()
        predicted = probabilities(test.logits, False) >= thresholds
        figures = metrics["test_figures"]["macro"]
        expected = recall_score(test.labels, predicted, average="macro")
        assert figures[f"sensitivity_at_{target:.2f}"]["value"] == pytest.approx(expected)
        expected = precision_score(test.labels, predicted, average="macro")
        assert figures[f"ppv_at_{target:.2f}"]["value"] == pytest.approx(expected)


def test_figures_that_were_there_are_as_they_were():
    metrics = summarize(task(), predictions(0), predictions(1), num_resamples=200)
    figures = metrics["test_figures"]["macro"]
    for name in ("auroc", "average_precision", "f1"):
        assert figures[name]["value"] == pytest.approx(metrics[f"test_macro_{name}"], abs=1e-12)
        assert figures[name]["interval"] == metrics[f"test_macro_{name}_interval"]
    alone = macro_auroc_interval(predictions(1).labels, predictions(1).logits, 200)
    assert metrics["test_macro_auroc_interval"] == [alone.low, alone.high]
    assert metrics["decision_thresholds"] == metrics["f1_thresholds"]


@pytest.mark.parametrize("single_label", [False, True])
def test_a_temperature_changes_probabilities_and_no_order(single_label):
    validation, test = predictions(0, single_label), predictions(1, single_label)
    for part in (validation, test):
        part.logits *= 3  # far too sure
    plain = summarize(task(single_label), validation, test, num_resamples=50)
    scaled = summarize(task(single_label), validation, test, num_resamples=50, calibrate=True)
    assert plain["calibration"]["temperature"] is None
    calibration = scaled["calibration"]
    assert calibration["temperature"] > 1.5
    assert calibration["validation_loss"]["after"] < calibration["validation_loss"]["before"]
    for name in ("test_macro_auroc", "test_auroc", "test_macro_auroc_interval"):
        assert scaled[name] == plain[name]
    for name in ("brier", "expected_calibration_error"):
        assert calibration["before"][name] == plain["test_figures"]["macro"][name]
        assert calibration["after"][name] == scaled["test_figures"]["macro"][name]
    assert calibration["after"]["brier"]["value"] < calibration["before"]["brier"]["value"]
    # Thresholds are on the probabilities that the checkpoint will give.
    scores = probabilities(validation.logits, single_label, calibration["temperature"])
    best = [max(f1_score(validation.labels[:, c], scores[:, c] >= t) for t in scores[:, c]) for c in range(3)]
    chosen = np.array(list(scaled["decision_thresholds"].values()))
    assert f1_score(validation.labels, scores >= chosen, average=None) == pytest.approx(best)
    if not single_label:
        assert scaled["test_macro_f1"] == pytest.approx(plain["test_macro_f1"])


def test_groups_and_all_else_are_strict_json():
    groups = groups_of(np.array(["male", "female", None] * 50, dtype=object), np.arange(150, dtype=float))
    metrics = summarize(task(), predictions(0), predictions(1), num_resamples=50, calibrate=True, groups=groups)
    assert set(metrics["subgroups"]) == {"sex", "age"}
    assert metrics["subgroups"]["age"]["< 40"]["records"] == 40
    few = [Predictions(part.labels[:12], part.logits[:12]) for part in (predictions(0), predictions(1))]
    for content in (metrics, summarize(task(), *few, num_resamples=50, calibrate=True)):
        assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert "subgroups" not in summarize(task(), *few, num_resamples=50)


def test_exclusive_classes_have_an_accuracy():
    validation, test = predictions(0, True), predictions(1, True)
    metrics = summarize(task(True), validation, test, num_resamples=200)
    assert metrics["test_accuracy"] == pytest.approx(accuracy_score(test.labels.argmax(1), test.logits.argmax(1)))
    low, high = metrics["test_accuracy_interval"]
    assert low < metrics["test_accuracy"] < high


def test_classes_that_cannot_be_scored_are_named():
    validation, test = predictions(0), predictions(1)
    validation.labels[:, 0] = 0
    test.labels[:, 2] = 0
    metrics = summarize(task(), validation, test, num_resamples=20)
    assert metrics["classes_left_out"] == ["c"]
    assert list(metrics["f1_thresholds"]) == ["b", "c"]
    assert metrics["test_f1"]["a"] == 0  # nothing could be chosen, so nothing is predicted


def test_rare_classes_are_ranked_but_not_decided():
    """A threshold that two records chose would be an accident: it stands in the results, but does not travel."""
    thresholds = Thresholds(np.array([0.3, 0.001, np.inf]), {}, np.array([True, False, False]))
    found = thresholds.by_name(["common", "rare", "absent"])
    assert found["f1_thresholds"] == {"common": 0.3, "rare": 0.001}
    assert found["decision_thresholds"] == {"common": 0.3}
