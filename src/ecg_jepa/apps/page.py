"""A page that shows one ECG and what a classifier says of it, with Gradio: `ecg-jepa demo`, and Spaces on the Hub."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import gradio as gr
import numpy as np

from .._utils.plot_style import as_png
from ..formats.ecg import split_names
from ..model.signal_processing_ecg_jepa import missing_declarations
from .page_analysis import CSS, NO_DEVICE, Upload, analyse, find_examples, image, note, read_upload, refusal, table
from .prediction import Classifier

_FOLDER = "GRADIO_TEMP_DIR"
_CLEANING = (600, 3000)  # s: how often old files in the temporary folder are removed, and at which age
_AMPLITUDE_FREE = (
    "<p>This classifier does not see amplitudes: each lead is divided by its own standard deviation. Do not rely on it where "
    "they carry the diagnosis, such as hypertrophy.</p>"
)


def build_page(classifier: Classifier, title: str, examples: Mapping[str, Sequence[str]]) -> gr.Blocks:
    """Return the page of a classifier; `examples` are the files of records by their names."""
    with gr.Blocks(title=f"{title}: look at an ECG", delete_cache=_CLEANING, analytics_enabled=False) as page:
        gr.Markdown(f"# Look at an ECG\n\nClassifier `{title}`. **{NO_DEVICE}**")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                gr.Markdown("Upload one ECG. Of a WFDB record, header and signal files together.")
                files = gr.File(label="ECG", file_count="multiple")
                example = gr.Dropdown(label="or an example", choices=["", *examples], value="", visible=bool(examples))
                with gr.Accordion("Rate, unit and leads: as the file says, or filled in", open=True):
                    rate = gr.Number(label="sampling rate in Hz", value=None, interactive=False)
                    unit = gr.Dropdown(label="unit", choices=["", "mV", "uV", "V", "nV"], value="", interactive=False)
                    order = "leads, in the order of rows or columns"
                    leads = gr.Textbox(label=order, placeholder="I II III aVR ...", interactive=False)
                button = gr.Button("Analyse", variant="primary")
            with gr.Column(scale=3, min_width=300):
                message, ecg, labels = gr.HTML(), gr.HTML(), gr.HTML()
                vector = gr.DownloadButton("Download the embedding (.npy)", visible=False)
        form, outputs = [rate, unit, leads], [message, ecg, labels, vector]

        def analyse(uploads: Sequence[str] | None, rate: float | None, unit: str | None, leads: str | None) -> list[Any]:
            declared = {"sampling_rate": rate or None, "unit": unit or None, "lead_names": split_names(leads or "") or None}
            return _analyse(classifier, uploads or (), declared)

        def show(uploads: Sequence[str] | None) -> list[Any]:
            """Fill the form in with what the record says, and analyse it unless something is missing."""
            if not uploads:
                return [*_form(None), *_message("")]
            try:
                upload = read_upload(uploads)
            except (ValueError, OSError) as error:
                return [*_form(None), *_message(refusal(error))]
            return [*_form(upload), *(_message(note(*upload)) if upload.missing else _analyse(classifier, uploads, {}))]

        def pick(name: str) -> list[str] | None:
            return list(examples.get(name, ())) or None

        gr.on([files.upload, files.delete, files.clear], show, files, [*form, *outputs])
        example.input(pick, example, files).then(show, files, [*form, *outputs], api_name=False)
        button.click(analyse, [files, *form], outputs)
    return page


def _analyse(classifier: Classifier, uploads: Sequence[str], declared: Mapping[str, Any]) -> list[Any]:
    """Return message, plot, labels and embedding, or a message alone."""
    config = classifier.model.config
    try:
        upload = read_upload(uploads, declared)
        if missing_declarations(upload.ecg, any_unit=config.amplitude_free):
            return _message(note(*upload))
        analysis = analyse(classifier, upload.ecg)
    except (ValueError, TypeError, OSError) as error:
        return _message(refusal(error))
    plot = "" if analysis.plot is None else image(as_png(analysis.plot), f"ECG of {upload.name}")
    labels = table(analysis.labels, config.problem_type == "single_label_classification", config.label_descriptions)
    # In the page's temporary folder, which is removed with the page.
    prefix = f"{Path(upload.name).stem[:40]}-"
    with NamedTemporaryFile(prefix=prefix, suffix=".npy", dir=os.environ.get(_FOLDER), delete=False) as file:
        np.save(file, analysis.embedding)
    caution = _AMPLITUDE_FREE if config.amplitude_free else ""
    return [note(*upload), plot, f"{labels}{caution}", gr.DownloadButton(value=file.name, visible=True)]


def _message(text: str) -> list[Any]:
    """Return a message, and nothing in the place of results."""
    return [text, "", "", gr.DownloadButton(value=None, visible=False)]


def _form(upload: Upload | None) -> list[Any]:
    """Return the fields for rate, unit and leads: as the record has them, or to be filled in."""
    values = (
        (upload.ecg.sampling_rate, upload.ecg.unit or "", " ".join(upload.ecg.lead_names or ())) if upload else (None, "", "")
    )
    fields = {"sampling_rate": gr.Number, "unit": gr.Dropdown, "lead_names": gr.Textbox}
    missing = upload.missing if upload else []
    return [field(value=value, interactive=name in missing) for (name, field), value in zip(fields.items(), values, strict=True)]


@contextmanager
def served(
    checkpoint: str | Path, title: str, examples: str | Path | None = None, port: int | None = None
) -> Iterator[gr.Blocks]:
    """
    Serve the page of a classifier on loopback, or where the environment says (GRADIO_SERVER_NAME, as in a Space), while the
    context is open. Its address is `.local_url`; the port is the first free one from 7860. Visitors can pick from the records in
    a folder of `examples`. Raises `FileNotFoundError` or `ValueError` if there is no such classifier.
    """
    classifier = Classifier(checkpoint)
    # Fonts of the visitor's machine: the page sends no requests to other hosts.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    look: dict[str, Any] = {"theme": theme, "css": CSS, "footer_links": []}
    largest = "20mb"  # a 12-lead record of half an hour has 10
    before = os.environ.get(_FOLDER)
    # For what visitors upload and download; Gradio serves no files from elsewhere, so that examples are copied.
    with TemporaryDirectory(prefix="ecg-jepa-demo-") as folder:
        os.environ[_FOLDER] = folder
        try:
            records = {} if examples is None else find_examples(examples)
            copied = Path(folder, "examples")
            copied.mkdir()
            served_files = {name: [str(shutil.copy(file, copied)) for file in files] for name, files in records.items()}
            page = build_page(classifier, title, served_files)
            page.queue(max_size=16).launch(
                server_port=port, share=False, max_file_size=largest, prevent_thread_lock=True, quiet=True, **look
            )
            try:
                yield page
            finally:
                page.close(verbose=False)
        finally:
            del os.environ[_FOLDER]
            if before is not None:
                os.environ[_FOLDER] = before


def serve(checkpoint: str | Path, title: str, examples: str | Path | None = None, port: int | None = None) -> None:
    """Run [`served`] until the process is interrupted or asked to end."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with served(checkpoint, title, examples, port) as page:
        print(f"{title}: {page.local_url} (Ctrl-C ends it)", flush=True)
        page.block_thread()
