"""Whether a program of the Python subset wants its input as an array or as a list of lists.

An array is what a program is told it gets; a list is for one that says so, or that does with its input what only lists can. One that does
neither what only arrays can gets a list where it fails with an array. Does not run programs.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from enum import StrEnum

_LIST_TYPES = ("list", "List", "Sequence", "Iterable")
_LIST_METHODS = ("append", "extend", "insert", "remove", "pop", "clear", "index", "count", "reverse")
_ARRAY_PROPERTIES = ("shape", "size", "ndim", "T", "dtype", "flat")
_ARRAY_METHODS = (
    *("sum", "max", "min", "any", "all", "mean", "argmax", "argmin", "astype", "flatten", "ravel", "reshape", "transpose", "tolist"),
    *("nonzero", "repeat", "argsort", "cumsum", "cumprod", "prod", "clip", "round", "fill", "item", "dot", "squeeze", "swapaxes", "std"),
    *("var", "take", "diagonal", "trace"),
)


def is_list_type(annotation: ast.expr | None) -> bool:
    """Whether an annotation of a parameter names a list."""
    match annotation:
        case ast.Subscript(value=value):
            return is_list_type(value)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in _LIST_TYPES
        case ast.Constant(value=str(text)):
            return text.split("[")[0] in _LIST_TYPES
    return False


class InputType(StrEnum):
    """What a program gets as its input."""

    ARRAY = "array"
    LIST = "list"
    EITHER = "either"  # an array, and a list where the program fails with that


def input_type(tree: ast.Module, entry: ast.FunctionDef) -> InputType:
    """What a program wants by what it does with its input or rows of it: LIST for what only lists can, ARRAY for what only arrays can."""
    parameters = entry.args.args
    if not parameters:
        return InputType.ARRAY
    names = _names_of_the_input(tree, parameters[0].arg)

    def of_input(node: ast.expr) -> bool:
        return _is_of_input(node, names)

    as_list = False
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=value, slice=ast.Tuple()) if of_input(value):
                return InputType.ARRAY
            case ast.Attribute(value=value, attr=name) if of_input(value):
                if name in _ARRAY_PROPERTIES or name in _ARRAY_METHODS:
                    return InputType.ARRAY
                as_list |= name in _LIST_METHODS
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                as_list |= (of_input(left) and _makes_list(right)) or (of_input(right) and _makes_list(left))
            case ast.AugAssign(target=target, op=ast.Add(), value=value):
                as_list |= of_input(target) and _makes_list(value)
            case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=row), iter=rows), *_]) if of_input(rows):
                as_list |= _copies_or_joins(element, {row})
            case ast.Delete(targets=targets):
                as_list |= any(isinstance(one, ast.Subscript) and of_input(one.value) for one in targets)
    return InputType.LIST if as_list else InputType.EITHER


def _names_of_the_input(tree: ast.Module, parameter: str) -> set[str]:
    """The names that hold nothing but the input, its rows or parts of these."""
    bound: dict[str, list[ast.expr | None]] = {}

    def bind(target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Tuple) and len(target.elts) == 2 and isinstance(value, ast.Call) and _is_call(value, "enumerate"):
            bind(target.elts[0], None)
            bind(target.elts[1], value.args[0])
        elif isinstance(target, ast.Name):
            bound.setdefault(target.id, []).append(value)
        else:
            for one in ast.walk(target):
                if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load):
                    bound.setdefault(one.id, []).append(None)

    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    bind(target, value)
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                bind(target, value)
            case ast.arg(arg=name) if name != parameter:
                bound.setdefault(name, []).append(None)
    names: set[str] = set() if parameter in bound else {parameter}
    _grow(names, lambda: {name for name, values in bound.items() if all(one is not None and _is_of_input(one, names) for one in values)})
    return names


def _grow(names: set[str], find: Callable[[], set[str]]) -> None:
    while more := find() - names:
        names |= more


def _is_call(node: ast.Call, name: str) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == name and bool(node.args)


def _is_of_input(node: ast.expr, names: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in names
        case ast.Subscript(value=value):
            return _is_of_input(value, names)
        case ast.Call(func=ast.Attribute(value=value, attr="copy"), args=[]):
            return _is_of_input(value, names)
        case ast.Call(func=ast.Attribute(attr="deepcopy") | ast.Name(id="deepcopy"), args=[value]):
            return _is_of_input(value, names)
    return False


def _copies_or_joins(element: ast.expr, rows: set[str]) -> bool:
    """Whether an element is a copy of a row, where a row of an array would be a view, or rows one behind the other, such as a mirror."""
    match element:
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Slice(lower=None, upper=None, step=None)):
            return name in rows
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _is_of_input(left, rows) and _is_of_input(right, rows)
    return False


def _makes_list(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="list" | "sorted")):
            return True
        case ast.List() | ast.ListComp():
            return True
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _makes_list(left) or _makes_list(right)
    return False
