"""
Checkpoints that are complete by themselves: weights, pre-processing, code and card in one directory.

`AutoModel.from_pretrained(directory, trust_remote_code=True)`, the feature extractor and the pipeline then need transformers,
torch, numpy and scipy only. With `import ecg_jepa`, the installed classes are used and nothing is to be trusted.
"""

from pathlib import Path

from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaPreTrainedModel


def save_checkpoint(
    directory: str | Path, model: EcgJepaPreTrainedModel, extractor: EcgJepaFeatureExtractor | None = None
) -> None:
    """
    Save a model, its extractor and their code.

    Args:
        directory: to write to; made if it is not there.
        model: encoder, pre-training trio or classifier. A classifier brings the pipeline along.
        extractor: what its records went through.
    """
    model.save_pretrained(directory)
    if extractor is not None:
        extractor.save_pretrained(directory)
