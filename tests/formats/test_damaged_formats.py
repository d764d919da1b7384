"""Hundreds of damaged files of every format: each is read, or refused with a documented error; nothing crashes or hangs."""

from collections import Counter

import numpy as np
import pytest
from clinical_formats import WRITERS, write_philips, write_scp
from raw_databases import ecg

from ecg_jepa import read_ecg
from ecg_jepa.formats.ecg import RecordError
from ecg_jepa.model.signal_processing_ecg_jepa import ImplausibleSignalError

CASES = 50


def write_npy(path, digital, rate):
    np.save(path, digital)
    return path


def write_plain_philips(path, digital, rate):
    return write_philips(path, digital, rate, compressed=False)


def write_plain_scp(path, digital, rate):
    return write_scp(path, digital, rate, huffman=False, differences=0)


ORIGINALS = {**WRITERS, "array.npy": write_npy, "plain.xml": write_plain_philips, "plain.scp": write_plain_scp}


def truncate(content, rng):
    return content[: rng.integers(len(content))]


def extend(content, rng):
    return content + rng.bytes(int(rng.integers(1, 50)))


def flip_bits(content, rng):
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def change_header(content, rng):
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        changed[rng.integers(min(3000, len(changed)))] = rng.integers(256)
    return bytes(changed)


def cut_out(content, rng):
    start = int(rng.integers(len(content)))
    return content[:start] + content[start + int(rng.integers(1, 40)) :]


def digit_for_digit(content, rng):
    """Another number somewhere in the text, if it has one."""
    places = [place for place, value in enumerate(content[:3000]) if 48 <= value < 58]
    if not places:
        return flip_bits(content, rng)
    place = places[rng.integers(len(places))]
    return content[:place] + str(rng.integers(10)).encode() + content[place + 1 :]


DAMAGES = (truncate, extend, flip_bits, change_header, cut_out, digit_for_digit)


@pytest.mark.parametrize("number", [CASES, pytest.param(5_000, marks=pytest.mark.stress)])
@pytest.mark.parametrize("name", ORIGINALS)
def test_damaged_files(tmp_path, name, number):
    path = ORIGINALS[name](tmp_path / name, ecg(500, 1, 250), 250)
    original, outcomes = path.read_bytes(), Counter()
    for case in range(number):
        rng = np.random.default_rng([7, case])
        path.write_bytes(DAMAGES[case % len(DAMAGES)](original, rng))
        try:
            read = read_ecg(path)
        except (RecordError, ImplausibleSignalError) as error:
            outcomes[bool(error.reason and name.partition(".")[0] in str(error))] += 1
        else:
            outcomes[f"{read.signal.dtype}, {read.signal.ndim} dimensions"] += 1
    assert set(outcomes) <= {True, "float32, 2 dimensions"}
    assert outcomes[True] > number / 10
    path.write_bytes(original)
    assert read_ecg(path).signal.shape[1] == 500


@pytest.mark.parametrize("name", ORIGINALS)
def test_empty_and_random_files(tmp_path, name):
    for content in (b"", b"\0", bytes(5000), np.random.default_rng(0).bytes(5000), b" " * 5000, b"<" * 5000, b"," * 5000):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecordError):
            read_ecg(tmp_path / name)


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_beginning_of_one_format_with_the_rest_of_another(tmp_path, name):
    original = ORIGINALS[name](tmp_path / name, ecg(500, 1, 250), 250).read_bytes()
    reasons = []
    for other, write in ORIGINALS.items():
        rest = write(tmp_path / f"other_{other}", ecg(500, 1, 250), 250).read_bytes()
        (tmp_path / name).write_bytes(original[:400] + rest[400:])
        try:
            read_ecg(tmp_path / name)
        except (RecordError, ImplausibleSignalError) as error:
            reasons.append(error.reason)
    assert all(reasons)
    assert len(reasons) >= (0 if name == "array.npy" else len(ORIGINALS) - 2)  # any bytes are numbers
