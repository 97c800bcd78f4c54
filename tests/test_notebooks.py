"""Notebooks are made from their scripts, thin, runnable by papermill, and the kernel's metadata names one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arc_submit.errors import DataError
from arc_submit.kaggle.notebooks import main, notebook_text

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))


def test_there_are_notebooks() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_notebook_is_in_step_and_as_kaggle_wants_it(script: Path) -> None:
    path = script.with_suffix(".ipynb")
    assert path.read_text() == notebook_text(script), "run make notebooks"
    assert path.stat().st_size < 1_000_000
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    lines = "".join("".join(cell["source"]) + "\n" for cell in code).splitlines()
    assert not any(line.startswith(("def ", "class ")) for line in lines), "logic belongs into the library"


def test_a_script_edit_is_never_overwritten_by_a_newer_notebook(tmp_path: Path) -> None:
    script, notebook = tmp_path / "n.py", tmp_path / "n.ipynb"
    script.write_text(SCRIPTS[0].read_text())
    assert main([str(script)]) == 0
    before = notebook.read_text()
    script.write_text(script.read_text() + "\n# %%\nprint('edited')\n")
    notebook.write_text(before)  # newer than the script, and stale
    assert main(["--check", str(script)]) == 1
    assert "edited" in script.read_text()
    assert main([str(script)]) == 0
    assert "edited" in notebook.read_text()
    assert main(["--check", str(script)]) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"), [("kernelspec", "kernel_spec", "no kernelspec"), ('tags=["parameters"]', "", '0 cells tagged "parameters"')]
)
def test_a_script_that_kaggle_could_not_run_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    script = tmp_path / "n.py"
    script.write_text(SCRIPTS[0].read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        notebook_text(script)
    assert main([str(script)]) == 1
    assert not script.with_suffix(".ipynb").exists()


def test_the_kernels_metadata_names_the_notebook_and_no_internet() -> None:
    metadata = json.loads((ROOT / "kernel-metadata.json").read_text())
    assert (ROOT / metadata["code_file"]).is_file()
    assert metadata["enable_internet"] is False
    assert metadata["id"].split("/")[1] == metadata["title"].lower().replace(" ", "-")
    assert (metadata["language"], metadata["kernel_type"]) == ("python", "notebook")


def test_papermill_runs_the_submission_notebook(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    """With the tiny model on a small file: the notebook's own cells, executed as Kaggle does."""
    parameters = {"out": tmp_path / "out", "budget": "3m", "model": tiny_model, "challenges": files[0], "solutions": files[1], "tasks": 2}
    given = [argument for name, value in parameters.items() for argument in ("-p", name, str(value))]
    executed = tmp_path / "executed.ipynb"
    process = subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT / "notebooks" / "submission.ipynb"), str(executed), *given],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert len(json.loads((tmp_path / "out" / "submission.json").read_text())) == 6
    outputs = [o for cell in json.loads(executed.read_text())["cells"] for o in cell.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert any("outputs solved" in "".join(o.get("text", [])) for o in outputs)


def test_papermill_studies_a_single_task(files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    parameters = {"out": tmp_path / "out", "task": "task001", "model": tiny_model, "challenges": files[0], "solutions": files[1]}
    parameters |= {"steps": 3, "views": 1, "budget": "3m"}  # type: ignore[dict-item]
    given = [argument for name, value in parameters.items() for argument in ("-p", name, str(value))]
    executed = tmp_path / "executed.ipynb"
    process = subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT / "notebooks" / "single_task_ttft.ipynb"), str(executed), *given],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    outputs = [o for cell in json.loads(executed.read_text())["cells"] for o in cell.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 3
    assert any("ttft" in "".join(o.get("text", [])) and "votes" in "".join(o.get("text", [])) for o in outputs)
