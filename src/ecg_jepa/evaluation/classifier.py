"""Classifiers over pre-trained encoders: making one for a task, and scoring records with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..configuration_ecg_jepa import SIZES, EcgJepaConfig
from ..modeling_ecg_jepa import EcgJepaForSequenceClassification, EcgJepaModel
from .protocols import ProtocolArguments
from .task_data import TaskData


def build_classifier(arguments: ProtocolArguments, data: TaskData) -> EcgJepaForSequenceClassification:
    """
    A classifier for the task on the named encoder, with a new head, or for `finetune_after_probe` the probe's.

    Raises:
        ValueError: if there is no such directory, sampling rate or leads of encoder and records differ, or the probe was
            trained on other classes.
    """
    name, task = arguments.model_name_or_path, data.task
    settings = {
        "id2label": dict(enumerate(task.class_names)),
        "label2id": {class_name: index for index, class_name in enumerate(task.class_names)},
        "problem_type": "single_label_classification" if task.single_label else "multi_label_classification",
        "hidden_dropout_prob": arguments.dropout,
    }
    if arguments.pooling is not None:
        settings["classifier_pooling"] = arguments.pooling
    if name.startswith("random:"):
        config = _untrained_config(name.removeprefix("random:"), data.database.info.sampling_rate)
        config = EcgJepaConfig(**{**config.to_dict(), **settings})
        model = EcgJepaForSequenceClassification(config)
    else:
        if not Path(name, "config.json").is_file():
            raise ValueError(f"{name} is no directory with a config.json: name a pre-trained model, or random:xs|s|b.")
        config = EcgJepaConfig.from_pretrained(name)
        if arguments.protocol == "finetune_after_probe":
            _check_probe(name, config, task.class_names)
        config = EcgJepaConfig(**{**config.to_dict(), **settings})
        if arguments.protocol == "finetune_after_probe":
            model = EcgJepaForSequenceClassification.from_pretrained(name, config=config)
        else:
            # Not from_pretrained of the whole: a head that the directory may hold must not be taken over.
            model = EcgJepaForSequenceClassification(config)
            model.ecg_jepa = EcgJepaModel.from_pretrained(name, config=config)
    data.database.info.check_fits(config.sampling_rate, list(config.lead_names))
    model.ecg_jepa.requires_grad_(not arguments.frozen)
    return model


def _untrained_config(name: str, sampling_rate: int) -> EcgJepaConfig:
    """Of a published size, or of the directory whose encoder the untrained one is compared with."""
    if name not in SIZES and Path(name, "config.json").is_file():
        return EcgJepaConfig.from_pretrained(name)
    return EcgJepaConfig.from_size(name, sampling_rate=sampling_rate)


def _check_probe(name: str, config: EcgJepaConfig, class_names: list[str]) -> None:
    labels = list(config.id2label.values()) if config.id2label else []
    if "EcgJepaForSequenceClassification" not in (config.architectures or []) or labels != class_names:
        raise ValueError(
            f"finetune_after_probe needs the directory of a probe of the same task with classes {', '.join(class_names)}, but "
            f"{name} holds {', '.join(config.architectures or ['no model'])} with classes {', '.join(labels)}."
        )


@dataclass
class EncodedCrops:
    """What the head sees of some crops, and the record (position in its split) that each crop belongs to."""

    hidden_states: torch.Tensor
    owners: torch.Tensor


class Scorer:
    """
    Logits of the records of a split, averaged over crops that cover each record.

    With a frozen encoder its output is computed once and kept in memory: only the head changes between validations.

    Args:
        model: the classifier.
        data, split: the records.
        crop_length, crop_stride: in samples.
        frozen: whether the encoder stays as it is.
    """

    def __init__(
        self,
        model: EcgJepaForSequenceClassification,
        data: TaskData,
        split: str,
        crop_length: int,
        crop_stride: int,
        frozen: bool,
    ):
        self.model = model
        self.data = data
        self.indices = data.splits[split]
        self.crop_length, self.crop_stride = crop_length, crop_stride
        self.frozen = frozen
        self._kept: list[EncodedCrops] | None = None

    @torch.no_grad()
    def logits(self) -> np.ndarray:
        """(records, classes), float32. Leaves the model in evaluation mode."""
        self.model.eval()
        device = next(self.model.parameters()).device
        total = torch.zeros(len(self.indices), self.model.num_labels)
        crops = torch.zeros(len(self.indices), 1)
        for batch in self._encoded(device):
            scores = self.model.classify_tokens(batch.hidden_states.to(device)).float().cpu()
            total.index_add_(0, batch.owners, scores)
            crops.index_add_(0, batch.owners, torch.ones(len(batch.owners), 1))
        return (total / crops).numpy()

    def _encoded(self, device: torch.device) -> Iterator[EncodedCrops] | list[EncodedCrops]:
        if not self.frozen:
            return self._encode(device)
        if self._kept is None:
            self._kept = [EncodedCrops(b.hidden_states.cpu(), b.owners) for b in self._encode(device)]
        return self._kept

    def _encode(self, device: torch.device) -> Iterator[EncodedCrops]:
        for crops, owners in self.data.strided_crops(self.indices, self.crop_length, self.crop_stride):
            yield EncodedCrops(self.model.ecg_jepa(crops.to(device)).last_hidden_state, owners)
