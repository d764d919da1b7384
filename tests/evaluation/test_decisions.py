import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from ecg_jepa.evaluation.bootstrap import resample_counts
from ecg_jepa.evaluation.decisions import decide, sensitivity_thresholds

ONCE = np.ones((1, 10), dtype=np.int32)


def test_figures_by_hand():
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])[:, None]
    scores = np.array([0.9, 0.8, 0.5, 0.1, 0.7, 0.5, 0.2, 0.2, 0.1, 0.0])[:, None]
    found = decide(labels, scores, np.array([0.5]), ONCE)  # what reaches the threshold is predicted
    assert {name: value.item() for name, value in found.figures().items()} == pytest.approx(
        {"sensitivity": 3 / 4, "specificity": 4 / 6, "ppv": 3 / 5, "npv": 4 / 5}
    )
    assert {name: value.item() for name, value in found.out_of.items()} == {
        "sensitivity": 4,
        "specificity": 6,
        "ppv": 5,
        "npv": 5,
    }
    assert found.f1().item() == pytest.approx(2 * 0.75 * 0.6 / 1.35)


def test_resamples_are_scikit_learns_of_the_drawn_records():
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 2)) < 0.3).astype(int)
    scores = labels + rng.normal(size=labels.shape)
    thresholds = np.array([0.3, 1.1])
    counts = resample_counts(80, 20, seed=0)
    found = decide(labels, scores, thresholds, counts)
    figures = found.figures()
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
            assert {name: values[row, column] for name, values in figures.items()} == pytest.approx(expected)
            assert found.f1()[row, column] == pytest.approx(f1_score(truth, predicted))


def test_nothing_to_judge_is_no_number():
    labels = np.repeat([[1, 0]], 10, axis=0)
    found = decide(labels, np.zeros((10, 2)), np.array([0.5, 0.5]), ONCE)
    figures = {name: values[0].tolist() for name, values in found.figures().items()}
    assert figures["sensitivity"] == [0, pytest.approx(np.nan, nan_ok=True)]
    assert figures["specificity"] == [pytest.approx(np.nan, nan_ok=True), 1]
    assert np.isnan(figures["ppv"]).all()  # nothing is predicted
    assert found.f1()[0].tolist() == [0, pytest.approx(np.nan, nan_ok=True)]


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
