"""ECG-JEPA (Weimann & Conrad 2024) for Hugging Face transformers."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining
from transformers import AutoModelForSequenceClassification

from .configuration_ecg_jepa import EcgJepaConfig
from .modeling_ecg_jepa import EcgJepaForPreTraining, EcgJepaForSequenceClassification, EcgJepaModel
