"""The page itself, with Gradio."""

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

from ..._utils.plot_style import as_png
from .analysis import Analyst
from .reading import Declaration, asked_for, examples_in, look_at, read
from .words import CSS, NO_DEVICE, caution, note, picture, refusal, table

LARGEST_UPLOAD = "20mb"  # a 12-lead record of half an hour has 10

_UNITS = ["", "mV", "uV", "V", "nV"]
_FOLDER = "GRADIO_TEMP_DIR"
_LOOKED_AT, _KEPT_FOR = 600, 3000  # s, between looks for old files in the temporary folder, and until they are old


def build_page(analyst: Analyst, title: str, examples: Mapping[str, Sequence[str]]) -> gr.Blocks:
    """
    Args:
        analyst: the classifier.
        title: its name.
        examples: name -> the files of a record.
    """
    with gr.Blocks(title=f"{title}: look at an ECG", delete_cache=(_LOOKED_AT, _KEPT_FOR), analytics_enabled=False) as page:
        gr.Markdown(f"# Look at an ECG\n\nClassifier `{title}`. **{NO_DEVICE}**")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                gr.Markdown("Upload one ECG. Of a WFDB record, header and signal files together.")
                files = gr.File(label="ECG", file_count="multiple")
                example = gr.Dropdown(label="or an example", choices=["", *examples], value="", visible=bool(examples))
                with gr.Accordion("Rate, unit and leads: as the file says, or filled in", open=True):
                    rate = gr.Number(label="sampling rate in Hz", value=None, interactive=False)
                    unit = gr.Dropdown(label="unit", choices=_UNITS, value="", interactive=False)
                    leads = gr.Textbox(
                        label="leads, in the order of rows or columns", placeholder="I II III aVR ...", interactive=False
                    )
                button = gr.Button("Analyse", variant="primary")
            with gr.Column(scale=3, min_width=300):
                message = gr.HTML()
                ecg = gr.HTML()
                labels = gr.HTML()
                vector = gr.DownloadButton("Download the embedding (.npy)", visible=False)
        form, results = [rate, unit, leads], [ecg, labels, vector]

        def analyse(uploads: Sequence[str] | None, rate: float | None, unit: str | None, leads: str | None) -> list[Any]:
            try:
                seen = read(uploads or (), Declaration.parse(rate, unit, leads))
                if asked_for(seen, analyst.extractor.amplitude_free):
                    return [note(seen), *_nothing()]
                analysis = analyst.analyse(seen.ecg)
            except (ValueError, TypeError, OSError) as error:
                return [refusal(error), *_nothing()]
            drawn = "" if analysis.figure is None else picture(as_png(analysis.figure), f"ECG of {seen.name}")
            config = analyst.model.config
            exclusive = config.problem_type == "single_label_classification"
            said = table(analysis.labels, exclusive, config.label_descriptions) + caution(config.amplitude_free)
            download = gr.DownloadButton(value=_as_file(seen.name, analysis.embedding), visible=True)
            return [note(seen), drawn, said, download]

        def show(uploads: Sequence[str] | None) -> list[Any]:
            """What the record says, in the form; what it does not say is to be filled in, and nothing is analysed before."""
            if not uploads:
                return [*_form(None), "", *_nothing()]
            try:
                seen = look_at(uploads)
            except (ValueError, OSError) as error:
                return [*_form(None), refusal(error), *_nothing()]
            if seen.missing:
                return [*_form(seen), note(seen), *_nothing()]
            return [*_form(seen), *analyse(uploads, None, None, None)]

        def pick(name: str) -> list[str] | None:
            return list(examples.get(name, ())) or None

        shown = [*form, message, *results]
        gr.on([files.upload, files.delete, files.clear], show, files, shown)
        example.input(pick, example, files).then(show, files, shown, api_name=False)
        button.click(analyse, [files, *form], [message, *results])
    return page


def _form(seen: Any) -> list[Any]:
    """Fields for rate, unit and leads: as the record has them, or to be filled in."""
    missing = seen.missing if seen else []
    values = (seen.ecg.sampling_rate, seen.ecg.unit or "", " ".join(seen.ecg.lead_names or ())) if seen else (None, "", "")
    kinds = (("sampling_rate", gr.Number), ("unit", gr.Dropdown), ("lead_names", gr.Textbox))
    return [kind(value=value, interactive=name in missing) for (name, kind), value in zip(kinds, values, strict=True)]


def _nothing() -> list[Any]:
    return ["", "", gr.DownloadButton(value=None, visible=False)]


def _as_file(name: str, embedding: np.ndarray) -> str:
    """In the temporary folder of the page, which goes with it."""
    folder = os.environ.get(_FOLDER)
    with NamedTemporaryFile(prefix=f"{Path(name).stem[:40]}-", suffix=".npy", dir=folder, delete=False) as file:
        np.save(file, embedding)
    return file.name


@contextmanager
def served(
    checkpoint: str | Path, title: str, examples: str | Path | None = None, port: int | None = None
) -> Iterator[gr.Blocks]:
    """
    The page of a classifier, served on loopback, or where the environment says (GRADIO_SERVER_NAME, as in a Space), as long as
    the context is open. Its address is `.local_url`.

    Args:
        checkpoint: directory or Hub repository of a classifier.
        title: of the page.
        examples: folder with records that visitors can pick.
        port: default: the first free one from 7860.

    Raises:
        FileNotFoundError, ValueError: if there is no such classifier.
    """
    analyst = Analyst(checkpoint)
    # Fonts of the visitor's machine: the page works without a network, and asks nobody for anything.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    with _temporary_folder() as folder:
        records = {} if examples is None else _copied(examples_in(examples), folder / "examples")
        page = build_page(analyst, title, records)
        page.queue(max_size=16).launch(
            server_port=port,
            share=False,
            max_file_size=LARGEST_UPLOAD,
            footer_links=[],
            theme=theme,
            css=CSS,
            prevent_thread_lock=True,
            quiet=True,
        )
        try:
            yield page
        finally:
            page.close(verbose=False)


def _copied(records: Mapping[str, Sequence[str]], folder: Path) -> dict[str, list[str]]:
    """The same records in the temporary folder: Gradio hands out files from nowhere else."""
    folder.mkdir()
    return {name: [str(shutil.copy(file, folder)) for file in files] for name, files in records.items()}


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Where Gradio puts what visitors upload and download; pages that are made in the context remember it. It goes with it."""
    before = os.environ.get(_FOLDER)
    with TemporaryDirectory(prefix="ecg-jepa-demo-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[_FOLDER]
            if before is not None:
                os.environ[_FOLDER] = before


def serve(checkpoint: str | Path, title: str, examples: str | Path | None = None, port: int | None = None) -> None:
    """[`served`], until the process is interrupted or asked to end, by when nothing of its visitors is left."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with served(checkpoint, title, examples, port) as page:
        print(f"{title}: {page.local_url} (Ctrl-C ends it)", flush=True)
        page.block_thread()
