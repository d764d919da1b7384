"""ECG-JEPA (Weimann & Conrad 2024) for Hugging Face transformers. Importing it makes its classes known to the Auto classes."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ._registration import register_with_transformers

if TYPE_CHECKING:
    from .configuration_ecg_jepa import EcgJepaConfig
    from .feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
    from .formats_ecg_jepa import read_ecg
    from .modeling_ecg_jepa import (
        EcgJepaEncoderPair,
        EcgJepaForPreTraining,
        EcgJepaForPreTrainingOutput,
        EcgJepaForSequenceClassification,
        EcgJepaModel,
    )
    from .pipeline_ecg_jepa import EcgClassificationPipeline
    from .record_ecg_jepa import Ecg

__all__ = [
    "Ecg",
    "EcgClassificationPipeline",
    "EcgJepaConfig",
    "EcgJepaEncoderPair",
    "EcgJepaFeatureExtractor",
    "EcgJepaForPreTraining",
    "EcgJepaForPreTrainingOutput",
    "EcgJepaForSequenceClassification",
    "EcgJepaModel",
    "read_ecg",
]

__version__ = version("ecg_jepa")

_MODULES = {
    "Ecg": "record_ecg_jepa",
    "EcgClassificationPipeline": "pipeline_ecg_jepa",
    "EcgJepaConfig": "configuration_ecg_jepa",
    "EcgJepaFeatureExtractor": "feature_extraction_ecg_jepa",
    "read_ecg": "formats_ecg_jepa",
}


def __getattr__(name: str) -> Any:
    """Classes are imported when they are asked for: `ecg-jepa --help` needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES.get(name, 'modeling_ecg_jepa')}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_transformers()
