"""A notebook as the kaggle client sends it, and what would stop it on Kaggle's machine. Knows nothing about kernel-metadata.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arc_submit.errors import ArcSubmitError
from arc_submit.kaggle.cells import check_cells
from arc_submit.kaggle.findings import Finding
from arc_submit.kaggle.notebooks import notebook_text

MOST_BYTES = 1_000_000  # Kaggle: "The kernel source must be less than 1 megabytes in size."


def text_as_sent(notebook: dict[str, Any]) -> str:
    """What kaggle 2.2.4 sends of a notebook: outputs emptied, each cell's source in one piece, everything but ASCII escaped."""
    cells = []
    for cell in notebook.get("cells", ()):
        emptied: dict[str, Any] = {"outputs": []} if "outputs" in cell and cell["cell_type"] == "code" else {}
        joined = {"source": "".join(cell["source"])} if isinstance(cell.get("source"), list) else {}
        cells.append({**cell, **emptied, **joined})
    return json.dumps({**notebook, "cells": cells} if "cells" in notebook else notebook)


def check_notebook(path: Path, internet: bool) -> tuple[dict[str, Any], list[Finding]]:
    """Read and check a notebook; returns its value, empty where it is none, and the findings.

    Args:
        internet: whether the kernel will have it.
    """
    file = path.name

    def wrong(place: str, problem: str, remedy: str) -> Finding:
        return Finding("error", file, place, problem, remedy)

    if path.suffix != ".ipynb":
        return {}, [wrong("file", "is no .ipynb, and a notebook kernel takes nothing else", "name the .ipynb that belongs to it")]
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [wrong("file", f"cannot be read ({error.strerror})", "correct code_file, which is relative to kernel-metadata.json")]
    except (ValueError, RecursionError) as error:
        return {}, [wrong("file", f"not JSON ({error})", "make it again: make notebooks")]
    problem = _invalid(value)
    if problem:
        return {}, [wrong("file", f"is no valid notebook ({problem})", "make it again: make notebooks")]
    findings = [*_shape(file, value, internet), *_size(file, value), *_in_step(path)]
    return value, [*findings, *check_cells(file, value["cells"], internet)]


def _invalid(value: Any) -> str:
    """Why a value is no notebook of format 4; empty where it is one."""
    import nbformat

    if not isinstance(value, dict) or value.get("nbformat") != 4 or not isinstance(value.get("nbformat_minor"), int):
        return "not of format 4"
    try:
        nbformat.validate(nbformat.from_dict(value))  # type: ignore[no-untyped-call]
    except nbformat.ValidationError as error:
        return str(error).splitlines()[0]
    return ""


def _shape(file: str, value: dict[str, Any], internet: bool) -> Iterator[Finding]:
    """What papermill, which Kaggle runs notebooks with, asks of a notebook as a whole."""
    kernelspec = value["metadata"].get("kernelspec", {})
    if not kernelspec.get("name"):
        problem = 'has no kernelspec: papermill stops with "No kernel name found"'
        remedy = "give the script a jupytext header with one, or choose a kernel in Jupyter and save"
        yield Finding("error", file, "kernelspec", problem, remedy)
    elif kernelspec["name"] != "python3":
        yield Finding("error", file, "kernelspec", f"is {kernelspec['name']!r}, which Kaggle does not have", 'name it "python3"')
    own = value["metadata"].get("kaggle", {})
    if isinstance(own, dict) and own.get("isInternetEnabled") and not internet:
        problem = "metadata.kaggle, which Kaggle's editor wrote, says that the internet is on"
        yield Finding("warning", file, "metadata.kaggle", problem, "take metadata.kaggle out; kernel-metadata.json says what is meant")
    tagged = [n for n, cell in enumerate(value["cells"]) if "parameters" in cell["metadata"].get("tags", ())]
    if len(tagged) == 1 and value["cells"][tagged[0]]["cell_type"] != "code":
        problem = 'is tagged "parameters" and is no code, so that its values are not replaced but set behind it'
        yield Finding("error", file, f"cell {tagged[0]}", problem, "tag the code cell that holds them")
    if len(tagged) != 1:
        problem = f'{len(tagged)} cells are tagged "parameters", so that a dry run cannot set them'
        yield Finding("warning", file, "parameters", problem, "tag the one cell that holds them")
    filled = [n for n, cell in enumerate(value["cells"]) if cell.get("outputs") or cell.get("execution_count")]
    if filled:
        remedy = "make it again: make notebooks, or clear all outputs and save"
        yield Finding("warning", file, f"cell {filled[0]}", f"holds outputs of a run ({len(filled)} cells do)", remedy)


def _size(file: str, value: dict[str, Any]) -> Iterator[Finding]:
    size = len(text_as_sent(value))
    if size >= MOST_BYTES:
        largest = max(range(len(value["cells"])), key=lambda n: len(json.dumps(value["cells"][n].get("source", ""))))
        problem = f"{size:,} bytes as the client sends it, and Kaggle takes less than {MOST_BYTES:,}"
        yield Finding("error", file, "size", problem, f"move what is large into a data set; the largest cell is {largest}")


def _in_step(path: Path) -> Iterator[Finding]:
    script = path.with_suffix(".py")
    if not script.is_file():
        return
    try:
        text = notebook_text(script)
    except ArcSubmitError as error:
        yield Finding("error", script.name, "file", str(error), "correct the script, then make notebooks")
        return
    if text != path.read_text(encoding="utf-8"):
        yield Finding("error", path.name, "file", f"is not what {script.name} makes", "make notebooks; the script is the source")
