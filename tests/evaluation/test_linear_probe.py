import numpy as np
import pytest

from ecg_jepa.evaluation.linear_probe import linear_probe

NAMES = ["a", "b", "c"]


@pytest.fixture
def records():
    """Labels of 300 records, the first 200 to learn from, and features that are the labels with noise."""
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 3)) < 0.3).astype(float)
    return labels, labels + 0.3 * rng.normal(size=labels.shape)


def test_it_finds_what_is_there(records):
    labels, features = records
    result = linear_probe(features[:200], labels[:200], features[200:], labels[200:], NAMES)
    assert result.macro_auroc > 0.95
    assert result.left_out == []


def test_it_finds_nothing_in_noise(records):
    labels, _ = records
    noise = np.random.default_rng(1).normal(size=(300, 5))
    assert 0.35 < linear_probe(noise[:200], labels[:200], noise[200:], labels[200:], NAMES).macro_auroc < 0.65


def test_classes_that_cannot_be_learned_or_scored_are_named(records):
    labels, features = records
    labels[:200, 0] = 0  # never seen in training
    labels[200:, 2] = 1  # no negatives to score
    result = linear_probe(features[:200], labels[:200], features[200:], labels[200:], NAMES)
    assert result.left_out == ["c", "a"]
    assert result.macro_auroc > 0.9


def test_one_class_is_enough_and_none_is_an_error(records):
    labels, features = records
    labels[:200, :2] = 0
    result = linear_probe(features[:200], labels[:200], features[200:], labels[200:], NAMES)
    assert result.left_out == ["a", "b"]
    assert result.macro_auroc > 0.9
    labels[:200, 2] = 1
    with pytest.raises(ValueError, match="cannot learn any class: each of a, b, c"):
        linear_probe(features[:200], labels[:200], features[200:], labels[200:], NAMES)
