"""DICOM objects with waveforms, read with pydicom."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from ..model.signal_processing_ecg_jepa import is_lead, lead_name
from .ecg import ReadEcg, RecordError, as_read, check_record_size, count_standard

logger = logging.get_logger(__name__)

# Codes of leads: the last number of "2:1" (MDC) and of "5.6.3-9-1" (SCPECG) is that of ISO 11073-91064.
_CODED_LEADS = dict(enumerate(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "V7"), start=1))
_CODED_LEADS |= {61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 66: "V8", 67: "V9"}


def read_dicom(path: Path) -> ReadEcg:
    """
    Read the rhythm of a DICOM object: of its multiplex groups that are no median beats, the one with the most samples of standard
    leads. Samples equal to the padding value become NaN. Raises `RecordError` if it has no waveforms, or none but median beats.
    """
    import pydicom
    from pydicom.waveforms import multiplex_array

    if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
        raise RecordError(path, "compressed", "a deflated DICOM object could grow without bounds: save it inflated")
    dataset = pydicom.dcmread(path)
    groups = list(dataset.get("WaveformSequence", []))
    if not groups:
        kind = getattr(dataset.get("SOPClassUID", "unknown"), "name", "unknown")
        raise RecordError(path, "no waveform", f"a DICOM object of the kind {kind}, expected an ECG waveform")
    index = _rhythm_group(path, groups)
    group, channels = groups[index], list(groups[index].ChannelDefinitionSequence)
    num_channels, num_samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    if num_channels != len(channels) or num_channels < 1 or num_samples < 1:
        raise ValueError(f"{len(channels)} channels are described, of {num_channels} with {num_samples} samples each")
    check_record_size(path, num_channels, num_samples)
    values = multiplex_array(dataset, index, as_raw=False).T
    if not np.isfinite(values).all():
        raise ValueError("sensitivities or baselines are not finite")
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        raw = multiplex_array(dataset, index, as_raw=True).T
        values[raw == (np.frombuffer(padding, raw.dtype)[0] if isinstance(padding, bytes) else padding)] = np.nan
    names = [_channel_name(channel) or None for channel in channels]
    return as_read(path, values, float(group.SamplingFrequency), names, [_channel_unit(channel) for channel in channels])


def _rhythm_group(path: Path, groups: list[Any]) -> int:
    """Return the number of the group to read. Other rhythms are named in a warning."""
    labels = [str(group.get("MultiplexGroupLabel") or "").strip() for group in groups]
    rhythms = {}
    for index, group in enumerate(groups):
        one_beat = any(word in labels[index].lower() for word in ("median", "average", "representative", "template", "beat"))
        derived = str(group.get("WaveformOriginality", "ORIGINAL")).upper() == "DERIVED"
        if "rhythm" in labels[index].lower() or not (one_beat or derived):
            names = [_channel_name(channel) for channel in group.get("ChannelDefinitionSequence", [])]
            samples = int(group.NumberOfWaveformSamples)
            rhythms[index] = (count_standard(names) * samples, len(names) * samples)
    if not rhythms:
        described = ", ".join(f"{label or 'without label'!r}" for label in labels)
        raise RecordError(path, "no rhythm", f"it holds {described}, all median beats or derived, expected a rhythm")
    chosen = max(rhythms, key=lambda index: rhythms[index])
    if others := [labels[index] or f"number {index + 1}" for index in rhythms if index != chosen]:
        logger.warning(f"{path}: of several rhythms, {labels[chosen] or chosen + 1} is read, not {', '.join(others)}.")
    return chosen


def _channel_name(channel: Any) -> str:
    """Return a lead by its code, by the meaning of the code, or by its label; an empty text if it has none of these."""
    source: Any = next(iter(channel.get("ChannelSourceSequence", [])), {})
    if str(source.get("CodingSchemeDesignator", "")) in ("MDC", "SCPECG"):
        number = str(source.get("CodeValue", "")).replace("-", ":").rpartition(":")[2]
        if number.isdecimal() and int(number) in _CODED_LEADS:
            return _CODED_LEADS[int(number)]
    for text in (source.get("CodeMeaning"), source.get("CodeValue")):
        if text and is_lead(lead_name(str(text))):
            return lead_name(str(text))
    return lead_name(str(channel.get("ChannelLabel") or source.get("CodeMeaning") or ""))


def _channel_unit(channel: Any) -> str | None:
    """Return the unit of a channel; `None` if its sensitivity is not given, so that its values are raw numbers."""
    unit: Any = next(iter(channel.get("ChannelSensitivityUnitsSequence", [])), None)
    is_raw = channel.get("ChannelSensitivity") is None or unit is None
    return None if is_raw else str(unit.get("CodeValue") or "")
