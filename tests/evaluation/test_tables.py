import json

import numpy as np
import pytest

from ecg_jepa.evaluation.bootstrap import paired_test
from ecg_jepa.evaluation.published import corpus_of, published_result
from ecg_jepa.evaluation.tables import as_markdown, compare, comparison_as_markdown, find_runs, gather

ALL = [f"database-{number}" for number in range(10)]


def metrics(**changes):
    values = {
        "model": "runs/x",
        "encoder": {"path": "runs/x", "size": "s", "databases": ALL},
        "database": "ptb-xl",
        "records": {"train": 17_418, "validation": 2183, "test": 2198},
        "task": "all",
        "protocol": "finetune",
        "label_fraction": 1.0,
        "labels_per_class": None,
        "seed": 0,
        "test_macro_auroc": 0.95,
        "test_macro_auroc_interval": [0.94, 0.96],
        "test_macro_average_precision": 0.5,
        "test_macro_f1": 0.4,
        "classes_left_out": [],
    }
    return values | changes


def write(directory, *runs):
    for number, run in enumerate(runs):
        (directory / str(number)).mkdir(parents=True)
        (directory / str(number) / "metrics.json").write_text(json.dumps(run))
    return gather(find_runs([directory]))


def test_seeds_are_averaged_and_set_beside_the_paper(tmp_path):
    table = write(tmp_path, *(metrics(seed=seed, test_macro_auroc=value) for seed, value in enumerate((0.93, 0.95, 0.94))))
    (row,) = table.to_dict("records")
    assert (row["runs"], row["auroc"], row["auroc_std"]) == (3, pytest.approx(0.94), pytest.approx(0.01))
    assert (row["published"], row["published_std"]) == (0.945, 0.001)
    assert row["difference"] == pytest.approx(-0.005)
    assert "0.940 (0.010, 3 seeds); paper 0.945, -0.005" in as_markdown(table)


def test_what_differs_stands_apart(tmp_path):
    runs = [
        metrics(),
        metrics(task="ST-MEM", test_accuracy=0.7),
        metrics(protocol="attentive"),
        metrics(label_fraction=0.01),
        metrics(labels_per_class=8),
        metrics(encoder={"path": "random:s", "size": "s", "databases": []}),
        metrics(encoder={"path": "runs/y", "size": "s", "databases": ["ptb-xl"]}, test_macro_auroc_interval=None),
    ]
    table = write(tmp_path, *runs)
    assert len(table) == 7
    published = table["published"].replace({np.nan: None}).tolist()
    assert sorted(value for value in published if value is not None) == [0.883, 0.93, 0.935, 0.938, 0.945]
    tuned, probed = as_markdown(table).split("**attentive**")
    lines = tuned.splitlines()
    assert lines[0] == "**finetune**"
    assert [part.strip() for part in lines[2].split("|")[1:4]] == ["encoder", "all", "ST-MEM"]
    assert sum(line.startswith("| s (") for line in lines) == 5  # encoders and shares of labels
    assert probed.count("| s (") == 1
    assert any(line.startswith("| s (all), 1% of labels") for line in lines)
    assert any(line.startswith("| s (all), 8 labels per class") for line in lines)


def test_the_same_run_twice_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="would count twice"):
        write(tmp_path, metrics(), metrics())


def write_with_predictions(directory, noise, **changes):
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.3).astype(np.float32)
    logits = labels + noise * rng.normal(size=labels.shape)
    directory.mkdir(parents=True)
    (directory / "metrics.json").write_text(json.dumps(metrics(**changes)))
    ids, names = np.arange(200).astype(str), np.array(["a", "b", "c"])
    np.savez(directory / "predictions.npz", record_id=ids, class_names=names, labels=labels, logits=logits)
    return labels, logits


def test_runs_are_paired_by_all_but_their_encoder(tmp_path):
    other = {"path": "random:s", "size": "s", "databases": []}
    for seed in (0, 1):
        labels, good = write_with_predictions(tmp_path / "a" / str(seed), 0.5, seed=seed)
        _, bad = write_with_predictions(tmp_path / "b" / str(seed), 3.0, seed=seed, encoder=other)
    write_with_predictions(tmp_path / "b" / "more", 1.0, task="form", encoder=other)  # has no partner
    table = compare(find_runs([tmp_path / "a"]), find_runs([tmp_path / "b"]))
    assert table["seed"].tolist() == [0, 1]
    expected = paired_test(labels, good, bad)
    row = table.iloc[1]
    assert row["difference"] == expected.difference.value > 0.2
    assert (row["low"], row["high"], row["p_value"]) == (expected.difference.low, expected.difference.high, expected.p_value)
    lines = comparison_as_markdown(table).splitlines()
    assert len(lines) == 4
    assert f"{row['difference']:+.3f} [{row['low']:+.3f}" in lines[3]
    reverse = compare(find_runs([tmp_path / "b"]), find_runs([tmp_path / "a"]))
    assert reverse["difference"].tolist() == [-value for value in table["difference"]]


def test_what_cannot_be_paired_is_an_error(tmp_path):
    write_with_predictions(tmp_path / "a", 1.0)
    write_with_predictions(tmp_path / "b", 1.0, task="form")
    write_with_predictions(tmp_path / "c", 1.0)
    a, b, c = (find_runs([tmp_path / name]) for name in "abc")
    with pytest.raises(ValueError, match="No two runs agree"):
        compare(a, b)
    with pytest.raises(ValueError, match="open which to compare"):
        compare([*a, *c], a)
    predictions = dict(np.load(c[0] / "predictions.npz"))
    predictions["record_id"][3] = "x"
    np.savez(c[0] / "predictions.npz", **predictions)
    with pytest.raises(ValueError, match="differ in the record_id"):
        compare(a, c)


def test_no_runs_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="No finished run"):
        find_runs([tmp_path])


def test_corpora_of_the_paper():
    def corpus(databases, path="runs/x"):
        return corpus_of({"path": path, "size": "s", "databases": databases})

    assert corpus(ALL) == "all"
    assert corpus(["mimic-iv-ecg"]) == "mimic"
    assert corpus(["synthetic"]) is None
    assert corpus([], "random:s") == "random"
    assert corpus([]) is None


def test_nothing_is_set_beside_what_the_paper_did_not_do():
    assert published_result(metrics()) is not None
    for changes in (
        {"database": "georgia"},
        {"records": {"train": 353, "validation": 72, "test": 75}},
        {"task": "form"},
        {"protocol": "linear"},
        {"label_fraction": 0.1},
    ):
        assert published_result(metrics(**changes)) is None
    assert published_result(metrics(encoder={"path": "x", "size": None, "databases": ALL})) is None
    assert published_result(metrics(protocol="finetune_after_probe")).auroc == 0.945
