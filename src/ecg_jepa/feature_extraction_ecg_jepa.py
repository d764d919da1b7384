"""Records as users have them -> `input_values` as the models were trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType, logging

from .configuration_ecg_jepa import EcgJepaConfig
from .signal_processing_ecg_jepa import CLIP, STANDARD_LEADS, condition, cut_crops, normalize, select_leads, unit_factor

logger = logging.get_logger(__name__)


class EcgJepaFeatureExtractor(SequenceFeatureExtractor):
    """
    Does to a record exactly what training did: leads in order, unit, NaNs, optional high-pass, resampling, normalisation
    with the training records' statistics, clipping, optional crops. It travels with every checkpoint.

    Args:
        lead_names: leads that the model expects, in its order.
        sampling_rate: Hz that the model expects; records of other rates are resampled.
        patch_size: samples per patch; an input is a whole number of patches.
        signal_length: longest input in samples.
        mean, std: per lead, in mV, of the training records; a number stands for all leads.
        clip: largest distance from the mean, in standard deviations; `None` for none.
        highpass_cutoff: cutoff in Hz of the high-pass that training applied (CODE-15 and St-Petersburg: 0.5), or `None`.
        amplitude_free: band-pass each record and divide each lead by its own standard deviation, instead of mV and a high-pass;
            `mean` and `std` are then in such units. The unit of records may be `"unknown"`.
        crop_duration, crop_stride: in s; if given, `input_values` has a dimension of crops that cover the record, over
            which `EcgJepaForSequenceClassification` averages its logits.
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        lead_names: Sequence[str] = STANDARD_LEADS,
        sampling_rate: int = 500,
        patch_size: int = 25,
        signal_length: int = 5000,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        clip: float | None = CLIP,
        highpass_cutoff: float | None = None,
        amplitude_free: bool = False,
        crop_duration: float | None = None,
        crop_stride: float | None = None,
        **kwargs: Any,
    ):
        kwargs.pop("feature_size", None)  # the number of leads
        kwargs.pop("padding_value", None)  # records are never padded
        kwargs.setdefault("return_attention_mask", False)
        super().__init__(feature_size=len(lead_names), sampling_rate=sampling_rate, padding_value=0.0, **kwargs)
        self.lead_names = list(lead_names)
        self.patch_size = patch_size
        self.signal_length = signal_length
        self.mean = self._per_lead("mean", mean)
        self.std = self._per_lead("std", std)
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive for every lead, but is {self.std}.")
        self.clip = clip
        self.highpass_cutoff = highpass_cutoff
        self.amplitude_free = amplitude_free
        if (crop_duration is None) != (crop_stride is None):
            raise ValueError("crop_duration and crop_stride go together: give both in seconds, or none.")
        if crop_duration is not None and crop_stride is not None:
            length = round(crop_duration * sampling_rate)
            if length < patch_size or length % patch_size or length > signal_length or crop_stride <= 0:
                raise ValueError(
                    f"crop_duration={crop_duration} s is {length} samples at {sampling_rate} Hz: it must be a whole number "
                    f"of patches of {patch_size} samples, at most {signal_length} samples, with a positive crop_stride."
                )
        self.crop_duration = crop_duration
        self.crop_stride = crop_stride

    @classmethod
    def for_model(cls, config: EcgJepaConfig, mean: Any, std: Any, **options: Any) -> "EcgJepaFeatureExtractor":
        """The extractor that fits a model's configuration; `mean`, `std` and `options` as for the class."""
        return cls(
            lead_names=config.lead_names,
            sampling_rate=config.sampling_rate,
            patch_size=config.patch_size,
            signal_length=config.signal_length,
            amplitude_free=config.amplitude_free,
            mean=mean,
            std=std,
            **options,
        )

    def _per_lead(self, name: str, value: float | Sequence[float]) -> list[float]:
        values = np.asarray(value, dtype=float)
        if values.ndim > 1 or (values.ndim == 1 and len(values) != len(self.lead_names)):
            raise ValueError(f"{name} needs one value per lead ({len(self.lead_names)}), but got {values.size}.")
        return np.broadcast_to(values, len(self.lead_names)).tolist()

    def __call__(
        self,
        signal: Any,
        sampling_rate: float | None = None,
        lead_names: Sequence[str] | None = None,
        unit: str = "mV",
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """
        Args:
            signal: one record, an array or tensor (leads, samples), or a list of records or an array (records, leads,
                samples) that share rate, leads and unit. NaN marks missing samples.
            sampling_rate: of the signal in Hz. It must be given: it cannot be guessed.
            lead_names: of the rows, in any order and case; `None` means the model's leads in the model's order. III, aVR, aVL
                and aVF are derived from I and II when absent.
            unit: "mV", "uV", "V" or "nV"; for amplitude-free input also "unknown".
            return_tensors: "pt" or "np"; `None` gives a list of arrays.

        Returns:
            `BatchFeature` with `input_values`: (records, leads, samples), or (records, crops, leads, samples) if the extractor
            crops. What is left of a record after its last whole patch, less than one patch, is cut off with a warning.

        Raises:
            ValueError: for an undeclared rate, an unknown unit, missing leads, all-NaN leads, infinite values, records shorter
                than a patch or, without crops, longer than `signal_length`, and records of different lengths with
                `return_tensors`.
        """
        if sampling_rate is None:
            raise ValueError(
                f"sampling_rate of the signal is not given: name it in Hz (the model expects {self.sampling_rate} Hz, "
                "other rates are resampled)."
            )
        if not sampling_rate > 0:
            raise ValueError(f"sampling_rate={sampling_rate} must be a positive number of Hz.")
        factor = unit_factor(unit, self.amplitude_free)
        records = [self._extract(r, sampling_rate, lead_names, factor) for r in self._as_records(signal)]
        if return_tensors is not None and len({record.shape for record in records}) > 1:
            raise ValueError(
                f"Records of different lengths make no tensor: {sorted({r.shape for r in records})}. Pass records of one "
                "length, one at a time, or return_tensors=None."
            )
        return BatchFeature({"input_values": records}, tensor_type=return_tensors)

    def _as_records(self, signal: Any) -> list[np.ndarray]:
        if not isinstance(signal, (list, tuple)):
            signal = np.asarray(signal)
        elif signal and np.ndim(signal[0]) == 1:
            signal = np.asarray(signal)  # one record as nested lists: rows are leads
        records = [signal] if getattr(signal, "ndim", 3) == 2 else list(signal)
        arrays = [np.asarray(record) for record in records]
        if not arrays:
            raise ValueError("No record given: signal is empty.")
        for array in arrays:
            if array.ndim != 2 or not np.issubdtype(array.dtype, np.number):
                raise ValueError(f"A record must be numbers of shape (leads, samples), but got {array.dtype} {array.shape}.")
        return arrays

    def _extract(self, signal: np.ndarray, sampling_rate: float, lead_names: Sequence[str] | None, factor: float) -> np.ndarray:
        if lead_names is None and signal.shape[0] != len(self.lead_names):
            hint = " It looks transposed." if signal.shape[1] == len(self.lead_names) else ""
            raise ValueError(
                f"The record has {signal.shape[0]} leads of {signal.shape[1]} samples, expected (leads, samples) with the "
                f"{len(self.lead_names)} leads {', '.join(self.lead_names)}; pass lead_names for another order or set." + hint
            )
        signal = signal.astype(np.float32) * np.float32(factor)
        signal = select_leads(signal, lead_names or self.lead_names, self.lead_names)
        signal = condition(signal, sampling_rate, self.sampling_rate, self.highpass_cutoff, self.amplitude_free)
        return self.normalize_and_crop(signal)

    def normalize_and_crop(self, signal: np.ndarray) -> np.ndarray:
        """
        The last steps alone, for records that are already conditioned, as those of prepared databases are.

        Args:
            signal: (leads, samples) in mV or amplitude-free, with the model's leads and sampling rate.

        Returns:
            (leads, samples) or, if the extractor crops, (crops, leads, samples), float32.
        """
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        normalized = normalize(signal.astype(np.float32, copy=False), mean, std, self.clip)
        return self._whole_patches(normalized) if self.crop_duration is None else self._crops(normalized)

    def _whole_patches(self, signal: np.ndarray) -> np.ndarray:
        samples = signal.shape[1]
        whole = samples - samples % self.patch_size
        if whole == 0:
            raise ValueError(
                f"The record has {samples} samples at {self.sampling_rate} Hz, fewer than one patch of {self.patch_size}."
            )
        if self.crop_duration is None and whole > self.signal_length:
            raise ValueError(
                f"The record has {samples} samples at {self.sampling_rate} Hz, but the model takes at most "
                f"{self.signal_length}: crop it, or set crop_duration and crop_stride of the feature extractor."
            )
        if whole < samples:
            logger.warning_once(f"A record's last {samples - whole} samples fill no patch of {self.patch_size} and are left out.")
        return signal[:, :whole]

    def _crops(self, signal: np.ndarray) -> np.ndarray:
        assert self.crop_duration is not None
        assert self.crop_stride is not None
        length = round(self.crop_duration * self.sampling_rate)
        stride = max(1, round(self.crop_stride * self.sampling_rate))
        if signal.shape[1] < length:
            signal = self._whole_patches(signal)
        return cut_crops(signal, length, stride)


__all__ = ["EcgJepaFeatureExtractor"]
