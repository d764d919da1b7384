"""EDF, EDF+ and BDF files, read with pyedflib."""

from pathlib import Path

import numpy as np
from transformers.utils import logging

from ..model.signal_processing_ecg_jepa import is_lead, lead_name
from .ecg import ReadEcg, RecordError, as_read, check_length, check_record_size

logger = logging.get_logger(__name__)


def read_edf(path: Path) -> ReadEcg:
    """Read the channels labelled as leads, or if none is, those labelled ECG or EKG, or all; a warning names the others."""
    import pyedflib

    check_length(path, "the file", path.stat().st_size, _stated_size(path))
    with pyedflib.EdfReader(str(path), pyedflib.DO_NOT_READ_ANNOTATIONS) as file:
        labels = [label.strip() for label in file.getSignalLabels()]
        if not labels:
            raise RecordError(path, "no signal", "an EDF file without channels")
        leads = [number for number, label in enumerate(labels) if is_lead(lead_name(label))]
        ecgs = [number for number, label in enumerate(labels) if label.lower().startswith(("ecg", "ekg"))]
        channels = leads or ecgs or list(range(len(labels)))
        if others := [label for number, label in enumerate(labels) if number not in channels]:
            logger.warning(f"{path}: channels {', '.join(others)} are no leads of the ECG and are left out.")
        rates = [float(file.getSampleFrequency(channel)) for channel in channels]
        if len(set(rates)) > 1:
            named = ", ".join(f"{labels[channel]} {rate:g} Hz" for channel, rate in zip(channels, rates, strict=True))
            raise RecordError(path, "several rates", f"{named}: save the leads of the ECG at one rate in a file of their own")
        check_record_size(path, len(channels), int(file.getNSamples()[channels[0]]))
        values = np.stack([file.readSignal(channel) for channel in channels])
        units = [file.getPhysicalDimension(channel) for channel in channels]
        return as_read(path, values, rates[0], [labels[channel] for channel in channels], units)


def _stated_size(path: Path) -> int:
    """Return the bytes that the header promises; pyedflib prints a difference instead of raising."""
    with path.open("rb") as file:
        beginning = file.read(256)
        num_signals, num_records = int(beginning[252:256]), int(beginning[236:244])
        if num_signals < 1 or num_records < 1:
            raise ValueError(f"{num_signals} signals in {num_records} data records: was the recording never closed?")
        # Of each signal, 216 bytes of other fields stand before its number of samples.
        counts = file.read(256 * num_signals)[216 * num_signals : 224 * num_signals]
    samples = sum(int(counts[8 * signal : 8 * signal + 8]) for signal in range(num_signals))
    return 256 * (1 + num_signals) + num_records * samples * (3 if beginning[0] == 0xFF else 2)  # BDF, EDF
