"""Whatever is imported first, the Auto classes and the pipeline know ours, and `import ecg_jepa` imports nothing heavy."""

import subprocess
import sys

import pytest

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaForSequenceClassification


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("classifier")
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_labels=3)
    EcgJepaForSequenceClassification(config).save_pretrained(directory)
    EcgJepaFeatureExtractor.for_model(config, 0.0, 1.0).save_pretrained(directory)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import ecg_jepa",
        "from transformers import AutoModel, pipeline; import ecg_jepa",
        "from ecg_jepa.model.signal_processing_ecg_jepa import normalize",
    ],
)
def test_any_order_of_imports(directory, imports):
    code = f"""
{imports}
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, pipeline
source = {str(directory)!r}
found = [AutoFeatureExtractor.from_pretrained(source), AutoModel.from_pretrained(source)]
found += [AutoModelForSequenceClassification.from_pretrained(source), pipeline("ecg-classification", model=source)]
print(*(type(thing).__module__ + ":" + type(thing).__name__ for thing in found))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        "ecg_jepa.model.feature_extraction_ecg_jepa:EcgJepaFeatureExtractor",
        "ecg_jepa.model.modeling_ecg_jepa:EcgJepaModel",
        "ecg_jepa.model.modeling_ecg_jepa:EcgJepaForSequenceClassification",
        "ecg_jepa.model.pipeline_ecg_jepa:EcgClassificationPipeline",
    ]


def test_importing_the_package_imports_nothing_heavy():
    heavy = "('datasets', 'pandas', 'sklearn', 'matplotlib', 'scipy.signal', 'wfdb', 'pydicom')"
    code = f"import sys, ecg_jepa; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_public_names_are_there():
    import ecg_jepa

    assert set(ecg_jepa.__all__) < set(dir(ecg_jepa))
