"""Classifiers over encoders: what a run starts from, building a classifier for a task, and scoring records with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .._utils.files import RANDOM_PREFIX, TRAINING_INFO_FILE, digest_of, read_json
from .._utils.hardware import crops_at_once
from .._utils.model_directory import model_directory, weights_digest
from ..data.crops import mean_over_crops
from ..data.task_data import TaskData
from ..model.configuration_ecg_jepa import SIZES, EcgJepaConfig
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification, EcgJepaModel
from .protocols import FinetuneSettings

# What the published sizes share (Weimann & Conrad 2024, section 3).
_PUBLISHED_INPUT = {"sampling_rate": 500, "signal_length": 5000, "patch_size": 25}

# Parts of a configuration that describe the classification, not the encoder.
_OF_THE_HEAD = {
    *("id2label", "label2id", "problem_type", "label_descriptions", "decision_thresholds", "temperature"),
    *("architectures", "transformers_version", "auto_map", "dtype"),
}


class StartingPoint(NamedTuple):
    """Weights to start from."""

    name: str  # as the user named it: a directory, a repository of the Hugging Face Hub, or `random:...`
    config: EcgJepaConfig
    directory: Path | None  # of the weights; `None` for random ones
    info: dict[str, Any]  # `training_info.json`; empty where there is none

    def digest(self) -> str:
        """Return SHA-256 of the weights; for random weights, of the configuration."""
        if self.directory is not None:
            return weights_digest(self.directory)
        return digest_of({key: value for key, value in self.config.to_dict().items() if key not in _OF_THE_HEAD})

    def describe_encoder(self) -> dict[str, Any]:
        """
        Return the encoder for tables and cards, of a probe the one that it was trained on: `path` as named, `digest` of weights,
        `size` if it is a published one, and as far as recorded `objective`, shipped `configuration` and `databases`.
        """
        if self.info.get("protocol") in ("linear", "attentive"):
            return self.info["encoder"]
        recorded = {name: self.info.get(name) for name in ("objective", "configuration")}
        if self.info.get("protocol") is not None:  # fine-tuned: not what pre-training left
            recorded = {"objective": self.info["encoder"]["objective"], "configuration": None}
        published = {size: {**numbers, **_PUBLISHED_INPUT}.items() for size, numbers in SIZES.items()}
        fitting = (size for size, numbers in published.items() if all(getattr(self.config, k) == v for k, v in numbers))
        return {
            "path": self.name,
            "digest": self.digest(),
            "size": next(fitting, None),
            **recorded,
            "databases": [{key: d.get(key) for key in ("name", "records")} for d in self.info.get("databases", [])],
        }


def find_start(name: str, sampling_rate: int = 500, amplitude_free: bool = False) -> StartingPoint:
    """
    Find the weights to start from: a directory, a Hub repository, `random:xs|s|b` for records of `sampling_rate` Hz, or `random:`
    with a directory or repository, whose architecture is taken without its weights. Raise `FileNotFoundError` if there are none.
    """
    is_random, model = name.startswith(RANDOM_PREFIX), name.removeprefix(RANDOM_PREFIX)
    if is_random and model in SIZES:
        config = EcgJepaConfig.from_size(model, sampling_rate=sampling_rate, amplitude_free=amplitude_free)
        return StartingPoint(name, config, None, {})
    if is_random and "/" not in model and not Path(model).is_dir():
        sizes = ", ".join(f"{RANDOM_PREFIX}{size}" for size in SIZES)
        raise FileNotFoundError(f"There is no {name}: choose {sizes}, or {RANDOM_PREFIX} with the directory of a model.")
    directory = model_directory(model)
    config, path = EcgJepaConfig.from_pretrained(directory), directory / TRAINING_INFO_FILE
    config.name_or_path = ""  # the digest is that of the architecture, wherever it lies
    if is_random:
        return StartingPoint(name, config, None, {})
    return StartingPoint(name, config, directory, read_json(path) if path.is_file() else {})


def build_classifier(settings: FinetuneSettings, start: StartingPoint, data: TaskData) -> EcgJepaForSequenceClassification:
    """
    Return a classifier for the task on an encoder, with a new head, or for `finetune_after_probe` with the probe's. Raise
    `ValueError` if records or crops do not fit the encoder, or the probe was trained on other classes.
    """
    names, encoder, samples = data.task.class_names, start.config, data.samples(settings.crop_duration)
    data.database.info.check_fits(encoder.sampling_rate, list(encoder.lead_names), encoder.amplitude_free)
    if samples % encoder.patch_size or not 0 < samples <= encoder.signal_length:
        longest, patch = (value / encoder.sampling_rate for value in (encoder.signal_length, encoder.patch_size))
        raise ValueError(
            f"crop_duration={settings.crop_duration} s does not fit the encoder, which takes at most {longest:g} s in whole "
            f"patches of {patch:g} s."
        )
    head = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": "single_label_classification" if data.task.single_label else "multi_label_classification",
        "hidden_dropout_prob": settings.dropout,
        "label_descriptions": data.describe_classes() or None,
        # Those of the old head do not fit; also a probe's head is trained further.
        "decision_thresholds": None,
        "temperature": None,
    }
    if settings.pooling is not None:
        head |= {"classifier_pooling": settings.pooling, "readout_layers": settings.readout_layers or 1}
    config = EcgJepaConfig(**{**encoder.to_dict(), **head})
    if settings.protocol == "finetune_after_probe":
        held, labels = encoder.architectures or [], list((encoder.id2label or {}).values())
        if "EcgJepaForSequenceClassification" not in held or labels != names:
            raise ValueError(
                f"finetune_after_probe needs the directory of a probe of the same task with classes {', '.join(names)}, but "
                f"{start.name} holds {', '.join(held) or 'no model'} with classes {', '.join(labels)}."
            )
        model = EcgJepaForSequenceClassification.from_pretrained(start.directory, config=config)
    else:
        model = EcgJepaForSequenceClassification(config)
        if start.directory is not None:
            # Only the encoder: from_pretrained of the whole would take over a head that the directory may hold.
            model.ecg_jepa = EcgJepaModel.from_pretrained(start.directory, config=config)
    model.ecg_jepa.requires_grad_(not settings.frozen)
    return model


@dataclass
class Scorer:
    """
    Scores the records of a split over crops (length and stride in samples) that cover each record. The output of a `frozen`
    encoder is computed once and kept in memory: only the head changes between validations.
    """

    model: EcgJepaForSequenceClassification
    data: TaskData
    split: str
    crop_length: int
    crop_stride: int
    frozen: bool

    def __post_init__(self) -> None:
        self.indices = self.data.splits[self.split]
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    @torch.no_grad()
    def logits(self) -> np.ndarray:
        """Return (records, classes), float32, averaged over crops. Leaves the model in evaluation mode."""
        self.model.eval()
        device = self.model.device
        if self.frozen and self._kept is None:
            self._kept = [(tokens.cpu(), owners) for tokens, owners in self._encode(device)]
        scores = [
            mean_over_crops(self.model.classify_tokens(tokens.to(device)).float().cpu(), owners)
            for tokens, owners in self._kept or self._encode(device)
        ]
        return torch.cat(scores).numpy()

    def _encode(self, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield what the head sees of some crops, and the record of each crop."""
        at_once = crops_at_once(device) * (self.model.config.signal_length // self.crop_length)  # as many patches
        for crops, owners in self.data.strided_crops(self.indices, self.crop_length, self.crop_stride, at_once):
            yield self.model.encode(crops.to(device)), owners
