"""
Checkpoints that work without this package: weights, pre-processing and code in one directory.

`AutoModel.from_pretrained(directory, trust_remote_code=True)`, the feature extractor and the pipeline then need transformers,
torch, numpy and scipy only. With `import ecg_jepa`, the installed classes are used and nothing is to be trusted.
"""

from pathlib import Path

from .feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from .modeling_ecg_jepa import EcgJepaForSequenceClassification, EcgJepaModel, EcgJepaPreTrainedModel
from .pipeline_ecg_jepa import EcgClassificationPipeline


def save_checkpoint(
    directory: str | Path, model: EcgJepaPreTrainedModel, extractor: EcgJepaFeatureExtractor | None = None
) -> None:
    """
    Save a model, its extractor and their code. The classes are registered for the Auto classes on import of the package, so
    that `save_pretrained` of each already copies the file that it is defined in.

    Args:
        directory: to write to; made if it is not there.
        model: encoder, pre-training trio or classifier. A classifier brings the pipeline along.
        extractor: what its records went through.
    """
    # Whatever is saved, AutoModel reads the encoder of it; transformers adds the classes that it saves.
    model.config.auto_map = {"AutoModel": f"{EcgJepaModel.__module__.rpartition('.')[2]}.{EcgJepaModel.__name__}"}
    if isinstance(model, EcgJepaForSequenceClassification) and extractor is not None:
        EcgClassificationPipeline(model=model, feature_extractor=extractor, device=model.device).save_pretrained(directory)
        return
    model.save_pretrained(directory)
    if extractor is not None:
        extractor.save_pretrained(directory)
