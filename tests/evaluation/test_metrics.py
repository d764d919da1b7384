import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, f1_score, roc_auc_score

from ecg_jepa.evaluation.bootstrap import resample_counts
from ecg_jepa.evaluation.metrics import (
    ExclusiveAccuracy,
    MacroAuroc,
    MacroAveragePrecision,
    MacroF1,
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


@pytest.mark.parametrize(
    ("name", "metric", "theirs"),
    [("auroc", MacroAuroc, roc_auc_score), ("average_precision", MacroAveragePrecision, average_precision_score)],
)
def test_equal_to_scikit_learn(scores, name, metric, theirs):
    labels, predictions = scores
    result = measure(metric, labels, predictions, class_names=NAMES)
    assert result[f"macro_{name}"] == pytest.approx(theirs(labels, predictions, average="macro"), abs=1e-12)
    for column, label in enumerate(NAMES):
        assert result[f"{name}_per_class"][label] == pytest.approx(theirs(labels[:, column], predictions[:, column]), abs=1e-12)
    assert result[f"{name}_left_out"] == []
    assert result[f"{name}_support"] == dict(zip(NAMES, labels.sum(axis=0), strict=True))


@pytest.mark.parametrize(("name", "metric"), [("auroc", MacroAuroc), ("average_precision", MacroAveragePrecision)])
def test_classes_without_positives_or_negatives_are_left_out_and_named(scores, name, metric):
    labels, predictions = scores
    labels = np.stack([labels[:, 0], np.zeros(200), np.ones(200)], axis=1)
    result = measure(metric, labels, predictions, class_names=NAMES)
    assert result[f"{name}_left_out"] == ["b", "c"]
    assert result[f"macro_{name}"] == result[f"{name}_per_class"]["a"]
    assert result[f"{name}_support"] == {"a": labels[:, 0].sum(), "b": 0, "c": 200}


def test_f1_at_thresholds_of_other_records(scores):
    labels, predictions = scores
    thresholds = f1_thresholds(labels[:100], predictions[:100])
    result = measure(MacroF1, labels[100:], predictions[100:], thresholds=thresholds)
    expected = f1_score(labels[100:], predictions[100:] >= thresholds, average="macro")
    assert result["macro_f1"] == pytest.approx(expected, abs=1e-12)


def test_f1_of_a_single_class_is_that_of_its_positives(scores):
    labels, predictions = (values[:, :1] for values in scores)
    thresholds = f1_thresholds(labels, predictions) + 0.5
    result = measure(MacroF1, labels, predictions, thresholds=thresholds)
    assert result["macro_f1"] == pytest.approx(f1_score(labels[:, 0], predictions[:, 0] >= thresholds[0]), abs=1e-12)


def test_f1_of_classes_that_do_not_occur():
    labels = np.array([[1, 0], [1, 0], [0, 0]])
    predictions = np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.9]])
    thresholds = f1_thresholds(labels, predictions)
    assert thresholds.tolist() == [0.8, np.inf]
    result = measure(MacroF1, labels, predictions, class_names=["a", "b"], thresholds=thresholds)
    assert (result["f1_per_class"], result["f1_left_out"]) == ({"a": 1.0}, ["b"])


def test_packaged_metrics_work_offline_and_together(scores):
    labels, predictions = scores
    together = evaluate.combine([MacroAuroc(), MacroAveragePrecision(), MacroF1()])
    result = together.compute(predictions=predictions.tolist(), references=labels.tolist())
    assert result["macro_auroc"] == pytest.approx(roc_auc_score(labels, predictions), abs=1e-12)
    assert result["macro_average_precision"] == pytest.approx(average_precision_score(labels, predictions), abs=1e-12)
    assert result["macro_f1"] == pytest.approx(f1_score(labels, predictions >= 0.5, average="macro"), abs=1e-12)
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
        measure(MacroF1, labels, predictions, thresholds=np.zeros(2))


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
