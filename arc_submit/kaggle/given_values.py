"""The values that a notebook gives to a name, as far as they are known without running it. Does not know what a name means."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

from arc_submit.kaggle.cell_commands import parse_cell

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {ast.Mult: operator.mul, ast.Add: operator.add, ast.Sub: operator.sub}


def given_values(cells: Sequence[str], name: str) -> list[str | float]:
    """Every text or number that cells give to a variable, a keyword argument or a dictionary's key of a name."""
    found: list[str | float] = []
    for tree in map(parse_cell, cells):
        for node in ast.walk(tree) if tree else ():
            given: list[tuple[Any, Any]] = []
            if isinstance(node, ast.Assign):
                given = [pair for target in node.targets for pair in _paired(target, node.value)]
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
                given = [(node.target, node.value)]
            elif isinstance(node, ast.keyword) and node.arg == name:
                found += _known_values(node.value)
            elif isinstance(node, ast.Dict):
                given = [(ast.Name(getattr(key, "value", "")), value) for key, value in zip(node.keys, node.values, strict=True)]
            found += [value for target, one in given if getattr(target, "id", None) == name for value in _known_values(one)]
    return list(dict.fromkeys(found))


def _paired(target: Any, value: Any) -> list[tuple[Any, Any]]:
    """Each target of an assignment with its value: `a, b = 1, 2` has two."""
    if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        return list(zip(target.elts, value.elts, strict=False))
    return [(target, value)]


def _known_values(node: Any) -> list[str | float]:
    """What an expression may be: a constant, those of a list, a sum or a product of numbers, either side of a condition."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str | int | float) and not isinstance(node.value, bool) else []
    if isinstance(node, ast.List | ast.Tuple):
        return [value for one in node.elts for value in _known_values(one)]
    if isinstance(node, ast.IfExp):
        return [*_known_values(node.body), *_known_values(node.orelse)]
    if isinstance(node, ast.BoolOp):
        return [value for one in node.values for value in _known_values(one)]
    if isinstance(node, ast.Call) and len(node.args) == 1 and ast.unparse(node.func) in ("int", "float", "str", "round"):
        return _known_values(node.args[0])
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        sides = [[value for value in _known_values(side) if not isinstance(value, str)] for side in (node.left, node.right)]
        return [_OPERATORS[type(node.op)](left, right) for left in sides[0] for right in sides[1]]
    return []
