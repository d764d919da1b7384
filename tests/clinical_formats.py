"""Small writers of the formats that `read_ecg` reads: one digital record, a step of so many uV, into every format."""

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pyedflib
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from raw_databases import STANDARD, write_record

SCP_CODES = {"I": 1, "II": 2, **{f"V{number}": number + 2 for number in range(1, 7)}, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64}


def write_wfdb(path: Path, digital: np.ndarray, rate: float, leads: Sequence[str] = STANDARD, step: float = 1.0) -> Path:
    write_record(path.with_suffix(""), digital, rate, leads, gain=f"{1 / step:.10g}(0)/uV")
    return path.with_suffix(".hea")


def write_csv(
    path: Path,
    digital: np.ndarray,
    rate: float,
    leads: Sequence[str] = STANDARD,
    step: float = 1.0,
    unit: str | None = "uV",
    time: str | None = "time (s)",
    delimiter: str = ",",
) -> Path:
    header = [name if unit is None else f"{name} ({unit})" for name in leads]
    values = [[f"{value * step / (1000 if unit == 'mV' else 1):.10g}" for value in row] for row in digital.T]
    if time is not None:
        header = [time, *header]
        factor = 1000 if "ms" in time else 1
        values = [[f"{number / rate * factor:.9g}", *row] for number, row in enumerate(values)]
    path.write_text("\n".join(delimiter.join(row) for row in [header, *values]) + "\n")
    return path


def channel(name: str, step: float, unit: str | None = "uV", **more: Any) -> Dataset:
    """A channel of a multiplex group, with names as devices write them."""
    item = Dataset()
    source = Dataset()
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = f"2:{SCP_CODES[name]}", "MDC", f"Lead {name}"
    item.ChannelSourceSequence = [source]
    if unit is not None:
        units = Dataset()
        units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", unit
        item.ChannelSensitivity, item.ChannelSensitivityUnitsSequence = step, [units]
        item.ChannelSensitivityCorrectionFactor, item.ChannelBaseline = 1, 0
    item.ChannelSampleSkew, item.WaveformBitsStored = "0", 16
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


def group(digital: np.ndarray, rate: float, channels: list[Dataset], label: str = "RHYTHM", origin: str = "ORIGINAL") -> Dataset:
    """A multiplex group."""
    item = Dataset()
    item.MultiplexGroupLabel, item.WaveformOriginality = label, origin
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = digital.shape
    item.SamplingFrequency, item.ChannelDefinitionSequence = rate, channels
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 16, "SS"
    item.add_new("WaveformData", "OW", digital.T.astype("<i2").tobytes())
    return item


def write_dicom_groups(path: Path, groups: list[Dataset], transfer_syntax: str = pydicom.uid.ExplicitVRLittleEndian) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.TwelveLeadECGWaveformStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = transfer_syntax
    dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = meta.MediaStorageSOPClassUID, "1.2.3.4", "ECG"
    if groups:
        dataset.WaveformSequence = groups
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_dicom(path: Path, digital: np.ndarray, rate: float, leads: Sequence[str] = STANDARD, step: float = 1.0) -> Path:
    return write_dicom_groups(path, [group(digital, rate, [channel(name, step) for name in leads])])


def write_edf(
    path: Path,
    digital: np.ndarray,
    rate: float,
    leads: Sequence[str] = STANDARD,
    step: float = 1.0,
    unit: str = "uV",
    extra: Sequence[tuple[str, int]] = (),
) -> Path:
    """EDF, or BDF by its extension; `extra` channels have a label and a rate."""
    is_bdf = path.suffix.lower() == ".bdf"
    kind = pyedflib.FILETYPE_BDFPLUS if is_bdf else pyedflib.FILETYPE_EDFPLUS
    largest = 20_000  # so that limits can be written in eight characters
    channels = [(label, rate, unit, row) for label, row in zip(leads, digital, strict=True)]
    seconds = digital.shape[1] / rate
    channels += [(label, other, "%", np.zeros(int(seconds * other), np.int32)) for label, other in extra]
    with pyedflib.EdfWriter(str(path), len(channels), file_type=kind) as writer:
        for number, (label, sampling_rate, dimension, _) in enumerate(channels):
            header = {
                "label": label,
                "dimension": dimension,
                "sample_frequency": sampling_rate,
                "physical_max": largest * step,
                "physical_min": -largest * step,
                "digital_max": largest,
                "digital_min": -largest,
            }
            writer.setSignalHeader(number, header)
        writer.writeSamples([row.astype(np.int32) for *_, row in channels], digital=True)
    return path


def aecg_series(digital: np.ndarray, rate: float, leads: Sequence[str], step: float, unit: str = "uV", origin: float = 0) -> str:
    increment = f'<increment value="{1 / rate:.12g}" unit="s"/>'
    time = f'<code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20240101120000"/>{increment}</value>'
    sequences = [f"<component><sequence>{time}</sequence></component>"]
    for name, row in zip(leads, digital, strict=True):
        sequences.append(
            f'<component><sequence><code code="MDC_ECG_LEAD_{name.upper()}"/><value xsi:type="SLIST_PQ">'
            f'<origin value="{origin:g}" unit="{unit}"/><scale value="{step:g}" unit="{unit}"/>'
            f"<digits>{' '.join(map(str, row.tolist()))}</digits></value></sequence></component>"
        )
    return f"<component><sequenceSet>{''.join(sequences)}</sequenceSet></component>"


def write_aecg(path: Path, digital: np.ndarray, rate: float, leads: Sequence[str] = STANDARD, step: float = 1.0) -> Path:
    """With a representative beat derived from the rhythm, as devices have it."""
    beat = aecg_series(digital[:, : digital.shape[1] // 10] * 0 + 7, rate, leads, step)
    derived = f'<derivation><derivedSeries><code code="REPRESENTATIVE_BEAT"/>{beat}</derivedSeries></derivation>'
    series = f'<series><code code="RHYTHM"/>{aecg_series(digital, rate, leads, step)}{derived}</series>'
    head = '<?xml version="1.0" encoding="UTF-8"?><AnnotatedECG xmlns="urn:hl7-org:v3" '
    head += 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    path.write_text(f"{head}<component>{series}</component></AnnotatedECG>")
    return path


def muse_waveform(
    kind: str, digital: np.ndarray, rate: float, leads: Sequence[str], step: float, unit: str = "MICROVOLTS"
) -> str:
    parts = [f"<WaveformType>{kind}</WaveformType><SampleBase>{rate:g}</SampleBase><SampleExponent>0</SampleExponent>"]
    for name, row in zip(leads, digital, strict=True):
        content = row.astype("<i2").tobytes()
        parts.append(
            f"<LeadData><LeadByteCountTotal>{len(content)}</LeadByteCountTotal>"
            f"<LeadSampleCountTotal>{len(row)}</LeadSampleCountTotal><LeadSampleSize>2</LeadSampleSize>"
            f"<LeadAmplitudeUnitsPerBit>{step:g}</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits>"
            f"<LeadDataCRC32>{zlib.crc32(content)}</LeadDataCRC32><LeadID>{name}</LeadID>"
            f"<WaveFormData>{base64.encodebytes(content).decode()}</WaveFormData></LeadData>"
        )
    return f"<Waveform>{''.join(parts)}</Waveform>"


def write_muse(path: Path, digital: np.ndarray, rate: float, leads: Sequence[str] = STANDARD, step: float = 1.0) -> Path:
    """As MUSE exports it: eight leads, the median first, and the name of a DTD that nobody has."""
    eight = [number for number, name in enumerate(leads) if name not in ("III", "aVR", "aVL", "aVF")]
    names = [leads[number] for number in eight]
    median = muse_waveform("Median", digital[eight, : digital.shape[1] // 10] * 0 + 7, rate, names, step)
    rhythm = muse_waveform("Rhythm", digital[eight], rate, names, step)
    head = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n'
    path.write_text(f"{head}<RestingECG>{median}{rhythm}</RestingECG>")
    return path


def lzw(content: bytes, bits: int = 10) -> bytes:
    """Words of `bits` bits, the first bit first."""
    codes, known, word = [], {bytes([value]): value for value in range(256)}, b""
    for value in content:
        longer = word + bytes([value])
        if longer in known:
            word = longer
            continue
        codes.append(known[word])
        if len(known) <= (1 << bits) - 2:
            known[longer] = len(known)
        word = bytes([value])
    codes.append(known[word])
    text = "".join(f"{code:0{bits}b}" for code in codes)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def xli(rows: np.ndarray) -> bytes:
    """Leads -> chunks of second differences, each with its size and the first of them."""
    content = b""
    for row in rows.astype(np.int64).tolist():
        differences = [2 * row[i - 1] - row[i - 2] - row[i] for i in range(2, len(row))]
        words = np.array([*row[:2], *(value + 64 for value in differences[1:]), 0]).astype("<i2").view(np.uint16)
        chunk = lzw((words >> 8).astype(np.uint8).tobytes() + (words & 255).astype(np.uint8).tobytes())
        content += struct.pack("<IHh", len(chunk), 0, differences[0]) + chunk
    return content


def write_philips(
    path: Path, digital: np.ndarray, rate: float, leads: Sequence[str] = STANDARD, step: float = 1.0, compressed: bool = True
) -> Path:
    rows = digital.astype(np.int64)
    if compressed:  # of the later limb leads, what their estimate leaves over is kept
        i, ii, iii, avr, avl, avf = rows[:6]
        limbs = [i, ii, ii - i - iii, -avr - (i + ii) // 2, (i - iii) // 2 - avl, (ii + iii) // 2 - avf]
        content = xli(np.stack([*limbs, *rows[6:]]))
    else:
        content = rows.astype("<i2").tobytes()
    duration = f"{1000 * digital.shape[1] / rate:g}"
    method = "XLI" if compressed else "Uncompressed"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        "<documentinfo><documenttype>SierraECG</documenttype><documentversion>1.04</documentversion></documentinfo>"
        f"<dataacquisition><signalcharacteristics><samplingrate>{rate:g}</samplingrate>"
        f'<resolution unit="uVperLsb">{step:g}</resolution><numberchannelsallocated>12</numberchannelsallocated>'
        "<acquisitiontype>STD-12</acquisitiontype></signalcharacteristics></dataacquisition>"
        f'<waveforms><parsedwaveforms durationperchannel="{duration}" dataencoding="Base64" compression="{method}" '
        f'numberofleads="{len(leads)}" leadlabels="{" ".join(leads)}">{base64.encodebytes(content).decode()}</parsedwaveforms>'
        f'<repbeats dataencoding="Base64"><repbeat leadname="I" duration="2">{base64.b64encode(b"????").decode()}</repbeat>'
        "</repbeats></waveforms></restingecgdata>"
    )
    return path


def _scp_section(number: int, body: bytes) -> bytes:
    body += b"\0" * (len(body) % 2)
    content = struct.pack("<HIBB6s", number, len(body) + 16, 20, 20, b"SCPECG" if number == 0 else b"") + body
    return struct.pack("<H", binascii.crc_hqx(content, 0xFFFF)) + content


def _huffman(values: list[int]) -> bytes:
    """In the default table of SCP-ECG."""
    bits = []
    for value in values:
        if value == 0:
            bits.append("0")
        elif abs(value) <= 8:
            bits.append("1" * abs(value) + "0" + ("1" if value < 0 else "0"))
        elif -128 <= value < 128:
            bits.append("1111111110" + f"{value & 255:08b}")
        else:
            bits.append("1111111111" + f"{value & 65535:016b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text or "0", 2).to_bytes(len(text) // 8, "big")


def write_scp(
    path: Path,
    digital: np.ndarray,
    rate: float,
    leads: Sequence[str] = STANDARD,
    step: float = 1.0,
    differences: int = 2,
    huffman: bool = True,
) -> Path:
    rows = []
    for row in digital.astype(np.int64):
        values = row.copy()
        for order in range(differences):
            values[order + 1 :] = np.diff(values[order:]) if order == 0 else np.diff(row, 2)
        if differences == 2:
            values[1] = row[1]
        rows.append(_huffman(values.tolist()) if huffman else values.astype("<i2").tobytes())
    count = digital.shape[1]
    definition = bytes([len(leads), 0x04 | len(leads) << 3 & 0xFF])
    definition += b"".join(struct.pack("<IIB", 1, count, SCP_CODES[name]) for name in leads)
    rhythm = struct.pack("<HHBB", round(step * 1000), round(1e6 / rate), differences, 0)
    rhythm += b"".join(struct.pack("<H", len(row)) for row in rows) + b"".join(rows)
    bodies = {1: b"\xff\0\0", 3: definition, 6: rhythm}
    if huffman:
        bodies[2] = struct.pack("<H", 19999)
    sections = {number: _scp_section(number, body) for number, body in sorted(bodies.items())}
    position, pointers = 6 + 16 + 12 * 10, struct.pack("<HII", 0, 16 + 12 * 10, 7)
    for number in range(1, 12):
        length = len(sections.get(number, b""))
        pointers += struct.pack("<HII", number, length, position + 1 if length else 0)
        position += length
    content = _scp_section(0, pointers) + b"".join(sections.values())
    content = struct.pack("<I", len(content) + 6) + content
    path.write_bytes(struct.pack("<H", binascii.crc_hqx(content, 0xFFFF)) + content)
    return path


def edited(path: Path, *changes: tuple[str, str]) -> Path:
    """Replace every match of a regular expression in a text file, which must have one."""
    text = path.read_text()
    for old, new in changes:
        assert re.search(old, text), old
        text = re.sub(old, new, text)
    path.write_text(text)
    return path


# Suffix -> writer; each takes path, digital record (leads, samples), rate, leads and step in uV.
WRITERS: dict[str, Callable[..., Path]] = {
    "wfdb.hea": write_wfdb,
    "table.csv": write_csv,
    "object.dcm": write_dicom,
    "file.edf": write_edf,
    "file.bdf": write_edf,
    "aecg.xml": write_aecg,
    "muse.xml": write_muse,
    "philips.xml": write_philips,
    "file.scp": write_scp,
}
