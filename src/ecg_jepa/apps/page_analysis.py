"""The page without its layout: uploaded files -> ECG -> labels, plot and embedding -> HTML."""

import base64
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from ..evaluation.ecg_plot import CLINICAL_DURATION, attention_over_time, missing_leads, plot_ecg
from ..formats.ecg import Ecg
from ..formats.read import WFDB_SUFFIXES, is_ecg_file
from ..model.signal_processing_ecg_jepa import UNKNOWN_UNIT, crop_starts, missing_declarations, select_leads
from .prediction import Classifier
from .record_source import read_silent_file

NO_DEVICE = "Not a medical device: for research, not for decisions about patients."

_DECLARATIONS = {"sampling_rate": "the sampling rate", "unit": "the unit", "lead_names": "the leads"}

CSS = """
.ecg-scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
.ecg-scroll img { min-width: 800px; width: 100%; max-width: none; background: white; }
.ecg-refusal { border-left: 4px solid #D55E00; padding: 0.5em 1em; overflow-wrap: anywhere; }
.ecg-note { border-left: 4px solid #0072B2; padding: 0.5em 1em; overflow-wrap: anywhere; }
table.ecg-labels { width: 100%; border-collapse: collapse; }
table.ecg-labels td, table.ecg-labels th { padding: 0.25em 0.5em; text-align: left; }
table.ecg-labels .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
table.ecg-labels .bar { width: 40%; min-width: 4em; }
table.ecg-labels .bar div { height: 0.8em; background: #0072B2; }
table.ecg-labels tr.decided td { font-weight: bold; }
table.ecg-labels tr.decided .bar div { background: #D55E00; }
"""


class Upload(NamedTuple):
    """An uploaded ECG, and which of sampling rate, unit and leads are not known."""

    name: str
    ecg: Ecg
    missing: list[str]


class Analysis(NamedTuple):
    """Labels as the pipeline gives them, the ECG on paper (`None` if leads are missing) and its vector (hidden_size,) float32."""

    labels: list[dict[str, Any]]
    plot: Figure | None
    embedding: np.ndarray


def read_upload(uploads: Sequence[str | Path], declared: Mapping[str, Any] | None = None) -> Upload:
    """
    Read an ECG from uploaded files. `declared` rate, unit and leads count where the file does not say them; without it, the ECG
    is only looked at, and its plausibility is not checked. Raises `ValueError` if it cannot be read, or cannot be an ECG.
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
    """Yield the file to open, in a temporary folder with all uploads. Raises `ValueError` if it is not clear which is meant."""
    paths = [Path(upload) for upload in uploads]
    names = ", ".join(path.name for path in paths)
    if not paths:
        raise ValueError("No file was given: upload one, or pick an example.")
    if len({path.name for path in paths}) < len(paths):
        raise ValueError(f"Two files have the same name ({names}): upload the files of one record.")
    main, *more = [path for path in paths if path.suffix == ".hea"] or paths
    is_wfdb = main.suffix == ".hea" and all(path.suffix in WFDB_SUFFIXES or path.stem == main.stem for path in paths)
    if main.suffix != ".hea" and any(p.suffix == ".dat" or (more and p.suffix in WFDB_SUFFIXES) for p in paths):
        raise ValueError(f"{names}: a WFDB record is a header (.hea) and its signal files (.dat or .mat). Upload them together.")
    if more or not (is_wfdb or len(paths) == 1):
        raise ValueError(f"{len(paths)} files ({names}): upload one ECG at a time; only WFDB records have several files.")
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
    if missing_leads(names):
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


# HTML: markupsafe escapes the text of files and checkpoints wherever it is formatted in.


def refusal(error: object) -> Markup:
    """Return why a record was refused."""
    return Markup('<div class="ecg-refusal" role="alert"><b>This record was refused.</b> {}</div>').format(str(error))


def note(name: str, ecg: Ecg, missing: Sequence[str]) -> Markup:
    """Return leads, rate, unit and length of a record, and what is missing."""
    (num_leads, samples), rate = ecg.signal.shape, ecg.sampling_rate
    known = [
        f"{num_leads} leads" + (f" ({', '.join(ecg.lead_names)})" if ecg.lead_names else " without names"),
        f"{rate:g} Hz" if rate else "no sampling rate",
        "amplitudes in mV" if ecg.unit else "no unit",
        f"{samples / rate:.4g} s" if rate else f"{samples:,} samples",
    ]
    text = Markup("<b>{}</b>: {}.").format(name, ", ".join(known))
    if missing:
        asked = " and ".join(_DECLARATIONS[name] for name in missing)
        text += Markup(" <b>The file does not say {}: fill in what is missing, and analyse.</b>").format(asked)
    return Markup('<div class="ecg-note">{}</div>').format(text)


def image(png: bytes, text: str) -> Markup:
    """Return an image, which is scrolled on narrow screens, and its alternative text."""
    data = base64.b64encode(png).decode()
    return Markup('<div class="ecg-scroll"><img alt="{}" src="data:image/png;base64,{}"></div>').format(text, data)


def table(labels: Sequence[dict[str, Any]], exclusive: bool, descriptions: Mapping[str, str] | None = None) -> Markup:
    """Return labels with descriptions, probabilities and, where the checkpoint has any, thresholds."""
    rows, thresholds = Markup(), False
    for entry in labels:
        label, score, threshold = entry["label"], entry["score"], entry.get("threshold")
        thresholds |= threshold is not None
        row = Markup(
            '<tr class="{}"><td>{} <small>{}</small></td><td class="bar"><div style="width:{:.1f}%"></div></td>'
            '<td class="number">{:.3f}</td><td class="number">{}</td></tr>'
        )
        decided, description = "decided" if entry.get("decision") else "", (descriptions or {}).get(label, "")
        rows += row.format(decided, label, description, 100 * score, score, "" if threshold is None else f"{threshold:.3f}")
    kind = "Exactly one of these applies." if exclusive else "Any number of these may apply."
    decisions = "This classifier brings no thresholds along: what counts as present is not decided."
    if thresholds:
        decisions = "Bold: at or above the threshold, which was chosen on validation records."
    return Markup(
        '<table class="ecg-labels"><thead><tr><th>label</th><th class="bar" colspan="2">probability</th>'
        '<th class="number">threshold</th></tr></thead><tbody>{}</tbody></table><p>{} {} {}</p>'
    ).format(rows, kind, decisions, NO_DEVICE)
