"""Checks a notebook's cells for what works at home and fails on Kaggle: network access, mount paths, credentials, early imports.

Cells are read and never run, so the values of variables are unknown: a certain failure is an error, a possible one a warning. Does not
know kernel-metadata.json.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from arc_submit.kaggle.dataset_folder import INSTALLER
from arc_submit.kaggle.findings import Finding
from arc_submit.kaggle.secret_scan import credential_kind

_INSTALLS = re.compile(
    r"(?:^\s*[!%].*\bpip3?\s+(?:-\S+\s+)*install\b"  # !pip install, %pip install, !python -m pip -q install, !uv pip install
    r"|\bpip3?[\"'],\s*[\"']install\b"  # subprocess.run([sys.executable, "-m", "pip", "install", ...])
    r"|(?:system|run|call|check_call|check_output|Popen)\(\s*f?[\"'][^\"'\n]*\bpip3?\s+install\b"
    r"|\A\s*%%(?:bash|sh)\b[\s\S]*?^\s*pip3?\s+install\b)"
    r"(?![^\]!%]*--no-index)",
    re.MULTILINE,
)
_DOWNLOADS = re.compile(
    r"^\s*!.*\b(?:wget|curl|git\s+clone|apt(?:-get)?\s+install|conda\s+install)\b.*"
    r"|\b(?:snapshot_download|hf_hub_download|load_dataset|urlretrieve|urlopen)\(|\b(?:kagglehub|wandb)\.\w+\(|\brequests\.(?:get|post)\(",
    re.MULTILINE,
)
_HUB_MODEL = re.compile(r"\.from_pretrained\(\s*[\"']([\w.-]+/[\w.-]+)[\"']")
_MOUNT = re.compile(r"[\"'](/kaggle/input/[^\"'\n]+)[\"']")


def check_cells(file: str, cells: list[dict[str, Any]], internet: bool) -> Iterator[Finding]:
    """The findings about a notebook's cells.

    Args:
        file: name of the notebook.
        internet: whether the kernel has internet access.
    """
    installed = internet
    for number, cell in enumerate(cells):
        place, source = f"cell {number}", source_of(cell)
        if kind := credential_kind(source):
            yield Finding("error", file, place, f"holds what looks like {kind}", "remove it, and revoke it")
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
        if not internet:
            yield from _network_access(file, place, source)
        if not installed and imports_library([cell]) and INSTALLER not in source:
            problem = "imports arc_submit before any cell installs the attached data sets"
            yield Finding("error", file, place, problem, f"run {INSTALLER} in the first cell, as those of notebooks/ do")
            installed = True  # report it once
        installed |= INSTALLER in source or "--no-index" in source


def imports_library(cells: list[dict[str, Any]]) -> bool:
    """Whether a cell imports arc_submit."""
    return any(re.search(r"^\s*(from|import) arc_submit\b", source_of(cell), re.MULTILINE) for cell in cells)


def source_of(cell: dict[str, Any]) -> str:
    """A cell's source; the file may hold it as one text or as a list of lines."""
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def _network_access(file: str, place: str, source: str) -> Iterator[Finding]:
    if _INSTALLS.search(source):
        yield Finding("error", file, place, "installs from the network, which is off", "install from attached wheels, with --no-index")
    elif match := _DOWNLOADS.search(source):
        yield Finding("warning", file, place, f"downloads with {match[0].strip()!r}, and the network is off", "attach it as a data set")
    if match := _HUB_MODEL.search(source):
        problem = f"loads {match[1]!r}, which is downloaded unless it is a folder, and the network is off"
        yield Finding("warning", file, place, problem, "attach the model and give its folder")
    if re.search(r"arc_submit\.kaggle\.wheels\b", source):
        yield Finding("error", file, place, "downloads wheels, and the network is off", "set enable_internet, and name no competition")


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
