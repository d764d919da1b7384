"""Classifiers over pre-trained encoders: building one for a task, and scoring records with it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .._utils.hardware import crops_at_once
from ..data.crops import mean_over_crops
from ..data.task_data import TaskData
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification, EcgJepaModel
from .encoders import StartingPoint
from .protocols import FinetuneSettings


def build_classifier(settings: FinetuneSettings, start: StartingPoint, data: TaskData) -> EcgJepaForSequenceClassification:
    """
    Return a classifier for the task on an encoder, with a new head, or for `finetune_after_probe` with the probe's.

    Raises:
        ValueError: if sampling rate or leads of encoder and records differ, crops do not fit the encoder, or the probe was
            trained on other classes.
    """
    task = data.task
    head = {
        "id2label": dict(enumerate(task.class_names)),
        "label2id": {class_name: index for index, class_name in enumerate(task.class_names)},
        "problem_type": "single_label_classification" if task.single_label else "multi_label_classification",
        "hidden_dropout_prob": settings.dropout,
        "label_descriptions": data.describe_classes() or None,
        # Those of the old head do not fit; also a probe's head is trained further.
        "decision_thresholds": None,
        "temperature": None,
    }
    if settings.pooling is not None:
        head |= {"classifier_pooling": settings.pooling, "readout_layers": settings.readout_layers or 1}
    data.database.info.check_fits(start.config.sampling_rate, list(start.config.lead_names), start.config.amplitude_free)
    _check_crops(settings, start.config, data)
    config = EcgJepaConfig(**{**start.config.to_dict(), **head})
    if settings.protocol == "finetune_after_probe":
        _check_probe(start, task.class_names)
        model = EcgJepaForSequenceClassification.from_pretrained(start.directory, config=config)
    else:
        model = EcgJepaForSequenceClassification(config)
        if start.directory is not None:
            # Only the encoder: from_pretrained of the whole would take over a head that the directory may hold.
            model.ecg_jepa = EcgJepaModel.from_pretrained(start.directory, config=config)
    model.ecg_jepa.requires_grad_(not settings.frozen)
    return model


def _check_crops(settings: FinetuneSettings, config: EcgJepaConfig, data: TaskData) -> None:
    samples = data.samples(settings.crop_duration)
    if samples % config.patch_size or not 0 < samples <= config.signal_length:
        longest, patch = (value / config.sampling_rate for value in (config.signal_length, config.patch_size))
        raise ValueError(
            f"crop_duration={settings.crop_duration} s does not fit the encoder, which takes at most {longest:g} s in whole "
            f"patches of {patch:g} s."
        )


def _check_probe(start: StartingPoint, class_names: list[str]) -> None:
    config = start.config
    labels = list(config.id2label.values()) if config.id2label else []
    if "EcgJepaForSequenceClassification" not in (config.architectures or []) or labels != class_names:
        raise ValueError(
            f"finetune_after_probe needs the directory of a probe of the same task with classes {', '.join(class_names)}, but "
            f"{start.name} holds {', '.join(config.architectures or ['no model'])} with classes {', '.join(labels)}."
        )


@dataclass
class Scorer:
    """
    Scores the records of a split over crops that cover each record.

    The output of a `frozen` encoder is computed once and kept in memory: only the head changes between validations. Lengths and
    strides of crops are in samples.
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
        batches = self._encode(device) if self._kept is None else self._kept
        scores = [
            mean_over_crops(self.model.classify_tokens(tokens.to(device)).float().cpu(), owners) for tokens, owners in batches
        ]
        return torch.cat(scores).numpy()

    def _encode(self, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield what the head sees of some crops, and the record of each crop."""
        at_once = crops_at_once(device) * (self.model.config.signal_length // self.crop_length)  # as many patches
        for crops, owners in self.data.strided_crops(self.indices, self.crop_length, self.crop_stride, at_once):
            yield self.model.encode(crops.to(device)), owners
