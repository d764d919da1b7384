"""SCP-ECG files, read with ecgdatakit."""

import struct
from pathlib import Path

import numpy as np

from ..model.signal_processing_ecg_jepa import RATE_TOLERANCE
from .ecg import ReadEcg, RecordError, as_read, whole_rate


def read_scp(path: Path) -> ReadEcg:
    """Read the rhythm (section 6). The library raises for a file that is damaged, or compressed in a way that loses samples."""
    from ecgdatakit.parsing.parsers.scp_ecg import SCPECGParser

    _check_counts(path.read_bytes())
    record = SCPECGParser().parse(path)
    if not record.raw_metadata["checksum_valid"]:
        raise RecordError(path, "bad checksum", "the file is not what was written: it contradicts its own checksums")
    if len({(len(lead.samples), lead.annotations.get("start_sample")) for lead in record.leads}) != 1:
        raise RecordError(path, "several lengths", "its leads were not recorded at the same time, or not for as long")
    # Intervals are whole µs: 3,333 are written for 300 Hz. (The library's own rate is rounded to whole Hz.)
    rate = whole_rate(1e6 / record.raw_metadata["rhythm_sample_interval_us"], RATE_TOLERANCE)
    values = np.stack([lead.samples * lead.resolution for lead in record.leads])
    units = [lead.resolution_unit for lead in record.leads]
    return as_read(path, values, rate, [lead.label for lead in record.leads], units)


def _check_counts(content: bytes) -> None:
    """Raise `ValueError` for more samples than bits in section 3: the library makes room for them before it reads."""
    length = struct.unpack_from("<I", content, 10)[0]
    for pointer in range(22, min(6 + length, len(content)) - 9, 10):
        section, _, index = struct.unpack_from("<HII", content, pointer)
        if section == 3 and index:
            body = index - 1 + 16
            for lead in range(content[body]):
                first, last = struct.unpack_from("<II", content, body + 2 + 9 * lead)
                if last - first >= 8 * len(content):
                    raise ValueError(f"lead {lead + 1} is said to have {last - first + 1:,} samples, in {len(content):,} bytes")
