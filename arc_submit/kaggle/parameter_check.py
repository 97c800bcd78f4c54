"""Checks the values that a notebook's cell of parameters sets, before it is pushed: as a run reads them, and by the names that it has.

A notebook takes every option of a run where its code calls run_parameters. Does not know what an option means.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Collection, Iterator
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.kaggle.cell_commands import parse_cell
from arc_submit.kaggle.findings import Finding
from arc_submit.kaggle.notebook_check import source_of
from arc_submit.run.presets import check_keywords, keyword_names

_DURATIONS = ("budget", "rerun_budget")
_OF_ALL = ("preset", "rerun_budget")  # keywords that are no option of a run


def check_values(file: str, notebook: dict[str, Any], reported: Collection[str]) -> Iterator[Finding]:
    """The findings about the constants in the cells that are tagged "parameters".

    Args:
        reported: places of findings that are known; a parameter with one of these names is not reported again.
    """
    sources = [source_of(cell) for cell in notebook.get("cells", ()) if cell.get("cell_type") == "code"]
    parameters = [source_of(cell) for cell in notebook.get("cells", ()) if "parameters" in cell.get("metadata", {}).get("tags", ())]
    options = keyword_names()
    takes_options = any("run_parameters(" in source for source in sources)
    given = dict(pair for source in parameters for pair in _constants(source))
    for name, value in given.items():
        if name in reported:
            continue
        if name in options:
            yield from _check_value(file, name, value, given)
        elif takes_options and not any(re.search(rf"\b{name}\b", source) for source in sources if source not in parameters):
            close = difflib.get_close_matches(name, options, 1, 0.8)
            problem = "is no option of a run, and no other cell uses it, so it changes nothing"
            remedy = f"did you mean {close[0]}?" if close else "write an option of docs/usage.md, or remove it"
            yield Finding("error" if close else "warning", file, name, problem, remedy)


def _check_value(file: str, name: str, value: Any, given: dict[str, Any]) -> Iterator[Finding]:
    """Whether a run takes a constant as the value of an option; `given` has all constants."""
    if name in _OF_ALL:
        wanted = str if name == "preset" else (str, int, float)
        if value is not None and (isinstance(value, bool) or not isinstance(value, wanted)):
            kind = "a duration" if name in _DURATIONS else "a text"
            yield Finding("error", file, name, f"{value!r}: {kind} is needed", 'write "11h30m"' if name in _DURATIONS else "write its name")
        return
    try:
        check_keywords({name: value} | {one: given.get(one) for one in ("source", "sources_file") if name == "sources"})
    except ConfigError as error:
        yield Finding("error", file, name, str(error), "correct it in the cell of parameters")


def _constants(source: str) -> Iterator[tuple[str, Any]]:
    """The names that a cell sets to a constant, a list of constants or a dictionary, with the value."""
    tree = parse_cell(source)
    for node in tree.body if tree else ():
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            if not isinstance(target, ast.Name) or not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            try:
                yield target.id, ast.literal_eval(node.value)
            except (ValueError, TypeError, MemoryError, RecursionError):
                continue  # computed
