"""
Synthetic 12-lead ECG in PTB-XL's layout, to run everything without data; not realistic enough to publish results on.

A cardiac dipole moves through the beat as a sum of Gaussians per wave on three orthogonal axes (McSharry et al. 2003;
Sameni et al. 2007) and is projected on I, II and V1-V6 with Dower's transform (Dower et al. 1980). The other limb leads
follow from I and II, noise included, so that Einthoven's and Goldberger's relations hold exactly, in the files too.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from ..model.signal_processing_ecg_jepa import resample
from .builders.ptb_xl import DATABASE_CSV, PtbXl
from .preparation import process_map
from .records import STATEMENTS_FILE

logger = logging.getLogger(__name__)

SAMPLING_RATE = 500  # Hz
DURATION = 10.0  # s
NUM_SAMPLES = int(DURATION * SAMPLING_RATE)

Beat = dict[str, np.ndarray]  # name of a wave -> its five numbers

# Dower's coefficients: I, II, V1..V6 from rows X (to the left), Y (to the feet), Z (to the back).
DOWER = np.array(
    [
        [0.632, 0.235, -0.515, 0.044, 0.882, 1.213, 1.125, 0.831],
        [-0.235, 1.066, 0.157, 0.164, 0.098, 0.127, 0.127, 0.076],
        [0.059, -0.132, -0.917, -1.387, -1.277, -0.601, -0.086, 0.230],
    ]
).T

# PTB-XL's spelling, in its order.
FILE_LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")

# statement: description, class and subclass, if it is diagnostic
STATEMENTS = {
    "NORM": ("normal ECG", "NORM", "NORM"),
    "CLBBB": ("complete left bundle branch block", "CD", "CLBBB"),
    "CRBBB": ("complete right bundle branch block", "CD", "CRBBB"),
    "1AVB": ("first degree AV block", "CD", "_AVB"),
    "AMI": ("anterior myocardial infarction", "MI", "AMI"),
    "IMI": ("inferior myocardial infarction", "MI", "IMI"),
    "LVH": ("left ventricular hypertrophy", "HYP", "LVH"),
    "ISC_": ("ischemic ST-T changes", "STTC", "ISC_"),
    "LNGQT": ("long QT interval", "STTC", "STTC"),
    "PVC": ("ventricular premature complexes", None, None),
    "PAC": ("atrial premature complexes", None, None),
    "SR": ("sinus rhythm", None, None),
    "AFIB": ("atrial fibrillation", None, None),
    "SBRAD": ("sinus bradycardia", None, None),
    "STACH": ("sinus tachycardia", None, None),
}

# Relative frequency of each finding and rhythm. Ectopic beats come on top.
FINDINGS = {"NORM": 5, "CLBBB": 1, "CRBBB": 1, "1AVB": 1, "AMI": 1.5, "IMI": 1.5, "LVH": 1.5, "ISC_": 1.5, "LNGQT": 1}
RHYTHMS = {"SR": 14, "AFIB": 2, "SBRAD": 2, "STACH": 2}
ECTOPY = {"": 8, "PVC": 1, "PAC": 1}


def _t_waves(*dipole: float) -> dict[str, tuple[float, ...]]:
    return {"T1": (0.26, 0.050, *(0.55 * d for d in dipole)), "T2": (0.30, 0.032, *(0.45 * d for d in dipole))}


# Finding -> the waves in which it differs from a normal beat. A wave is a Gaussian excursion of the dipole: center and width in s
# from the R peak, then X, Y, Z in mV. T is two waves.
WAVES: dict[str, dict[str, tuple[float, ...]]] = {
    "NORM": {
        "P": (-0.16, 0.022, 0.06, 0.11, -0.02),
        "Q": (-0.026, 0.008, -0.12, -0.06, -0.14),
        "R": (0.0, 0.012, 0.95, 0.75, 0.25),
        "S": (0.032, 0.012, -0.22, -0.18, 0.60),
        "ST": (0.14, 0.050, 0.0, 0.0, 0.0),
        "T1": (0.26, 0.050, 0.18, 0.13, -0.12),
        "T2": (0.30, 0.032, 0.16, 0.12, -0.10),
    },
    # Late, slow, notched forces to the left and back; no septal q; T against QRS.
    "CLBBB": {
        "Q": (-0.026, 0.008, 0.10, 0.05, 0.05),
        "R": (0.0, 0.022, 0.55, 0.30, 0.50),
        "S": (0.055, 0.025, 0.75, 0.20, 0.85),
        "ST": (0.14, 0.050, -0.08, -0.03, -0.12),
        **_t_waves(-0.38, -0.12, -0.40),
    },
    # Terminal forces to the right and front: R' in V1, slurred S in I and V6.
    "CRBBB": {"S": (0.072, 0.022, -0.50, 0.05, -0.65), **_t_waves(0.32, 0.20, 0.10)},
    "1AVB": {"P": (-0.28, 0.022, 0.06, 0.11, -0.02)},
    # Anterior forces lost: QS and raised ST in V1-V4.
    "AMI": {
        "Q": (-0.022, 0.013, 0.0, 0.0, 0.55),
        "R": (0.0, 0.012, 0.60, 0.65, 0.55),
        "ST": (0.14, 0.050, 0.06, 0.0, -0.22),
        **_t_waves(0.12, 0.15, 0.25),
    },
    # Initial forces away from the feet: Q and negative T in II, III, aVF.
    "IMI": {
        "Q": (-0.024, 0.014, 0.05, -0.60, -0.05),
        "R": (0.0, 0.012, 0.95, 0.45, 0.20),
        "ST": (0.14, 0.050, 0.0, 0.08, 0.0),
        **_t_waves(0.30, -0.26, -0.22),
    },
    # Large forces to the left and back, strain pattern of ST and T.
    "LVH": {
        "R": (0.0, 0.015, 1.75, 0.75, 0.80),
        "S": (0.032, 0.012, -0.10, -0.15, 0.95),
        "ST": (0.14, 0.050, -0.10, -0.02, -0.06),
        **_t_waves(-0.22, 0.02, -0.28),
    },
    "ISC_": {"ST": (0.14, 0.050, -0.14, -0.10, 0.08), **_t_waves(-0.20, -0.12, -0.05)},
    "LNGQT": {"T1": (0.26 + 0.11, 0.050 * 1.25, 0.18, 0.13, -0.12), "T2": (0.30 + 0.11, 0.032 * 1.25, 0.16, 0.12, -0.10)},
}


def _premature_ventricular_beat(rng: np.random.Generator) -> Beat:
    """Return a broad beat from a random focus, without P and with T against QRS."""
    dipole = rng.normal(size=3)
    dipole *= rng.uniform(1.2, 1.9) / np.linalg.norm(dipole)
    waves = {"R": (0.0, 0.030, 1.0), "S": (0.070, 0.030, 0.5), "T1": (0.30, 0.060, -0.45)}
    return {name: np.array([center, width, *(gain * dipole)]) for name, (center, width, gain) in waves.items()}


def _individual_beat(finding: str, rng: np.random.Generator) -> Beat:
    """Return the beat of one patient: between normal and the whole finding, with individual waves and heart axis."""
    changed = WAVES["NORM"] | WAVES[finding]
    severity = rng.uniform(0.6, 1.15)
    axis = Rotation.from_euler("xyz", rng.normal(0.0, [8.0, 8.0, 14.0]), degrees=True).as_matrix()
    gain = np.exp(rng.normal(0.0, 0.2))
    beat = {}
    for name, normal in WAVES["NORM"].items():
        wave = np.array(normal) + severity * (np.array(changed[name]) - np.array(normal))
        wave[:2] *= np.exp(rng.normal(0.0, [0.04, 0.08]))
        wave[2:] = axis @ wave[2:] * gain * np.exp(rng.normal(0.0, 0.12))
        beat[name] = wave
    return beat


def _beat_times(rhythm: str, respiration: float, rng: np.random.Generator) -> np.ndarray:
    """Return R peaks in s, from before the start of the record to after its end."""
    rate = {"SBRAD": rng.uniform(38, 52), "STACH": rng.uniform(105, 140)}.get(rhythm, rng.uniform(60, 95))
    mean_interval = 60.0 / rate
    num_beats = int(DURATION / mean_interval * 1.6) + 4
    if rhythm == "AFIB":
        intervals = mean_interval * np.exp(rng.normal(0.0, 0.22, num_beats))
    else:
        phase = 2 * np.pi * respiration * mean_interval * np.arange(num_beats)
        intervals = mean_interval * (1.0 + rng.uniform(0.01, 0.05) * np.sin(phase) + rng.normal(0.0, 0.012, num_beats))
    return np.cumsum(intervals) - rng.uniform(1.0, 2.0) * mean_interval


def _move_forward(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make some beats premature (the pause after them stays) and return which."""
    inside = np.flatnonzero((times > 1.0) & (times < DURATION - 1.0))
    chosen = rng.choice(inside[1:-1], size=min(len(inside) - 2, int(rng.integers(2, 4))), replace=False)
    is_ectopic = np.isin(np.arange(len(times)), chosen)
    intervals = np.diff(times, prepend=times[0] - 0.8)
    times[is_ectopic] -= rng.uniform(0.28, 0.4) * intervals[is_ectopic]
    return is_ectopic


def _dipole(waves: np.ndarray) -> np.ndarray:
    """Sum up waves (waves, 5), centered in s from the start of the record -> (3, samples) in mV."""
    centers, widths = waves[:, 0] * SAMPLING_RATE, waves[:, 1] * SAMPLING_RATE
    reach = int(np.ceil(4 * widths.max()))  # beyond 4 widths a Gaussian is below 0.04% of its peak
    samples = np.rint(centers).astype(int)[:, None] + np.arange(-reach, reach + 1)
    values = np.exp(-0.5 * (((samples - centers[:, None]) / widths[:, None]) ** 2).astype(np.float32))
    samples = samples.clip(-1, NUM_SAMPLES) + 1  # what lies outside gathers in a sample at each end, cut off below
    summed = [
        np.bincount(samples.ravel(), weights=(values * weight[:, None]).ravel(), minlength=NUM_SAMPLES + 2)
        for weight in waves[:, 2:].T.astype(np.float32)
    ]
    return np.stack(summed)[:, 1:-1]


def _noise(respiration: float, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return baseline wander, mains hum and muscle noise on the eight independent leads, (8, samples) in mV."""
    frequencies = np.array([respiration, rng.uniform(0.03, 0.12), 50.0])
    highest = np.array([0.10, 0.10, 0.008])
    gains = rng.uniform(highest / 5, highest, (8, 3))
    phases = rng.uniform(0, 2 * np.pi, (8, 3))
    # sin(a + b) taken apart, so that only two rows of sines per frequency are computed for eight leads.
    angles = (2 * np.pi * frequencies)[:, None].astype(np.float32) * times
    waves = np.hstack([gains * np.cos(phases), gains * np.sin(phases)]).astype(np.float32)
    noise = waves @ np.concatenate([np.sin(angles), np.cos(angles)])
    # Muscle noise: the sum of two uniform variables has nearly the shape of a normal one, at a quarter of the time.
    scale = np.float32(rng.uniform(0.008, 0.025) * np.sqrt(6))
    for lead in noise:
        lead += scale * (rng.random((2, len(times)), dtype=np.float32).sum(axis=0) - np.float32(1))
    return noise


def simulate(finding: str, rhythm: str, ectopy: str, rng: np.random.Generator) -> np.ndarray:
    """Return a record with a key each of `FINDINGS`, `RHYTHMS` and `ECTOPY`: I, II, V1..V6 in mV, (8, 5000) at 500 Hz."""
    times = (np.arange(NUM_SAMPLES) / SAMPLING_RATE).astype(np.float32)
    respiration = rng.uniform(0.18, 0.33)  # Hz
    beat = _individual_beat(finding, rng)
    peaks = _beat_times(rhythm, respiration, rng)
    is_ectopic = _move_forward(peaks, rng) if ectopy else np.zeros(len(peaks), dtype=bool)
    intervals = np.diff(peaks, append=peaks[-1] + 0.8)
    ventricular = _premature_ventricular_beat(rng)
    waves = []
    variation = iter(1.0 + rng.normal(0.0, 0.03, len(peaks) * len(beat)))  # from beat to beat
    for peak, interval, ectopic in zip(peaks, intervals, is_ectopic, strict=True):
        if not -1.0 < peak < DURATION + 1.0:
            continue
        breath = 1.0 + 0.06 * np.sin(2 * np.pi * respiration * peak)
        shape = ventricular if ectopic and ectopy == "PVC" else beat
        for name, (center, width, *dipole) in shape.items():
            if name == "P" and rhythm == "AFIB":
                continue
            gain = breath * next(variation)
            if name in ("T1", "T2", "ST"):
                # Bazett: repolarisation takes as long as the square root of the interval.
                center *= min(1.2, max(0.75, np.sqrt(interval / 0.8)))
            if name == "P" and ectopic:
                gain = -gain  # an ectopic focus low in the atrium
            waves.append([peak + center, width, *(value * gain for value in dipole)])
    moved = _dipole(np.array(waves))
    if rhythm == "AFIB":
        frequency = rng.uniform(4.5, 8.0) + 0.3 * np.sin(2 * np.pi * 0.5 * times)
        flutter = np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE)
        moved += rng.uniform(0.02, 0.06) * np.array([[0.5], [1.0], [-0.8]]) * flutter
    placement = np.exp(rng.normal(0.0, 0.08, (8, 1)))  # electrodes are never quite in place
    return (placement * DOWER).astype(np.float32) @ moved.astype(np.float32) + _noise(respiration, times, rng)


def twelve_leads(independent: np.ndarray) -> np.ndarray:
    """
    Derive twelve leads in whole uV, (12, samples) int16 in the order of `FILE_LEADS`, from I, II, V1..V6 in mV. I and II are
    rounded to even numbers, so that Einthoven's and Goldberger's relations hold exactly between the stored numbers.
    """
    chest = np.rint(independent[2:] * 1000).astype(np.int32)
    lead_i, lead_ii = (2 * np.rint(independent[:2] * 500)).astype(np.int32)
    limb = [lead_i, lead_ii, lead_ii - lead_i, -(lead_i + lead_ii) // 2, lead_i - lead_ii // 2, lead_ii - lead_i // 2]
    return np.concatenate([limb, chest]).clip(-32767, 32767).astype(np.int16)


def write_wfdb_record(path: Path, signal: np.ndarray, sampling_rate: int, lead_names: tuple[str, ...]) -> None:
    """Write int16 uV (leads, samples) as WFDB, format 16, 1000 units per mV, some 30 times faster than `wfdb.wrsamp`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.dat").write_bytes(signal.T.astype("<i2").tobytes())
    checksums = signal.sum(axis=1, dtype=np.int64) % 65536
    lines = [f"{path.name} {len(lead_names)} {sampling_rate} {signal.shape[1]}"]
    for name, row, checksum in zip(lead_names, signal, checksums, strict=True):
        lines.append(f"{path.name}.dat 16 1000.0(0)/mV 16 0 {row[0]} {checksum} 0 {name}")
    Path(f"{path}.hea").write_text("\n".join(lines) + "\n")


def _write_record(directory: Path, seed: int, with_low_rate: bool, index: int) -> dict[str, Any]:
    """Write the files of one record. Return its row of `ptbxl_database.csv`."""
    rng = np.random.default_rng([seed, index])
    tables = (FINDINGS, RHYTHMS, ECTOPY)
    finding, rhythm, ectopy = (str(rng.choice(list(t), p=np.array(list(t.values())) / sum(t.values()))) for t in tables)
    independent = simulate(finding, rhythm, ectopy, rng)
    place = f"{index // 1000 * 1000:05d}/{index + 1:05d}"
    high_rate, low_rate = f"records500/{place}_hr", f"records100/{place}_lr"
    write_wfdb_record(directory / high_rate, twelve_leads(independent), 500, FILE_LEADS)
    if with_low_rate:
        write_wfdb_record(directory / low_rate, twelve_leads(resample(independent, SAMPLING_RATE, 100)), 100, FILE_LEADS)
    patient = index - index // 5  # every fifth record is another one of the patient before
    statements = [finding, ectopy, rhythm] if ectopy else [finding, rhythm]
    return {
        "ecg_id": index + 1,
        "patient_id": float(10000 + patient),
        "age": float(rng.integers(18, 90)),
        "sex": int(rng.integers(0, 2)),
        "scp_codes": str({name: 0.0 if name in RHYTHMS else 100.0 for name in statements}),
        "strat_fold": (patient + patient // 20) % 10 + 1,  # shifted, so that no fold gets all the pairs
        "filename_lr": low_rate,
        "filename_hr": high_rate,
    }


def generate_database(
    directory: str | Path, num_records: int, seed: int = 0, with_low_rate: bool = False, num_proc: int = 1
) -> Path:
    """
    Write labelled synthetic records of 10 s in PTB-XL's layout, at 500 Hz and, if `with_low_rate`, also at 100 Hz. Return
    `directory`. The same seed gives the same files, and record n depends on nothing else.
    """
    if num_records < 1:
        raise ValueError(f"num_records={num_records} must be at least 1.")
    directory = Path(directory)
    with process_map(num_proc) as run:
        options = {} if num_proc == 1 else {"chunksize": 50}
        rows = list(run(partial(_write_record, directory, seed, with_low_rate), range(num_records), **options))
    columns = ["description", "diagnostic_class", "diagnostic_subclass"]
    statements = pd.DataFrame.from_dict(STATEMENTS, orient="index", columns=columns)
    kinds = {"diagnostic": FINDINGS, "form": ("LNGQT", *ECTOPY), "rhythm": RHYTHMS}
    for position, (kind, members) in enumerate(kinds.items(), start=1):
        statements.insert(position, kind, [1 if name in members else "" for name in statements.index])
    statements.to_csv(directory / STATEMENTS_FILE)
    pd.DataFrame(rows).to_csv(directory / DATABASE_CSV, index=False)
    return directory


def generate_if_absent(directory: str | Path, num_records: int, **options: Any) -> Path:
    """Call [`generate_database`], unless `directory` holds a complete one: its table is written last."""
    if Path(directory, DATABASE_CSV).is_file():
        return Path(directory)
    logger.info(f"Generating {num_records} synthetic records in {directory}")
    return generate_database(directory, num_records, **options)


class Synthetic(PtbXl):
    """Synthetic records written by [`generate_database`], read as PTB-XL is. Not for published results."""

    database = "synthetic"
    source = None
