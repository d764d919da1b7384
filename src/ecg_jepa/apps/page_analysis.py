"""The page without its layout: uploaded files -> ECG -> labels, plot and embedding."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from ..evaluation.attention import attention_over_time
from ..evaluation.ecg_plot import CLINICAL_DURATION, has_clinical_leads, plot_ecg
from ..formats.ecg import Ecg
from ..formats.read import WFDB_SUFFIXES, is_ecg_file
from ..model.signal_processing_ecg_jepa import UNKNOWN_UNIT, crop_starts, missing_declarations, select_leads
from .prediction import Classifier
from .record_source import read_silent_file


class Upload(NamedTuple):
    """An uploaded ECG, and which of sampling rate, unit and leads are not known."""

    name: str
    ecg: Ecg
    missing: list[str]


class Analysis(NamedTuple):
    """
    What a classifier says of an ECG.

    Args:
        labels: highest score first: `label`, `score`, `threshold` and `decision`.
        plot: the ECG on clinical paper, with attention over time if the classifier has any; `None` if leads are missing.
        embedding: of the encoder, (hidden_size,) float32.
    """

    labels: list[dict[str, Any]]
    plot: Figure | None
    embedding: np.ndarray


def read_upload(uploads: Sequence[str | Path], declared: Mapping[str, Any] | None = None) -> Upload:
    """
    Read an ECG from uploaded files.

    Args:
        declared: sampling rate, unit and leads, which count where the file does not say them; without it, the ECG is only looked
            at, and its plausibility is not checked.

    Raises:
        ValueError: if it cannot be read, or cannot be an ECG.
    """
    with gather_files(uploads) as path:
        try:
            ecg = read_silent_file(path, declared or {}, check_plausibility=declared is not None)
        except (ValueError, OSError) as error:
            # Visitors do not know the temporary folder.
            raise ValueError(str(error).replace(f"{path.parent}{os.sep}", "")) from error
    return Upload(path.name, ecg, missing_declarations(ecg))


@contextmanager
def gather_files(uploads: Sequence[str | Path]) -> Iterator[Path]:
    """
    Yield the file to open, in a temporary folder that holds all uploaded files under their own names.

    Raises:
        ValueError: if it is not clear which one is meant, or two have one name.
    """
    paths = [Path(upload) for upload in uploads]
    names = ", ".join(path.name for path in paths)
    if not paths:
        raise ValueError("No file was given: upload one, or pick an example.")
    if len({path.name for path in paths}) < len(paths):
        raise ValueError(f"Two files have the same name ({names}): upload the files of one record.")
    headers = [path for path in paths if path.suffix == ".hea"]
    if len(headers) == 1 and all(path.suffix in WFDB_SUFFIXES or path.stem == headers[0].stem for path in paths):
        main = headers[0]
    elif len(paths) == 1 and paths[0].suffix != ".dat":
        main = paths[0]
    elif not headers and any(path.suffix in WFDB_SUFFIXES for path in paths):
        raise ValueError(f"{names}: a WFDB record is a header (.hea) and its signal files (.dat or .mat). Upload them together.")
    else:
        raise ValueError(
            f"{len(paths)} files were given ({names}): upload one ECG at a time; only WFDB records have several files."
        )
    with TemporaryDirectory(prefix="ecg-") as folder:
        for path in paths:
            shutil.copyfile(path, Path(folder, path.name))
        yield Path(folder, main.name)


def find_examples(folder: str | Path) -> dict[str, list[Path]]:
    """Return name -> files of each record in a folder; files of one stem are one record."""
    records: dict[str, list[Path]] = {}
    for path in sorted(Path(folder).glob("*")):
        if path.is_file() and (path.suffix in WFDB_SUFFIXES or is_ecg_file(path)):
            records.setdefault(path.stem, []).append(path)
    return records


@torch.no_grad()
def analyse(classifier: Classifier, ecg: Ecg) -> Analysis:
    """Classify, plot and embed an ECG. Raises `ValueError` if it does not fit the model, or cannot be an ECG."""
    # Amplitude-free models take records whose unit is not known; others refuse them.
    inputs = classifier.extractor(ecg.signal, ecg.sampling_rate, ecg.lead_names, ecg.unit or UNKNOWN_UNIT, return_tensors="pt")
    crops = inputs["input_values"].flatten(0, -3)
    (labels,) = classifier.classify(crops, torch.zeros(len(crops), dtype=torch.long))
    embedding = classifier.model.ecg_jepa(crops).pooler_output.float().mean(dim=0)
    return Analysis(labels, _plot(classifier, ecg, crops), embedding.numpy())


def _plot(classifier: Classifier, ecg: Ecg, crops: torch.Tensor) -> Figure | None:
    model, names, rate = classifier.model, classifier.extractor.lead_names, float(ecg.sampling_rate or 0)
    if not has_clinical_leads(names):
        return None
    signal = select_leads(ecg.signal, ecg.lead_names or names, names)
    shown = signal[:, : round(CLINICAL_DURATION * rate)]
    if ecg.unit is None:  # the gain is not known: each lead has its own scale
        shown = shown / np.nanstd(shown, axis=1, keepdims=True)
    attention = None
    if model.pooling is not None:
        stride, model_rate = classifier.extractor.crop_stride, model.config.sampling_rate
        samples = round(signal.shape[1] / rate * model_rate)
        starts = [0] if stride is None else crop_starts(samples, crops.shape[-1], round(stride * model_rate))
        patches = round(CLINICAL_DURATION * model_rate) // model.config.patch_size
        attention = attention_over_time(model, crops, starts)[:patches]
    return plot_ecg(shown, rate, names, attention, amplitude_free=ecg.unit is None)
