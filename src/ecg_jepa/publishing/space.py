"""A classifier -> a Space on the Hugging Face Hub, where one ECG at a time is looked at with it; it runs locally as it is."""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from markupsafe import Markup

from ..common.run_directory import clear
from .card import render
from .hub import CONFIG, PushedFile, publishable_files

APP, REQUIREMENTS, README, MODEL, EXAMPLES = "app.py", "requirements.txt", "README.md", "model", "examples"
PYTHON = "3.11"

_APP = '''"""What the Space runs."""

from pathlib import Path

from ecg_jepa.page import serve

if __name__ == "__main__":
    here = Path(__file__).parent
    serve(here / {model!r}, title={title!r}, examples=here / {examples!r})
'''


def write_space(
    directory: str | Path, target: str | Path, title: str, examples: str | Path | None, requirement: str = ""
) -> None:
    """
    Write the folder of a Space.

    Args:
        directory: of a classifier.
        target: the folder; what another Space left there is replaced.
        title: of the page.
        examples: folder with records that visitors can pick, or `None`.
        requirement: how pip finds this package; default: its version on PyPI, with what the page needs.

    Raises:
        ValueError: if the directory cannot be published, is no classifier, or Gradio is not installed, whose version the Space
            takes over.
        FileExistsError: if the folder holds files that are no Space's.
    """
    directory, target = Path(directory), Path(target)
    files = publishable_files(directory)
    if "ForSequenceClassification" not in (directory / CONFIG).read_text():
        raise ValueError(f"{directory} is no classifier: a Space shows what one says of an ECG.")
    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        raise ValueError('A Space says on which Gradio it runs, and there is none here: pip install "ecg_jepa[demo]".') from None
    if target.is_dir() and any(target.iterdir()) and not (target / APP).is_file():
        raise FileExistsError(f"{target} holds files that are no Space's: choose another --space_dir.")
    target.mkdir(parents=True, exist_ok=True)
    clear(target, (APP, REQUIREMENTS, README, MODEL, EXAMPLES))
    metadata = {
        **{"title": title, "emoji": "🫀", "colorFrom": "red", "colorTo": "blue"},
        **{"sdk": "gradio", "sdk_version": gradio, "python_version": PYTHON, "app_file": APP, "license": "apache-2.0"},
    }
    front_matter = Markup(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True))
    (target / README).write_text(render("space.md.jinja", metadata=front_matter, title=title) + "\n")
    (target / APP).write_text(_APP.format(model=MODEL, title=title, examples=EXAMPLES))
    package = requirement or f"ecg_jepa[demo,formats]=={version('ecg_jepa')}"
    (target / REQUIREMENTS).write_text(f"{package}\ngradio=={gradio}\n")
    (target / MODEL).mkdir()
    for file in files:
        shutil.copyfile(directory / file.name, target / MODEL / file.name)
    (target / EXAMPLES).mkdir()
    for path in sorted(Path(examples).iterdir()) if examples is not None else ():
        if path.is_file() and path.suffix != ".ipynb":  # a README beside them says whom to name
            shutil.copyfile(path, target / EXAMPLES / path.name)


def space_files(target: str | Path) -> list[PushedFile]:
    """The files of a Space's folder, with paths relative to it."""
    paths = sorted(path for path in Path(target).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [PushedFile(path.relative_to(target).as_posix(), path.stat().st_size) for path in paths]
