"""Records as users have them -> `input_values` as the models were trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType, logging

from ..formats.ecg import Ecg, are_names, check_declared, is_finite
from ..formats.read import as_ecg, describes_itself
from .configuration_ecg_jepa import EcgJepaConfig
from .plausibility_ecg_jepa import ImplausibleSignalError, check_clipped, check_normalized, check_plausible, check_rate
from .signal_processing_ecg_jepa import (
    CLIP,
    STANDARD_LEADS,
    UNKNOWN_UNIT,
    condition,
    cut_crops,
    normalize,
    select_leads,
    unit_factor,
)

logger = logging.get_logger(__name__)

# What a saved configuration must say, because a default in its place would change the numbers in silence.
_DECISIVE = ("lead_names", "sampling_rate", "patch_size", "signal_length", "mean", "std", "clip", "highpass_cutoff")
_KNOWN = {
    *(*_DECISIVE, "amplitude_free", "crop_duration", "crop_stride"),
    # What transformers writes beside these.
    *("feature_extractor_type", "feature_size", "padding_value", "padding_side", "return_attention_mask", "auto_map"),
    *("processor_class", "_name_or_path", "_processor_class"),
}


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

    Raises:
        ValueError: for values that make no sense, such as a `std` of NaN or a `clip` of 0.
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
        if not are_names(lead_names) or not len(lead_names) or len(set(lead_names)) < len(lead_names):
            raise ValueError(f"lead_names must be a list of names, each once, but is {lead_names!r}.")
        for name, value in (("sampling_rate", sampling_rate), ("patch_size", patch_size), ("signal_length", signal_length)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, but is {value!r}.")
        for name, number in (("clip", clip), ("highpass_cutoff", highpass_cutoff)):
            if number is not None and not (is_finite(number) and number > 0):
                raise ValueError(f"{name} must be a positive number or None, but is {number!r}.")
        super().__init__(feature_size=len(lead_names), sampling_rate=sampling_rate, padding_value=0.0, **kwargs)
        self.lead_names = list(lead_names)
        self.patch_size = patch_size
        self.signal_length = signal_length
        self.mean = self._per_lead("mean", mean)
        self.std = self._per_lead("std", std)
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive for every lead, but is {self.std}: was a lead dead in all training records?")
        self.clip = clip
        self.highpass_cutoff = highpass_cutoff
        self.amplitude_free = amplitude_free
        if (crop_duration is None) != (crop_stride is None):
            raise ValueError("crop_duration and crop_stride go together: give both in seconds, or none.")
        if crop_duration is not None and crop_stride is not None:
            if not (is_finite(crop_duration) and is_finite(crop_stride)):
                raise ValueError(f"crop_duration={crop_duration!r} and crop_stride={crop_stride!r} must be numbers of seconds.")
            length = round(crop_duration * sampling_rate)
            if length < patch_size or length % patch_size or length > signal_length or crop_stride <= 0:
                raise ValueError(
                    f"crop_duration={crop_duration} s is {length} samples at {sampling_rate} Hz: it must be a whole number "
                    f"of patches of {patch_size} samples, at most {signal_length} samples, with a positive crop_stride."
                )
        self.crop_duration = crop_duration
        self.crop_stride = crop_stride

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """
        As for all feature extractors, but what decides on the numbers that a model sees is not filled in: `ValueError` if a saved
        configuration lacks it. What is not known is warned of.
        """
        given = {**feature_extractor_dict, **kwargs}
        if missing := [name for name in _DECISIVE if name not in given]:
            raise ValueError(
                f"The feature extractor's configuration lacks {', '.join(missing)}: the model's inputs would be others than in "
                "training. Use the preprocessor_config.json that came with the model."
            )
        if unknown := sorted(feature_extractor_dict.keys() - _KNOWN):
            logger.warning(f"The feature extractor's configuration has keys that mean nothing here: {', '.join(unknown)}.")
        return super().from_dict(feature_extractor_dict, **kwargs)

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

    def check_model(self, config: EcgJepaConfig) -> None:
        """
        Raise `ValueError` unless this is the extractor of a model with this configuration: another's would hand it a signal of
        another rate, lead order or kind, which the model cannot notice.
        """
        for name in ("lead_names", "sampling_rate", "patch_size", "amplitude_free"):
            own, models = getattr(self, name), getattr(config, name)
            if own != models:
                raise ValueError(
                    f"The feature extractor does not fit the model: its {name} is {own}, the model's {models}. Use the "
                    "preprocessor_config.json that came with the model, or EcgJepaFeatureExtractor.for_model."
                )
        if self.signal_length > config.signal_length:
            raise ValueError(
                f"The feature extractor does not fit the model: its signal_length is {self.signal_length}, the model takes at "
                f"most {config.signal_length} samples."
            )

    def _per_lead(self, name: str, value: float | Sequence[float]) -> list[float]:
        try:
            values = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number, or one per lead, but is {value!r}.") from None
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite for every lead, but is {values.tolist()}.")
        if values.ndim > 1 or (values.ndim == 1 and len(values) != len(self.lead_names)):
            raise ValueError(f"{name} needs one value per lead ({len(self.lead_names)}), but got {values.size}.")
        return np.broadcast_to(values, len(self.lead_names)).tolist()

    def __call__(
        self,
        signal: Any,
        sampling_rate: float | None = None,
        lead_names: Sequence[str] | None = None,
        unit: str | None = None,
        return_tensors: str | TensorType | None = None,
        check_plausibility: bool = True,
        padding: Any = None,
        truncation: Any = None,
        max_length: Any = None,
    ) -> BatchFeature:
        """
        Args:
            signal: one record or a list of records. A record is an array or tensor (leads, samples), with NaN for missing
                samples; the path of a file in any format that `read_ecg` reads; an `Ecg` or `EcgRecord`; or a `wfdb.Record`. An
                array (records, leads, samples) is a list of records that share rate, leads and unit.
            sampling_rate: in Hz, of records that do not say it, as arrays do not: it cannot be guessed.
            lead_names: of the rows, in any order and case, of records that do not say them; `None` means the model's leads in the
                model's order. III, aVR, aVL and aVF are derived from I and II when absent.
            unit: "mV", "uV", "V" or "nV", of records that do not say it; for amplitude-free input also "unknown". The default is
                what a record says, and mV for an array. Declared or not, it must be plausible.
            return_tensors: "pt" or "np"; `None` gives a list of arrays.
            check_plausibility: refuse what cannot be an ECG in that unit (size of the signal, flat and mostly missing leads,
                share of clipped samples, sampling rates outside 50 to 4,000 Hz: see `plausibility_ecg_jepa`), and records shorter
                than `crop_duration`.
            padding, truncation, max_length: records are never padded or truncated; what asks for it is refused.

        Returns:
            `BatchFeature` with `input_values`: (records, leads, samples), or (records, crops, leads, samples) if the extractor
            crops. What is left of a record after its last whole patch, less than one patch, is cut off with a warning.

        Raises:
            ValueError: for an undeclared rate, an unknown unit, declarations that contradict what a record says, missing leads,
                all-NaN leads, infinite values, records shorter than a patch or, without crops, longer than `signal_length`, and
                records of different lengths with `return_tensors`; `ImplausibleSignalError`, which is one, for what is not
                plausible; `RecordError`, which is one, for files that cannot be read.
            TypeError: for masked arrays, whose mask would be lost.
        """
        _refuse_padding(padding, truncation, max_length)
        check_declared(sampling_rate, lead_names)
        if unit is not None:
            unit_factor(unit, self.amplitude_free)
        ecgs = [self._as_ecg(record, sampling_rate, lead_names, unit) for record in self._as_records(signal)]
        if check_plausibility:
            for ecg in ecgs:
                check_rate(ecg.sampling_rate)
        # As the model expects them: leads and mV, but neither filtered nor resampled.
        selected = [self._select(ecg) for ecg in ecgs]
        if check_plausibility:
            for ecg in ecgs:
                self._check_duration(ecg.signal.shape[1] / ecg.sampling_rate)
        records = [
            self.normalize_and_crop(
                condition(
                    record, ecg.sampling_rate, self.sampling_rate, self.highpass_cutoff, self.amplitude_free, self.lead_names
                )
            )
            for record, ecg in zip(selected, ecgs, strict=True)
        ]
        if return_tensors is not None and len({record.shape for record in records}) > 1:
            raise ValueError(
                f"Records of different lengths make no tensor: {sorted({r.shape for r in records})}. Pass records of one "
                "length, one at a time, or return_tensors=None."
            )
        if check_plausibility:
            for record, ecg, values in zip(selected, ecgs, records, strict=True):
                self._check_plausible(record, values, has_unit=ecg.unit != UNKNOWN_UNIT)
        return BatchFeature({"input_values": records}, tensor_type=return_tensors)

    def _as_records(self, signal: Any) -> list[Any]:
        """One or several records -> a list of arrays and of records that describe themselves."""
        if describes_itself(signal):
            return [signal]
        if not isinstance(signal, (list, tuple)):
            signal = _as_array(signal)
        elif signal and not describes_itself(signal[0]) and np.ndim(_as_array(signal[0])) == 1:
            # One record as nested lists: rows are leads, of any kind that a record may have.
            signal = _as_array([_as_array(row) for row in signal])
        if getattr(signal, "ndim", 3) not in (2, 3):
            raise ValueError(f"A record must be numbers of shape (leads, samples), but got {signal.dtype} {signal.shape}.")
        records = [signal] if getattr(signal, "ndim", 3) == 2 else list(signal)
        found = [record if describes_itself(record) else _as_array(record) for record in records]
        if not found:
            raise ValueError("No record given: signal is empty.")
        for array in found:
            if isinstance(array, np.ndarray) and (array.ndim != 2 or array.dtype.kind not in "iuf" or not array.size):
                raise ValueError(f"A record must be numbers of shape (leads, samples), but got {array.dtype} {array.shape}.")
        return found

    def _as_ecg(self, record: Any, sampling_rate: float | None, lead_names: Sequence[str] | None, unit: str | None) -> Any:
        """An array or another record with all that must be said of it: rate, and unit, of which "unknown" is one."""
        if isinstance(record, np.ndarray):
            ecg = Ecg(record, sampling_rate, None if lead_names is None else list(lead_names), unit or "mV")
        else:
            ecg = as_ecg(record, sampling_rate, lead_names, unit)
            if ecg.lead_names is None:  # of an array, whoever has it in hand knows that the model's order is meant
                raise ValueError(f"The record does not say its leads: pass the {len(ecg.signal)} lead_names in its order.")
        if ecg.sampling_rate is None:
            raise ValueError(
                f"sampling_rate of the signal is not given: name it in Hz (the model expects {self.sampling_rate} Hz, "
                "other rates are resampled)."
            )
        if ecg.unit is None and not self.amplitude_free:
            raise ValueError('The record does not say its unit: pass unit="mV", "uV", "V" or "nV".')
        return ecg._replace(unit=ecg.unit or UNKNOWN_UNIT)

    def _select(self, ecg: Ecg) -> np.ndarray:
        signal, lead_names = ecg.signal, ecg.lead_names
        if lead_names is None and signal.shape[0] != len(self.lead_names):
            hint = " It looks transposed." if signal.shape[1] == len(self.lead_names) else ""
            raise ValueError(
                f"The record has {signal.shape[0]} leads of {signal.shape[1]} samples, expected (leads, samples) with the "
                f"{len(self.lead_names)} leads {', '.join(self.lead_names)}; pass lead_names for another order or set." + hint
            )
        with np.errstate(over="ignore"):  # infinite values are refused
            signal = signal.astype(np.float32) * np.float32(unit_factor(ecg.unit or "", self.amplitude_free))
        return select_leads(signal, self.lead_names if lead_names is None else lead_names, self.lead_names)

    def _check_duration(self, duration: float) -> None:
        """Raise `ImplausibleSignalError` for a record, of so many seconds, that fills no crop as the model knows them."""
        if self.crop_duration is not None and round(duration * self.sampling_rate) < round(
            self.crop_duration * self.sampling_rate
        ):
            raise ImplausibleSignalError(
                "too short",
                f"the record lasts {duration:g} s, the model was trained on crops of {self.crop_duration:g} s, and nothing is "
                "padded: use a longer record",
            )

    def _check_plausible(self, signal: np.ndarray, input_values: np.ndarray, has_unit: bool) -> None:
        """`signal` as it was given, in mV if it `has_unit`, and what was made of it: see `plausibility_ecg_jepa`."""
        for oddity in check_plausible(signal, self.lead_names, any_amplitude=not has_unit):
            logger.warning(f"Of a record, {oddity}")
        values = input_values if input_values.ndim == 2 else np.concatenate(list(input_values), axis=1)
        check_normalized(values)
        if self.clip is not None:
            check_clipped(np.abs(values) >= self.clip, self.lead_names, f"{self.clip:g} standard deviations of training records")

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


def _refuse_padding(padding: Any, truncation: Any, max_length: Any) -> None:
    """Raise `ValueError` if any of these, which other feature extractors know, asks for something."""
    if padding not in (None, False, "do_not_pad"):
        raise ValueError(
            f"padding={padding!r}: records are never padded, since a model would take zeros for signal. Records of one length "
            "make a tensor; pass those of other lengths one at a time, or with return_tensors=None."
        )
    if truncation not in (None, False, "do_not_truncate") or max_length is not None:
        raise ValueError(
            f"truncation={truncation!r}, max_length={max_length!r}: records are never truncated. Cut the signal yourself, or set "
            "crop_duration and crop_stride of the feature extractor, which cover a record with crops."
        )


def _as_array(signal: Any) -> np.ndarray:
    """As an array. Raises `TypeError` or `ValueError` for what is none, and for what an array would lose."""
    if isinstance(signal, np.ma.MaskedArray):
        raise TypeError("A masked array would lose its mask: pass signal.filled(np.nan), with NaN where nothing was recorded.")
    try:
        if isinstance(signal, torch.Tensor):
            signal = signal.detach().cpu()
            signal = signal.float() if signal.dtype == torch.bfloat16 else signal
        return np.asarray(signal)
    except Exception as error:  # whatever the object's own conversion raises
        raise ValueError(
            f"A record must be numbers of shape (leads, samples), but {type(signal).__name__} makes no array: {error}"
        ) from error


__all__ = ["EcgJepaFeatureExtractor"]
