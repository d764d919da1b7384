import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecg_jepa.evaluation.metrics import MacroAuroc, auroc


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (50, 3))
    return labels, labels + rng.normal(size=(50, 3))


def test_equals_scikit_learn(scores):
    labels, predictions = scores
    result = auroc(labels, predictions, ["a", "b", "c"])
    assert result.macro == pytest.approx(roc_auc_score(labels, predictions, average="macro"), abs=1e-12)
    assert result.per_class["b"] == pytest.approx(roc_auc_score(labels[:, 1], predictions[:, 1]), abs=1e-12)
    assert result.left_out == []


def test_classes_without_positives_or_negatives_are_left_out_and_named(scores):
    labels, predictions = scores
    labels = np.stack([labels[:, 0], np.zeros(50), np.ones(50)], axis=1)
    result = auroc(labels, predictions, ["a", "b", "c"])
    assert result.left_out == ["b", "c"]
    assert result.macro == result.per_class["a"]


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        (np.zeros((4, 2)), np.zeros((4, 2)), "No class"),
        (np.eye(2), np.full((2, 2), np.nan), "NaN"),
        (np.eye(2), np.zeros((2, 3)), "2 classes"),
    ],
)
def test_what_cannot_be_scored_raises(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        auroc(labels, predictions, ["a", "b"])


def test_packaged_metric_works_offline(scores):
    labels, predictions = scores
    result = MacroAuroc().compute(predictions=predictions.tolist(), references=labels.tolist())
    expected = auroc(labels, predictions.astype(np.float32), ["a", "b", "c"]).macro
    assert result == {"macro_auroc": pytest.approx(expected), "left_out": []}
