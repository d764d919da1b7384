"""ECG-JEPA (Weimann & Conrad 2024) for Hugging Face transformers. Importing it registers its classes with the Auto classes."""

from importlib.metadata import version

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)

from .configuration_ecg_jepa import EcgJepaConfig
from .feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from .modeling_ecg_jepa import (
    EcgJepaForPreTraining,
    EcgJepaForPreTrainingOutput,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
)

__version__ = version("ecg_jepa")

AutoConfig.register(EcgJepaConfig.model_type, EcgJepaConfig, exist_ok=True)
AutoModel.register(EcgJepaConfig, EcgJepaModel, exist_ok=True)
AutoModelForPreTraining.register(EcgJepaConfig, EcgJepaForPreTraining, exist_ok=True)
AutoModelForSequenceClassification.register(EcgJepaConfig, EcgJepaForSequenceClassification, exist_ok=True)
AutoFeatureExtractor.register(EcgJepaConfig, EcgJepaFeatureExtractor, exist_ok=True)

__all__ = [
    "EcgJepaConfig",
    "EcgJepaFeatureExtractor",
    "EcgJepaForPreTraining",
    "EcgJepaForPreTrainingOutput",
    "EcgJepaForSequenceClassification",
    "EcgJepaModel",
]
