import numpy as np
import pytest
from sklearn.metrics import f1_score

from ecg_jepa.evaluation.thresholds import Thresholds, f1_thresholds, sensitivity_thresholds


@pytest.mark.parametrize("decimals", [0, 9], ids=["with ties", "continuous"])
def test_thresholds_are_the_best_of_all(decimals):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 3))
    predictions = (labels + rng.normal(size=(200, 3))).round(decimals)
    thresholds = f1_thresholds(labels, predictions)
    for column in range(3):
        truth = labels[:, column]
        predicted = predictions[:, column] >= predictions[:, column, None]  # a row per level
        best = (2 * (predicted & (truth > 0)).sum(axis=1) / (predicted.sum(axis=1) + truth.sum())).max()
        assert f1_score(truth, predictions[:, column] >= thresholds[column]) == pytest.approx(best, abs=1e-12)


def test_thresholds_reach_the_sensitivity_that_is_aimed_at_and_no_more():
    rng = np.random.default_rng(0)
    for positives in (1, 9, 10, 20, 60, 97):
        labels = np.arange(200)[:, None] < positives
        scores = rng.random((200, 1)).round(2)  # with ties
        for aimed in (0.9, 0.95, 1.0):
            (threshold,) = sensitivity_thresholds(labels.astype(int), scores, aimed)
            of_positives = scores[labels]
            assert (of_positives >= threshold).mean() >= aimed - 1e-12
            higher = of_positives[of_positives > threshold]
            assert len(higher) / positives < aimed  # the next threshold would be too high
    exact = np.arange(20)[:, None] / 20
    assert sensitivity_thresholds(np.ones((20, 1)), exact, 0.95).tolist() == [0.05]  # 19 of 20
    assert sensitivity_thresholds(np.zeros((20, 1)), exact, 0.95).tolist() == [np.inf]
    with pytest.raises(ValueError, match=r"sensitivity=1\.5 must be"):
        sensitivity_thresholds(np.ones((20, 1)), exact, 1.5)


def test_rare_classes_are_ranked_but_not_decided():
    """A threshold that two records chose would be an accident: it stands in the results, but does not travel."""
    thresholds = Thresholds(np.array([0.3, 0.001, np.inf]), {}, np.array([True, False, False]))
    found = thresholds.by_name(["common", "rare", "absent"])
    assert found["f1_thresholds"] == {"common": 0.3, "rare": 0.001}
    assert found["decision_thresholds"] == {"common": 0.3}
