"""A Space for the Hugging Face Hub with the page of a classifier; it also runs locally."""

import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from markupsafe import Markup

from .._utils.run_directory import clear
from .card import render
from .hub import CONFIG, publishable_files

APP, REQUIREMENTS, README, MODEL, EXAMPLES = "app.py", "requirements.txt", "README.md", "model", "examples"
PYTHON = "3.11"
_WRITTEN = (APP, REQUIREMENTS, README, MODEL, EXAMPLES)

# This line marks a folder that was written here.
_MARK = re.compile(r"^from ecg_jepa\.(apps\.)?page import serve$", re.MULTILINE)

_APP = '''"""What the Space runs."""

from pathlib import Path

from ecg_jepa.apps.page import serve

if __name__ == "__main__":
    here = Path(__file__).parent
    serve(here / {model!r}, title={title!r}, examples=here / {examples!r})
'''


def write_space(
    directory: str | Path, target: str | Path, title: str, examples: str | Path | None, requirement: str = ""
) -> dict[str, Path]:
    """
    Write the folder of a Space for the classifier in a directory, and return name and path of its files; those of an earlier
    Space are replaced, others stay. Visitors can pick from the records in a folder of `examples`; `requirement` is how pip finds
    this package, by default its version on PyPI, with what the page needs.

    Raises:
        ValueError: if the directory cannot be published, is no classifier, or Gradio is not installed, whose version it takes.
        FileExistsError: if the folder holds files that are no Space's, or the classifier or the examples themselves.
    """
    directory, target = Path(directory), Path(target)
    files = publishable_files(directory)
    if "ForSequenceClassification" not in (directory / CONFIG).read_text():
        raise ValueError(f"{directory} is no classifier: a Space shows the labels of one.")
    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        raise ValueError('A Space names its version of Gradio, and none is installed: pip install "ecg_jepa[demo]".') from None
    _check_target(target, directory, examples)
    clear(target, _WRITTEN)
    (target / MODEL).mkdir(parents=True)
    (target / APP).write_text(_APP.format(model=MODEL, title=title, examples=EXAMPLES))
    for name, path in files.items():
        shutil.copyfile(path, target / MODEL / name)
    if examples is not None:  # with the README beside the records, which names their authors
        (target / EXAMPLES).mkdir()
        for path in Path(examples).iterdir():
            if path.is_file() and path.suffix != ".ipynb":
                shutil.copyfile(path, target / EXAMPLES / path.name)
    metadata = {
        **{"title": title, "emoji": "🫀", "colorFrom": "red", "colorTo": "blue"},
        **{"sdk": "gradio", "sdk_version": gradio, "python_version": PYTHON, "app_file": APP, "license": "apache-2.0"},
    }
    front_matter = Markup(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True))
    card = render("space.md.jinja", metadata=front_matter, title=title, examples=examples is not None)
    (target / README).write_text(card + "\n")
    package = requirement or f"ecg_jepa[demo,formats]=={version('ecg_jepa')}"
    (target / REQUIREMENTS).write_text(f"{package}\ngradio=={gradio}\n")
    paths = (path for name in _WRITTEN for path in (target / name, *(target / name).rglob("*")) if path.is_file())
    return {path.relative_to(target).as_posix(): path for path in sorted(paths)}


def _check_target(target: Path, *sources: str | Path | None) -> None:
    for source in sources:
        if source is not None and target.resolve() in (Path(source).resolve(), *Path(source).resolve().parents):
            raise FileExistsError(f"{target} holds {source}, which is to be copied there: choose another --space_dir.")
    app = target / APP
    is_space = app.is_file() and _MARK.search(app.read_text(errors="replace"))
    if not is_space and any((target / name).exists() for name in _WRITTEN):
        raise FileExistsError(f"{target} holds files that are no Space's: choose another --space_dir.")
