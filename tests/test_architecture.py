"""The arrows between the rooms, as `pyproject.toml` has them for import-linter."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture
def tree(tmp_path):
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree):
    code = f"import sys; sys.path.insert(0, {str(tree / 'src')!r}); {LINT}"
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True)


def test_imports_go_one_way(tree):
    result = lint(tree)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("data/corpus.py", "from ..modeling_ecg_jepa import EcgJepaModel", "Data knows nothing of models BROKEN"),
        ("evaluation/results.py", "from ..pretraining.masking import sample_block_masks", "Evaluation and fine-tuning"),
        ("common/files.py", "from ..data.folds import TEST_FOLD", "Layers BROKEN"),
        ("modeling_ecg_jepa.py", "from .common.files import digest_of", "Model files travel alone BROKEN"),
        ("conversion/weights.py", "from .export import export_conversion", "No circles BROKEN"),
    ],
)
def test_an_arrow_the_wrong_way_is_seen(tree, file, line, contract):
    path = tree / "src" / "ecg_jepa" / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    result = lint(tree)
    assert result.returncode == 1
    assert contract in result.stdout
