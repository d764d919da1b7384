"""Records as users have them -> `input_values` as the models were trained on."""

import importlib
import importlib.util
import math
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

_SHARED_WITH_MODEL = ("lead_names", "sampling_rate", "patch_size", "amplitude_free", "signal_length")
# What a saved configuration must say, because a default in its place would silently change the numbers.
_DECISIVE = ("lead_names", "sampling_rate", "patch_size", "signal_length", "mean", "std", "clip", "highpass_cutoff")
# Fields of records that describe themselves: a `wfdb.Record`, an `Ecg`. The code of a checkpoint and the installed package each
# have classes of their own, so that classes say nothing.
_FIELDS = (("p_signal", "fs", "sig_name", "units"), ("signal", "sampling_rate", "lead_names", "unit"))

# A line of a WFDB header without a gain, or with a gain of 0, for which the library wfdb takes 200 per mV.
_SIGNAL_WITHOUT_GAIN = re.compile(r"\S+\s+\S+(?:\s+[-+]?0*\.?0*(?:[eE]\S*)?(?:[(/]\S*)?(?:\s.*)?)?")
_OWN_FILE = "Use the preprocessor_config.json that came with the model"
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
        if not are_names(lead_names) or not len(lead_names) or len(set(lead_names)) < len(lead_names):
            raise ValueError(f"lead_names must be a list of names, each once, but is {lead_names!r}.")
        for name, value in (("sampling_rate", sampling_rate), ("patch_size", patch_size), ("signal_length", signal_length)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, but is {value!r}.")
        for name, number in (("clip", clip), ("highpass_cutoff", highpass_cutoff)):
            if number is not None and not (is_finite(number) and number > 0):
                raise ValueError(f"{name} must be a positive number or None, but is {number!r}.")
        if crop_duration is not None or crop_stride is not None:
            crop: Any = crop_duration if is_finite(crop_duration) and is_finite(crop_stride) and (crop_stride or 0) > 0 else 0
            length = round(crop * sampling_rate)
            if not patch_size <= length <= signal_length or length % patch_size:
                expected = (
                    f"whole patches of {patch_size} samples, at most {signal_length} at {sampling_rate} Hz, and a positive number"
                )
                raise ValueError(f"crop_duration={crop_duration!r} s, crop_stride={crop_stride!r} s: expected {expected}.")
        # Saved values of the base class, of which the number of leads is one; records are never padded.
        kwargs = {"return_attention_mask": False, **kwargs, "feature_size": len(lead_names), "padding_value": 0.0}
        super().__init__(sampling_rate=sampling_rate, **kwargs)
        self.lead_names = list(lead_names)
        self.patch_size = patch_size
        self.signal_length = signal_length
        self.mean, self.std = self._per_lead("mean", mean), self._per_lead("std", std)
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive for every lead, but is {self.std}: was a lead dead in all training records?")
        self.clip = clip
        self.highpass_cutoff = highpass_cutoff
        self.amplitude_free = amplitude_free
        self.crop_duration = crop_duration
        self.crop_stride = crop_stride

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Call the base class; raise `ValueError` if a saved configuration lacks what decides the model's inputs."""
        if missing := [name for name in _DECISIVE if name not in {**feature_extractor_dict, **kwargs}]:
            without = f"The feature extractor's configuration lacks {', '.join(missing)}"
            raise ValueError(f"{without}: the model's inputs would be others than in training. {_OWN_FILE}.")
        return super().from_dict(feature_extractor_dict, **kwargs)

    @classmethod
    def for_model(cls, config: EcgJepaConfig, mean: Any, std: Any, **options: Any) -> "EcgJepaFeatureExtractor":
        """Return the extractor that fits a model's configuration; `mean`, `std` and `options` as for the class."""
        return cls(**{name: getattr(config, name) for name in _SHARED_WITH_MODEL}, mean=mean, std=std, **options)

    def check_model(self, config: EcgJepaConfig) -> None:
        """Raise `ValueError` if this extractor would give a model signals of another rate, lead order, length or kind."""
        for name in _SHARED_WITH_MODEL:
            own, models = getattr(self, name), getattr(config, name)
            if own > models if name == "signal_length" else own != models:
                values = f"its {name} is {own}, the model's {models}"
                raise ValueError(f"The feature extractor does not fit the model: {values}. {_OWN_FILE}, or `for_model`.")

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
            RecordError (a ValueError): for undeclared rate, unit or leads, contradicted declarations, and unreadable files.
            ImplausibleSignalError (a ValueError): for what `check_plausibility` refuses.
            ValueError: for missing leads, all-NaN leads, infinite values, records shorter than a patch or, without crops, longer
                than `signal_length`, and records of different lengths with `return_tensors`.
            TypeError: for masked arrays, whose mask would be lost.
        """
        unset = (None, False, "do_not_pad", "do_not_truncate")
        if padding not in unset or truncation not in unset or max_length is not None:
            raise ValueError("Records are never padded, and never truncated: leave out padding, truncation and max_length.")
        check_declared(sampling_rate, lead_names, unit, any_unit=self.amplitude_free)
        found = unpack_records(signal)
        given = found if isinstance(found, list) else [found]
        if not given:
            raise ValueError("No record given: signal is empty.")
        ecgs = [self._as_ecg(record, sampling_rate, lead_names, unit) for record in given]
        records = [self._convert(ecg, check_plausibility) for ecg in ecgs]
        if return_tensors is not None and len({record.shape for record in records}) > 1:
            shapes = sorted({record.shape for record in records})
            raise ValueError(f"Records of different lengths make no tensor: {shapes}. Pass them singly, or return_tensors=None.")
        return BatchFeature({"input_values": records}, tensor_type=return_tensors)

    def _as_ecg(self, record: Any, sampling_rate: float | None, lead_names: Sequence[str] | None, unit: str | None) -> Ecg:
        """Return a record with all that must be known of it; `unit` is "mV" or, for an unknown one, `None`."""
        if describes_itself(record):
            name, ecg = _name_of(record), as_ecg(record, sampling_rate, lead_names, unit)
        else:
            name, array = "record", as_array(record)
            if lead_names is None and len(array) != len(self.lead_names):
                expected = f"{len(self.lead_names)} leads {', '.join(self.lead_names)}, or lead_names"
                hint = " It looks transposed." if array.shape[1] == len(self.lead_names) else ""
                raise ValueError(f"The record has {len(array)} leads of {array.shape[1]} samples, expected {expected}.{hint}")
            known = None if unit == UNKNOWN_UNIT else unit or "mV"
            with np.errstate(over="ignore"):  # infinite values are refused
                signal = array.astype(np.float32) * np.float32(1.0 if known is None else unit_factor(known))
            ecg = Ecg(signal, None, None, None if known is None else "mV")
            ecg = declare(name, ecg, sampling_rate, self.lead_names if lead_names is None else lead_names)
        check_complete(name, ecg, any_unit=self.amplitude_free)
        return ecg

    def _convert(self, ecg: Ecg, check_plausibility: bool) -> np.ndarray:
        """Return the model's input for a complete record; see `normalize_and_crop` for its shape."""
        rate: Any = ecg.sampling_rate
        if check_plausibility:
            check_rate(rate)
        signal = select_leads(ecg.signal, ecg.lead_names or [], [lead_name(name) for name in self.lead_names])
        duration, crop = signal.shape[1] / rate, self.crop_duration or 0.0
        if check_plausibility and round(duration * self.sampling_rate) < round(crop * self.sampling_rate):
            detail = f"the record lasts {duration:g} s, the model was trained on crops of {crop:g} s, and nothing is padded"
            raise ImplausibleSignalError("too short", f"{detail}: use a longer record")
        conditioned = condition(signal, rate, self.sampling_rate, self.highpass_cutoff, self.amplitude_free, self.lead_names)
        input_values = self.normalize_and_crop(conditioned)
        if check_plausibility:
            for warning in check_plausible(signal, self.lead_names, any_amplitude=ecg.unit is None):
                logger.warning(f"Of a record, {warning}")
            values, clip = np.concatenate(input_values.reshape(-1, *input_values.shape[-2:]), axis=1), self.clip or math.inf
            check_normalized(values)
            check_clipped(np.abs(values) >= clip, self.lead_names, f"{clip:g} standard deviations of training records")
        return input_values

    def normalize_and_crop(self, signal: np.ndarray) -> np.ndarray:
        """
        Do the last steps alone, for conditioned records (leads, samples), in mV or amplitude-free, with the model's leads and
        rate -> (leads, samples) or, if the extractor crops, (crops, leads, samples), float32.
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
        whole, length = samples - samples % self.patch_size, f"The record has {samples} samples at {self.sampling_rate} Hz"
        if whole == 0:
            raise ValueError(f"{length}, fewer than one patch of {self.patch_size}.")
        if self.crop_duration is None and whole > self.signal_length:
            raise ValueError(f"{length}, the model takes at most {self.signal_length}: cut it, or set the extractor's crops.")
        if whole < samples:
            logger.warning_once(f"A record's last {samples - whole} samples fill no patch of {self.patch_size} and are left out.")
        return signal[:, :whole]


def describes_itself(record: Any) -> bool:
    """Return whether a record is the path of a file, an [`Ecg`] or a `wfdb.Record`, which say rate, leads and unit."""
    return isinstance(record, (str, PathLike)) or any(all(hasattr(record, name) for name in names) for names in _FIELDS)


def as_ecg(
    record: Any, sampling_rate: float | None = None, lead_names: Sequence[str] | None = None, unit: str | None = None
) -> Ecg:
    """
    Return a record that [`describes_itself`] as an [`Ecg`] in mV, completed by what is declared. Plausibility is not checked.
    Raises `RecordError` for unreadable files and signals, and declarations that contradict the record.
    """
    name = _name_of(record)
    if isinstance(record, (str, PathLike)):
        if importlib.util.find_spec("ecg_jepa") is not None:
            read_ecg = importlib.import_module("ecg_jepa").read_ecg
            return read_ecg(record, sampling_rate, lead_names, unit, check_plausibility=False)
        record = _read_wfdb(Path(record))
    if not hasattr(record, "p_signal"):
        signal, rate, names, unit_of_all = (getattr(record, field) for field in _FIELDS[1])
        values, units = np.asarray(signal), [unit_of_all] * len(signal)
    elif record.p_signal is None:
        detail = "read it with physical=True (and, if it has several segments, m2s=True), so that it has a p_signal"
        raise RecordError(name, "no physical signal", detail)
    else:
        rate, names, units = record.fs, record.sig_name, record.units
        values = np.asarray(record.p_signal, dtype=np.float64).T
    if not _is_signal(values):
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


def unpack_records(signal: Any) -> Any:
    """Return several records (list, tuple, 3-D array) as a list, one in nested lists as an array, anything else as it is."""
    if isinstance(signal, (list, tuple)) and not describes_itself(signal):
        has_rows = len(signal) > 0 and not describes_itself(signal[0]) and np.ndim(_to_numpy(signal[0])) == 1
        return as_array(signal) if has_rows else list(signal)
    return list(signal) if getattr(signal, "ndim", 0) == 3 else signal


def as_array(record: Any) -> np.ndarray:
    """Return a record as an array (leads, samples). Raises `TypeError` for masked arrays, `ValueError` for what is no record."""
    array = _to_numpy(record)
    if not _is_signal(array):
        raise ValueError(f"A record must be numbers of shape (leads, samples), but got {array.dtype} {array.shape}.")
    return array


def _is_signal(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.dtype.kind in "iuf" and array.size > 0


def _to_numpy(values: Any) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError("A masked array would lose its mask: pass signal.filled(np.nan), with NaN where nothing was recorded.")
    if isinstance(values, (list, tuple)):
        values = [_to_numpy(row) if isinstance(row, (torch.Tensor, np.ma.MaskedArray)) else row for row in values]
    try:
        if isinstance(values, torch.Tensor):
            values = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu()
        return np.asarray(values)
    except Exception as error:  # whatever the object's own conversion raises
        kind = type(values).__name__
        raise ValueError(f"A record must be numbers of shape (leads, samples), but {kind} makes no array: {error}") from error
