"""
The models and the extractor, held to transformers' own common tests. Run by `test_transformers_common.py` in a process of its
own, where the sdist's `tests` package is on the path.
"""

import unittest
from typing import Any

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_feature_extraction_common import FeatureExtractionSavingTestMixin
from tests.test_modeling_common import ModelTesterMixin
from transformers.models.auto import modeling_auto

from ecg_jepa import (
    EcgJepaConfig,
    EcgJepaFeatureExtractor,
    EcgJepaForPreTraining,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
)

# By these tables the tests tell which model takes labels.
modeling_auto.MODEL_MAPPING_NAMES["ecg_jepa"] = "EcgJepaModel"
modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["ecg_jepa"] = "EcgJepaForSequenceClassification"

BATCH, SAMPLES = 4, 250
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pred_hidden_size": 16,
    "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 2,
}


class ModelTester:
    """What the common tests ask of a model's tester: a small configuration, inputs, and what the outputs' shapes are."""

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent
        self.batch_size = BATCH
        self.hidden_size = SIZES["hidden_size"]
        self.num_hidden_layers = SIZES["num_hidden_layers"]
        self.num_attention_heads = SIZES["num_attention_heads"]
        self.seq_length = self.encoder_seq_length = SAMPLES // 25 + 1  # patches and the register
        self.is_training = True

    def get_config(self) -> EcgJepaConfig:
        return EcgJepaConfig(**SIZES, signal_length=SAMPLES)

    def prepare_config_and_inputs_for_common(self) -> tuple[EcgJepaConfig, dict[str, torch.Tensor]]:
        return self.get_config(), {"input_values": torch.randn(BATCH, 12, SAMPLES)}


class EcgJepaCommonTest(ModelTesterMixin, unittest.TestCase):
    """Encoder and classifier."""

    all_model_classes = (EcgJepaModel, EcgJepaForSequenceClassification)
    test_resize_embeddings = False  # signals have no vocabulary

    def setUp(self) -> None:
        self.model_tester = ModelTester(self)
        self.config_tester = ConfigTester(self, config_class=EcgJepaConfig, has_text_modality=False, **SIZES)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class PreTrainingTester(ModelTester):
    """As above, with masks."""

    def __init__(self, parent: unittest.TestCase):
        super().__init__(parent)
        self.seq_length = self.encoder_seq_length = 4 + 1  # what the context encoder sees

    def prepare_config_and_inputs_for_common(self) -> tuple[EcgJepaConfig, dict[str, torch.Tensor]]:
        config, inputs = super().prepare_config_and_inputs_for_common()
        masks = {"context_mask": torch.arange(4), "target_mask": torch.arange(4, 10)}
        return config, inputs | {name: indices.repeat(BATCH, 1) for name, indices in masks.items()}


class EcgJepaForPreTrainingCommonTest(ModelTesterMixin, unittest.TestCase):
    """All three networks."""

    all_model_classes = (EcgJepaForPreTraining,)
    test_resize_embeddings = False

    def setUp(self) -> None:
        self.model_tester = PreTrainingTester(self)

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False) -> dict[str, Any]:
        """Some tests pass the signal alone, for a batch of their own size."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        count = len(inputs["input_values"])
        masks = {"context_mask": torch.arange(4), "target_mask": torch.arange(4, 10)}
        return inputs | {name: indices.repeat(count, 1) for name, indices in masks.items()}


class EcgJepaFeatureExtractorCommonTest(FeatureExtractionSavingTestMixin, unittest.TestCase):
    """Saving and loading of the extractor."""

    feature_extraction_class = EcgJepaFeatureExtractor

    @property
    def feat_extract_dict(self) -> dict[str, Any]:
        return {"mean": [0.1] * 12, "std": [0.5] * 12, "crop_duration": 2.5, "crop_stride": 1.25}
