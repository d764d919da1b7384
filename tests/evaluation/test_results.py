import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from ecg_jepa.data.ptb_xl_tasks import Task
from ecg_jepa.evaluation.results import Predictions, probabilities, summarize

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


def test_thresholds_come_from_validation():
    validation, test = predictions(0), predictions(1)
    metrics = summarize(task(), validation, test, num_resamples=20)
    chosen = np.array(list(metrics["f1_thresholds"].values()))
    scores = probabilities(validation.logits, False)
    best = [max(f1_score(validation.labels[:, c], scores[:, c] >= t) for t in scores[:, c]) for c in range(3)]
    assert f1_score(validation.labels, scores >= chosen, average=None) == pytest.approx(best)
    expected = f1_score(test.labels, probabilities(test.logits, False) >= chosen, average="macro")
    assert metrics["test_macro_f1"] == pytest.approx(expected)


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
