"""What a checkpoint carries works where this package is not installed."""

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from raw_databases import ecg

import ecg_jepa.model
from ecg_jepa import EcgClassificationPipeline, EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaForSequenceClassification

FILES = sorted(Path(ecg_jepa.model.__file__).parent.glob("*_ecg_jepa.py"))
NAMES = ["configuration", "feature_extraction", "modeling", "pipeline", "signal_processing"]
ALLOWED = {"torch", "transformers", "numpy", "scipy", "huggingface_hub", "safetensors", *sys.stdlib_module_names}

CLASSIFY = """
import json
import numpy as np
from transformers import pipeline
classify = pipeline("ecg-classification", model={source!r}, trust_remote_code=True)
array = np.load({array!r})
found = dict(array=classify(array, sampling_rate=500, unit="mV"))
for name, path in dict(wfdb={wfdb!r}, edf={edf!r}).items():
    try:
        found[name] = classify(path)
    except ValueError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def test_there_are_five_files():
    assert [path.name for path in FILES] == [f"{name}_ecg_jepa.py" for name in NAMES]
    assert {path.name for path in FILES[0].parent.glob("*.py")} == {path.name for path in FILES} | {"__init__.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_import_nothing_that_does_not_travel(path):
    """Transformers copies what `from .sibling import name` names, and asks for every other package that a line imports."""
    siblings = {path.stem for path in FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert (node.level, node.module in siblings) == (1, True), f"{path.name}, line {node.lineno}"
        elif isinstance(node, ast.ImportFrom):
            assert str(node.module).partition(".")[0] in ALLOWED
    assert "import ecg_jepa" not in path.read_text()
    assert "from ecg_jepa" not in path.read_text()


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> Path:
    """A record as an array, as WFDB and, by its name, as EDF."""
    folder = tmp_path_factory.mktemp("record")
    signal = ecg(5000, 1) / 1000
    np.save(folder / "array.npy", signal)
    names = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    form = {"units": ["mV"] * 12, "sig_name": names, "fmt": ["16"] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    wfdb.wrsamp("record", fs=500, p_signal=signal.T, write_dir=str(folder), **form)
    (folder / "record.edf").write_bytes(b"0       ")
    return folder


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, id2label={0: "AF", 1: "NORM"})
    config.problem_type = "multi_label_classification"
    directory = tmp_path_factory.mktemp("classifier")
    EcgJepaForSequenceClassification(config).save_pretrained(directory)
    EcgJepaFeatureExtractor.for_model(config, 0.1, 0.3, crop_duration=2.5, crop_stride=1.25).save_pretrained(directory)
    return directory


def classify_elsewhere(foreign_python, source, record, **options):
    files = {"array": record / "array.npy", "wfdb": record / "record.hea", "edf": record / "record.edf"}
    code = CLASSIFY.format(source=str(source), **{name: str(path) for name, path in files.items()})
    result = foreign_python(code, **options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def same(found, expected):
    return [entry["label"] for entry in found] == [entry["label"] for entry in expected] and np.allclose(
        [entry["score"] for entry in found], [entry["score"] for entry in expected], atol=1e-5
    )


def test_save_and_classify(foreign_python, directory, record):
    expected = EcgClassificationPipeline(
        model=EcgJepaForSequenceClassification.from_pretrained(directory),
        feature_extractor=EcgJepaFeatureExtractor.from_pretrained(directory),
    )(np.load(record / "array.npy"), sampling_rate=500, unit="mV")
    found = classify_elsewhere(foreign_python, directory, record, with_wfdb=True)
    assert same(found["array"], expected)
    assert same(found["wfdb"], expected)
    assert 'files of other formats are read by the package: pip install "ecg_jepa[formats]"' in found["edf"]


@pytest.mark.slow
def test_push_and_classify(foreign_python, directory, record, hub):
    for part in (EcgJepaForSequenceClassification, EcgJepaFeatureExtractor):
        part.from_pretrained(directory).push_to_hub("me/ecg", token="hf_me")
    found = classify_elsewhere(foreign_python, "me/ecg", record, **hub.environment())
    assert [entry["label"] for entry in found["array"]]
    assert "WFDB records are read by the library wfdb (pip install wfdb) or the package" in found["wfdb"]
    assert 'pip install "ecg_jepa[formats]"' in found["edf"]


@pytest.mark.slow
def test_a_wfdb_header_without_gains_is_refused(foreign_python, directory, record, tmp_path):
    """wfdb would take 200 per mV."""
    header = (record / "record.hea").read_text()
    for suffix in (".hea", ".dat"):
        (tmp_path / f"record{suffix}").write_bytes((record / f"record{suffix}").read_bytes())
    (tmp_path / "record.hea").write_text(header.replace("1000.0(0)/mV", "0"))
    for other in ("array.npy", "record.edf"):
        (tmp_path / other).write_bytes((record / other).read_bytes())
    found = classify_elsewhere(foreign_python, directory, tmp_path, with_wfdb=True)
    assert "unknown gain (record.hea has no gain for some leads" in found["wfdb"]
