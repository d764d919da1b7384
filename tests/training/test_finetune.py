import dataclasses
import json
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from raw_databases import ecg, write_challenge, write_code_15
from transformers import AutoFeatureExtractor, AutoModelForSequenceClassification

from ecg_jepa import EcgJepaConfig, EcgJepaModel
from ecg_jepa._utils.model_directory import weights_digest
from ecg_jepa._utils.settings import parse_settings
from ecg_jepa.data.builders.challenge_2021 import Georgia
from ecg_jepa.data.builders.code_15 import Code15
from ecg_jepa.data.records import PreparedDatabase, find_database
from ecg_jepa.data.task_data import TaskData
from ecg_jepa.data.tasks import TASKS
from ecg_jepa.evaluation.metrics import MacroAuroc, measure
from ecg_jepa.finetuning.classifier import Scorer
from ecg_jepa.finetuning.finetuning_loop import FinetuningRun, load_task
from ecg_jepa.finetuning.protocols import FinetuneSettings

CONFIGS = "training/configs"


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("encoder")
    EcgJepaModel(EcgJepaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)).save_pretrained(directory)
    return directory


@pytest.fixture
def plots():
    """For tests that need the plots of a run."""


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    """Leave out plots, which take most of the time of a short run, unless a test asks for `plots`."""
    if "plots" not in request.fixturenames:
        monkeypatch.setattr("ecg_jepa.publishing.classifier_export.plot_results", lambda run, result: {})


@pytest.fixture
def finetune(run_script, prepared_dir, encoder_dir, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)

    def run(protocol, output_dir, *flags):
        config = ("--config", f"{CONFIGS}/{protocol}.yaml", "--data_dir", prepared_dir, "--output_dir", output_dir)
        small = ("--max_steps", 4, "--eval_steps", 2, "--batch_size", 16, "--warmup_steps", 0)
        run_script("finetune", *config, "--model_name_or_path", encoder_dir, *small, *flags)
        return json.loads((output_dir / "metrics.json").read_text())

    return run


def macro_auroc(metrics):
    return metrics["test_metrics"]["macro"]["auroc"]["value"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task(finetune, task, tmp_path, capsys):
    metrics = finetune("linear", tmp_path, "--task", task)
    assert metrics["task"] == task
    assert f"{task}, linear: test macro AUROC" in capsys.readouterr().out
    predictions = np.load(tmp_path / "predictions.npz")
    names = predictions["class_names"].tolist()
    result = measure(MacroAuroc, predictions["labels"], predictions["logits"], class_names=names)
    assert macro_auroc(metrics) == pytest.approx(result["macro_auroc"])
    assert metrics["classes_left_out"] == result["auroc_left_out"]
    assert list(metrics["test_metrics"]["per_class"]) == names
    values = {name: entry["auroc"]["value"] for name, entry in metrics["test_metrics"]["per_class"].items()}
    assert {name for name, value in values.items() if value is None} == set(result["auroc_left_out"])
    rows = predictions["probabilities"].sum(axis=1)
    assert np.allclose(rows, 1, atol=1e-5) == (task == "ST-MEM")


def test_joined_tasks(finetune, tmp_path):
    metrics = finetune("linear", tmp_path, "--task", "superdiagnostic+rhythm")
    names = list(AutoModelForSequenceClassification.from_pretrained(tmp_path).config.id2label.values())
    assert names[:5] == ["CD", "HYP", "MI", "NORM", "STTC"]
    assert "AFIB" in names[5:]
    assert set(metrics["test_parts"]) == {"superdiagnostic", "rhythm"}
    card = (tmp_path / "README.md").read_text()
    assert f"| macro AUROC of rhythm | {metrics['test_parts']['rhythm']['macro_auroc']:.4f} |" in card
    assert "atrial fibrillation" in card.lower()


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "on_the_way"), [("linear", False), ("finetune", True)])
def test_what_is_reported_is_scored_in_full_precision(finetune, tmp_path, monkeypatch, protocol, on_the_way):
    scored, logits = [], Scorer.logits

    def record(scorer):
        scored.append((torch.is_autocast_enabled("cpu"), scorer, logits(scorer)))
        return scored[-1][2]

    monkeypatch.setattr(Scorer, "logits", record)
    metrics = finetune(protocol, tmp_path, "--task", "superdiagnostic", "--mixed_precision", "bf16")
    # Two validations; at the end test and validation records.
    assert [precision for precision, *_ in scored] == [on_the_way, on_the_way, False, False]
    _, validation, reported = scored[-1]
    task = validation.data.task
    labels = task.labels[validation.data.splits["validation"]]
    assert metrics["validation_macro_auroc"] == measure(MacroAuroc, labels, reported)["macro_auroc"]


@pytest.mark.parametrize(
    "protocol", [pytest.param("linear", marks=pytest.mark.slow), "attentive", pytest.param("finetune", marks=pytest.mark.slow)]
)
def test_the_directory_is_a_complete_classifier(finetune, plots, protocol, prepared_dir, encoder_dir, tmp_path):
    finetune(protocol, tmp_path, "--task", "superdiagnostic")
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".py"} == {
        *("config.json", "model.safetensors", "preprocessor_config.json", "README.md"),
        *("metrics.json", "predictions.npz", "training_config.yaml", "training_info.json", "plots", ".lock"),
    }
    pictures = {path.name: path.read_bytes()[:4] for path in (tmp_path / "plots").iterdir()}
    examples = {"ecg_1_MI.png", "ecg_2_CD.png"} if protocol == "attentive" else set()  # the most frequent of the test records
    assert pictures == dict.fromkeys({"roc.png", "precision_recall.png", "calibration.png"} | examples, b"\x89PNG")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert model.config.id2label == {0: "CD", 1: "HYP", 2: "MI", 3: "NORM", 4: "STTC"}
    predictions = np.load(tmp_path / "predictions.npz")
    database = find_database(prepared_dir)
    index = database.column("record_id").tolist().index(predictions["record_id"][0])
    inputs = extractor(database.signal(index) / 1000, sampling_rate=500, return_tensors="pt")
    with torch.no_grad():
        np.testing.assert_allclose(model(**inputs).logits[0], predictions["logits"][0], atol=1e-4)
    encoder = EcgJepaModel.from_pretrained(encoder_dir)
    same = all(torch.equal(a, b) for a, b in zip(model.ecg_jepa.parameters(), encoder.parameters(), strict=True))
    assert same == (protocol != "finetune")


def test_thresholds_and_temperature_travel_with_the_classifier(finetune, tmp_path):
    plain = finetune("linear", tmp_path / "plain", "--task", "superdiagnostic", "--max_steps", 8)
    scaled = finetune("linear", tmp_path / "scaled", "--task", "superdiagnostic", "--max_steps", 8, "--calibrate")
    assert macro_auroc(scaled) == macro_auroc(plain)
    assert set(scaled["subgroups"]) == {"sex", "age"}
    for name, metrics in (("plain", plain), ("scaled", scaled)):
        json.dumps(metrics, allow_nan=False)
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        assert model.config.decision_thresholds == metrics["decision_thresholds"] == {}  # of a dozen validation records
        assert set(metrics["f1_thresholds"]) <= set(model.config.id2label.values())
        assert model.config.temperature == metrics["calibration"]["temperature"]
        predictions = np.load(tmp_path / name / "predictions.npz")
        expected = torch.from_numpy(predictions["logits"] / (model.config.temperature or 1.0)).sigmoid()
        np.testing.assert_allclose(predictions["probabilities"], expected, atol=1e-6)
        card = (tmp_path / name / "README.md").read_text()
        assert "## Decisions" in card
        assert "Not evaluated, because fewer than ten records" in card  # of twelve test records
        assert ("temperature of" in card) == (name == "scaled")
    assert model.config.temperature != 1
    np.testing.assert_array_equal(np.load(tmp_path / "plain" / "predictions.npz")["logits"], predictions["logits"])
    assert plain["calibration"]["temperature"] is None


def test_finetuning_after_a_probe(finetune, tmp_path):
    probe = finetune("attentive", tmp_path / "probe", "--task", "rhythm", "--max_steps", 20)
    flags = ("--task", "rhythm", "--model_name_or_path", tmp_path / "probe", "--learning_rate", 1e-9)
    tuned = finetune("finetune_after_probe", tmp_path / "tuned", *flags)
    assert macro_auroc(tuned) == pytest.approx(macro_auroc(probe), abs=1e-3)


def test_the_best_validation_is_kept(finetune, tmp_path):
    # A learning rate so high that the head jumps about: the best of its heads must come back, not the last.
    flags = ("--task", "superdiagnostic", "--learning_rate", 1.0, "--final_learning_rate", 1.0, "--eval_steps", 1)
    whole = finetune("linear", tmp_path / "whole", *flags, "--max_steps", 12)
    best = whole["best_step"]
    assert best < 12
    stopped = finetune("linear", tmp_path / "stopped", *flags, "--max_steps", best)
    assert stopped["best_step"] == best
    assert macro_auroc(stopped) == pytest.approx(macro_auroc(whole), abs=1e-6)


def test_patience_stops(finetune, tmp_path):
    frozen_rate = ("--learning_rate", 1e-12, "--final_learning_rate", 1e-12)
    metrics = finetune("linear", tmp_path, "--task", "rhythm", *frozen_rate, "--max_steps", 50, "--patience", 4)
    assert metrics["best_step"] == 2


def test_few_labels(finetune, prepared_dir, tmp_path):
    full = finetune("linear", tmp_path / "full", "--task", "superdiagnostic")
    few = finetune("linear", tmp_path / "few", "--task", "superdiagnostic", "--label_fraction", 0.1)
    assert few["records"]["train"] < full["records"]["train"] / 5
    assert few["records"]["test"] == full["records"]["test"]
    assert few["label_fraction"] == 0.1
    assert "with few labels on purpose" in (tmp_path / "few" / "README.md").read_text()
    assert "with few labels" not in (tmp_path / "full" / "README.md").read_text()


def test_challenge_codes(finetune, tmp_path):
    for number in range(60):
        comments = [f"# Dx: {'111' if number % 2 else '222'}{',333' if number < 3 else ''}"]
        write_challenge(tmp_path, "georgia", f"E{number:05d}", ecg(5000, number), comments=comments)
    Georgia(data_dir=str(tmp_path)).prepare(tmp_path / "prepared")
    metrics = finetune("linear", tmp_path / "out", "--data_dir", tmp_path / "prepared", "--task", "all")
    assert metrics["database"] == "georgia"
    assert metrics["labels_too_rare"] == ["333"]
    assert sum(metrics["records"].values()) == 60
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "111", 1: "222"}


def test_a_high_pass_of_the_database_travels_with_the_classifier(finetune, tmp_path):
    """Or the classifier would get records with the baseline wander that training never saw."""
    tracings = {number: ecg(4096, number, rate=400) / 1000 for number in range(1, 41)}
    write_code_15(tmp_path, {"exams_part0.hdf5": tracings}, AF=[number % 3 == 0 for number in range(40)])
    Code15(data_dir=str(tmp_path)).prepare(tmp_path / "prepared")
    finetune("linear", tmp_path / "out", "--data_dir", tmp_path / "prepared", "--task", "all")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert extractor.highpass_cutoff == 0.5
    predictions = np.load(tmp_path / "out" / "predictions.npz")
    inputs = extractor(tracings[int(predictions["record_id"][0])], sampling_rate=400, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        np.testing.assert_allclose(model(**inputs).logits[0], predictions["logits"][0], atol=1e-3)  # int16 rounds to 1 uV


def test_frozen_encoders_see_validation_and_test_once(finetune, encoder_dir, tmp_path, monkeypatch):
    encoded = []
    encode = Scorer._encode
    monkeypatch.setattr(Scorer, "_encode", lambda self, device: encoded.append(len(self.indices)) or encode(self, device))
    metrics = finetune("linear", tmp_path, "--task", "superdiagnostic")
    assert encoded == [metrics["records"]["validation"], metrics["records"]["test"]]


@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_test_records_are_read_by_the_final_scoring_only(finetune, protocol, prepared_dir, tmp_path, monkeypatch):
    read = []
    signal, scorer = PreparedDatabase.signal, FinetuningRun.scorer
    monkeypatch.setattr(PreparedDatabase, "signal", lambda self, index, *rest: read.append(index) or signal(self, index, *rest))
    over = {"validation": "training begins", "test": "training is over"}
    monkeypatch.setattr(FinetuningRun, "scorer", lambda self, split: read.append(over[split]) or scorer(self, split))
    finetune(protocol, tmp_path, "--task", "superdiagnostic")
    splits = TaskData.load(prepared_dir, "superdiagnostic").splits
    over = read.index("training is over")
    assert read[0] == "training begins"
    before, after = set(read[1:over]), [index for index in read[over + 1 :] if index in splits["test"]]
    assert set(splits["validation"]) <= before <= {*splits["train"], *splits["validation"]}
    assert sorted(after) == sorted(splits["test"])  # each once


def test_mistakes_are_named(finetune, tmp_path, capsys):
    with pytest.raises(SystemExit):
        finetune("linear", tmp_path, "--task", "diagnosis")
    assert "Unknown task 'diagnosis'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"no directory with a config\.json"):
        finetune("linear", tmp_path, "--model_name_or_path", "nowhere")


def test_what_was_run_is_recorded(finetune, prepared_dir, encoder_dir, tmp_path):
    metrics = finetune("linear", tmp_path, "--task", "rhythm", "--label_fraction", 0.5, "--seed", 3)
    info = json.loads((tmp_path / "training_info.json").read_text())
    assert (info["kind"], info["protocol"], info["task"]) == ("finetuning", "linear", "rhythm")
    assert info["settings"]["label_fraction"] == 0.5
    assert info["settings"]["max_steps"] == 4
    assert info["configuration"] is metrics["configuration"] is None  # four steps are not the protocol's
    start = dict(info["start"])
    assert (tmp_path / start.pop("directory")).samefile(encoder_dir)
    assert start == {"path": str(encoder_dir), "digest": weights_digest(encoder_dir)}
    assert not Path(info["start"]["directory"]).is_absolute()
    assert info["encoder"] == metrics["encoder"]
    database = find_database(prepared_dir)
    assert info["databases"] == [
        {"name": "synthetic", "records": metrics["records"]["train"], "digest": database.info.content_digest}
    ]
    settings = FinetuneSettings("x", task="rhythm", data_dir=str(prepared_dir), label_fraction=0.5, seed=3)
    assert info["labels"] == load_task(settings).labels_digest()
    assert info["labels"] != load_task(dataclasses.replace(settings, seed=4)).labels_digest()
    assert info["records_seen"] == 4 * 16
    assert info["weights"] == weights_digest(tmp_path)
    assert info["versions"]["torch"] == torch.__version__
    assert datetime.fromisoformat(info["finished"]).tzinfo is not None
    assert info["seconds"] > 0
    assert "CPU" in info["hardware"]


def test_the_protocols_own_settings_are_recognised():
    for protocol in ("linear", "attentive", "finetune", "finetune_after_probe"):
        settings = parse_settings(FinetuneSettings, ["--config", protocol, "--model_name_or_path", "x", "--task", "form"])
        assert settings.configuration() == protocol
        assert dataclasses.replace(settings, learning_rate=2e-3).configuration() is None


def test_a_probes_encoder_is_the_one_it_was_trained_on(finetune, encoder_dir, tmp_path):
    finetune("attentive", tmp_path / "probe", "--task", "rhythm")
    tuned = finetune("finetune_after_probe", tmp_path / "tuned", "--task", "rhythm", "--model_name_or_path", tmp_path / "probe")
    assert tuned["encoder"]["path"] == str(encoder_dir)
    assert tuned["encoder"]["digest"] == weights_digest(encoder_dir)
    info = json.loads((tmp_path / "tuned" / "training_info.json").read_text())
    assert info["start"]["digest"] == weights_digest(tmp_path / "probe")


@pytest.mark.slow
def test_a_finished_run_is_not_written_over_by_chance(finetune, plots, tmp_path):
    finetune("attentive", tmp_path / "run", "--task", "superdiagnostic")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "plots" / "mine.png").write_text("mine")
    before = (tmp_path / "run" / "metrics.json").read_bytes()
    with pytest.raises(SystemExit, match="holds a finished run: choose another --output_dir"):
        finetune("linear", tmp_path / "run", "--task", "rhythm")
    assert (tmp_path / "run" / "metrics.json").read_bytes() == before
    assert list((tmp_path / "run" / "plots").glob("ecg_*.png"))
    metrics = finetune("linear", tmp_path / "run", "--task", "rhythm", "--overwrite_output_dir")
    assert metrics["task"] == "rhythm"
    assert not list((tmp_path / "run" / "plots").glob("ecg_*.png"))  # of the attentive probe
    assert all((tmp_path / "run" / name).read_text() == "mine" for name in ("notes.txt", "plots/mine.png"))


def test_nothing_is_removed_before_it_is_known_that_the_new_run_can_be(finetune, encoder_dir, tmp_path, monkeypatch):
    finetune("linear", tmp_path / "run", "--task", "rhythm")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    replace = ("--task", "rhythm", "--overwrite_output_dir")
    with pytest.raises(SystemExit, match="no directory with a config"):
        finetune("linear", tmp_path / "run", *replace, "--model_name_or_path", "nowhere")
    with pytest.raises(SystemExit, match="does not fit the encoder"):
        finetune("linear", tmp_path / "run", *replace, "--crop_duration", 50)
    with pytest.raises(SystemExit, match="holds the weights to start from"):
        finetune("finetune", tmp_path / "run", *replace, "--model_name_or_path", tmp_path / "run")
    load = TaskData.load

    def without_positives(*args, **kwargs):
        data = load(*args, **kwargs)
        data.task.labels[data.splits["test"]] = 0
        return data

    monkeypatch.setattr(TaskData, "load", without_positives)
    with pytest.raises(SystemExit, match="No class has both positives and negatives among the"):
        finetune("linear", tmp_path / "run", *replace)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_an_encoder_is_not_replaced_by_a_classifier(finetune, encoder_dir, tmp_path):
    before = weights_digest(encoder_dir)
    for flags in ((), ("--overwrite_output_dir",)):
        with pytest.raises(SystemExit, match="holds a model that is no classifier"):
            finetune("linear", encoder_dir, "--task", "rhythm", "--model_name_or_path", "random:xs", *flags)
    assert weights_digest(encoder_dir) == before


def test_a_pretraining_run_and_what_is_no_runs_are_left_alone(finetune, tmp_path):
    (tmp_path / "part" / "checkpoint-4").mkdir(parents=True)
    with pytest.raises(SystemExit, match="holds a pre-training run"):
        finetune("linear", tmp_path / "part", "--task", "rhythm")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    for flags in ((), ("--overwrite_output_dir",)):
        with pytest.raises(SystemExit, match=r"holds files that are no run's .README\.md"):
            finetune("linear", tmp_path / "mine", "--task", "rhythm", *flags)
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "not_scored.json").write_text("{}")  # of a sweep, which tries again
    finetune("linear", tmp_path / "failed", "--task", "rhythm")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("a$\\bad$", "x" * 300, "心房")] + ["a|b\n| c |"]
)
def test_no_name_of_a_label_costs_a_run(finetune, plots, prepared_dir, tmp_path, name, monkeypatch):
    load = TaskData.load

    def renamed(*args, **kwargs):
        data = load(*args, **kwargs)
        data.task.class_names[0] = name
        return data

    monkeypatch.setattr(TaskData, "load", renamed)
    metrics = finetune("attentive", tmp_path, "--task", "rhythm")
    assert name in metrics["test_support"]
    assert (tmp_path / "README.md").is_file()
    assert len(list((tmp_path / "plots").glob("ecg_*.png"))) == 2
    assert (tmp_path / "plots" / "roc.png").is_file()


def test_weights_of_another_configuration_are_named_in_a_line(finetune, encoder_dir, tmp_path, capsys):
    other = shutil.copytree(encoder_dir, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"mlp_ratio": 2.0}))
    with pytest.raises(SystemExit, match="do not fit its config"):
        finetune("linear", tmp_path / "run", "--task", "rhythm", "--model_name_or_path", other)
    assert "Traceback" not in capsys.readouterr().err


def test_unknown_sizes_are_not_looked_for_on_the_hub(finetune, tmp_path):
    with pytest.raises(SystemExit, match="There is no random:xl: choose random:xs, random:s, random:b"):
        finetune("linear", tmp_path, "--task", "rhythm", "--model_name_or_path", "random:xl")
    with pytest.raises(SystemExit, match="nor the name of a repository"):
        finetune("linear", tmp_path, "--task", "rhythm", "--model_name_or_path", tmp_path / "misspelt")


def test_a_folder_that_cannot_be_written_is_refused_before_training(finetune, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("ecg_jepa.cli.finetune.run_protocol", lambda run: pytest.fail("trained"))
    with pytest.raises(SystemExit, match="Not a directory"):
        finetune("linear", tmp_path / "file" / "run", "--task", "rhythm")


@pytest.mark.slow
def test_models_of_the_hub(finetune, encoder_dir, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    HfApi().create_repo("me/encoder", private=True)
    HfApi().upload_folder(repo_id="me/encoder", folder_path=encoder_dir)
    direct = finetune("linear", tmp_path / "direct", "--task", "rhythm")
    pulled = finetune("linear", tmp_path / "pulled", "--task", "rhythm", "--model_name_or_path", "me/encoder")
    assert macro_auroc(pulled) == macro_auroc(direct)
    assert pulled["encoder"]["path"] == "me/encoder"
    assert pulled["encoder"]["digest"] == direct["encoder"]["digest"]
    finetune("linear", tmp_path / "random", "--task", "rhythm", "--model_name_or_path", "random:me/encoder")
    with pytest.raises(SystemExit, match=r"me/nothing is no directory with a config\.json, and cannot be had"):
        finetune("linear", tmp_path / "none", "--task", "rhythm", "--model_name_or_path", "me/nothing")
