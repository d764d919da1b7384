"""A classifier -> a Space on the Hugging Face Hub, where one ECG at a time is looked at with it; it runs locally as it is."""

import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from markupsafe import Markup

from .._utils.run_directory import clear
from .card import render
from .hub import CONFIG, PushedFile, publishable_files

APP, REQUIREMENTS, README, MODEL, EXAMPLES = "app.py", "requirements.txt", "README.md", "model", "examples"
PYTHON = "3.11"
_WRITTEN = (APP, REQUIREMENTS, README, MODEL, EXAMPLES)

# By which a folder is known to be one that was written here.
_MARK = "from ecg_jepa.apps.page import serve"

_APP = '''"""What the Space runs."""

from pathlib import Path

{mark}

if __name__ == "__main__":
    here = Path(__file__).parent
    serve(here / {model!r}, title={title!r}, examples=here / {examples!r})
'''


def write_space(
    directory: str | Path, target: str | Path, title: str, examples: str | Path | None, requirement: str = ""
) -> list[PushedFile]:
    """
    Write the folder of a Space, in the place of the one that is there.

    Args:
        directory: of a classifier.
        target: the folder; what another Space left there is replaced, other files stay and are not part of it.
        title: of the page.
        examples: folder with records that visitors can pick, or `None`.
        requirement: how pip finds this package; default: its version on PyPI, with what the page needs.

    Returns:
        The files of the Space, with paths relative to `target`.

    Raises:
        ValueError: if the directory cannot be published, is no classifier, or Gradio is not installed, whose version the Space
            takes over.
        FileExistsError: if the folder holds files that are no Space's, or the classifier or the examples themselves.
    """
    directory, target = Path(directory), Path(target)
    files = publishable_files(directory)
    if "ForSequenceClassification" not in (directory / CONFIG).read_text():
        raise ValueError(f"{directory} is no classifier: a Space shows what one says of an ECG.")
    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        raise ValueError('A Space says on which Gradio it runs, and there is none here: pip install "ecg_jepa[demo]".') from None
    _check_target(target, [directory, *([] if examples is None else [Path(examples)])])
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".space-", dir=target.parent) as folder:
        written = Path(folder)
        metadata = {
            **{"title": title, "emoji": "🫀", "colorFrom": "red", "colorTo": "blue"},
            **{"sdk": "gradio", "sdk_version": gradio, "python_version": PYTHON, "app_file": APP, "license": "apache-2.0"},
        }
        front_matter = Markup(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True))
        card = render("space.md.jinja", metadata=front_matter, title=title, examples=examples is not None)
        (written / README).write_text(card + "\n")
        (written / APP).write_text(_APP.format(mark=_MARK, model=MODEL, title=title, examples=EXAMPLES))
        package = requirement or f"ecg_jepa[demo,formats]=={version('ecg_jepa')}"
        (written / REQUIREMENTS).write_text(f"{package}\ngradio=={gradio}\n")
        _copy(written / MODEL, [directory / file.name for file in files])
        if examples is not None:
            # A README beside the records says whom to name.
            _copy(written / EXAMPLES, [path for path in sorted(Path(examples).iterdir()) if path.suffix != ".ipynb"])
        clear(target, _WRITTEN)
        names = [path.name for path in sorted(written.iterdir())]
        for name in names:
            shutil.move(written / name, target / name)
    paths = sorted(path for name in names for path in _files_in(target / name))
    return [PushedFile(path.relative_to(target).as_posix(), path.stat().st_size) for path in paths]


def _check_target(target: Path, sources: Sequence[Path]) -> None:
    inside = [source for source in sources if target.resolve() in (source.resolve(), *source.resolve().parents)]
    if inside:
        raise FileExistsError(f"{target} holds {inside[0]}, which is to be copied there: choose another --space_dir.")
    app = target / APP
    ours = app.is_file() and _MARK in app.read_text(errors="replace")
    if target.is_dir() and not ours and any((target / name).exists() for name in _WRITTEN):
        raise FileExistsError(f"{target} holds files that are no Space's: choose another --space_dir.")


def _copy(folder: Path, paths: Sequence[Path]) -> None:
    folder.mkdir()
    for path in paths:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)


def _files_in(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
