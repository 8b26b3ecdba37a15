"""The tutorials run from top to bottom, with tiny settings, and hold what a real run drew."""

import copy
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parent.parent / "docs" / "tutorials"

# What takes the place of the values in each notebook's cell of parameters.
TINY = {
    "stitchnet_from_scratch": "steps = 3",
    "styles_part": "steps = 8; patients = (2, 2, 2)",
    "posterior_and_counterfactuals": "steps = 2; patients = (2, 2); draws = 3",
    "label_sets": "steps = 2; patients = (2, 2, 2); few = 2",
}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)


def test_all_are_listed() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.ipynb")} == set(TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = copy.deepcopy(read(name))
    place = next(
        i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", ())
    )
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(TINY[name]))
    # The notebook's `stitchnet` is the one under test.
    folder = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", os.pathsep.join([folder, os.environ["PATH"]]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in notebook.cells:  # a command that fails raises nothing
        for output in cell.get("outputs", ()):
            assert "error:" not in output.get("text", ""), output["text"]


@pytest.mark.parametrize("name", TINY)
def test_is_kept_with_its_outputs(name: str) -> None:
    cells = [c for c in read(name).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    outputs = [output for c in cells for output in c.outputs]
    assert any(kind.startswith("image/") for o in outputs for kind in o.get("data", ()))
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert (TUTORIALS / f"{name}.ipynb").stat().st_size < 450_000
