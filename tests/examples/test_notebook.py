"""The example notebook runs from a clone, and is kept without its outputs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(EXAMPLES / "ecg_jepa.ipynb", as_version=4)


def test_it_is_kept_without_outputs(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
def test_it_runs_and_shows_what_it_says(notebook):
    executed = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    shown = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 1
    table = next(
        output["data"]["text/html"] for output in shown if "classifier says" in output.get("data", {}).get("text/html", "")
    )
    bundle_branch_block = re.search(r"complete left bundle branch block.*?(CD 0\.\d\d)", table, flags=re.DOTALL)
    assert bundle_branch_block is not None
    assert "(3, 192)" in [output.get("data", {}).get("text/plain") for output in shown]
    said = "".join(output.text for output in shown if output.output_type == "stream" and output.name == "stdout")
    assert re.search(r"nearest to 00703_lr .*: (00003_lr|00286_lr) ", said)
