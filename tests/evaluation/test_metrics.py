import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from ecg_jepa.evaluation.metrics import (
    ExclusiveAccuracy,
    MacroAuroc,
    MacroAveragePrecision,
    MacroF1,
    auroc,
    average_precision,
    f1,
    f1_thresholds,
)

NAMES = ["a", "b", "c"]


@pytest.fixture(params=["continuous", "with ties"])
def scores(request):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 3))
    values = labels + rng.normal(size=(200, 3))
    return labels, values.round(0 if request.param == "with ties" else 9)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(auroc, roc_auc_score), (average_precision, average_precision_score)], ids=["auroc", "average_precision"]
)
def test_equal_to_scikit_learn(scores, ours, theirs):
    labels, predictions = scores
    result = ours(labels, predictions, NAMES)
    assert result.macro == pytest.approx(theirs(labels, predictions, average="macro"), abs=1e-12)
    for column, name in enumerate(NAMES):
        assert result.per_class[name] == pytest.approx(theirs(labels[:, column], predictions[:, column]), abs=1e-12)
    assert result.left_out == []
    assert result.support == dict(zip(NAMES, labels.sum(axis=0), strict=True))


@pytest.mark.parametrize("measure", [auroc, average_precision])
def test_classes_without_positives_or_negatives_are_left_out_and_named(scores, measure):
    labels, predictions = scores
    labels = np.stack([labels[:, 0], np.zeros(200), np.ones(200)], axis=1)
    result = measure(labels, predictions, NAMES)
    assert result.left_out == ["b", "c"]
    assert result.macro == result.per_class["a"]
    assert result.support == {"a": labels[:, 0].sum(), "b": 0, "c": 200}


def test_thresholds_are_the_best_of_all(scores):
    labels, predictions = scores
    thresholds = f1_thresholds(labels, predictions)
    for column in range(3):
        truth = labels[:, column]
        best = max(f1_score(truth, predictions[:, column] >= level) for level in predictions[:, column])
        assert f1_score(truth, predictions[:, column] >= thresholds[column]) == pytest.approx(best, abs=1e-12)


def test_f1_at_thresholds_of_other_records(scores):
    labels, predictions = scores
    thresholds = f1_thresholds(labels[:100], predictions[:100])
    result = f1(labels[100:], predictions[100:], NAMES, thresholds)
    expected = f1_score(labels[100:], predictions[100:] >= thresholds, average="macro")
    assert result.macro == pytest.approx(expected, abs=1e-12)


def test_f1_of_a_single_class_is_that_of_its_positives(scores):
    labels, predictions = (values[:, :1] for values in scores)
    thresholds = f1_thresholds(labels, predictions) + 0.5
    result = f1(labels, predictions, ["a"], thresholds)
    assert result.macro == pytest.approx(f1_score(labels[:, 0], predictions[:, 0] >= thresholds[0]), abs=1e-12)


def test_f1_of_classes_that_do_not_occur():
    labels = np.array([[1, 0], [1, 0], [0, 0]])
    predictions = np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.9]])
    thresholds = f1_thresholds(labels, predictions)
    assert thresholds.tolist() == [0.8, np.inf]
    result = f1(labels, predictions, ["a", "b"], thresholds)
    assert (result.per_class, result.left_out) == ({"a": 1.0}, ["b"])


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
        auroc(labels[:, :2], predictions, NAMES)
    with pytest.raises(ValueError, match="zeros and ones"):
        auroc(labels * 2, predictions, NAMES)
    with pytest.raises(ValueError, match="diverged"):
        auroc(labels, np.where(predictions > 1, np.nan, predictions), NAMES)
    with pytest.raises(ValueError, match="No class has both positives and negatives among the 200"):
        auroc(np.ones_like(labels), predictions, NAMES)
    with pytest.raises(ValueError, match="one for each of 3 classes"):
        f1(labels, predictions, NAMES, np.zeros(2))
