"""What the expressions of a notebook's cells may be, as far as the cells tell without being run.

A name may have several values: those of a loop's list, of the branches of a condition, of a function's calls and defaults. A part of a text
that is not known is UNKNOWN. Does not know what a name or a text means.
"""

from __future__ import annotations

import ast
import itertools
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

UNKNOWN = "?"  # stands for a part of a text that is not known
_MOST = 40  # values of an expression that are looked at
_DEPTH = 8  # of names that stand for expressions with names
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_SAME = ("int", "float", "str", "round", "Path", "pathlib.Path", "PurePosixPath", "os.path.expanduser", "os.fspath", "repr")
_TEXT_METHODS = ("strip", "lower", "upper", "rstrip", "lstrip")
Known = str | int | float
T = TypeVar("T")


class Values:
    """The expressions that names, attributes and entries of dictionaries are given, cell by cell in their order."""

    def __init__(self) -> None:
        self._given: dict[str, list[ast.expr]] = {}
        self._arguments: dict[str, list[ast.expr]] = {}
        self._functions: dict[str, ast.arguments] = {}
        self._open: set[str] = set()  # names whose values are being looked up

    def bind_calls(self, trees: Sequence[ast.Module]) -> None:
        """Give the parameters of the notebook's functions what all cells call them with, and their defaults."""
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._functions[node.name] = node.args
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and isinstance(node.targets[0], ast.Name):
                self._functions[node.targets[0].id] = node.value.args
        for arguments in self._functions.values():
            named = [*arguments.posonlyargs, *arguments.args]
            for argument, default in zip(named[len(named) - len(arguments.defaults) :], arguments.defaults, strict=True):
                self._arguments.setdefault(argument.arg, []).append(default)
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self._functions:
                arguments = self._functions[node.func.id]
                names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
                given = [*zip(names, node.args, strict=False), *((one.arg, one.value) for one in node.keywords if one.arg)]
                for name, value in given:
                    self._arguments.setdefault(name, []).append(value)
                if arguments.vararg:
                    rest = ast.List(list(node.args[len(names) :]), ast.Load())
                    self._arguments.setdefault(arguments.vararg.arg, []).append(rest)

    def read(self, tree: ast.Module) -> None:
        """Take what a cell gives: at its top level in place of what was known, and inside of a branch beside it."""
        top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            for target, value in _assigned(node):
                name = ast.unparse(target)
                if isinstance(node, ast.AugAssign):
                    old = self._given.get(name) or [ast.Constant(UNKNOWN)]
                    self._given[name] = [ast.BinOp(one, node.op, value) for one in old]
                elif id(node) in top and isinstance(node, ast.Assign | ast.AnnAssign):
                    self._given[name] = [value]
                else:
                    self._given.setdefault(name, []).append(value)
                if isinstance(value, ast.Dict):
                    entries = zip(value.keys, value.values, strict=True)
                    self._given |= {f"{name}[{key.value!r}]": [one] for key, one in entries if isinstance(key, ast.Constant)}
                elif isinstance(value, ast.Call) and ast.unparse(value.func) == "dict":
                    self._given |= {f"{name}[{one.arg!r}]": [one.value] for one in value.keywords}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("append", "extend") and node.args:
                name = ast.unparse(node.func.value)
                more = ast.List([node.args[0]], ast.Load()) if node.func.attr == "append" else node.args[0]
                self._given[name] = [ast.BinOp(one, ast.Add(), more) for one in self._given.get(name, ())]
            elif isinstance(node, ast.ClassDef):
                for part in node.body:
                    for target, value in _assigned(part):
                        self._given[f"{node.name}.{ast.unparse(target)}"] = [value]

    def expressions(self, name: str) -> list[ast.expr]:
        """What a name, an attribute or an entry is given."""
        return [*self._given.get(name, ()), *self._arguments.get(name, ())]

    def texts(self, node: ast.expr) -> list[str]:
        """The texts that an expression may be, with UNKNOWN for parts that are not known; empty where none is known at all."""
        return [value for value in self.known(node) if isinstance(value, str)]

    def known(self, node: ast.expr, depth: int = _DEPTH) -> list[Known]:
        """The texts and numbers that an expression may be."""
        return list(dict.fromkeys(itertools.islice(self._known(node, depth), _MOST)))

    def words(self, node: ast.expr, depth: int = _DEPTH) -> list[list[str]]:
        """The lists of words that an expression may be, from a list, a tuple or a text that is split; empty for another expression."""
        return list(itertools.islice(self._words(node, depth), _MOST))

    def _known(self, node: ast.expr, depth: int) -> Iterator[Known]:
        if depth < 0:
            return
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str | int | float) and not isinstance(node.value, bool):
                yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [[str(one.value)] if isinstance(one, ast.Constant) else self._parts(one.value, depth) for one in node.values]  # type: ignore[attr-defined]
            yield from ("".join(one) for one in itertools.islice(itertools.product(*parts), _MOST))
        elif isinstance(node, ast.BinOp):
            yield from self._combined(node, depth)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            yield from (sign * value for value in self.known(node.operand, depth) if not isinstance(value, str))
        elif isinstance(node, ast.IfExp | ast.BoolOp):
            for one in (node.body, node.orelse) if isinstance(node, ast.IfExp) else node.values:
                yield from self.known(one, depth)
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            for one in node.elts:
                yield from self.known(one, depth)
        elif isinstance(node, ast.Starred | ast.NamedExpr | ast.Await):
            yield from self._elements(node.value, depth) if isinstance(node, ast.Starred) else self.known(node.value, depth)
        elif isinstance(node, ast.Call):
            yield from self._called(node, depth)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            yield from self._of_name(ast.unparse(node), lambda one: self.known(one, depth - 1))

    def _of_name(self, name: str, values: Callable[[ast.expr], list[T]]) -> list[T]:
        """The values of what a name is given; none of a name inside of its own expressions."""
        if name in self._open:
            return []
        self._open.add(name)
        found = [value for one in self.expressions(name)[:_MOST] for value in values(one)]
        self._open.remove(name)
        return found

    def _elements(self, node: ast.expr, depth: int) -> Iterator[Known]:
        """What each turn of a loop over an expression has."""
        for words in self.words(node, depth):
            yield from words

    def _parts(self, node: ast.expr, depth: int) -> list[str]:
        """The texts that a part of a text may be."""
        return [f"{value}" for value in self.known(node, depth)] or [UNKNOWN]

    def _combined(self, node: ast.BinOp, depth: int) -> Iterator[Known]:
        """Sums and the like of numbers; texts that are put together, by % and by / of paths too."""
        left, right = self.known(node.left, depth), self.known(node.right, depth)
        texts = [one for one in (*left, *right) if isinstance(one, str)]
        if isinstance(node.op, ast.Mod) and any(isinstance(one, str) for one in left):
            values = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
            parts = tuple(self._parts(value, depth)[0] for value in values)
            for text in (re.sub("%[dif]", "%s", one) for one in left if isinstance(one, str)):
                yield text % parts if text.count("%s") == len(parts) and text.count("%") == len(parts) else text
        elif texts and isinstance(node.op, ast.Add | ast.Div):
            between = "/" if isinstance(node.op, ast.Div) else ""
            pairs = itertools.product(left or [UNKNOWN], right or [UNKNOWN])
            yield from (f"{one}{between}{other}" for one, other in itertools.islice(pairs, _MOST))
        elif not texts and (type(node.op) in _BINARY or isinstance(node.op, ast.Pow)):
            numbers: list[Any] = [*left]
            for one, other in itertools.product(numbers, right):
                if isinstance(node.op, ast.Pow):
                    yield from [one**other] if isinstance(other, int) and 0 <= other <= 6 and abs(one) < 1e4 else []
                elif other or not isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod):
                    yield _BINARY[type(node.op)](one, other)

    def _called(self, node: ast.Call, depth: int) -> Iterator[Known]:
        """What a call gives of texts, paths and numbers, and of the environment with a default."""
        name = ast.unparse(node.func)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name in _SAME and node.args:
            first = self.known(node.args[0], depth)
            yield from map(str, first) if name == "str" else first
        elif name in ("min", "max", "sum"):
            numbers = [[one for one in self.known(argument, depth) if not isinstance(one, str)] for argument in node.args]
            numbers = [[one] for one in numbers[0]] if len(numbers) == 1 else numbers
            if numbers and all(numbers):
                last = [one[-1] for one in numbers]
                yield min(last) if name == "min" else max(last) if name == "max" else sum(last)
        elif name in ("os.path.join", "Path", "pathlib.Path"):
            yield "/".join(self._parts(argument, depth)[0] for argument in node.args)
        elif name in ("os.environ.get", "os.getenv", "environ.get", "getenv") or method in ("get", "setdefault"):
            yield from self.known(node.args[1], depth) if len(node.args) > 1 else ()
        elif method == "join" and len(node.args) == 1 and isinstance(node.func, ast.Attribute):
            for between, words in itertools.product(self.texts(node.func.value), self.words(node.args[0], depth) or [[UNKNOWN]]):
                yield between.join(words)
        elif method == "format" and isinstance(node.func, ast.Attribute):
            parts = [self._parts(argument, depth)[0] for argument in node.args]
            named = {one.arg or "": self._parts(one.value, depth)[0] for one in node.keywords}
            for text in self.texts(node.func.value):
                try:
                    yield text.format(*parts, **named)
                except (IndexError, KeyError, ValueError, AttributeError):
                    yield text
        elif method in (*_TEXT_METHODS, "as_posix", "resolve", "replace", "removesuffix") and isinstance(node.func, ast.Attribute):
            texts = self.texts(node.func.value)
            yield from (getattr(text, method)() for text in texts) if method in _TEXT_METHODS and not node.args else texts

    def _words(self, node: ast.expr, depth: int) -> Iterator[list[str]]:
        if depth < 0:
            return
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            parts: list[list[list[str]]] = []
            for one in node.elts:
                inner = self.words(one.value, depth) if isinstance(one, ast.Starred) else []
                single = ["python"] if ast.unparse(one) == "sys.executable" else self._parts(one, depth)
                parts.append((inner or [[UNKNOWN]]) if isinstance(one, ast.Starred) else [[word] for word in single])
            yield from ([word for part in chosen for word in part] for chosen in itertools.islice(itertools.product(*parts), _MOST))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self.words(node.left, depth), self.words(node.right, depth)
            if left or right:
                yield from (one + other for one, other in itertools.product(left or [[UNKNOWN]], right or [[UNKNOWN]]))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("split", "splitlines"):
            given = node.args[0] if ast.unparse(node.func) == "shlex.split" and node.args else node.func.value
            yield from (text.splitlines() if node.func.attr == "splitlines" else text.split() for text in self.texts(given))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "tuple", "sorted", "set") and node.args:
            yield from self.words(node.args[0], depth)
        elif isinstance(node, ast.IfExp | ast.BoolOp):
            for one in (node.body, node.orelse) if isinstance(node, ast.IfExp) else node.values:
                yield from self.words(one, depth)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            yield from self._of_name(ast.unparse(node), lambda one: self.words(one, depth - 1))


def _assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each target that a statement gives a value, with the expression; a loop's target with the starred list."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple | ast.List) and isinstance(node.value, ast.Tuple | ast.List):
                yield from zip(target.elts, node.value.elts, strict=False)
            else:
                yield target, node.value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr | ast.AugAssign) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield node.target, ast.Starred(node.iter, ast.Load())
