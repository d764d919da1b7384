import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from ecg_jepa.evaluation.bootstrap import resample_counts
from ecg_jepa.evaluation.calibration import (
    brier,
    equal_mass_bins,
    expected_calibration_error,
    fit_temperature,
    mean_loss,
    probabilities,
)


@pytest.fixture
def overconfident():
    """Labels of 2,000 records drawn from half the logits: the right temperature is 2."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(2000, 3))
    return (rng.random(logits.shape) < 1 / (1 + np.exp(-logits / 2))).astype(np.float32), logits.astype(np.float32)


def test_probabilities():
    logits = np.array([[0.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(probabilities(logits, single_label=True).sum(), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities(logits, single_label=False), [[0.5, 0.880797]], atol=1e-6)


def test_bins_hold_equally_many_records():
    scores = np.random.default_rng(0).permutation(200) / 200
    bins = equal_mass_bins(scores)
    assert np.bincount(bins).tolist() == [20] * 10
    assert all(scores[bins == b].max() < scores[bins == b + 1].min() for b in range(9))


@pytest.mark.parametrize(("records", "expected"), [(1, 1), (19, 1), (39, 1), (40, 2), (105, 5), (5000, 10)])
def test_bins_are_fewer_where_they_would_be_small(records, expected):
    counts = np.bincount(equal_mass_bins(np.random.default_rng(0).random(records)))
    assert len(counts) == expected
    assert counts.min() >= min(20, records)


def test_equal_probabilities_share_a_bin():
    scores = np.array([0.1] * 150 + [0.2] * 30 + [0.3] * 5 + [0.4] * 15)
    assert equal_mass_bins(scores).tolist() == [0] * 150 + [1] * 30 + [2] * 20
    assert equal_mass_bins(np.full(500, 0.3)).max() == 0


def test_calibration_error_by_hand():
    """Two bins of 20: mean probabilities 0.2 and 0.6, shares of positives 0.25 and 0.5."""
    probabilities = np.repeat([0.2, 0.6], 20)[:, None]
    labels = np.repeat([1, 0, 1, 0], [5, 15, 10, 10])[:, None]
    assert expected_calibration_error(labels, probabilities) == pytest.approx([(0.05 + 0.1) / 2])
    assert brier(labels, probabilities) == pytest.approx([(5 * 0.64 + 15 * 0.04 + 10 * 0.16 + 10 * 0.36) / 40])


def test_brier_is_scikit_learns(overconfident):
    labels, logits = overconfident
    probabilities = 1 / (1 + np.exp(-logits))
    expected = [brier_score_loss(labels[:, c], probabilities[:, c]) for c in range(3)]
    np.testing.assert_allclose(brier(labels, probabilities), expected, rtol=1e-6)


def test_resamples_are_the_metrics_of_their_records(overconfident):
    labels, logits = (values[:60] for values in overconfident)
    probabilities = 1 / (1 + np.exp(-logits))
    counts = resample_counts(60, 5, seed=0)
    squares = brier(labels, probabilities, counts)
    errors = expected_calibration_error(labels, probabilities, counts)
    bins = [equal_mass_bins(probabilities[:, c]) for c in range(3)]
    for resample, square, error in zip(counts, squares, errors, strict=True):
        drawn = np.repeat(np.arange(60), resample)
        np.testing.assert_allclose(square, brier(labels[drawn], probabilities[drawn]), rtol=1e-6)
        for column in range(3):
            gaps = (labels - probabilities)[drawn, column]
            by_bin = np.bincount(bins[column][drawn], weights=gaps)
            assert error[column] == pytest.approx(np.abs(by_bin).sum() / 60, rel=1e-4)
    np.testing.assert_allclose(
        expected_calibration_error(labels, probabilities, np.ones((1, 60), dtype=np.int32))[0],
        expected_calibration_error(labels, probabilities),
        rtol=1e-4,
    )


def test_the_temperature_is_found_and_lowers_the_loss(overconfident):
    labels, logits = overconfident
    found = fit_temperature(labels, logits, single_label=False)
    assert found.value == pytest.approx(2, rel=0.1)
    assert found.before == mean_loss(labels, logits, False)
    assert found.after == mean_loss(labels, logits, False, found.value) < found.before
    for other in (0.98 * found.value, 1.02 * found.value):
        assert mean_loss(labels, logits, False, other) > found.after
    assert expected_calibration_error(labels, 1 / (1 + np.exp(-logits / found.value))).mean() < 0.03
    assert expected_calibration_error(labels, 1 / (1 + np.exp(-logits))).mean() > 0.08
    assert roc_auc_score(labels, logits / found.value) == roc_auc_score(labels, logits)


def test_the_temperature_of_exclusive_classes():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(3000, 4))
    odds = np.exp(2 * logits)
    truth = [rng.choice(4, p=row / row.sum()) for row in odds]  # of twice the logits
    found = fit_temperature(np.eye(4)[truth], logits, single_label=True)
    assert found.value == pytest.approx(0.5, rel=0.1)
    assert found.after < found.before


def test_no_temperature_is_better_than_one_that_does_nothing(caplog):
    found = fit_temperature(np.array([[1], [0]]), np.zeros((2, 1)), single_label=False)
    assert found.value == 1.0
    assert found.before == found.after
    found = fit_temperature(np.array([[1], [0]]), np.array([[3.0], [-3.0]]), single_label=False)  # all right: colder is better
    assert 0 < found.value < 0.03
    assert "The temperature is at the end of its range" in caplog.text
    with pytest.raises(ValueError, match="diverged"):
        fit_temperature(np.array([[1]]), np.array([[np.nan]]), single_label=False)
