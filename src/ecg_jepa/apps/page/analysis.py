"""One ECG -> what a classifier says of it: labels, a picture with where it looked, a vector."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ...evaluation.attention import attention_of_crops
from ...evaluation.plots import CLINICAL_DURATION, has_clinical_leads, plot_ecg
from ...formats.read import Ecg
from ...model.signal_processing_ecg_jepa import UNKNOWN_UNIT, crop_starts, select_leads
from ..prediction import Classifier


@dataclass
class Analysis:
    """
    Args:
        labels: highest score first: `label`, `score`, and where the checkpoint has one `threshold` and `decision`.
        figure: the ECG on paper, with attention over time under it where the classifier has any; `None` if leads of the
            clinical layout are missing.
        embedding: of the encoder, (hidden_size,) float32.
    """

    labels: list[dict[str, Any]]
    figure: Figure | None
    embedding: np.ndarray


class Analyst:
    """
    A classifier with its pre-processing.

    Args:
        name_or_path: directory or Hub repository of a classifier.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if it is no classifier.
    """

    def __init__(self, name_or_path: str | Path):
        self.classifier = Classifier.load(name_or_path)
        self.model, self.extractor = self.classifier.model, self.classifier.extractor

    @torch.no_grad()
    def analyse(self, ecg: Ecg) -> Analysis:
        """
        Raises:
            ValueError: if the record does not fit the model, or cannot be an ECG.
        """
        # Amplitude-free models take records of which the unit is not known; others say so.
        values = self.extractor(ecg.signal, ecg.sampling_rate, ecg.lead_names, ecg.unit or UNKNOWN_UNIT, return_tensors="pt")[
            "input_values"
        ]
        crops = values.flatten(0, -3)
        (labels,) = self.classifier.classify([crops])
        embedding = self.model.ecg_jepa(crops).pooler_output.float().mean(dim=0)
        return Analysis(labels, self._draw(ecg, crops), embedding.numpy())

    def _draw(self, ecg: Ecg, crops: torch.Tensor) -> Figure | None:
        names = self.extractor.lead_names
        if not has_clinical_leads(names):
            return None
        signal = select_leads(ecg.signal, ecg.lead_names or names, names)
        shown = signal[:, : round(CLINICAL_DURATION * float(ecg.sampling_rate or 0))]
        known = ecg.unit is not None
        if not known:  # of which the gain is not known: every lead by its own
            shown = shown / np.nanstd(shown, axis=1, keepdims=True)
        attention = self._attention(crops, signal.shape[1] / float(ecg.sampling_rate or 0))
        return plot_ecg(shown, float(ecg.sampling_rate or 0), names, attention, amplitude_free=not known)

    def _attention(self, crops: torch.Tensor, duration: float) -> np.ndarray | None:
        """Over the stretch that is drawn."""
        if self.model.pooling is None:
            return None
        rate, length, stride = self.model.config.sampling_rate, crops.shape[-1], self.extractor.crop_stride
        starts = [0] if stride is None else crop_starts(round(duration * rate), length, round(stride * rate))
        attention = attention_of_crops(self.model, crops, starts)
        return attention[: round(CLINICAL_DURATION * rate) // self.model.config.patch_size]
