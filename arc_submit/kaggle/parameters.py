"""Refuses a parameter that a notebook does not have: papermill only warns of it, and the run goes on without it.

papermill puts the parameters it is given into a cell of its own, behind the notebook's cell of parameters, and makes numbers of texts that
look like one. Does not know what a parameter means.
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from arc_submit.arc.files import read_json
from arc_submit.errors import ConfigError

_INJECTED = "# Parameters\n"  # how papermill's cell begins


def check_parameters(cells: Sequence[str] | None = None, options: Collection[str] = ()) -> None:
    """Check the parameters that papermill has put into the notebook that calls this.

    Args:
        cells: the sources of the cells that have run; None takes those of this notebook.
        options: names that the notebook takes beside those that its cell of parameters sets.

    Raises:
        ConfigError: naming the parameters that the notebook does not have.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    sources = list(shell.user_ns.get("In", ()) if cells is None and shell is not None else cells or ())
    for before, injected in pairwise(sources):
        if not injected.startswith(_INJECTED):
            continue
        _refuse_unknown(_assigned_names(injected), _assigned_names(before), options)


def check_given_parameters(notebook: dict[str, Any], names: Collection[str], options: Collection[str]) -> None:
    """Check the parameters that a notebook is to be given before it is run.

    Args:
        names: of the parameters.
        options: names that a notebook takes beside its own where its code calls check_parameters with options.

    Raises:
        ConfigError: naming the parameters that the notebook does not have.
    """
    own, takes_more = _own_parameters(notebook)
    _refuse_unknown(names, own, options if takes_more else ())


def takes_parameter(notebook: dict[str, Any], name: str, options: Collection[str]) -> bool:
    """Whether a notebook has a parameter, its own or one of the options."""
    own, takes_more = _own_parameters(notebook)
    return name in own or (takes_more and name in options)


def _own_parameters(notebook: dict[str, Any]) -> tuple[set[str], bool]:
    """The names that a notebook's cell of parameters sets, and whether it takes options too."""
    own = {name for source in _code_of(notebook, "parameters") for name in _assigned_names(source)}
    return own, any("check_parameters(options=" in source for source in _code_of(notebook))


def _code_of(notebook: dict[str, Any], tag: str | None = None) -> list[str]:
    """The sources of a notebook's cells of code, of those with a tag where one is given."""
    cells = [cell for cell in notebook.get("cells", ()) if cell.get("cell_type") == "code"]
    return ["".join(cell["source"]) for cell in cells if tag is None or tag in cell.get("metadata", {}).get("tags", ())]


def _refuse_unknown(names: Collection[str], known: Collection[str], options: Collection[str]) -> None:
    """Raise ConfigError where a name is neither known nor an option."""
    if unknown := sorted(set(names) - set(known) - set(options)):
        close = difflib.get_close_matches(unknown[0], {*known, *options}, 1)
        all_of_a_run = " and every option of a run (docs/usage.md)" if options else ""
        remedy = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(known)) or 'none'}{all_of_a_run}"
        raise ConfigError(f"this notebook has no parameter {', '.join(unknown)}; {remedy}")


def task_of(value: Any, challenges: str | Path | None = None) -> str:
    """A task's id from a parameter: papermill makes the number 576224 of the id 00576224.

    Args:
        challenges: the file that holds the task; ids of ARC have eight digits.

    Raises:
        ConfigError: where the id cannot be told from the number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        in_file = challenges is not None and str(value) in read_json(Path(challenges))
        return str(value) if in_file else f"{value:08d}"
    if not isinstance(value, str):
        raise ConfigError(f"task = {value!r}: papermill has made a number of the id; give it with papermill -r task ID")
    return value


def _assigned_names(source: str) -> set[str]:
    """The names that a cell of parameters sets."""
    return {
        target.id
        for node in ast.parse(source).body
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else [])
        if isinstance(target, ast.Name)
    }
