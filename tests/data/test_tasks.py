import pytest

from ecg_jepa.data.tasks import make_statement_task

STATEMENTS = [["a", "b"], ["b"], [], ["c", "c", "b"]]


def test_open_labels_leave_out_records_without_any():
    task = make_statement_task(STATEMENTS, None)
    assert task.class_names == ["a", "b", "c"]
    assert task.labels.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1, 1]]
    assert task.included.tolist() == [True, True, False, True]


def test_closed_labels_take_them_for_negatives():
    task = make_statement_task(STATEMENTS, ["c", "a"])
    assert task.class_names == ["c", "a"]
    assert task.labels.tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]
    assert task.included.all()
    assert task.too_rare == []


def test_rare_classes_are_left_out():
    task = make_statement_task(STATEMENTS, None, min_records=2)
    assert task.class_names == ["b"]
    assert task.too_rare == ["a", "c"]
    with pytest.raises(ValueError, match=r"No statement has 9 records or more; the most frequent are: b \(3\)"):
        make_statement_task(STATEMENTS, None, min_records=9)
