import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecg_jepa.evaluation.bootstrap import bootstrap, interval, paired_test, resample_counts
from ecg_jepa.evaluation.metrics import auroc, macro


def task(num_records=300, num_classes=4, noise=1.0, seed=0, decimals=1):
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_records, num_classes)) < [0.5, 0.2, 0.1, 0.02][:num_classes]).astype(int)
    return labels, (labels + noise * rng.normal(size=labels.shape)).round(decimals)


def macro_auroc_interval(labels, scores, **options):
    return bootstrap(lambda counts: macro(auroc(labels, scores, counts)), len(labels), **options)


def test_counts_are_draws_with_replacement():
    counts = resample_counts(50, 4000, seed=1)
    assert counts.shape == (4000, 50)
    assert (counts.sum(axis=1) == 50).all()
    # A record is left out of a resample with probability (1 - 1/50) ** 50.
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.005)
    assert (counts != resample_counts(50, 4000, seed=2)).any()
    np.testing.assert_array_equal(counts, resample_counts(50, 4000, seed=1))


def test_equal_to_scikit_learn_on_the_drawn_records():
    labels, scores = task()
    counts = resample_counts(len(labels), 30, seed=0)
    values = auroc(labels, scores, counts)
    for resample, row in zip(counts, values, strict=True):
        drawn = np.repeat(np.arange(len(labels)), resample)
        for column, value in enumerate(row):
            if 0 < labels[drawn, column].sum() < len(drawn):
                assert value == pytest.approx(roc_auc_score(labels[drawn, column], scores[drawn, column]), abs=1e-12)
            else:
                assert np.isnan(value)


def test_classes_that_a_resample_lacks_are_left_out_of_its_mean():
    np.testing.assert_allclose(macro(np.array([[0.5, np.nan, 0.7], [0.1, 0.2, 0.3]])), [0.6, 0.2])
    assert np.isnan(macro(np.array([[np.nan, np.nan]]))).all()
    with pytest.raises(ValueError, match="Only 2 of 5 resamples can be scored"):
        interval(0.5, np.array([0.4, np.nan, np.nan, 0.6, np.nan]))
    assert interval(0.5, np.array([0.4, 0.4, np.nan])).high == 0.4


def test_interval_holds_the_value_and_narrows_with_records():
    widths = []
    for num_records in (200, 3200):
        labels, scores = task(num_records)
        result = macro_auroc_interval(labels, scores)
        assert result.value == pytest.approx(macro(auroc(labels, scores)), abs=1e-12)
        assert result.low < result.value < result.high
        widths.append(result.high - result.low)
    assert 2 < widths[0] / widths[1] < 8  # four times the square root


def test_interval_covers_the_truth_about_as_often_as_it_says():
    truth = roc_auc_score(*(column[:, 0] for column in task(200_000, 1, seed=99, decimals=9)))
    held = 0
    for seed in range(100):
        result = macro_auroc_interval(*task(200, 1, seed=seed, decimals=9), num_resamples=300, level=0.9)
        held += result.low <= truth <= result.high
    assert 80 <= held <= 98


def test_paired_test_sees_a_difference_and_sees_none():
    labels, good = task(1000, noise=0.8)
    rng = np.random.default_rng(5)
    worse = good + rng.normal(size=good.shape)
    result = paired_test(labels, good, worse)
    assert result.difference.low > 0
    assert result.p_value == pytest.approx(2 / 1001)
    swapped = paired_test(labels, worse, good)
    assert swapped.difference.value == pytest.approx(-result.difference.value)
    same = paired_test(labels, good, good)
    assert (same.difference.value, same.p_value) == (0, 1)
    noise = [good + 0.02 * rng.normal(size=good.shape) for _ in range(2)]
    assert paired_test(labels, *noise).p_value > 0.05
    with pytest.raises(ValueError, match="same records and classes"):
        paired_test(labels, good, good[:, :2])


def test_resamples_that_cannot_be_scored_are_no_evidence():
    """One positive among twelve is in two thirds of the resamples; the first run is right in all of those that it is in."""
    labels = np.eye(12)[:, :1]
    right, wrong = labels, -labels
    result = paired_test(labels, right, wrong)
    scorable = (resample_counts(12, 1000, 0)[:, 0] > 0).sum()
    assert 600 < scorable < 700
    assert result.p_value == pytest.approx(2 / (scorable + 1))


def test_pairing_is_sharper_than_two_intervals():
    labels, first = task(500)
    second = first + 0.1 * np.random.default_rng(1).normal(size=first.shape)
    paired = paired_test(labels, first, second).difference
    alone = macro_auroc_interval(labels, first)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_a_side_of_several_runs_is_their_mean():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 2)) < 0.4).astype(int)
    runs = labels + rng.normal(size=(3, 200, 2))
    other = labels + rng.normal(size=(200, 2))
    test = paired_test(labels, runs, other)
    each = [paired_test(labels, run, other).difference.value for run in runs]
    assert test.difference.value == pytest.approx(np.mean(each))
    assert test.difference.high - test.difference.low < 0.3
    assert paired_test(labels, runs[:1], other).p_value == paired_test(labels, runs[0], other).p_value
