"""ECG-JEPA (Weimann & Conrad 2024) for Hugging Face transformers. Importing it registers its classes with the Auto classes."""

from importlib.metadata import version

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .formats.ecg import Ecg
from .formats.read import read_ecg
from .model.configuration_ecg_jepa import EcgJepaConfig
from .model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from .model.modeling_ecg_jepa import (
    EcgJepaEncoderPair,
    EcgJepaForPreTraining,
    EcgJepaForPreTrainingOutput,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
)
from .model.pipeline_ecg_jepa import EcgClassificationPipeline

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

AutoConfig.register(EcgJepaConfig.model_type, EcgJepaConfig, exist_ok=True)
AutoFeatureExtractor.register(EcgJepaConfig, EcgJepaFeatureExtractor, exist_ok=True)
AutoModel.register(EcgJepaConfig, EcgJepaModel, exist_ok=True)
AutoModelForPreTraining.register(EcgJepaConfig, EcgJepaForPreTraining, exist_ok=True)
AutoModelForSequenceClassification.register(EcgJepaConfig, EcgJepaForSequenceClassification, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "ecg-classification",
    EcgClassificationPipeline,
    pt_model=AutoModelForSequenceClassification,
)

# So that save_pretrained writes the code beside the weights.
EcgJepaConfig.register_for_auto_class()
EcgJepaFeatureExtractor.register_for_auto_class()
EcgJepaModel.register_for_auto_class("AutoModel")
EcgJepaForPreTraining.register_for_auto_class("AutoModelForPreTraining")
EcgJepaForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
