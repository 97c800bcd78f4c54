"""The values that a notebook gives to a name, as far as they are known without running it. Does not know what a name means."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from arc_submit.kaggle.cell_commands import parse_cell
from arc_submit.kaggle.cell_values import UNKNOWN, Values


def given_values(cells: Sequence[str], name: str) -> list[str | float]:
    """Every text or number that cells give to a variable, a keyword argument or a dictionary's key of a name."""
    found: list[str | float] = []
    trees = [tree for tree in map(parse_cell, cells) if tree]
    values = Values()
    values.bind_calls(trees)
    for tree in trees:
        values.read(tree)
        for node in ast.walk(tree):
            given: list[tuple[Any, Any]] = []
            if isinstance(node, ast.Assign):
                given = [pair for target in node.targets for pair in _paired(target, node.value)]
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr | ast.AugAssign):
                given = [(node.target, node.value)]
            elif isinstance(node, ast.keyword) and node.arg == name:
                found += values.known(node.value)
            elif isinstance(node, ast.Dict):
                given = [(ast.Name(getattr(key, "value", "")), value) for key, value in zip(node.keys, node.values, strict=True)]
            found += [value for target, one in given if _named(target) == name for value in values.known(one)]
    return [value for value in dict.fromkeys(found) if not (isinstance(value, str) and UNKNOWN in value)]


def _named(target: Any) -> str | None:
    """The name that a target gives a value: a variable's, or the key of `globals()["NAME"]` and the like."""
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        return str(target.slice.value)
    return getattr(target, "id", None)


def _paired(target: Any, value: Any) -> list[tuple[Any, Any]]:
    """Each target of an assignment with its value: `a, b = 1, 2` has two."""
    if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        return list(zip(target.elts, value.elts, strict=False))
    return [(target, value)]
