"""Mutated inputs: read as they are, or refused with an exception that is documented; no crash, no hang, no memory."""

import json
import resource
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_databases import STANDARD, ecg, write_challenge
from safetensors.torch import load_file

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaForSequenceClassification, EcgJepaModel
from ecg_jepa.data.builders.challenge_2021 import Georgia
from ecg_jepa.data.records import find_database

pytestmark = pytest.mark.stress
MEMORY = 1 << 20  # kB that all cases of a test together may add
WHAT_CAN_BE = (ValueError, TypeError)


@pytest.fixture(autouse=True)
def memory_stays_low():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def many(cases):
    return settings(max_examples=cases, deadline=10_000, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([0, 1, 50, 100, 500, 1000, "mV", "uV", "V", "I", "II", "V1", float("nan")]),
)
NAMES = st.one_of(SCALARS, st.lists(st.one_of(st.sampled_from(STANDARD), SCALARS), max_size=14), st.permutations(STANDARD))
SIGNALS = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.builds(
        lambda shape, kind, scale, seed, holes: make_signal(shape, kind, scale, seed, holes),
        st.lists(st.sampled_from([0, 1, 2, 8, 12, 24, 25, 500, 5000]), max_size=3),
        st.sampled_from(["f4", "f8", "f2", "i2", "i4", "i8", "u1", "?", "c8", "m8[s]", "M8[s]", "O", "U3", "S2"]),
        st.sampled_from([0.0, 1e-9, 1e-3, 0.2, 0.3, 1.0, 5.0, 1e3, 1e6, 1e30, 1e300, float("inf"), float("nan")]),
        st.integers(0, 5),
        st.sampled_from([0.0, 0.0, 0.2, 0.6, 1.0]),
    ),
)


def mostly(good, odd):
    """Three times of four something good, or all would be refused for the same few reasons."""
    return st.integers(0, 3).flatmap(lambda number: odd if number == 0 else good)


def make_signal(shape, kind, scale, seed, holes):
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        values = rng.normal(size=shape if int(np.prod(shape)) <= 60_000 else [12, 500]) * scale
        if np.ndim(values) and kind in ("f4", "f8", "f2"):
            values[rng.random(values.shape) < holes * rng.integers(2)] = np.nan
        try:
            return np.asarray(values).astype(kind)
        except (ValueError, TypeError, OverflowError):
            return np.asarray(values)


def test_5000_extractor_calls():
    outcomes = {"read": 0, "refused": 0}
    good = st.builds(
        make_signal, st.just([12, 5000]), st.just("f4"), st.sampled_from([0.2, 0.5]), st.integers(0, 5), st.just(0.0)
    )

    @many(5000)
    @given(
        mostly(good, SIGNALS),
        mostly(st.just(500), SCALARS),
        mostly(st.none(), NAMES),
        mostly(st.just("mV"), SCALARS),
        st.booleans(),
    )
    def call(signal, rate, names, unit, amplitude_free):
        extractor = EcgJepaFeatureExtractor(mean=0.01, std=0.2, amplitude_free=amplitude_free)
        try:
            values = extractor(signal, rate, names, unit)["input_values"]
        except WHAT_CAN_BE as error:
            assert len(str(error)) > 15, error  # a sentence
            outcomes["refused"] += 1
            return
        outcomes["read"] += 1
        for record in values:
            assert record.shape[0] == 12
            assert record.dtype == np.float32
            assert np.isfinite(record).all()
            assert (np.abs(record) >= 5).mean() <= 0.5

    call()
    print(outcomes)
    assert min(outcomes.values()) > 50


JSON_VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=3), SCALARS, max_size=2))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    directory = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, id2label={0: "AF", 1: "NORM"})
    config.problem_type = "multi_label_classification"
    EcgJepaForSequenceClassification(config).save_pretrained(directory)
    EcgJepaFeatureExtractor.for_model(config, 0.0, 0.2).save_pretrained(directory)
    return directory


def test_1000_preprocessor_values(classifier):
    path = classifier / "preprocessor_config.json"
    whole = json.loads(path.read_text())
    record = ecg(5000, 1) / 1000

    @many(1000)
    @given(st.sampled_from(sorted(whole)), JSON_VALUES)
    def change(name, value):
        path.write_text(json.dumps({**whole, name: value}))
        try:
            extractor = EcgJepaFeatureExtractor.from_pretrained(classifier)
            extractor.check_model(EcgJepaConfig.from_pretrained(classifier))
            values = extractor(record, sampling_rate=500)["input_values"][0]
        except WHAT_CAN_BE as error:
            assert len(str(error)) > 15, error
        else:
            assert np.isfinite(values).all()

    change()
    path.write_text(json.dumps(whole))


# What transformers alone reads.
NOT_OURS = {"architectures", "auto_map", "custom_pipelines", "transformers_version"}


def test_1000_config_values(classifier):
    path = classifier / "config.json"
    whole = json.loads(path.read_text())
    values = torch.randn(1, 12, 5000)

    @many(1000)
    @given(
        st.sampled_from(sorted(set(whole) - {"architectures", "auto_map", "custom_pipelines", "transformers_version"})),
        JSON_VALUES,
    )
    def change(name, value):
        path.write_text(json.dumps({**whole, name: value}))
        try:
            model = EcgJepaModel.from_pretrained(classifier)
            output = model(values).last_hidden_state
        except (*WHAT_CAN_BE, RuntimeError) as error:  # RuntimeError: sizes that do not fit the weights
            assert len(str(error)) > 15, error
        else:
            assert torch.isfinite(output).all()

    change()
    path.write_text(json.dumps(whole))


def test_500_damaged_weights(classifier):
    path = classifier / "model.safetensors"
    whole = path.read_bytes()
    tensors = load_file(path)
    header = int.from_bytes(whole[:8], "little") + 8

    for case in range(500):
        rng = np.random.default_rng(case)
        damaged = bytearray(whole)
        if case % 5 == 0:
            damaged = damaged[: int(rng.integers(len(damaged)))]
        else:
            damaged[rng.integers(header)] ^= 1 << int(rng.integers(8))  # what the weights' own values are, nothing can know
        path.write_bytes(damaged)
        try:
            EcgJepaForSequenceClassification.from_pretrained(classifier)
            found = load_file(path)
        except Exception as error:  # safetensors, transformers: each has its own
            assert str(error)
            continue
        missing = tensors.keys() - found.keys()
        assert missing or all(
            torch.equal(tensors[n].view(-1).view(torch.uint8), found[n].view(-1).view(torch.uint8)) for n in tensors
        )
    path.write_bytes(whole)


def test_1000_damaged_shards(tmp_path):
    for number in range(20):
        write_challenge(tmp_path / "raw", "georgia", f"E{number:05d}", ecg(5000, number))
    Georgia(data_dir=str(tmp_path / "raw")).prepare(tmp_path)
    table = find_database(tmp_path).dataset.data.table.combine_chunks()
    original = tmp_path / "georgia"
    noticed = {"opening": 0, "verifying": 0, "nothing changed": 0}
    for case in range(1000):
        rng = np.random.default_rng(case)
        path = sorted(original.glob("records-*"))[case % 6]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            # Half of them among the first and last bytes, where formats have what leads to everything else.
            at = int(rng.integers(min(len(damaged), 6000))) * int(rng.choice([-1, 1])) if rng.random() < 0.5 else 0
            damaged[at or int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.1:
            damaged = damaged[: int(rng.integers(len(damaged)))]
        path.write_bytes(damaged)
        try:
            database = find_database(tmp_path)
        except ValueError as error:
            assert "records-" in str(error), error
            noticed["opening"] += 1
        else:
            others = [name for name in table.column_names if name != "signal"]
            assert database.dataset.data.table.combine_chunks().select(others).equals(table.select(others)), case
            for index in range(len(database)):
                database.signal(index)
            try:
                database.verify()
                noticed["nothing changed"] += 1
                assert path.suffix == ".json" or damaged == whole, case
            except ValueError:
                noticed["verifying"] += 1
        path.write_bytes(whole)
    print(noticed)
    shutil.rmtree(original)
