import json

import numpy as np
import pytest

from ecg_jepa.evaluation.published import corpus_of, published_result
from ecg_jepa.evaluation.tables import as_markdown, find_runs, gather

ALL = [f"database-{number}" for number in range(10)]


def metrics(**changes):
    values = {
        "model": "runs/x",
        "encoder": {"path": "runs/x", "size": "s", "databases": ALL},
        "database": "ptb-xl",
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
    for changes in ({"database": "georgia"}, {"task": "form"}, {"protocol": "linear"}, {"label_fraction": 0.1}):
        assert published_result(metrics(**changes)) is None
    assert published_result(metrics(encoder={"path": "x", "size": None, "databases": ALL})) is None
    assert published_result(metrics(protocol="finetune_after_probe")).auroc == 0.945
