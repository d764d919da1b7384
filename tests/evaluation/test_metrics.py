import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, f1_score, roc_auc_score

from ecg_jepa.evaluation.bootstrap import resample_counts
from ecg_jepa.evaluation.metrics import (
    ExclusiveAccuracy,
    MacroAuroc,
    auroc,
    decide,
    measure,
    ranking,
    ratio,
)
from ecg_jepa.evaluation.thresholds import f1_thresholds

NAMES = ["a", "b", "c"]


@pytest.fixture(params=["continuous", "with ties"])
def scores(request):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 3))
    values = labels + rng.normal(size=(200, 3))
    return labels, values.round(0 if request.param == "with ties" else 9)


def test_equal_to_scikit_learn(scores):
    labels, predictions = scores
    result = measure(MacroAuroc, labels, predictions, class_names=NAMES)
    assert result["macro_auroc"] == pytest.approx(roc_auc_score(labels, predictions, average="macro"), abs=1e-12)
    for column, label in enumerate(NAMES):
        expected = roc_auc_score(labels[:, column], predictions[:, column])
        assert result["auroc_per_class"][label] == pytest.approx(expected, abs=1e-12)
    assert result["auroc_left_out"] == []
    assert result["auroc_support"] == dict(zip(NAMES, labels.sum(axis=0), strict=True))
    theirs = average_precision_score(labels, predictions, average=None)
    assert ranking(labels, predictions)[1] == pytest.approx(theirs, abs=1e-12)


def test_classes_without_positives_or_negatives_are_left_out_and_named(scores):
    labels, predictions = scores
    labels = np.stack([labels[:, 0], np.zeros(200), np.ones(200)], axis=1)
    result = measure(MacroAuroc, labels, predictions, class_names=NAMES)
    assert result["auroc_left_out"] == ["b", "c"]
    assert result["macro_auroc"] == result["auroc_per_class"]["a"]
    assert np.isnan(ranking(labels, predictions)[1]).tolist() == [False, True, True]
    assert result["auroc_support"] == {"a": labels[:, 0].sum(), "b": 0, "c": 200}


def test_f1_at_thresholds_of_other_records(scores):
    labels, predictions = scores
    thresholds = f1_thresholds(labels[:100], predictions[:100])
    found = ratio(*decide(labels[100:], predictions[100:], thresholds)["f1"])
    expected = f1_score(labels[100:], predictions[100:] >= thresholds, average=None)
    assert found == pytest.approx(expected, abs=1e-12)


def test_f1_of_a_single_class_is_that_of_its_positives(scores):
    labels, predictions = (values[:, :1] for values in scores)
    thresholds = f1_thresholds(labels, predictions) + 0.5
    found = ratio(*decide(labels, predictions, thresholds)["f1"])
    assert found.item() == pytest.approx(f1_score(labels[:, 0], predictions[:, 0] >= thresholds[0]), abs=1e-12)


def test_f1_of_classes_that_do_not_occur():
    labels = np.array([[1, 0], [1, 0], [0, 0]])
    predictions = np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.9]])
    thresholds = f1_thresholds(labels, predictions)
    assert thresholds.tolist() == [0.8, np.inf]
    assert ratio(*decide(labels, predictions, thresholds)["f1"]).tolist() == [1.0, pytest.approx(np.nan, nan_ok=True)]


def test_packaged_metrics_work_offline_and_together(scores):
    labels, predictions = scores
    labels = np.eye(3)[labels.argmax(axis=1)]
    together = evaluate.combine([MacroAuroc(), ExclusiveAccuracy()])
    result = together.compute(predictions=predictions.tolist(), references=labels.tolist())
    assert result["macro_auroc"] == pytest.approx(roc_auc_score(labels, predictions), abs=1e-12)
    assert result["accuracy"] == np.mean(labels.argmax(axis=1) == predictions.argmax(axis=1))
    assert result["auroc_support"] == {str(c): labels[:, c].sum() for c in range(3)}
    named = MacroAuroc().compute(predictions=predictions, references=labels, class_names=NAMES)
    assert list(named["auroc_per_class"]) == NAMES


def test_exclusive_classes():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 100) % 3
    predictions = rng.normal(size=(100, 4)) + 2 * np.eye(4)[truth]
    result = ExclusiveAccuracy().compute(predictions=predictions, references=np.eye(4)[truth])
    predicted = predictions.argmax(axis=1)
    assert result["accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    # The fourth class does not occur: it counts as wrong where it is predicted, not as a class of its own.
    expected = np.mean(f1_score(truth, predicted, average=None, labels=[0, 1, 2]))
    assert result["exclusive_macro_f1"] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="not exclusive"):
        ExclusiveAccuracy().compute(predictions=predictions, references=np.ones((100, 4)))


def test_what_does_not_fit_raises(scores):
    labels, predictions = scores
    with pytest.raises(ValueError, match="must both be"):
        auroc(labels[:, :2], predictions)
    with pytest.raises(ValueError, match="zeros and ones"):
        auroc(labels * 2, predictions)
    with pytest.raises(ValueError, match="diverged"):
        auroc(labels, np.where(predictions > 1, np.nan, predictions))
    with pytest.raises(ValueError, match="No class has both positives and negatives among the 200"):
        measure(MacroAuroc, np.ones_like(labels), predictions)
    with pytest.raises(ValueError, match="one for each of 3 classes"):
        decide(labels, predictions, np.zeros(2))


def test_decisions_by_hand():
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])[:, None]
    scores = np.array([0.9, 0.8, 0.5, 0.1, 0.7, 0.5, 0.2, 0.2, 0.1, 0.0])[:, None]
    found = decide(labels, scores, np.array([0.5]))  # what reaches the threshold is predicted
    f1 = found.pop("f1")
    assert {name: (part.item(), whole.item()) for name, (part, whole) in found.items()} == {
        "sensitivity": (3, 4),
        "specificity": (4, 6),
        "ppv": (3, 5),
        "npv": (4, 5),
    }
    assert ratio(*f1).item() == pytest.approx(2 * 0.75 * 0.6 / 1.35)


def test_decisions_of_resamples_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 2)) < 0.3).astype(int)
    scores = labels + rng.normal(size=labels.shape)
    thresholds = np.array([0.3, 1.1])
    counts = resample_counts(80, 20, seed=0)
    found = decide(labels, scores, thresholds, counts)
    metrics = {name: ratio(*share) for name, share in found.items()}
    for row, resample in enumerate(counts):
        drawn = np.repeat(np.arange(80), resample)
        for column in range(2):
            truth, predicted = labels[drawn, column], scores[drawn, column] >= thresholds[column]
            (tn, fp), (fn, tp) = confusion_matrix(truth, predicted, labels=[0, 1])
            expected = {
                "sensitivity": tp / (tp + fn),
                "specificity": tn / (tn + fp),
                "ppv": tp / (tp + fp),
                "npv": tn / (tn + fn),
            }
            assert {name: values[row, column] for name, values in metrics.items() if name != "f1"} == pytest.approx(expected)
            assert metrics["f1"][row, column] == pytest.approx(f1_score(truth, predicted))


def test_no_records_to_decide_on_is_no_number():
    labels = np.repeat([[1, 0]], 10, axis=0)
    found = decide(labels, np.zeros((10, 2)), np.array([0.5, 0.5]))
    metrics = {name: ratio(*share).tolist() for name, share in found.items()}
    assert metrics["sensitivity"] == [0, pytest.approx(np.nan, nan_ok=True)]
    assert metrics["specificity"] == [pytest.approx(np.nan, nan_ok=True), 1]
    assert np.isnan(metrics["ppv"]).all()  # nothing is predicted
    assert metrics["f1"] == [0, pytest.approx(np.nan, nan_ok=True)]


def test_ranking_of_resamples_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 3)) < [0.4, 0.2, 0.02]).astype(int)
    logits = (4 * labels - 3 + 2 * rng.normal(size=labels.shape)).round(0)  # with ties
    counts = resample_counts(120, 30, seed=0)
    ranked = ranking(labels, logits, counts)
    for resample, area, precision in zip(counts, *ranked, strict=True):
        drawn = np.repeat(np.arange(120), resample)
        for column in range(3):
            truth = labels[drawn, column]
            if 0 < truth.sum() < len(truth):
                assert precision[column] == pytest.approx(average_precision_score(truth, logits[drawn, column]))
                assert area[column] == pytest.approx(roc_auc_score(truth, logits[drawn, column]))
            else:
                assert np.isnan(precision[column])
                assert np.isnan(area[column])
