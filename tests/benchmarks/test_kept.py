import numpy as np
from comparison.kept import EncoderResult

from ecg_jepa.evaluation.metrics import auroc


def test_an_encoder_result_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    labels = (rng.random((30, 2)) < 0.4).astype(np.uint8)
    ranks = [rng.integers(1, 30, (30, 2)).astype(np.uint16) for _ in range(2)]
    condition = {"protocol": "linear", "task": "form", "seed": 0, "settings": {"calibrate": False}}
    runs = [{**condition, "label_fraction": share} for share in (0.1, 1.0)]
    training = {"settings": {"batch_size": 4, "gradient_accumulation_steps": 2}, "gflop_per_record": 0.5}
    ids = np.array([f"record {number}" for number in range(30)])
    result = EncoderResult("jepa", 3, training, [{"step": 0, "eval_loss": 0.1}], runs, ranks, {"form": (ids, labels)})
    path = tmp_path / "judged" / "jepa-3.npz"
    assert EncoderResult.load(path) is None
    result.save(path)
    again = EncoderResult.load(path)
    assert (again.label, again.seed, again.training, again.course, again.runs) == ("jepa", 3, training, result.course, runs)
    for before, after in zip(ranks, again.ranks, strict=True):
        np.testing.assert_array_equal(before, after)
        assert auroc(labels, after).tolist() == auroc(labels, before).tolist()
    np.testing.assert_array_equal(again.records["form"][0], ids)
    np.testing.assert_array_equal(again.records["form"][1], labels)
    assert again.teraflops == 8 * 0.5 / 1000
    assert [file.name for file in path.parent.iterdir()] == ["jepa-3.npz"]


def test_a_damaged_file_is_made_again(tmp_path, caplog):
    path = tmp_path / "jepa-3.npz"
    path.write_bytes(b"PK torn")
    assert EncoderResult.load(path) is None
    assert "is trained and evaluated again" in caplog.text


def test_runs_of_another_comparison_are_kept_with_the_same_weights():
    ids, labels = np.arange(3), np.eye(3, dtype=np.uint8)

    def result(weights, *seeds):
        runs = [{"task": "form", "settings": {"seed": seed}, "database": "d"} for seed in seeds]
        ranks = [labels + seed for seed in seeds]
        return EncoderResult("jepa", 0, {"weights": weights}, [], runs, ranks, {"form": (ids, labels)})

    now = result("a", 1, 2)
    now.add_earlier(result("a", 0, 1))
    assert [run["settings"]["seed"] for run in now.runs] == [1, 2, 0]
    np.testing.assert_array_equal(now.ranks[2], labels)
    now.add_earlier(result("b", 5))
    assert len(now.runs) == len(now.ranks) == 3
