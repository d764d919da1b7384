"""What is kept of an encoder: it comes back as it was, and says the same of it."""

import numpy as np
from comparison.judged import Judged

from ecg_jepa.evaluation.metrics import macro_auroc


def test_comes_back_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    labels = (rng.random((30, 2)) < 0.4).astype(np.uint8)
    ranks = [rng.integers(1, 30, (30, 2)).astype(np.uint16) for _ in range(2)]
    runs = [{"protocol": "linear", "task": "form", "label_fraction": share, "seed": 0} for share in (0.1, 1.0)]
    training = {"settings": {"batch_size": 4, "gradient_accumulation_steps": 2}, "gflop_per_record": 0.5}
    ids = np.array([f"record {number}" for number in range(30)])
    judged = Judged("jepa", 3, training, [{"step": 0, "eval_loss": 0.1}], runs, ranks, {"form": (ids, labels)})
    assert Judged.load(tmp_path / "judged" / "jepa-3.npz") is None
    judged.save(tmp_path / "judged" / "jepa-3.npz")
    again = Judged.load(tmp_path / "judged" / "jepa-3.npz")
    assert (again.label, again.seed, again.training, again.course, again.runs) == ("jepa", 3, training, judged.course, runs)
    for before, after in zip(ranks, again.ranks, strict=True):
        np.testing.assert_array_equal(before, after)
        assert macro_auroc(labels, after, ["a", "b"]) == macro_auroc(labels, before, ["a", "b"])
    np.testing.assert_array_equal(again.records["form"][0], ids)
    np.testing.assert_array_equal(again.records["form"][1], labels)
    assert again.teraflops == 8 * 0.5 / 1000
    assert [path.name for path in (tmp_path / "judged").iterdir()] == ["jepa-3.npz"]


def test_what_cannot_be_read_is_made_anew(tmp_path, caplog):
    path = tmp_path / "jepa-3.npz"
    path.write_bytes(b"PK torn")
    assert Judged.load(path) is None
    assert "is trained and judged anew" in caplog.text


def test_runs_of_another_comparison_are_kept_with_the_same_weights():
    ids, labels = np.arange(3), np.eye(3, dtype=np.uint8)

    def judged(weights, *seeds):
        runs = [{"task": "form", "settings": {"seed": seed}, "database": "d"} for seed in seeds]
        return Judged("jepa", 0, {"weights": weights}, [], runs, [labels + seed for seed in seeds], {"form": (ids, labels)})

    now = judged("a", 1, 2)
    now.take_over(judged("a", 0, 1))
    assert [run["settings"]["seed"] for run in now.runs] == [1, 2, 0]
    np.testing.assert_array_equal(now.ranks[2], labels)
    now.take_over(judged("b", 5))
    assert len(now.runs) == len(now.ranks) == 3
