import json
import os

import numpy as np
import pytest
import torch

from ecg_jepa import EcgJepaConfig, EcgJepaModel
from ecg_jepa._utils.model_directory import weights_digest
from ecg_jepa.data.record_statistics import PUBLISHED
from ecg_jepa.evaluation.bootstrap import paired_test
from ecg_jepa.evaluation.published import paper_run, published_result
from ecg_jepa.evaluation.tables import as_markdown, compare, comparison_as_markdown, find_outdated, find_runs, gather


def described(*names):
    return [{"name": name, "records": PUBLISHED[name].records} for name in names]


ALL = described(*PUBLISHED)


def encoder(path="runs/vit_s_all", configuration="vit_s_all", databases=ALL, size="s", **changes):
    """As it is described in metrics.json."""
    return {
        "path": path,
        "digest": f"digest of {path}",
        "size": size,
        "objective": "jepa",
        "configuration": configuration,
        "databases": databases,
    } | changes


RANDOM = encoder("random:s", None, [], objective=None)


def metrics(**changes):
    values = {
        "model": "runs/vit_s_all",
        "encoder": encoder(),
        "settings": {"max_steps": 10_000, "seed": 0, "task": "all"},
        "database": "ptb-xl",
        "database_digest": "of its records",
        "records": {"train": 17_418, "validation": 2183, "test": 2198},
        "task": "all",
        "protocol": "finetune",
        "configuration": changes.get("protocol", "finetune"),
        "label_fraction": 1.0,
        "labels_per_class": None,
        "seed": 0,
        "test_metrics": means(),
        "classes_left_out": [],
    }
    return values | changes


def means(auroc=0.95, interval=(0.94, 0.96), **others):
    """The means over classes that metrics.json has."""
    values = {"average_precision": 0.5, "f1": 0.4, **others}
    entries = {name: {"value": value, "interval": None} for name, value in values.items()}
    return {"macro": {"auroc": {"value": auroc, "interval": list(interval) if interval else None}, **entries}}


def write(directory, *runs):
    for number, run in enumerate(runs):
        (directory / str(number)).mkdir(parents=True)
        (directory / str(number) / "metrics.json").write_text(json.dumps(run))
    return gather(find_runs([directory]))


def test_seeds_are_averaged_and_set_beside_the_paper(tmp_path):
    table = write(tmp_path, *(metrics(seed=seed, test_metrics=means(value)) for seed, value in enumerate((0.93, 0.95, 0.94))))
    (row,) = table.to_dict("records")
    assert (row["runs"], row["auroc"], row["auroc_std"]) == (3, pytest.approx(0.94), pytest.approx(0.01))
    assert (row["published"], row["published_std"]) == (0.945, 0.001)
    assert row["difference"] == pytest.approx(-0.005)
    assert "0.940 (0.010, 3 seeds); paper 0.945, -0.005" in as_markdown(table)


def test_further_metrics_are_averaged_over_seeds_and_absent_where_there_are_none(tmp_path):
    runs = [metrics(seed=s, test_metrics=means(sensitivity=v, **{"ppv_at_0.90": None})) for s, v in enumerate((0.7, 0.8))]
    table = write(tmp_path, *runs, metrics(task="form"))
    new, old = table.to_dict("records")
    assert new["sensitivity"] == pytest.approx(0.75)
    assert np.isnan([new["ppv_at_0.90"], new["brier"], old["sensitivity"]]).all()
    assert "0.75" not in as_markdown(table)  # which stays the paper's table
    assert json.loads(table.to_json(orient="records"))[1]["sensitivity"] is None


def test_what_differs_stands_apart(tmp_path):
    runs = [
        metrics(),
        metrics(task="ST-MEM", test_accuracy=0.7),
        metrics(protocol="attentive"),
        metrics(label_fraction=0.01),
        metrics(labels_per_class=8),
        metrics(encoder=RANDOM),
        metrics(encoder=encoder("runs/y", "vit_s_ptbxl", described("ptb-xl")), test_metrics=means(interval=None)),
    ]
    table = write(tmp_path, *runs)
    assert len(table) == 7
    published = table["published"].replace({np.nan: None}).tolist()
    assert sorted(value for value in published if value is not None) == [0.883, 0.93, 0.935, 0.938, 0.945]
    tuned, probed = as_markdown(table).split("**ptb-xl, attentive**")
    lines = tuned.splitlines()
    assert lines[0] == "**ptb-xl, finetune**"
    assert [part.strip() for part in lines[2].split("|")[1:4]] == ["encoder, on ptb-xl", "all", "ST-MEM"]
    rows = [line.split("|")[1].strip() for line in lines[4:] if line]
    name = f"vit_s_all (jepa, {'+'.join(database['name'] for database in ALL)})"
    assert rows == [
        name,
        f"{name}, 1% of labels",
        f"{name}, 8 labels per class",
        "s (random)",
        "y (jepa, ptb-xl)",
    ]
    assert probed.count("| vit_s_all (") == 1


def test_a_second_database_has_a_table_of_its_own(tmp_path):
    markdown = as_markdown(write(tmp_path, metrics(), metrics(database="georgia", test_metrics=means(0.77))))
    assert [line for line in markdown.splitlines() if line.startswith("**")] == ["**ptb-xl, finetune**", "**georgia, finetune**"]
    assert "0.770" in markdown.split("**georgia, finetune**")[1]


def test_encoders_of_one_name_have_rows_of_their_own(tmp_path):
    twins = [encoder(f"{folder}/run", None, described("ptb-xl")) for folder in ("a", "b")]
    table = write(tmp_path, *(metrics(encoder=twin, test_metrics=means(0.6 + i / 10)) for i, twin in enumerate(twins)))
    first, second = table["model"]
    assert first != second
    assert first.startswith("run (jepa, ptb-xl) #")
    assert second.startswith("run (jepa, ptb-xl) #")
    markdown = as_markdown(table)
    assert "0.600" in markdown
    assert "0.700" in markdown


def test_a_copy_of_an_encoder_is_the_same_encoder(tmp_path):
    copy = encoder("somewhere/else", digest=encoder()["digest"])
    (row,) = write(tmp_path, metrics(), metrics(encoder=copy, seed=1)).to_dict("records")
    assert row["runs"] == 2


def test_settings_that_differ_are_named(tmp_path):
    short = metrics(settings={**metrics()["settings"], "max_steps": 20}, configuration=None)
    table = write(tmp_path, metrics(), short)
    assert table["settings"].tolist() == ["max_steps 10000", "max_steps 20"]
    assert table["published"].notna().tolist() == [True, False]
    assert ", max_steps 20" in as_markdown(table)


def test_a_setting_that_some_runs_do_not_record_differs(tmp_path):
    calibrated = {"max_steps": 10_000, "seed": 1, "task": "all", "calibrate": True}
    table = write(tmp_path, metrics(), metrics(seed=1, settings=calibrated))
    assert sorted(table["settings"]) == ["calibrate False", "calibrate True"]
    assert list(table["runs"]) == [1, 1]


def test_runs_older_than_their_encoder_are_named(tmp_path):
    source = tmp_path / "encoder"
    model = EcgJepaModel(EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4))
    model.save_pretrained(source)
    write(tmp_path / "runs", metrics(), metrics(seed=1), metrics(seed=2))
    for number, path in enumerate((source, "random:xs")):
        run = tmp_path / "runs" / str(number)
        directory = None if path == "random:xs" else os.path.relpath(path, run)
        info = {"start": {"path": str(path), "directory": directory, "digest": weights_digest(source)}}
        (run / "training_info.json").write_text(json.dumps(info))
    runs = find_runs([tmp_path / "runs"])
    assert find_outdated(runs) == []
    with torch.no_grad():
        model.norm.weight.mul_(2)
    model.save_pretrained(source)
    (sentence,) = find_outdated(runs)
    assert sentence.startswith(f"{tmp_path / 'runs' / '0'} is older than {source}")


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
    for seed in (0, 1):
        labels, good = write_with_predictions(tmp_path / "a" / str(seed), 0.5, seed=seed)
        _, bad = write_with_predictions(tmp_path / "b" / str(seed), 3.0, seed=seed, encoder=RANDOM)
    write_with_predictions(tmp_path / "b" / "more", 1.0, task="form", encoder=RANDOM)  # has no partner
    table = compare(find_runs([tmp_path / "a"]), find_runs([tmp_path / "b"]))
    assert table["seed"].tolist() == [0, 1]
    expected = paired_test(labels, good, bad)
    row = table.iloc[1]
    assert row["difference"] == expected.difference.value > 0.2
    assert (row["low"], row["high"], row["p_value"]) == (expected.difference.low, expected.difference.high, expected.p_value)
    lines = comparison_as_markdown(table).splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("| ptb-xl ")
    assert f"{row['difference']:+.3f} [{row['low']:+.3f}" in lines[3]
    reverse = compare(find_runs([tmp_path / "b"]), find_runs([tmp_path / "a"]))
    assert reverse["difference"].tolist() == [-value for value in table["difference"]]


def test_few_labels_on_one_side_alone_hinder_no_pair(tmp_path):
    write_with_predictions(tmp_path / "a", 0.1)
    write_with_predictions(tmp_path / "b", 0.2, encoder=RANDOM)
    write_with_predictions(tmp_path / "c", 0.2, encoder=RANDOM, labels_per_class=8)
    assert len(compare(find_runs([tmp_path / "a"]), find_runs([tmp_path / "b", tmp_path / "c"]))) == 1


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


def test_runs_of_the_paper():
    assert paper_run("vit_xs_mimic") == ("xs", "mimic")
    assert paper_run("demo") is None
    assert paper_run(None) is None


def test_nothing_is_set_beside_what_the_paper_did_not_do():
    assert published_result(metrics()) is not None
    for changes in (
        {"database": "georgia"},
        {"records": {"train": 353, "validation": 72, "test": 75}},
        {"task": "form"},
        {"protocol": "linear"},
        {"label_fraction": 0.1},
        {"configuration": None},  # of the protocol: other steps, another learning rate
        {"encoder": encoder(configuration=None)},  # patches of 50 samples, fewer steps: another recipe
        {"encoder": encoder(size=None)},  # another rate
        {"encoder": encoder(databases=[*ALL[:-1], {**ALL[-1], "records": 10}])},  # a part of a database
    ):
        assert published_result(metrics(**changes)) is None, changes
    assert published_result(metrics(protocol="finetune_after_probe"))["auroc"] == 0.945
