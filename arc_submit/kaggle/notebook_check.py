"""Checks a notebook, as the kaggle client sends it, for what works at home and fails on Kaggle. Does not know kernel-metadata.json.

Cells are read and never run, so the values of variables are unknown: a certain failure is an error, a possible one a warning.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.arc.files import has_byte_order_mark, read_json
from arc_submit.errors import ArcSubmitError, DataError
from arc_submit.kaggle.dataset_folder import INSTALLER
from arc_submit.kaggle.findings import Finding
from arc_submit.kaggle.network_check import check_network
from arc_submit.kaggle.secret_scan import credential_kind

MAX_BYTES = 1_000_000  # Kaggle: "The kernel source must be less than 1 megabytes in size."
_MOUNT = re.compile(r"[\"'](/kaggle/input/[^\"'\n]+)[\"']")


def client_text(notebook: dict[str, Any]) -> str:
    """The text that kaggle 2.2.4 sends of a notebook: without outputs, each source as one text, non-ASCII characters escaped."""
    cells = []
    for cell in notebook.get("cells", ()):
        outputs: dict[str, Any] = {"outputs": []} if "outputs" in cell and cell["cell_type"] == "code" else {}
        source = {"source": "".join(cell["source"])} if isinstance(cell.get("source"), list) else {}
        cells.append({**cell, **outputs, **source})
    return json.dumps({**notebook, "cells": cells} if "cells" in notebook else notebook)


def check_notebook(path: Path, internet: bool) -> tuple[dict[str, Any], list[Finding]]:
    """Read and check a notebook for a kernel with or without internet access; returns it (empty if it is invalid) and the findings."""
    error = partial(Finding, "error", path.name, "file")
    if path.suffix != ".ipynb":
        return {}, [error("is not an .ipynb, which a notebook kernel needs", "name the .ipynb that belongs to it")]
    try:
        notebook = read_json(path)
        if has_byte_order_mark(path):
            raise DataError(f"{path}: begins with a byte order mark, which the client does not read")
    except DataError as failure:
        return {}, [error(str(failure).removeprefix(f"{path}: "), "make it again: make notebooks")]
    if problem := _format_problem(notebook):
        return {}, [error(f"is not a valid notebook ({problem})", "make it again: make notebooks")]
    findings = [*_check_structure(path.name, notebook, internet), *_check_size(path.name, notebook), *_check_script(path)]
    return notebook, [*findings, *_check_cells(path.name, notebook["cells"], internet)]


def _format_problem(value: Any) -> str:
    """Why a value is not a notebook of format 4; empty if it is one."""
    import nbformat

    if not isinstance(value, dict) or value.get("nbformat") != 4 or not isinstance(value.get("nbformat_minor"), int):
        return "not of format 4"
    try:
        nbformat.validate(nbformat.from_dict(value))  # type: ignore[no-untyped-call]
    except nbformat.ValidationError as error:
        return str(error).splitlines()[0]
    return ""


def _check_structure(file: str, notebook: dict[str, Any], internet: bool) -> Iterator[Finding]:
    """The requirements of papermill, which runs notebooks on Kaggle, and metadata that contradict the kernel's."""
    metadata, cells = notebook["metadata"], notebook["cells"]
    kernelspec = metadata.get("kernelspec", {})
    if not kernelspec.get("name"):
        problem = 'has no kernelspec: papermill stops with "No kernel name found"'
        remedy = "give the script a jupytext header with one, or choose a kernel in Jupyter and save"
        yield Finding("error", file, "kernelspec", problem, remedy)
    elif kernelspec["name"] != "python3":
        yield Finding("error", file, "kernelspec", f"is {kernelspec['name']!r}, which Kaggle does not have", 'name it "python3"')
    language = kernelspec.get("language") or metadata.get("language_info", {}).get("name")
    if kernelspec.get("name") and language != "python":
        problem = f"names the language {language!r}" if language else "names no language, so papermill can set no parameters"
        yield Finding("error" if language else "warning", file, "kernelspec", problem, 'give it "language": "python"')
    for kind, widgets in metadata.get("widgets", {}).items() if isinstance(metadata.get("widgets", {}), dict) else [("", None)]:
        if not isinstance(widgets, dict) or not isinstance(widgets.get("state"), dict):
            problem = f"{kind or 'widgets'} has no state, and nbconvert, which makes Kaggle's page, stops with KeyError: 'state'"
            yield Finding("error", file, "metadata.widgets", problem, "remove metadata.widgets, or clear all outputs and save")
    editor = metadata.get("kaggle", {})
    if isinstance(editor, dict) and editor.get("isInternetEnabled") and not internet:
        problem = "was written by Kaggle's editor and states that the internet is on"
        yield Finding("warning", file, "metadata.kaggle", problem, "remove it; only kernel-metadata.json counts")
    tagged = [number for number, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", ())]
    if len(tagged) != 1:
        problem = f'{len(tagged)} cells are tagged "parameters", so a dry run cannot set them'
        yield Finding("warning", file, "parameters", problem, "tag the one cell that holds them")
    elif cells[tagged[0]]["cell_type"] != "code":
        problem = 'is tagged "parameters" but is not code: papermill sets the values after it instead of replacing them'
        yield Finding("error", file, f"cell {tagged[0]}", problem, "tag the code cell that holds them")
    for number, cell in enumerate(cells):
        tags = cell["metadata"].get("tags", ())
        if "injected-parameters" in tags:
            problem = "holds the parameters of a dry run, which replace the notebook's own"
            yield Finding("error", file, f"cell {number}", problem, "push the notebook that papermill read, not the one that it wrote")
        if "raises-exception" in tags:
            problem = 'is tagged "raises-exception": its failure does not fail the notebook'
            yield Finding("warning", file, f"cell {number}", problem, "remove the tag")
    executed = [number for number, cell in enumerate(cells) if cell.get("outputs") or cell.get("execution_count")]
    if executed:
        remedy = "make it again: make notebooks, or clear all outputs and save"
        failed = [output for number in executed for output in cells[number].get("outputs") or () if output.get("output_type") == "error"]
        problem = f"holds outputs of a run ({len(executed)} cells do)"
        problem += f", which ended with {failed[0].get('ename')}" if failed else ""
        yield Finding("warning", file, f"cell {executed[0]}", problem, remedy)


def _check_size(file: str, notebook: dict[str, Any]) -> Iterator[Finding]:
    size, cells = len(client_text(notebook)), notebook["cells"]
    if size >= MAX_BYTES:
        largest = max(range(len(cells)), key=lambda number: len(json.dumps(cells[number].get("source", ""))))
        problem = f"the client sends {size:,} bytes, and Kaggle takes less than {MAX_BYTES:,}"
        yield Finding("error", file, "size", problem, f"move large values into a data set; the largest cell is {largest}")


def _check_script(path: Path) -> Iterator[Finding]:
    """Compare the notebook with the script beside it, if there is one."""
    from arc_submit.kaggle.notebooks import notebook_text  # jupytext and nbformat are slow to import

    script = path.with_suffix(".py")
    if not script.is_file():
        return
    try:
        text = notebook_text(script)
    except ArcSubmitError as error:
        yield Finding("error", script.name, "file", str(error), "correct the script, then make notebooks")
        return
    if text != path.read_text(encoding="utf-8"):
        yield Finding("error", path.name, "file", f"differs from the one that {script.name} makes", "make notebooks; edit only the script")


def _check_cells(file: str, cells: list[dict[str, Any]], internet: bool) -> Iterator[Finding]:
    """The findings about the cells of a notebook, for a kernel with or without internet access."""
    installed = internet
    for number, cell in enumerate(cells):
        place, source = f"cell {number}", source_of(cell)
        if kind := credential_kind(source):
            yield Finding("error", file, place, f"seems to hold {kind}", "remove it, and revoke it")
        if cell.get("cell_type") != "code":
            continue
        if problem := _syntax_error(source):
            yield Finding("error", file, place, f"is not Python: {problem}", "correct it in the script, then make notebooks")
        source = re.sub(r"^\s*#.*$", "", source, flags=re.MULTILINE)
        if re.search(r"^\s*!", source, re.MULTILINE):
            problem = "runs a command with !, whose failure does not fail the notebook"
            yield Finding("warning", file, place, problem, "use subprocess.run(..., check=True)")
        if mount := _MOUNT.search(source):
            problem = f"names {mount[1]}, and Kaggle mounts inputs in two layouts"
            yield Finding("warning", file, place, problem, "find the folder by its files, as arc_submit.kaggle.inputs does")
        if not installed and imports_library([cell]) and INSTALLER not in source:
            problem = "imports arc_submit before any cell installs the attached data sets"
            yield Finding("error", file, place, problem, f"run {INSTALLER} in the first cell, as those of notebooks/ do")
            installed = True  # report it once
        installed |= INSTALLER in source or "--no-index" in source
    if not internet:
        code = [(number, source_of(cell)) for number, cell in enumerate(cells) if cell.get("cell_type") == "code"]
        yield from check_network(file, code)


def imports_library(cells: list[dict[str, Any]]) -> bool:
    """Whether a cell imports arc_submit."""
    return any(re.search(r"^\s*(from|import) arc_submit\b", source_of(cell), re.MULTILINE) for cell in cells)


def makes_submission(code: list[str]) -> bool:
    """Whether a notebook's code works on a competition's test file: it runs the pipeline or arc-submit, and names no task of its own."""
    names_a_task = re.compile(r"^\s*task\s*=", re.MULTILINE)
    runs = re.compile(r"\barc_submit[\w.]*\.pipeline\b(?!\s+import\s+infer\s*$)|\barc-submit['\", ]+run\b", re.MULTILINE)
    return any(map(runs.search, code)) and not any(map(names_a_task.search, code))


def source_of(cell: dict[str, Any]) -> str:
    """A cell's source; the file may hold it as one text or as a list of lines."""
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def _syntax_error(source: str) -> str:
    """The syntax error of a cell; empty where there is none, or where the cell holds IPython's own commands."""
    if re.search(r"^\s*[!%]|^\S*\?{1,2}$|\?{1,2}\s*$|=\s*[!%]", source, re.MULTILINE):
        return ""
    try:
        ast.parse(source)  # accepts an await outside functions, as notebooks do
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"line {line}: {getattr(error, 'msg', error)}" if line else str(error)
    return ""
