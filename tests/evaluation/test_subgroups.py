import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecg_jepa.evaluation.subgroups import age_bands, groups_of, score_groups


def test_age_bands():
    ages = np.array([0, 39.9, 40, 64.5, 65, 79, 80, 300, np.nan])
    expected = ["< 40", "< 40", "40-64", "40-64", "65-79", "65-79", ">= 80", ">= 80", "unknown"]
    assert age_bands(ages).tolist() == expected


def test_what_a_database_does_not_say_has_no_groups():
    assert groups_of(np.array([None, None]), np.array([np.nan, np.nan])) == {}
    groups = groups_of(np.array([None, "female"], dtype=object), np.array([np.nan, np.nan]))
    assert {kind: names.tolist() for kind, names in groups.items()} == {"sex": ["unknown", "female"]}


def test_each_group_is_scored_over_the_classes_that_it_has_enough_of():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 2)) < 0.4).astype(int)
    scores = labels + rng.normal(size=labels.shape)
    names = np.repeat(["male", "female", "unknown"], [200, 95, 5])
    labels[names == "female", 1] = 0
    labels[np.flatnonzero(names == "female")[:9], 1] = 1  # one too few
    found = score_groups(labels, scores, ["a", "b"], {"sex": names}, num_resamples=200)["sex"]
    assert list(found) == ["female", "male", "unknown"]
    male, female = names == "male", names == "female"
    assert found["male"]["macro_auroc"] == pytest.approx(roc_auc_score(labels[male], scores[male]))
    assert found["female"]["macro_auroc"] == pytest.approx(roc_auc_score(labels[female, 0], scores[female, 0]))
    assert found["female"]["classes_left_out"] == ["b"]
    assert found["female"]["positives"] == {"a": labels[female, 0].sum(), "b": 9}
    assert found["female"]["records"] == 95
    for name in ("male", "female"):
        low, high = found[name]["interval"]
        assert low < found[name]["macro_auroc"] < high
        assert found[name]["left_out"] is None
    assert (found["unknown"]["macro_auroc"], found["unknown"]["interval"]) == (None, None)
    assert found["unknown"]["left_out"] == "too few records: no class has 10 with it and 10 without"


def test_groups_are_in_the_order_of_ages():
    ages = np.array([np.nan, 90, 70, 50, 20, 30])
    found = score_groups(np.zeros((6, 1)), np.zeros((6, 1)), ["a"], groups_of(np.full(6, None), ages))
    assert list(found["age"]) == ["< 40", "40-64", "65-79", ">= 80", "unknown"]
    assert found["age"]["< 40"]["records"] == 2
