"""Records as users have them -> `input_values` as the models were trained on."""

import importlib
import importlib.util
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType, logging

from .configuration_ecg_jepa import EcgJepaConfig
from .signal_processing_ecg_jepa import (
    CLIP,
    STANDARD_LEADS,
    UNKNOWN_UNIT,
    Ecg,
    ImplausibleSignalError,
    RecordError,
    are_names,
    check_clipped,
    check_complete,
    check_declared,
    check_normalized,
    check_plausible,
    check_rate,
    condition,
    cut_crops,
    declare,
    is_finite,
    lead_name,
    normalize,
    select_leads,
    to_millivolts,
    unit_factor,
)

logger = logging.get_logger(__name__)

# What a saved configuration must say, because a default in its place would silently change the numbers.
_DECISIVE = ("lead_names", "sampling_rate", "patch_size", "signal_length", "mean", "std", "clip", "highpass_cutoff")
# Fields of records that describe themselves. The code of a checkpoint and the installed package each have classes of their own,
# so that classes say nothing.
_WFDB_FIELDS = ("p_signal", "fs", "sig_name", "units")
_ECG_FIELDS = ("signal", "sampling_rate", "lead_names", "unit")

# A line of a WFDB header without a gain, or with a gain of 0, for which the library wfdb takes 200 per mV.
_SIGNAL_WITHOUT_GAIN = re.compile(r"\S+\s+\S+(?:\s+[-+]?0*\.?0*(?:[eE]\S*)?(?:[(/]\S*)?(?:\s.*)?)?")
_INSTALL = 'pip install "ecg_jepa[formats]"'


class EcgJepaFeatureExtractor(SequenceFeatureExtractor):
    """
    Converts records as training did: leads in order, unit, NaNs, optional high-pass, resampling, normalisation with the training
    records' statistics, clipping, optional crops. It is saved with every checkpoint.

    Args:
        lead_names: leads that the model expects, in its order.
        sampling_rate: Hz that the model expects; records of other rates are resampled.
        patch_size: samples per patch; an input is a whole number of patches.
        signal_length: longest input in samples.
        mean, std: per lead, in mV, of the training records; a number stands for all leads.
        clip: largest distance from the mean, in standard deviations; `None` for none.
        highpass_cutoff: cutoff in Hz of the high-pass that training applied (CODE-15 and St-Petersburg: 0.5), or `None`.
        amplitude_free: instead of mV and a high-pass, band-pass each record and divide each lead by its own standard deviation,
            which is then the unit of `mean` and `std`. The unit of records may be `"unknown"`.
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
            length = round(crop_duration * sampling_rate) if is_finite(crop_duration) and is_finite(crop_stride) else 0
            if length < patch_size or length % patch_size or length > signal_length or crop_stride <= 0:
                raise ValueError(
                    f"crop_duration={crop_duration!r} s at {sampling_rate} Hz must be a whole number of patches of {patch_size} "
                    f"samples, at most {signal_length} samples, and crop_stride={crop_stride!r} a positive number of seconds."
                )
        self.crop_duration = crop_duration
        self.crop_stride = crop_stride

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Call the base class; raise `ValueError` if a saved configuration lacks what decides the model's inputs."""
        if missing := [name for name in _DECISIVE if name not in {**feature_extractor_dict, **kwargs}]:
            raise ValueError(
                f"The feature extractor's configuration lacks {', '.join(missing)}: the model's inputs would be others than in "
                "training. Use the preprocessor_config.json that came with the model."
            )
        return super().from_dict(feature_extractor_dict, **kwargs)

    @classmethod
    def for_model(cls, config: EcgJepaConfig, mean: Any, std: Any, **options: Any) -> "EcgJepaFeatureExtractor":
        """Return the extractor that fits a model's configuration; `mean`, `std` and `options` as for the class."""
        shared = ("lead_names", "sampling_rate", "patch_size", "signal_length", "amplitude_free")
        return cls(**{name: getattr(config, name) for name in shared}, mean=mean, std=std, **options)

    def check_model(self, config: EcgJepaConfig) -> None:
        """Raise `ValueError` if this extractor would give a model signals of another rate, lead order, length or kind."""
        for name in ("lead_names", "sampling_rate", "patch_size", "amplitude_free", "signal_length"):
            own, models = getattr(self, name), getattr(config, name)
            if own > models if name == "signal_length" else own != models:
                raise ValueError(
                    f"The feature extractor does not fit the model: its {name} is {own}, the model's {models}. Use the "
                    "preprocessor_config.json that came with the model, or EcgJepaFeatureExtractor.for_model."
                )

    def _per_lead(self, name: str, value: float | Sequence[float]) -> list[float]:
        try:
            values = np.broadcast_to(np.asarray(value, dtype=float), len(self.lead_names))
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number, or one per lead ({len(self.lead_names)}), but is {value!r}.") from None
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite for every lead, but is {values.tolist()}.")
        return values.tolist()

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
                samples; the path of a file in any format of `read_ecg` (without the package: of WFDB); an `Ecg`; or a
                `wfdb.Record`. An array (records, leads, samples) is a list of records that share rate, leads and unit.
            sampling_rate: in Hz, of records that do not say it, such as arrays.
            lead_names: of the rows, in any order and case, of records that do not say them; of an array, `None` means the model's
                leads in the model's order. III, aVR, aVL and aVF are derived from I and II when absent.
            unit: "mV", "uV", "V" or "nV", of records that do not say it; for amplitude-free input also "unknown". The default for
                arrays is mV.
            check_plausibility: refuse records shorter than `crop_duration` and what cannot be an ECG in that unit: by the size of
                the signal, flat, padded and mostly missing leads, clipped samples, rates outside 50 to 4,000 Hz.
            padding, truncation, max_length: refused, because records are never padded or truncated.

        Returns:
            `BatchFeature` with `input_values`: (records, leads, samples), or (records, crops, leads, samples) if the extractor
            crops. A last incomplete patch is cut off with a warning.

        Raises:
            RecordError: for undeclared rate, unit or leads, for declarations that contradict a record, and unreadable files.
            ImplausibleSignalError: for what `check_plausibility` refuses.
            ValueError: the class of both, for missing leads, all-NaN leads, infinite values, records shorter than a patch or,
                without crops, longer than `signal_length`, and records of different lengths with `return_tensors`.
            TypeError: for masked arrays, whose mask would be lost.
        """
        _refuse_padding(padding, truncation, max_length)
        check_declared(sampling_rate, lead_names, unit)
        if unit == UNKNOWN_UNIT and not self.amplitude_free:
            unit_factor(unit)  # raises
        ecgs = [self._as_ecg(record, sampling_rate, lead_names, unit) for record in _as_records(signal)]
        # As the model expects them: leads and mV, but neither filtered nor resampled.
        selected, records = [], []
        for ecg in ecgs:
            rate: Any = ecg.sampling_rate
            if check_plausibility:
                check_rate(rate)
            names: Any = ecg.lead_names
            leads = select_leads(ecg.signal, names, [lead_name(name) for name in self.lead_names])
            if check_plausibility:
                self._check_duration(leads.shape[1] / rate)
            conditioned = condition(leads, rate, self.sampling_rate, self.highpass_cutoff, self.amplitude_free, self.lead_names)
            selected.append(leads)
            records.append(self.normalize_and_crop(conditioned))
        if return_tensors is not None and len({record.shape for record in records}) > 1:
            raise ValueError(
                f"Records of different lengths make no tensor: {sorted({r.shape for r in records})}. Pass records of one "
                "length, one at a time, or return_tensors=None."
            )
        if check_plausibility:
            for ecg, leads, values in zip(ecgs, selected, records, strict=True):
                self._check_plausible(leads, values, any_amplitude=ecg.unit is None)
        return BatchFeature({"input_values": records}, tensor_type=return_tensors)

    def _as_ecg(self, record: Any, sampling_rate: float | None, lead_names: Sequence[str] | None, unit: str | None) -> Ecg:
        """Return a record with all that must be known of it; `unit` is "mV" or, for an unknown one, `None`."""
        if not isinstance(record, np.ndarray):
            ecg = as_ecg(record, sampling_rate, lead_names, unit)
            check_complete(_name_of(record), ecg, any_unit=self.amplitude_free)
            return ecg
        with np.errstate(over="ignore"):  # infinite values are refused
            signal = record.astype(np.float32) * np.float32(1.0 if unit == UNKNOWN_UNIT else unit_factor(unit or "mV"))
        ecg = Ecg(signal, None, None, None if unit == UNKNOWN_UNIT else "mV")
        if lead_names is None:
            self._check_rows(signal)
            ecg = declare("record", ecg, sampling_rate)._replace(lead_names=self.lead_names)
        else:
            ecg = declare("record", ecg, sampling_rate, lead_names)
        check_complete("record", ecg, any_unit=self.amplitude_free)
        return ecg

    def _check_rows(self, signal: np.ndarray) -> None:
        """Raise `ValueError` if an array without lead names does not have the model's leads."""
        if signal.shape[0] != len(self.lead_names):
            hint = " It looks transposed." if signal.shape[1] == len(self.lead_names) else ""
            raise ValueError(
                f"The record has {signal.shape[0]} leads of {signal.shape[1]} samples, expected (leads, samples) with the "
                f"{len(self.lead_names)} leads {', '.join(self.lead_names)}; pass lead_names for another order or set." + hint
            )

    def _check_duration(self, duration: float) -> None:
        """Raise `ImplausibleSignalError` for a record, of so many seconds, that fills no crop of the training's length."""
        crop = self.crop_duration
        if crop is not None and round(duration * self.sampling_rate) < round(crop * self.sampling_rate):
            raise ImplausibleSignalError(
                "too short",
                f"the record lasts {duration:g} s, the model was trained on crops of {crop:g} s, and nothing is padded: use a "
                "longer record",
            )

    def _check_plausible(self, signal: np.ndarray, input_values: np.ndarray, any_amplitude: bool) -> None:
        """Check a signal as it was given and the input that was made of it."""
        for warning in check_plausible(signal, self.lead_names, any_amplitude):
            logger.warning(f"Of a record, {warning}")
        values = input_values if input_values.ndim == 2 else np.concatenate(list(input_values), axis=1)
        check_normalized(values)
        if self.clip is not None:
            check_clipped(np.abs(values) >= self.clip, self.lead_names, f"{self.clip:g} standard deviations of training records")

    def normalize_and_crop(self, signal: np.ndarray) -> np.ndarray:
        """
        Do the last steps alone, for conditioned records such as those of prepared databases.

        Args:
            signal: (leads, samples) in mV or amplitude-free, with the model's leads and sampling rate.

        Returns:
            (leads, samples) or, if the extractor crops, (crops, leads, samples), float32.
        """
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        normalized = normalize(signal.astype(np.float32, copy=False), mean, std, self.clip)
        if self.crop_duration is None or self.crop_stride is None:
            return self._whole_patches(normalized)
        length = round(self.crop_duration * self.sampling_rate)
        if normalized.shape[1] < length:
            normalized = self._whole_patches(normalized)
        return cut_crops(normalized, length, max(1, round(self.crop_stride * self.sampling_rate)))

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


def describes_itself(record: Any) -> bool:
    """Return whether a record is the path of a file, an [`Ecg`] or a `wfdb.Record`, which say rate, leads and unit."""
    return isinstance(record, (str, PathLike)) or any(
        all(hasattr(record, name) for name in names) for names in (_WFDB_FIELDS, _ECG_FIELDS)
    )


def as_ecg(
    record: Any, sampling_rate: float | None = None, lead_names: Sequence[str] | None = None, unit: str | None = None
) -> Ecg:
    """
    Return a record that [`describes_itself`] as an [`Ecg`] in mV, completed by what is declared. Plausibility is not checked.

    Raises:
        RecordError: for unreadable files and signals, and declarations that contradict the record.
    """
    name = _name_of(record)
    if isinstance(record, (str, PathLike)):
        if importlib.util.find_spec("ecg_jepa") is not None:
            read_ecg = importlib.import_module("ecg_jepa").read_ecg
            return read_ecg(record, sampling_rate, lead_names, unit, check_plausibility=False)
        record = _read_wfdb(Path(record))
    if not hasattr(record, "p_signal"):
        rate, names = record.sampling_rate, record.lead_names
        values, units = np.asarray(record.signal), [record.unit] * len(record.signal)
    elif record.p_signal is None:
        detail = "read it with physical=True (and, if it has several segments, m2s=True), so that it has a p_signal"
        raise RecordError(name, "no physical signal", detail)
    else:
        rate, names = record.fs, record.sig_name
        values, units = np.asarray(record.p_signal, dtype=np.float64).T, record.units
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
        raise RecordError(name, "unreadable signal", f"{values.dtype} {values.shape}, expected numbers (leads, samples)")
    signal, said = to_millivolts(name, values, units or [None] * len(values))
    ecg = Ecg(signal, rate, names, None if said is None else "mV")
    return declare(name, ecg, sampling_rate, lead_names, unit, file_units=said)


def _name_of(record: Any) -> str:
    return str(record) if isinstance(record, (str, PathLike)) else getattr(record, "record_name", None) or type(record).__name__


def _read_wfdb(path: Path) -> Any:
    """Read a WFDB record with the library wfdb, which is all that can be read where the package is not installed."""
    record = path.with_suffix("") if path.suffix in (".hea", ".dat", ".mat") else path
    header = Path(f"{record}.hea")
    if not header.is_file():
        detail = f"there is no WFDB header {header.name}, and files of other formats are read by the package: {_INSTALL}"
        raise RecordError(path, "ecg_jepa is not installed", detail)
    if importlib.util.find_spec("wfdb") is None:
        detail = f"WFDB records are read by the library wfdb (pip install wfdb) or the package: {_INSTALL}"
        raise RecordError(path, "wfdb is not installed", detail)
    try:
        lines = [line for line in map(str.strip, header.read_text(errors="replace").splitlines()) if line and line[0] != "#"]
        found = importlib.import_module("wfdb").rdrecord(str(record))
    except Exception as error:  # whatever wfdb raises for a damaged record
        raise RecordError(path, "unreadable record", f"{type(error).__name__}: {error}") from error
    if "/" not in lines[0].split()[0] and any(_SIGNAL_WITHOUT_GAIN.fullmatch(line) for line in lines[1:]):
        raise RecordError(path, "unknown gain", f"{header.name} has no gain for some leads, so that their unit is not known")
    return found


def _as_records(signal: Any) -> list[Any]:
    """Return one or several records as a list of arrays (leads, samples) and of records that [`describes_itself`] is true for."""
    if describes_itself(signal):
        return [signal]
    if not isinstance(signal, (list, tuple)):
        signal = _as_array(signal)
    elif signal and not describes_itself(signal[0]) and np.ndim(_as_array(signal[0])) == 1:
        # One record as nested lists: rows are leads, of any kind that a record may have.
        signal = _as_array([_as_array(row) for row in signal])
    records = list(signal) if getattr(signal, "ndim", 3) == 3 else [signal]
    if not records:
        raise ValueError("No record given: signal is empty.")
    found = [record if describes_itself(record) else _as_array(record) for record in records]
    for array in found:
        if isinstance(array, np.ndarray) and (array.ndim != 2 or array.dtype.kind not in "iuf" or not array.size):
            raise ValueError(f"A record must be numbers of shape (leads, samples), but got {array.dtype} {array.shape}.")
    return found


def _refuse_padding(padding: Any, truncation: Any, max_length: Any) -> None:
    """Raise `ValueError` if any of these, which other feature extractors have, is set."""
    if padding not in (None, False, "do_not_pad"):
        raise ValueError(f"padding={padding!r}: records are never padded. Pass records of one length, or return_tensors=None.")
    if truncation not in (None, False, "do_not_truncate") or max_length is not None:
        raise ValueError(
            f"truncation={truncation!r}, max_length={max_length!r}: records are never truncated. Cut the signal yourself, or set "
            "crop_duration and crop_stride of the feature extractor."
        )


def _as_array(signal: Any) -> np.ndarray:
    """Return a signal as an array. Raises `TypeError` for masked arrays, `ValueError` for what makes no array."""
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
