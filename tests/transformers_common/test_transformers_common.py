"""
transformers' own common tests, from the sdist of the installed version (they are not in its wheel). Opt-in, since it fetches
20 MB from the package index and takes minutes: `python -m pytest -m transformers_common`.
"""

import importlib.util
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import transformers

CASES = Path(__file__).with_name("cases.py")

# Tests that assume something that this model does not have, each with what that is.
NOT_FOR_US = {
    f"{case}.test_model_get_set_embeddings": "text inputs: that input embeddings are a table of tokens (nn.Embedding)"
    for case in ("EcgJepaCommonTest", "EcgJepaForPreTrainingCommonTest")
} | {"EcgJepaCommonTest.test_load_with_mismatched_shapes": "text inputs: that another vocab_size changes a base model's shapes"}

# Modules of transformers' tests that the mixins import and that are not in the sdist.
STUBS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {'output_hidden_states': True, 'problem_type': 'regression'}\n",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The unpacked sdist, with stubs in place of what it lacks."""
    assert importlib.util.find_spec("parameterized"), "transformers' tests need parameterized: pip install -e '.[common]'"
    directory = tmp_path_factory.mktemp("sdist")
    wanted = f"transformers=={transformers.__version__}"
    command = [sys.executable, "-m", "pip", "download", wanted, "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    subprocess.run([*command, "--dest", directory], check=True)
    (archive,) = directory.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="data")
    (root,) = (path for path in directory.iterdir() if path.is_dir())
    (root / "tests" / "__init__.py").touch()
    for name, content in STUBS.items():
        path = root / "tests" / name
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(content)
    return root


@pytest.mark.transformers_common
def test_common_tests_of_transformers(source, tmp_path):
    report = tmp_path / "report.xml"
    # In the folder of the sdist, so that no configuration or conftest of ours applies.
    command = [sys.executable, "-m", "pytest", CASES, "-q", "--rootdir", source, "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = os.environ | {"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [*command, "-c", os.devnull, "--noconftest"], cwd=source, env=environment, capture_output=True, text=True
    )
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, result.stdout
    failed = {
        f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        for case in suite
        if case.find("failure") is not None or case.find("error") is not None
    }
    ran = int(suite.get("tests", 0)) - int(suite.get("skipped", 0))
    print(f"transformers {transformers.__version__}: {ran} ran, {suite.get('skipped')} skipped, failed: {sorted(failed)}")
    assert ran > 100, result.stdout[-3000:]
    assert failed == set(NOT_FOR_US), result.stdout[-8000:]
