"""A complete directory of a small classifier, for what takes one."""

from pathlib import Path

import torch

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaForSequenceClassification

LABELS = ("AF", "NORM", "<b>odd</b>")


CODE = {
    f"{name}_ecg_jepa.py" for name in ("configuration", "feature_extraction", "modeling", "pipeline", "signal_processing")
}  # beside the weights of a classifier


def save_classifier(directory: Path, **changes: object) -> Path:
    """Width 32, 500 Hz, crops of 2.5 s, attentive pooling, three labels, thresholds for two of them."""
    torch.manual_seed(0)
    values = {
        **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
        **{"id2label": dict(enumerate(LABELS)), "problem_type": "multi_label_classification"},
        **{"decision_thresholds": {"AF": 0.01, "NORM": 0.99}},
    }
    config = EcgJepaConfig(**{**values, **changes})
    extractor = EcgJepaFeatureExtractor.for_model(config, 0.0, 0.2, crop_duration=2.5, crop_stride=1.25)
    EcgJepaForSequenceClassification(config).save_pretrained(directory)
    extractor.save_pretrained(directory)
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A classifier\n")
    return directory
