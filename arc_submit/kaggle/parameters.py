"""Refuses a parameter that a notebook does not have: papermill only warns of it, and the run goes on without it.

papermill puts the parameters it is given into a cell of its own, behind the notebook's cell of parameters. Does not know notebooks' files.
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Collection, Sequence
from itertools import pairwise

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
        known = _assigned_names(before)
        if unknown := sorted(_assigned_names(injected) - known - set(options)):
            close = difflib.get_close_matches(unknown[0], known | set(options), 1)
            all_of_a_run = " and every option of a run (docs/usage.md)" if options else ""
            remedy = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(known))}{all_of_a_run}"
            raise ConfigError(f"this notebook has no parameter {', '.join(unknown)}; {remedy}")


def _assigned_names(source: str) -> set[str]:
    """The names that a cell of parameters sets."""
    return {
        target.id
        for node in ast.parse(source).body
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else [])
        if isinstance(target, ast.Name)
    }
