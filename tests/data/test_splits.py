import numpy as np
import pytest

from ecg_jepa.data.splits import draw_per_class, draw_share, patient_numbers, split_by_patient

SHARES = [0.4, 0.2, 0.05, 0.01]


@pytest.fixture
def records():
    """3,000 records of 1,200 patients with four classes, the last of them rare, and some records without any."""
    rng = np.random.default_rng(0)
    labels = (rng.random((3000, 4)) < SHARES).astype(np.float32)
    return labels, rng.integers(0, 1200, 3000)


def test_numbers_of_patients():
    assert patient_numbers(np.array(["b", None, "a", "b", None], dtype=object)).tolist() == [0, 2, 1, 0, 3]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_a_share_of_every_class_and_whole_patients(records, share):
    labels, patients = records
    drawn = draw_share(labels, patients, share, np.random.default_rng(1), at_least=1)
    assert not set(patients[drawn]) & set(patients[~drawn])
    with_none = np.concatenate([labels, ~labels.any(axis=1, keepdims=True)], axis=1)
    wanted = np.maximum(share * with_none.sum(axis=0), 1)
    # Patients come whole, with 2.5 records on average.
    np.testing.assert_allclose(with_none[drawn].sum(axis=0), wanted, atol=4, rtol=0.1)
    assert (labels[drawn].sum(axis=0) >= 1).all()
    assert drawn.all() == (share == 1.0)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5])
def test_a_class_of_a_single_patient_is_drawn(records, share):
    labels, patients = records
    labels = np.concatenate([labels, np.zeros((len(labels), 1), dtype=labels.dtype)], axis=1)
    labels[np.flatnonzero(patients == patients[0])[:3], 4] = 1
    for seed in range(5):
        drawn = draw_share(labels, patients, share, np.random.default_rng(seed), at_least=1)
        assert (labels[drawn].sum(axis=0) >= 1).all()
        assert not set(patients[drawn]) & set(patients[~drawn])


def test_so_many_of_every_class(records):
    labels, patients = records
    drawn = draw_per_class(labels, patients, 8, np.random.default_rng(1))
    assert (labels[drawn].sum(axis=0) >= 8).all()
    assert labels[drawn, 3].sum() < 12
    assert drawn.sum() < 100
    assert draw_per_class(labels, patients, 5000, np.random.default_rng(1)).all()


def test_draws_depend_on_the_seed(records):
    first, same, other = (draw_share(*records, 0.1, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()


def test_splits_keep_patients_apart_and_classes_together(records):
    labels, patients = records
    splits = split_by_patient(labels, patients, seed=3)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(3000))
    owners = [set(patients[indices]) for indices in splits.values()]
    assert not owners[0] & (owners[1] | owners[2])
    assert not owners[1] & owners[2]
    for indices in splits.values():
        assert labels[indices].any(axis=0).all()
    assert len(splits["test"]) == pytest.approx(300, rel=0.25)
    assert len(splits["validation"]) == pytest.approx(300, rel=0.25)
    again = split_by_patient(labels, patients, seed=3)
    assert all((again[name] == splits[name]).all() for name in splits)


def test_bad_sizes_raise(records):
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="more than 0, at most 1"):
            draw_share(*records, share, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 1"):
        draw_per_class(*records, 0, np.random.default_rng(0))
