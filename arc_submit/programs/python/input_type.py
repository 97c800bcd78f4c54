"""Whether a program of the Python subset wants its input as an array or as a list of lists.

An array is what a program is told it gets; a list is for one that says so, or that does with its input what only lists can. One that does
neither what only arrays can gets a list where it fails with an array. Does not run programs.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from enum import StrEnum
from typing import TypeGuard

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
    bound = _bindings(tree, parameters[0].arg)
    names = _names_of_the_input(bound, parameters[0].arg)
    cut = {name for name, values in bound.items() if all(one is not None and _cuts_rows(one, names) for one in values)}

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
            case ast.Assign(value=value) | ast.Call(func=ast.Attribute(attr="append"), args=[value]) if _copies_row(value, bound, names):
                as_list = True
            case ast.Call(func=ast.Name(id="set" | "frozenset" | "sorted" | "Counter"), args=[ast.BinOp() as value, *_]):
                as_list |= _joins(value, names)  # the colours of several rows
            case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=row), iter=rows), *_]):
                if of_input(rows) or (isinstance(rows, ast.Name) and rows.id in cut):
                    as_list |= _copies_or_joins(element, {row})
            case ast.Delete(targets=targets):
                as_list |= any(isinstance(one, ast.Subscript) and of_input(one.value) for one in targets)
    return InputType.LIST if as_list else InputType.EITHER


_Bound = dict[str, list[ast.expr | None]]


def _bindings(tree: ast.Module, parameter: str) -> _Bound:
    """What each name but the input's is bound to; None: something else. A loop binds its name to an element of what it goes through."""
    bound: _Bound = {}

    def bind(target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            bound.setdefault(target.id, []).append(value)
            return
        for one in ast.walk(target):
            if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load):
                bound.setdefault(one.id, []).append(None)

    def bind_element(target: ast.expr, through: ast.expr) -> None:
        match target, through:
            case ast.Tuple(elts=[number, element]), ast.Call(func=ast.Name(id="enumerate"), args=[inner, *_]):
                bind(number, None)
                bind(element, _element(inner))
            case _:
                bind(target, _element(through))

    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    bind(target, value)
            case ast.For(target=target, iter=through) | ast.comprehension(target=target, iter=through):
                bind_element(target, through)
            case ast.arg(arg=name) if name != parameter:
                bound.setdefault(name, []).append(None)
    return bound


def _element(of: ast.expr) -> ast.expr:
    return ast.Subscript(of, ast.Constant(0), ast.Load())


def _names_of_the_input(bound: _Bound, parameter: str) -> set[str]:
    """The names that hold nothing but the input, its rows or parts of these."""
    names: set[str] = set() if parameter in bound else {parameter}
    _grow(names, lambda: {name for name, values in bound.items() if all(one is not None and _is_of_input(one, names) for one in values)})
    return names


def _grow(names: set[str], find: Callable[[], set[str]]) -> None:
    while more := find() - names:
        names |= more


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
    return (_is_whole_slice(element) and isinstance(element.value, ast.Name) and element.value.id in rows) or _joins(element, rows)


def _is_whole_slice(node: ast.expr) -> TypeGuard[ast.Subscript]:
    match node:
        case ast.Subscript(slice=ast.Slice(lower=None, upper=None, step=None)):
            return True
    return False


def _joins(node: ast.expr, names: set[str]) -> bool:
    """Whether an expression puts parts of the input one behind the other, new lists among them perhaps."""
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [_is_of_input(one, names) or _joins(one, names) for one in (left, right)]
            return any(parts) and all(part or _makes_list(one) for part, one in zip(parts, (left, right), strict=True))
    return False


def _copies_row(node: ast.expr, bound: _Bound, names: set[str]) -> bool:
    """Whether an expression is `row[:]` of a row of the input, which copies a list alone."""
    return _is_whole_slice(node) and _is_of_input(node, names) and _is_row(node.value, bound)


def _is_row(node: ast.expr, bound: _Bound) -> bool:
    """Whether an expression of the input is an element of it, or a part of one."""
    # Each name is looked up once: names that are bound to each other many times have too many paths to follow all.
    left, seen = [node], set[str]()
    while left:
        match left.pop():
            case ast.Subscript(value=value, slice=ast.Slice()):
                left.append(value)
            case ast.Subscript():
                return True
            case ast.Name(id=name) if name not in seen:
                seen.add(name)
                left += [one for one in bound.get(name, ()) if one is not None]
    return False


def _cuts_rows(node: ast.expr, names: set[str]) -> bool:
    """Whether an expression is a list of parts of the input's rows, such as a crop."""
    match node:
        case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=row), iter=rows)]):
            return _is_of_input(rows, names) and _is_of_input(element, {row})
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
