"""A notebook's cells, read for what fails on Kaggle's machine though it works at home: no network, mounts that move, an order that breaks.

Cells are read and never run, so what a variable holds is not known: what surely fails is an error, what may be meant a warning. Knows
nothing about kernel-metadata.json.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from arc_submit.kaggle.findings import Finding
from arc_submit.kaggle.secret_scan import credential_in

_INSTALLS = re.compile(
    r"(?:^\s*[!%].*\bpip3?\s+(?:-\S+\s+)*install\b"  # !pip install, %pip install, !python -m pip -q install, !uv pip install
    r"|\bpip3?[\"'],\s*[\"']install\b"  # subprocess.run([sys.executable, "-m", "pip", "install", ...])
    r"|(?:system|run|call|check_call|check_output|Popen)\(\s*f?[\"'][^\"'\n]*\bpip3?\s+install\b"
    r"|\A\s*%%(?:bash|sh)\b[\s\S]*?^\s*pip3?\s+install\b)"
    r"(?![^\]!%]*--no-index)",
    re.MULTILINE,
)
_FETCHES = re.compile(
    r"^\s*!.*\b(?:wget|curl|git\s+clone|apt(?:-get)?\s+install|conda\s+install)\b.*"
    r"|\b(?:snapshot_download|hf_hub_download|load_dataset|urlretrieve|urlopen)\(|\b(?:kagglehub|wandb)\.\w+\(|\brequests\.(?:get|post)\(",
    re.MULTILINE,
)
_NAMED = re.compile(r"\.from_pretrained\(\s*[\"']([\w.-]+/[\w.-]+)[\"']")  # owner/model, as a hub calls it
_MOUNT = re.compile(r"[\"'](/kaggle/input/[^\"'\n]+)[\"']")
_INSTALLER = "arc_submit_install.py"


def check_cells(file: str, cells: list[dict[str, Any]], internet: bool) -> Iterator[Finding]:
    """The findings about a notebook's cells.

    Args:
        internet: whether the kernel will have it.
    """
    installed = internet
    for number, cell in enumerate(cells):
        place, source = f"cell {number}", source_of(cell)
        credential = credential_in(source)
        if credential:
            yield Finding("error", file, place, f"holds what looks like {credential}", "take it out, and revoke it where it was issued")
        if cell.get("cell_type") != "code":
            continue
        problem = _syntax_error(source)
        if problem:
            yield Finding("error", file, place, f"is not Python: {problem}", "correct it in the script, then make notebooks")
        source = re.sub(r"^\s*#.*$", "", source, flags=re.MULTILINE)
        if re.search(r"^\s*!", source, re.MULTILINE):
            problem = "runs a command with !, whose failure leaves the notebook green"
            yield Finding("warning", file, place, problem, "use subprocess.run(..., check=True)")
        mount = _MOUNT.search(source)
        if mount:
            problem = f"names {mount[1]}, and Kaggle mounts inputs in two layouts"
            yield Finding("warning", file, place, problem, "look for what is in it, as arc_submit.kaggle.inputs does")
        if not internet:
            yield from _needs_network(file, place, source)
        if not installed and imports_library([cell]) and _INSTALLER not in source:
            problem = "imports arc_submit, and no cell before it installs what is attached"
            yield Finding("error", file, place, problem, f"let the first cell run {_INSTALLER}, as those of notebooks/ do")
            installed = True  # said once
        installed |= _INSTALLER in source or "--no-index" in source


def imports_library(cells: list[dict[str, Any]]) -> bool:
    """Whether cells need arc_submit to be there."""
    return any(re.search(r"^\s*(from|import) arc_submit\b", source_of(cell), re.MULTILINE) for cell in cells)


def source_of(cell: dict[str, Any]) -> str:
    """A cell's text, whether the file holds it in one piece or in lines."""
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def _needs_network(file: str, place: str, source: str) -> Iterator[Finding]:
    if _INSTALLS.search(source):
        yield Finding("error", file, place, "installs from the network, which is off", "install from attached wheels, with --no-index")
    elif fetches := _FETCHES.search(source):
        yield Finding("warning", file, place, f"fetches with {fetches[0].strip()!r}, and the network is off", "attach it as a data set")
    if named := _NAMED.search(source):
        problem = f"loads {named[1]!r}, which is fetched where it is no folder, and the network is off"
        yield Finding("warning", file, place, problem, "attach the model and give its folder")
    if re.search(r"arc_submit\.kaggle\.wheels\b", source):
        yield Finding("error", file, place, "fetches wheels, and the network is off", "set enable_internet, and name no competition")


def _syntax_error(source: str) -> str:
    """Why a cell's Python cannot be run, empty where it can; cells with IPython's own commands are not judged."""
    if re.search(r"^\s*[!%]|^\S*\?{1,2}$|\?{1,2}\s*$|=\s*[!%]", source, re.MULTILINE):
        return ""
    try:
        ast.parse(source)  # which takes an await outside of functions, as notebooks do
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"line {line}: {getattr(error, 'msg', error)}" if line else str(error)
    return ""
