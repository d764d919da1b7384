import datasets
import numpy as np
import pytest
import torch
import wfdb
from clinical_formats import WRITERS
from raw_databases import STANDARD, ecg, write_challenge
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from ecg_jepa import (
    EcgClassificationPipeline,
    EcgJepaConfig,
    EcgJepaFeatureExtractor,
    EcgJepaForSequenceClassification,
    read_ecg,
)
from ecg_jepa.formats.wfdb_record import read_wfdb

LABELS = {0: "AF", 1: "LVH", 2: "NORM"}
DECLARED = {"sampling_rate": 500, "unit": "mV"}


def make(problem_type="multi_label_classification", **crops):
    torch.manual_seed(0)
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, id2label=LABELS, problem_type=problem_type)
    model = EcgJepaForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(30)  # so that scores differ
    extractor = EcgJepaFeatureExtractor.for_model(config, 0.1, 0.3, **crops)
    return EcgClassificationPipeline(model=model, feature_extractor=extractor)


@pytest.fixture
def classify():
    return make(crop_duration=2.5, crop_stride=1.25)


@pytest.fixture
def signal():
    return ecg(5000, 1) / 1000


@pytest.fixture
def wfdb_path(tmp_path):
    write_challenge(tmp_path, "georgia", "E00001", ecg(5000, 1))
    return next(tmp_path.rglob("E00001.hea"))


def logits(classify, signal):
    inputs = classify.feature_extractor(signal, **DECLARED, return_tensors="pt")
    with torch.no_grad():
        return classify.model(**inputs).logits[0]


def test_scores_are_sigmoids_of_the_mean_logits_of_the_crops(classify, signal):
    result = classify(signal, **DECLARED)
    expected = logits(classify, signal).sigmoid()
    assert [entry["score"] for entry in result] == sorted((entry["score"] for entry in result), reverse=True)
    assert {entry["label"]: entry["score"] for entry in result} == pytest.approx(
        {LABELS[index]: expected[index].item() for index in range(3)}, abs=1e-6
    )


def test_exclusive_classes_have_a_softmax(signal):
    classify = make("single_label_classification")
    result = classify(signal, **DECLARED)
    assert sum(entry["score"] for entry in result) == pytest.approx(1)
    expected = logits(classify, signal).softmax(0)
    assert result[0]["score"] == pytest.approx(expected.max().item(), abs=1e-6)
    with pytest.raises(ValueError, match="problem_type is None"):
        make(None)(signal, **DECLARED)


def test_every_form_of_a_record_gives_the_same(classify, signal, wfdb_path):
    record = read_wfdb(wfdb_path).ecg
    order = [11, *range(11)]
    forms = [
        wfdb_path,
        str(wfdb_path),
        str(wfdb_path.with_suffix("")),
        str(wfdb_path.with_suffix(".mat")),
        {"path": str(wfdb_path)},
        {"signal": record.signal, "sampling_rate": 500, "lead_names": record.lead_names, "unit": "mV"},
        {"array": torch.from_numpy(record.signal) * 1000, "sampling_rate": 500, "unit": "uV"},
        {"signal": record.signal[order], "lead_names": [record.lead_names[i] for i in order], **DECLARED},
    ]
    first, *others = classify(forms)
    assert first == classify(record.signal, **DECLARED)
    for other in others:
        assert other == [{"label": e["label"], "score": pytest.approx(e["score"], abs=1e-5)} for e in first]


def test_what_a_record_says_itself_counts(classify, signal):
    expected = classify(signal, **DECLARED)
    microvolts = {"signal": signal * 1000, "unit": "uV"}
    results = classify([signal, microvolts], **DECLARED)
    assert results[0] == expected
    assert results[1] == [{"label": e["label"], "score": pytest.approx(e["score"], abs=1e-5)} for e in expected]


def test_top_k_and_threshold(classify, signal):
    everything = classify(signal, **DECLARED)
    assert classify(signal, **DECLARED, top_k=1) == everything[:1]
    middle = everything[1]["score"]
    assert classify(signal, **DECLARED, threshold=middle) == everything[:2]
    assert classify(signal, **DECLARED, threshold=1.0) == []
    with pytest.raises(ValueError, match="top_k=0"):
        classify(signal, **DECLARED, top_k=0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_batches_are_never_padded(classify, batch_size, monkeypatch):
    """Records of different lengths: crops of zeros would pull the mean of the logits."""
    signals = [ecg(samples, number) / 1000 for number, samples in enumerate((5000, 5000, 7000, 2500, 1250, 5000, 5000))]
    expected = [classify(signal, **DECLARED) for signal in signals]
    sizes = []
    forward = classify.model.forward
    monkeypatch.setattr(classify.model, "forward", lambda input_values: sizes.append(len(input_values)) or forward(input_values))
    results = classify(signals, **DECLARED, batch_size=batch_size)
    assert len(results) == 7
    for result, single in zip(results, expected, strict=True):
        assert result == [{"label": e["label"], "score": pytest.approx(e["score"], abs=1e-5)} for e in single]
    assert sizes == ([1] * 7 if batch_size == 1 else [2, 1, 1, 1, 2])


def test_arrays_of_records_and_generators(classify, signal):
    several = np.stack([signal, ecg(5000, 2) / 1000])
    expected = [classify(record, **DECLARED) for record in several]
    assert classify(several, **DECLARED) == expected
    assert classify(torch.from_numpy(several), **DECLARED) == expected
    assert classify(tuple(several), **DECLARED) == expected
    assert list(classify((record for record in several), **DECLARED)) == expected
    assert classify([]) == []


RECORD = np.random.default_rng(0).normal(scale=0.2, size=(12, 5000))


@pytest.mark.parametrize(
    ("record", "declared", "message"),
    [
        (np.zeros((12, 5000)), {"unit": "mV"}, "does not say its sampling_rate: pass sampling_rate="),
        (np.zeros((12, 5000)), {"sampling_rate": 500}, "does not say its unit"),
        (np.zeros((12, 5000)), {}, "does not say its sampling_rate and unit"),
        ({"signal": np.zeros((12, 5000)), "unit": "mV"}, {}, "does not say its sampling_rate"),
        (np.zeros((12, 5000)), {"sampling_rate": 500, "unit": "furlong"}, "Unknown unit 'furlong'"),
        (RECORD[:8], {**DECLARED, "lead_names": ["I", "II", *STANDARD[6:]][:8]}, None),
        (np.zeros((7, 5000)), {**DECLARED, "lead_names": ["I", "II", *STANDARD[6:11]]}, "Missing leads V6"),
        (np.zeros((8, 5000)), DECLARED, "has 8 leads of 5000 samples, expected"),
        (np.zeros((5000, 12)), DECLARED, "looks transposed"),
        (np.zeros((12, 20)), DECLARED, "too short: the record lasts 0.04 s"),
        (np.zeros((12, 20)), {**DECLARED, "check_plausibility": False}, "fewer than one patch"),
        (np.zeros(5000), DECLARED, r"numbers of shape \(leads, samples\), but got float64 \(5000,\)"),
        ("nowhere/record", {}, r"no file record\.hea"),
        ({"samples": np.zeros((12, 5000))}, DECLARED, "has 'path' or 'signal'"),
        ({"signal": np.zeros((12, 5000)), "rate": 500}, DECLARED, "this one has signal, rate"),
        (3, DECLARED, "but got int"),
        (np.zeros((12, 5000)), {**DECLARED, "leads": STANDARD}, "Unknown arguments leads"),
    ],
)
def test_what_does_not_fit_says_what_is_missing(classify, record, declared, message):
    if message is None:
        assert len(classify(record, **declared)) == 3  # limb leads are derived from I and II
        return
    with pytest.raises(ValueError, match=message):
        classify(record, **declared)


def test_what_a_file_says_is_not_contradicted(classify, wfdb_path):
    expected = classify(str(wfdb_path))
    assert classify(str(wfdb_path), **DECLARED) == expected
    assert classify({"path": wfdb_path, "lead_names": STANDARD}, **DECLARED) == expected
    with pytest.raises(ValueError, match=r"sampling_rate is declared as 250, but the record itself says 500\.0"):
        classify(str(wfdb_path), sampling_rate=250)
    with pytest.raises(ValueError, match="unit is declared as uV, but the record itself says mV"):
        classify([{"path": wfdb_path, "unit": "uV"}])


def test_files_of_every_format(classify, tmp_path):
    expected = None
    for name, write in WRITERS.items():
        if name == "muse.xml":  # of eight leads, from which this record's others do not follow
            continue
        found = {entry["label"]: entry["score"] for entry in classify(str(write(tmp_path / name, ecg(5000, 1), 500)))}
        expected = expected or found
        assert found == pytest.approx(expected, abs=1e-5), name
    np.save(tmp_path / "array.npy", ecg(5000, 1))
    found = {entry["label"]: entry["score"] for entry in classify(tmp_path / "array.npy", sampling_rate=500, unit="uV")}
    assert found == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="does not say its sampling_rate and unit: pass sampling_rate="):
        classify(tmp_path / "array.npy")


def test_records_of_libraries(classify, wfdb_path):
    record = wfdb.rdrecord(str(wfdb_path.with_suffix("")))
    expected = classify(wfdb_path)
    for form in (record, read_ecg(wfdb_path), {"signal": record}):
        assert classify(form) == expected
    assert classify([record, read_ecg(wfdb_path)]) == [expected, expected]
    assert classify((record, record)) == [expected, expected]


def test_datasets(classify, signal, wfdb_path):
    """Columns of a dataset, a column alone, a stream, KeyDataset: as the same records one by one."""
    signals = [signal.astype(np.float32), (ecg(5000, 2) / 1000).astype(np.float32)]
    expected = [classify(record, **DECLARED) for record in signals]
    rows = {"signal": [record.tolist() for record in signals], "sampling_rate": [500, 500], "unit": ["mV"] * 2, "age": [50, 60]}
    dataset = datasets.Dataset.from_dict(rows)
    assert classify(dataset) == expected
    assert classify(dataset.with_format("numpy")) == expected
    assert classify(dataset["signal"], **DECLARED) == expected
    assert classify(rows["signal"], **DECLARED) == expected
    assert list(classify(KeyDataset(dataset, "signal"), **DECLARED)) == expected
    assert list(classify(dataset.to_iterable_dataset())) == expected
    assert list(classify((row["signal"] for row in dataset), **DECLARED)) == expected
    paths = datasets.Dataset.from_dict({"path": [str(wfdb_path)] * 2})
    assert classify(paths, batch_size=2) == [classify(wfdb_path)] * 2
    with pytest.raises(ValueError, match=r"A dataset needs one column of records, .* this one has ecg"):
        classify(dataset.select_columns("signal").rename_column("signal", "ecg"), **DECLARED)
    with pytest.raises(ValueError, match="choose one of train, test"):
        classify(datasets.DatasetDict({"train": dataset, "test": dataset}))
    with pytest.raises(ValueError, match=r"A record must be numbers of shape .*, but got <U2"):
        classify([["I", "II"]], **DECLARED)


def test_functions_of_logits(classify, signal):
    expected = logits(classify, signal)
    for function, scores in {"none": expected, "sigmoid": expected.sigmoid(), "softmax": expected.softmax(0)}.items():
        found = {entry["label"]: entry["score"] for entry in classify(signal, **DECLARED, function_to_apply=function)}
        assert found == pytest.approx({LABELS[number]: scores[number].item() for number in range(3)}, abs=1e-5)
    with pytest.raises(ValueError, match="function_to_apply='relu' must be one of sigmoid, softmax, none"):
        classify(signal, **DECLARED, function_to_apply="relu")
    classify.model.config.problem_type = None
    assert len(classify(signal, **DECLARED, function_to_apply="softmax")) == 3


def test_a_call_undoes_defaults(classify, signal):
    defaults = EcgClassificationPipeline(
        model=classify.model, feature_extractor=classify.feature_extractor, top_k=1, threshold=0.0, **DECLARED
    )
    assert len(defaults(signal)) == 1
    assert len(defaults(signal, top_k=None, threshold=None)) == 3


@pytest.mark.parametrize("function", [None, "sigmoid"])
def test_decisions(classify, signal, function):
    scores = {entry["label"]: entry["score"] for entry in classify(signal, **DECLARED)}
    classify.model.config.decision_thresholds = {"AF": scores["AF"] - 1e-4, "LVH": scores["LVH"] + 1e-4}
    found = {entry["label"]: entry for entry in classify(signal, **DECLARED, decide=True, function_to_apply=function)}
    assert [found[name]["decision"] for name in ("AF", "LVH", "NORM")] == [True, False, None]
    assert [found[name]["threshold"] for name in ("AF", "LVH", "NORM")] == [scores["AF"] - 1e-4, scores["LVH"] + 1e-4, None]
    assert set(classify(signal, **DECLARED)[0]) == {"label", "score"}
    for other in ("softmax", "none"):
        with pytest.raises(ValueError, match=f"about sigmoid scores.*leave out function_to_apply='{other}'"):
            classify(signal, **DECLARED, decide=True, function_to_apply=other)
    classify.model.config.decision_thresholds = None
    assert {entry["decision"] for entry in classify(signal, **DECLARED, decide=True)} == {None}


def test_a_temperature_divides_the_logits(classify, signal):
    expected = logits(classify, signal)
    classify.model.config.temperature = 2.0
    found = {entry["label"]: entry["score"] for entry in classify(signal, **DECLARED)}
    assert found == pytest.approx({LABELS[n]: (expected[n] / 2).sigmoid().item() for n in range(3)}, abs=1e-5)
    classify.model.config.temperature = -1.0
    with pytest.raises(ValueError, match=r"config.temperature is -1\.0"):
        classify(signal, **DECLARED)


def test_a_record_shorter_than_the_crops_is_refused(classify, signal):
    with pytest.raises(ValueError, match=r"too short: the record lasts 2 s, the model was trained on crops of 2\.5 s"):
        classify(signal[:, :1000], **DECLARED)
    assert len(classify(signal[:, :1000], **DECLARED, check_plausibility=False)) == 3


def test_records_longer_than_the_model_need_crops(signal):
    with pytest.raises(ValueError, match="takes at most 5000"):
        make()(np.concatenate([signal, signal], axis=1), **DECLARED)


def test_the_task_is_registered(classify, signal, tmp_path):
    classify.save_pretrained(tmp_path)
    again = pipeline("ecg-classification", model=str(tmp_path))
    assert type(again) is EcgClassificationPipeline
    assert again(signal, **DECLARED) == classify(signal, **DECLARED)
    defaults = pipeline("ecg-classification", model=str(tmp_path), **DECLARED, top_k=2)
    assert defaults(signal) == classify(signal, **DECLARED)[:2]


def test_implausible_records_are_refused_unless_they_are_let_pass(classify, signal):
    with pytest.raises(ValueError, match="looks like uV"):
        classify(signal * 1000, **DECLARED)
    assert len(classify(signal * 1000, **DECLARED, check_plausibility=False)) == 3


def test_the_extractor_of_another_model_is_refused(classify):
    extractor = EcgJepaFeatureExtractor(sampling_rate=250)
    with pytest.raises(ValueError, match="its sampling_rate is 250, the model's 500"):
        EcgClassificationPipeline(model=classify.model, feature_extractor=extractor)
