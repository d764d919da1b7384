import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from ecg_jepa.data.tasks import Task
from ecg_jepa.evaluation.bootstrap import bootstrap
from ecg_jepa.evaluation.calibration import brier, expected_calibration_error, probabilities
from ecg_jepa.evaluation.metrics import auroc, macro
from ecg_jepa.evaluation.results import Predictions, as_metrics, groups_of, measure_test, read_metrics, score_groups, summarize
from ecg_jepa.evaluation.thresholds import Thresholds

NAMES = ["a", "b", "c"]
CLASSES = ["common", "other", "rare"]
DECISIONS = ("sensitivity", "specificity", "ppv", "npv")


def predictions(seed, single_label=False):
    rng = np.random.default_rng(seed)
    labels = np.eye(3)[rng.integers(0, 3, 150)] if single_label else (rng.random((150, 3)) < 0.4).astype(float)
    return Predictions(labels, (3 * labels - 2 + 2 * rng.normal(size=labels.shape)).astype(np.float32))


def task(single_label=False):
    return Task("t", NAMES, np.zeros((0, 3)), np.zeros(0, dtype=bool), single_label)


def best_f1(labels, scores):
    """The highest F1 of each class over all thresholds."""
    predicted = scores >= scores[:, None]  # a row per record whose score is the threshold
    return (2 * (predicted & (labels > 0)).sum(axis=1) / (predicted.sum(axis=1) + labels.sum(axis=0))).max(axis=0)


def test_metrics_of_the_test_records():
    validation, test = predictions(0), predictions(1)
    metrics = summarize(task(), validation, test, num_resamples=200)
    auroc = metrics["test_metrics"]["macro"]["auroc"]
    assert auroc["value"] == pytest.approx(roc_auc_score(test.labels, test.logits), abs=1e-12)
    assert auroc["interval"][0] < auroc["value"] < auroc["interval"][1]
    assert metrics["test_support"] == dict(zip(NAMES, test.labels.sum(axis=0), strict=True))
    assert list(metrics["test_metrics"]["per_class"]) == NAMES
    assert "test_accuracy" not in metrics


def test_parts_of_a_joined_task_are_scored_alone():
    joined = Task("u+v", NAMES, np.zeros((0, 3)), np.zeros(0, dtype=bool), False, {"u": ["c", "a"], "v": ["b"]})
    validation, test = predictions(0), predictions(1)
    parts = summarize(joined, validation, test, num_resamples=200)["test_parts"]
    assert parts["u"]["macro_auroc"] == pytest.approx(roc_auc_score(test.labels[:, [0, 2]], test.logits[:, [0, 2]]))
    assert parts["v"]["macro_auroc"] == pytest.approx(roc_auc_score(test.labels[:, 1], test.logits[:, 1]))
    assert parts["v"]["interval"][0] < parts["v"]["macro_auroc"] < parts["v"]["interval"][1]


def test_a_part_that_cannot_be_scored_has_no_metric():
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
    best = best_f1(validation.labels, scores)
    assert f1_score(validation.labels, scores >= chosen, average=None) == pytest.approx(best)
    expected = f1_score(test.labels, probabilities(test.logits, False) >= chosen, average="macro")
    assert metrics["test_metrics"]["macro"]["f1"]["value"] == pytest.approx(expected)


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


def test_sensitivities_are_reached_on_validation_and_measured_on_test_records():
    validation, test = predictions(0), predictions(1)
    metrics = summarize(task(), validation, test, num_resamples=20)
    for target in (0.9, 0.95):
        thresholds = np.array(list(metrics["sensitivity_thresholds"][f"{target:.2f}"].values()))
        reached = recall_score(validation.labels, probabilities(validation.logits, False) >= thresholds, average=None)
        assert (reached >= target).all()
        predicted = probabilities(test.logits, False) >= thresholds
        macro = metrics["test_metrics"]["macro"]
        expected = recall_score(test.labels, predicted, average="macro")
        assert macro[f"sensitivity_at_{target:.2f}"]["value"] == pytest.approx(expected)
        expected = precision_score(test.labels, predicted, average="macro")
        assert macro[f"ppv_at_{target:.2f}"]["value"] == pytest.approx(expected)


def test_the_interval_of_the_summary_is_that_of_the_auroc_alone():
    metrics = summarize(task(), predictions(0), predictions(1), num_resamples=200)
    test = predictions(1)
    alone = bootstrap(lambda counts: macro(auroc(test.labels, test.logits, counts)), 150, 200)
    assert metrics["test_metrics"]["macro"]["auroc"] == {"value": alone.value, "interval": [alone.low, alone.high]}
    assert metrics["decision_thresholds"] == metrics["f1_thresholds"]


def test_every_metric_is_stored_once():
    """No number of the macro metrics stands a second time anywhere in the file."""
    metrics = summarize(task(), predictions(0), predictions(1), num_resamples=50, calibrate=True)
    content = json.dumps(metrics)
    for entry in metrics["test_metrics"]["macro"].values():
        assert content.count(json.dumps(entry["value"])) == 1


def test_earlier_files_are_read_under_the_names_of_today(tmp_path):
    macro = {"auroc": {"value": 0.7, "interval": None}}
    old = {"test_macro_auroc": 0.7, "test_figures": {"macro": macro}, "settings": {"max_steps": 3}}
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    found = read_metrics(tmp_path)
    assert found["test_metrics"]["macro"] == macro
    assert found["settings"] == {"max_steps": 3, "calibrate": False}


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
    before, after = (metrics["test_metrics"] for metrics in (plain, scaled))
    for name in ("auroc", "average_precision"):
        assert after["macro"][name] == before["macro"][name]
        assert [row[name] for row in after["per_class"].values()] == [row[name] for row in before["per_class"].values()]
    for name in ("brier", "expected_calibration_error"):
        assert calibration["before"][name] == before["macro"][name]
    assert after["macro"]["brier"]["value"] < before["macro"]["brier"]["value"]
    # Thresholds are on the probabilities that the checkpoint will give.
    scores = probabilities(validation.logits, single_label, calibration["temperature"])
    best = best_f1(validation.labels, scores)
    chosen = np.array(list(scaled["decision_thresholds"].values()))
    assert f1_score(validation.labels, scores >= chosen, average=None) == pytest.approx(best)
    if not single_label:
        assert after["macro"]["f1"]["value"] == pytest.approx(before["macro"]["f1"]["value"])


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
    assert metrics["test_metrics"]["per_class"]["a"]["f1"]["value"] == 0  # nothing could be chosen, so nothing is predicted


def records(seed=0, count=400):
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < [0.4, 0.2, 0.01]).astype(int)
    labels[:3, 2] = 1
    return labels, (4 * labels - 3 + 2 * rng.normal(size=labels.shape)).astype(np.float32)


def measured(labels, logits, thresholds=(0.5, 0.4, 0.3), reliable=(True, True, True)):
    chosen = Thresholds(np.array(thresholds), {0.9: np.array(thresholds) / 2}, np.array(reliable))
    return measure_test(labels, logits, 1 / (1 + np.exp(-logits)), chosen, num_resamples=300)


def entries(labels, logits, thresholds=(0.5, 0.4, 0.3), reliable=(True, True, True), names=CLASSES):
    return as_metrics(measured(labels, logits, thresholds, reliable), labels, names, np.array(reliable))


@pytest.fixture(scope="module")
def found():
    labels, logits = records()
    return labels, logits, entries(labels, logits)


def test_values_are_scikit_learns(found):
    labels, logits, metrics = found
    scores = 1 / (1 + np.exp(-logits))
    for column, name in enumerate(CLASSES[:2]):
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
    for found_entries in (metrics["macro"], metrics["per_class"]["common"], metrics["per_class"]["other"]):
        for metric, entry in found_entries.items():
            low, high = entry["interval"]
            assert 0 <= low < entry["value"] < high <= 1, metric


def test_means_are_over_the_classes_that_have_the_metric(found):
    metrics = found[2]
    per_class = metrics["per_class"]
    for metric in DECISIONS:
        values = [per_class[name][metric]["value"] for name in CLASSES]
        assert values[2] is None
        assert metrics["macro"][metric]["value"] == pytest.approx(np.mean(values[:2]))
    values = [per_class[name]["auroc"]["value"] for name in CLASSES]
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
    assert entries(labels, logits, reliable=(True, False, True))["left_out"]["other"].endswith("among the validation records")


def test_all_is_strict_json(found):
    labels, logits, metrics = found
    json.dumps(metrics, allow_nan=False)
    labels = labels.copy()
    labels[:, 1] = 0  # no positives: no metric
    nothing = entries(labels, logits, thresholds=(np.inf, np.inf, 0.5))  # of the first, nothing is predicted
    json.dumps(nothing, allow_nan=False)
    assert nothing["undefined"] == {"ppv": ["common"], "ppv_at_0.90": ["common"]}
    assert nothing["left_out"]["other"].startswith("0 positives")
    few = entries(labels[:12], logits[:12])
    json.dumps(few, allow_nan=False)
    assert few["macro"]["sensitivity"] == {"value": None, "interval": None}


def test_intervals_hold_metrics_that_repeating_records_moves():
    """Calibrated probabilities of many classes: every resample has a larger calibration error than the records themselves."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 20)).astype(np.float32) - 2
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    names = [str(column) for column in range(20)]
    chosen = (np.full(20, 0.2), np.ones(20, bool))
    errors = measured(labels, logits, *chosen)["expected_calibration_error"]
    macro = entries(labels, logits, *chosen, names)["macro"]
    assert errors.resampled.mean(axis=1).min() > errors.values.mean()
    for metric in ("expected_calibration_error", "average_precision", "f1"):
        entry = macro[metric]
        assert entry["interval"][0] < entry["value"] < entry["interval"][1], metric


def test_none_and_all_are_no_certainty():
    """Ten of ten found: resamples know no other, but the sensitivity may be 0.7."""
    labels = np.repeat([1, 0], [10, 90])[:, None]
    logits = np.where(labels, 5, -5).astype(np.float32)
    entry = entries(labels, logits, [0.5], [True], ["a"])["per_class"]["a"]
    exact = binomtest(10, 10).proportion_ci(0.95, "exact")
    assert entry["sensitivity"] == {"value": 1.0, "interval": [pytest.approx(exact.low), 1.0]}
    exact = binomtest(0, 90).proportion_ci(0.95, "exact")
    entry = entries(1 - labels, logits, [1.5], [True], ["a"])["per_class"]["a"]  # nothing is predicted
    assert entry["sensitivity"] == {"value": 0.0, "interval": [0.0, pytest.approx(exact.high)]}


def test_age_bands():
    ages = np.array([0, 39.9, 40, 64.5, 65, 79, 80, 300, np.nan])
    expected = ["< 40", "< 40", "40-64", "40-64", "65-79", "65-79", ">= 80", ">= 80", "unknown"]
    assert groups_of(np.full(9, None), ages)["age"].tolist() == expected


def test_what_a_database_does_not_say_has_no_groups():
    assert groups_of(np.array([None, None]), np.array([np.nan, np.nan])) == {}
    groups = groups_of(np.array([None, "female"], dtype=object), np.array([np.nan, np.nan]))
    assert {kind: names.tolist() for kind, names in groups.items()} == {"sex": ["unknown", "female"]}


def test_each_group_is_scored_over_the_classes_that_it_has_enough_of():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 2)) < 0.4).astype(int)
    scores = labels + rng.normal(size=labels.shape)
    names = np.repeat(["male", "female", "unknown"], [200, 95, 5])
    labels[names == "female", 1] = 0
    labels[np.flatnonzero(names == "female")[:9], 1] = 1  # one too few
    found = score_groups(labels, scores, ["a", "b"], {"sex": names}, num_resamples=200)["sex"]
    assert list(found) == ["female", "male", "unknown"]
    male, female = names == "male", names == "female"
    assert found["male"]["macro_auroc"] == pytest.approx(roc_auc_score(labels[male], scores[male]))
    assert found["female"]["macro_auroc"] == pytest.approx(roc_auc_score(labels[female, 0], scores[female, 0]))
    assert found["female"]["classes_left_out"] == ["b"]
    assert found["female"]["positives"] == {"a": labels[female, 0].sum(), "b": 9}
    assert found["female"]["records"] == 95
    for name in ("male", "female"):
        low, high = found[name]["interval"]
        assert low < found[name]["macro_auroc"] < high
        assert found[name]["left_out"] is None
    assert (found["unknown"]["macro_auroc"], found["unknown"]["interval"]) == (None, None)
    assert found["unknown"]["left_out"] == "too few records: no class has 10 with it and 10 without"


def test_groups_are_in_the_order_of_ages():
    ages = np.array([np.nan, 90, 70, 50, 20, 30])
    found = score_groups(np.zeros((6, 1)), np.zeros((6, 1)), ["a"], groups_of(np.full(6, None), ages))
    assert list(found["age"]) == ["< 40", "40-64", "65-79", ">= 80", "unknown"]
    assert found["age"]["< 40"]["records"] == 2
