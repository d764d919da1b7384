"""The rooms, and the order of imports between them that `pyproject.toml` declares for import-linter."""

import ast
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "ecg_jepa"
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture
def tree(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "src" / "ecg_jepa")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree):
    code = f"import sys; sys.path.insert(0, {str(tree / 'src')!r}); {LINT}"
    return subprocess.run([sys.executable, "-c", code, "--no-cache"], cwd=tree, capture_output=True, text=True)


def test_imports_go_one_way(tree):
    result = lint(tree)
    assert result.returncode == 0, result.stdout
    assert "4 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("_utils/files.py", "from ..data.tasks import TASKS", "Rooms"),
        ("model/pipeline_ecg_jepa.py", "from ..formats.read import read_ecg", "Rooms"),
        ("model/modeling_ecg_jepa.py", "from .._utils.files import digest_of", "Rooms"),
        ("formats/read.py", "from ..data.tasks import TASKS", "Rooms"),
        ("evaluation/results.py", "from ..finetuning.finetuning_loop import WRITTEN", "Rooms"),
        ("pretraining/recipe.py", "from ..finetuning.finetuning_loop import WRITTEN", "Rooms"),
        ("room/__init__.py", "", "Rooms"),
        (
            "finetuning/finetuning_loop.py",
            "from ..pretraining.recipe import PretrainingRecipe",
            "Only the command knows pre-training",
        ),
        ("publishing/card.py", "from ..pretraining.recipe import PretrainingRecipe", "Only the command knows pre-training"),
        ("data/corpus.py", "from ..model.modeling_ecg_jepa import EcgJepaModel", "Data and formats know no networks"),
        ("conversion/weights.py", "from .export import export_conversion", "No circles"),
    ],
)
def test_an_import_the_wrong_way_is_reported(tree, file, line, contract):
    path = tree / "src" / "ecg_jepa" / file
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as module:
        module.write(f"\n{line}\n")
    result = lint(tree)
    assert result.returncode == 1
    assert (f"{contract} BROKEN" if line else "room") in result.stdout


def test_the_root_has_rooms_and_no_modules():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert len(rooms) <= 11
    assert {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/**/*.py")} == rooms


def test_no_two_modules_have_one_name():
    names = Counter(path.name for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_files_that_travel_import_siblings_by_name_only():
    """transformers copies `from .sibling import name` beside a checkpoint, and neither `from . import` nor folders."""
    for path in PACKAGE.glob("model/*_ecg_jepa.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, path
                assert (PACKAGE / "model" / f"{node.module}.py").is_file(), f"{path}: {ast.unparse(node)}"
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                assert "ecg_jepa" not in ast.unparse(node), f"{path}: {ast.unparse(node)}"
