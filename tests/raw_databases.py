"""Small databases in the layouts of the real ones."""

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ecg_jepa.data.records import REJECTED_FILE

STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MIMIC = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")

# What stands before the samples in a MATLAB 4 file with a matrix "val" of int16.
_MAT_HEADER = np.array([30, 12, 0, 0, 4], "<i4")


def ecg(num_samples: int, seed: int = 0, rate: float = 500.0, num_leads: int = 12) -> np.ndarray:
    """Smooth int16 values (leads, samples) of which no lead resembles another."""
    rng = np.random.default_rng(seed)
    times = np.arange(num_samples) / rate
    frequencies, phases = rng.uniform(1, 8, (num_leads, 1)), rng.uniform(0, 6, (num_leads, 1))
    return np.rint(400 * np.sin(2 * np.pi * frequencies * times + phases) + rng.normal(0, 20, (num_leads, 1))).astype(np.int16)


def write_record(
    path: Path,
    digital: np.ndarray,
    rate: float = 500,
    leads: Sequence[str] = STANDARD,
    suffix: str = ".dat",
    gain: str = "1000.0(0)/mV",
    comments: Sequence[str] = (),
    record_line_end: str = "",
) -> None:
    """A WFDB record in format 16, or, with the suffix `.mat`, in the challenge's 16x1+24."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_mat = suffix == ".mat"
    header = _MAT_HEADER.copy()
    header[2] = digital.shape[1]
    prefix = header.tobytes() + b"val\0" if is_mat else b""
    Path(f"{path}{suffix}").write_bytes(prefix + digital.T.astype("<i2").tobytes())
    lines = [f"{path.name} {len(leads)} {rate:g} {digital.shape[1]}{record_line_end}"]
    for name, row in zip(leads, digital, strict=True):
        checksum = int(row.sum(dtype=np.int64)) % 65536
        form = "16x1+24" if is_mat else "16"
        lines.append(f"{path.name}{suffix} {form} {gain} 16 0 {row[0]} {checksum} 0 {name}")
    Path(f"{path}.hea").write_text("\n".join([*lines, *comments]) + "\n")


def write_challenge(directory: Path, folder: str, name: str, digital: np.ndarray, **options) -> Path:
    """A record of the challenge, in `training/<folder>/g1/`."""
    comments = options.pop("comments", ["# Age: 61", "# Sex: Female", "# Dx: 164889003,426783006", "# Rx: Unknown"])
    path = directory / "training" / folder / "g1" / name
    write_record(path, digital, suffix=".mat", comments=comments, **options)
    return path


def write_mimic(directory: Path, signals: Sequence[np.ndarray]) -> list[str]:
    """`record_list.csv`, `RECORDS` and records with MIMIC's order of leads and its gain; returns the paths."""
    rows = []
    for index, digital in enumerate(signals):
        subject, study = 10_000_000 + index, 40_000_000 + 7 * index
        path = f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
        write_record(directory / path, digital, leads=MIMIC, gain="200.0(0)/mV", record_line_end=" 9:05:30 23/11/2134")
        rows.append({"subject_id": subject, "study_id": study, "file_name": study, "ecg_time": "", "path": path})
    pd.DataFrame(rows).to_csv(directory / "record_list.csv", index=False)
    paths = [row["path"] for row in rows]
    (directory / "RECORDS").write_text("\n".join(paths) + "\n")
    return paths


def write_code_15(directory: Path, tracings: dict[str, dict[int, np.ndarray]], **columns: Sequence[object]) -> None:
    """`exams.csv`, and per trace file the tracings (12, 4096) by exam id, followed by a row with `exam_id` 0."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, exams in tracings.items():
        with h5py.File(directory / name, "w") as file:
            file["exam_id"] = np.array([*exams, 0])
            values = [tracing.T for tracing in exams.values()]
            file["tracings"] = np.stack([*values, np.zeros((4096, 12))]).astype(np.float32)
        rows += [{"exam_id": exam, "trace_file": name} for exam in exams]
    defaults = {"age": 50, "is_male": True, "patient_id": range(len(rows))}
    defaults |= dict.fromkeys(("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"), False)
    pd.DataFrame(rows).assign(**(defaults | columns)).to_csv(directory / "exams.csv", index=False)


def read_rejections(directory: str | Path) -> list[dict[str, str]]:
    """The lines of `rejected.jsonl`; empty if nothing was rejected."""
    path = Path(directory, REJECTED_FILE)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
