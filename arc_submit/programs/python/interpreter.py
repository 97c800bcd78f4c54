"""The interpreter of the Python subset: each node of a checked tree becomes a function of the variables, and running calls them.

Nothing of a program becomes Python code. Every statement, iteration, call and value goes through the meter. Does not know processes.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.arrays import array_property, dtype_of, guard_index, is_property, make_array_methods, make_numpy
from arc_submit.programs.python.functions import COMPARISONS, OPERATORS, Builtin, guard_broadcast, make_builtins, make_methods
from arc_submit.programs.python.meter import VIEWS, Limits, Meter, kind_of
from arc_submit.programs.python.subset import NUMPY_NAMES, bound_names, entry_of


class Frame:
    """The variables of one call, and the frame in which its function was defined."""

    __slots__ = ("outer", "variables")

    def __init__(self, outer: Frame | None):
        self.variables: dict[str, Any] = {}
        self.outer = outer


Expression = Callable[[Frame], Any]
Statement = Callable[[Frame], Any]  # None: go on; _BREAK, _CONTINUE; a tuple of one: the value returned
Assignment = Callable[[Frame, Any], None]
_BREAK, _CONTINUE = object(), object()
_NUMBERS = (int, float)
_QUICK_TO_SEARCH = (dict, set, frozenset, range, VIEWS[0])


class Function:
    """A function of a program: a value that can be called."""

    __slots__ = ("body", "defaults", "frame", "meter", "name", "parameters", "rest")

    def __init__(self, name: str, parameters: Sequence[str], rest: str | None, body: Expression):
        self.name, self.parameters, self.rest, self.body = name, parameters, rest, body
        self.meter: Meter
        self.frame: Frame
        self.defaults: dict[str, Any] = {}

    def bind(self, meter: Meter, frame: Frame, defaults: dict[str, Any]) -> Function:
        """The function as a value, in the frame in which its definition is reached."""
        value = Function(self.name, self.parameters, self.rest, self.body)
        value.meter, value.frame, value.defaults = meter, frame, defaults
        return value

    def __repr__(self) -> str:
        return f"<function {self.name}>"  # without an address: messages of Python show it

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        meter, parameters = self.meter, self.parameters
        frame = Frame(self.frame)
        variables = frame.variables
        variables.update(self.defaults)
        variables.update(zip(parameters, arguments, strict=False))
        if self.rest is not None:
            variables[self.rest] = meter.made(arguments[len(parameters) :])
        elif len(arguments) > len(parameters):
            raise ProgramError(Refusal.TYPE, f"{self.name} takes {len(parameters)} arguments, {len(arguments)} are given")
        for name, value in keywords.items():
            if name not in parameters or name in parameters[: len(arguments)]:
                raise ProgramError(Refusal.TYPE, f"{self.name} does not take the keyword {name} here")
            variables[name] = value
        for name in parameters:
            if name not in variables:
                raise ProgramError(Refusal.TYPE, f"{self.name} lacks the argument {name}")
        meter.step()
        meter.depth += 1
        if meter.depth > meter.limits.depth:
            raise ProgramError(Refusal.STEPS, f"more than {meter.limits.depth} calls within each other")
        result = self.body(frame)
        meter.depth -= 1
        return result


class Program:
    """A checked tree, ready to run on inputs one after the other."""

    def __init__(self, tree: ast.Module, limits: Limits):
        self.meter = Meter(limits)
        self.entry = entry_of(tree).name
        self.builtins = make_builtins(self.meter)
        self.methods = make_methods(self.meter)
        self.numpy = make_numpy(self.meter)
        self.array_methods = make_array_methods(self.meter)
        self.body = [self._statement(node, [_own_names(tree)]) for node in tree.body if not isinstance(node, ast.Import)]

    def run(self, value: Any) -> Any:
        """What the program's function returns for a value.

        Raises:
            ProgramError: where a limit is exceeded.
            Exception: what Python and numpy raise for the operations.
        """
        self.meter.reset()
        frame = Frame(None)
        for statement in self.body:
            statement(frame)
        function = frame.variables.get(self.entry)
        if type(function) is not Function:
            raise ProgramError(Refusal.TYPE, f"{self.entry} is no function")
        return function(value)

    # Statements

    def _block(self, nodes: Sequence[ast.stmt], scopes: list[set[str]]) -> Statement:
        statements, meter = [self._statement(node, scopes) for node in nodes], self.meter

        def block(frame: Frame) -> Any:
            meter.steps_left -= len(statements)
            if meter.steps_left < 0:
                meter.step()
            for statement in statements:
                done = statement(frame)
                if done is not None:
                    return done
            return None

        return block

    def _statement(self, node: ast.stmt, scopes: list[set[str]]) -> Statement:
        match node:
            case ast.FunctionDef(name=name, args=arguments, body=body):
                make = self._function(name, arguments, body, scopes)
                store = self._store_name(name)
                return lambda frame: store(frame, make(frame))
            case ast.Return(value=value):
                result = self._expression(value, scopes) if value else _none
                return lambda frame: (result(frame),)
            case ast.Assign(targets=targets, value=value):
                result, stores = self._expression(value, scopes), [self._target(target, scopes) for target in targets]
                if len(stores) == 1:
                    only = stores[0]
                    return lambda frame: only(frame, result(frame))

                def assign(frame: Frame) -> None:
                    given = result(frame)
                    for store in stores:
                        store(frame, given)

                return assign
            case ast.AugAssign():
                return self._augmented(node, scopes)
            case ast.Expr(value=value):
                result = self._expression(value, scopes)

                def evaluate(frame: Frame) -> None:
                    result(frame)

                return evaluate
            case ast.If(test=test, body=body, orelse=orelse):
                condition, then, other = self._expression(test, scopes), self._block(body, scopes), self._block(orelse, scopes)
                if not orelse:
                    return lambda frame: then(frame) if condition(frame) else None
                return lambda frame: then(frame) if condition(frame) else other(frame)
            case ast.For():
                return self._for(node, scopes)
            case ast.While():
                return self._while(node, scopes)
            case ast.Break():
                return lambda frame: _BREAK
            case ast.Continue():
                return lambda frame: _CONTINUE
            case ast.Pass() | ast.Import():
                return _none
            case ast.Assert(test=test):
                condition = self._expression(test, scopes)

                def check(frame: Frame) -> None:
                    if not condition(frame):
                        raise ProgramError(Refusal.VALUE, "an assertion does not hold")

                return check
            case ast.Delete(targets=targets):
                deletions = [self._deletion(target, scopes) for target in targets]

                def delete(frame: Frame) -> None:
                    for deletion in deletions:
                        deletion(frame)

                return delete
        raise ProgramError(Refusal.FORBIDDEN, f"{type(node).__name__} is not part of the language")

    def _for(self, node: ast.For, scopes: list[set[str]]) -> Statement:
        values, store = self._expression(node.iter, scopes), self._target(node.target, scopes)
        body, orelse, meter = self._block(node.body, scopes), self._block(node.orelse, scopes), self.meter

        def loop(frame: Frame) -> Any:
            for value in meter.items(values(frame)):
                store(frame, value)
                done = body(frame)
                if done is not None:
                    if done is _BREAK:
                        return None
                    if done is not _CONTINUE:
                        return done
            return orelse(frame)

        return loop

    def _while(self, node: ast.While, scopes: list[set[str]]) -> Statement:
        condition, body, orelse = self._expression(node.test, scopes), self._block(node.body, scopes), self._block(node.orelse, scopes)

        def loop(frame: Frame) -> Any:
            while condition(frame):
                done = body(frame)
                if done is not None:
                    if done is _BREAK:
                        return None
                    if done is not _CONTINUE:
                        return done
            return orelse(frame)

        return loop

    def _augmented(self, node: ast.AugAssign, scopes: list[set[str]]) -> Statement:
        meter, name = self.meter, type(node.op).__name__
        compute, result = OPERATORS[name], self._expression(node.value, scopes)
        in_place = _IN_PLACE[name]

        def combined(value: Any, other: Any) -> Any:
            # What is changed in place is seen by every name of it, as in Python.
            if type(value) is list and name == "Add" and type(other) is not np.ndarray:
                value.extend(meter.made(list(meter.items(other))))
                return value
            if type(value) is list and name == "Mult" and isinstance(other, int | np.integer):
                meter.cells(len(value) * max(0, int(other)))
                return meter.made(in_place(value, int(other)))
            if type(value) is dict and name == "BitOr":
                meter.cells(meter.weight(other))
                return meter.made(in_place(value, other))
            if (type(value) is np.ndarray and name != "MatMult") or type(value) is set:
                guard_broadcast(meter, value, other)
                return meter.made(in_place(value, other))
            return compute(meter, value, other)

        if isinstance(node.target, ast.Subscript):
            container, index = self._expression(node.target.value, scopes), self._index(node.target.slice, scopes)

            def change(frame: Frame) -> None:
                held, place = container(frame), index(frame)
                self._set_item(held, place, combined(self._get_item(held, place), result(frame)))

            return change
        assert isinstance(node.target, ast.Name)
        load = self._load_name(node.target.id, scopes)
        store = self._store_name(node.target.id)
        return lambda frame: store(frame, combined(load(frame), result(frame)))

    def _target(self, node: ast.expr, scopes: list[set[str]]) -> Assignment:
        match node:
            case ast.Name(id=name):
                return self._store_name(name)
            case ast.Subscript(value=value, slice=place):
                container, index = self._expression(value, scopes), self._index(place, scopes)
                return lambda frame, given: self._set_item(container(frame), index(frame), given)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return self._unpacking(parts, scopes)
        raise ProgramError(Refusal.FORBIDDEN, f"{type(node).__name__} cannot be assigned")

    def _unpacking(self, parts: Sequence[ast.expr], scopes: list[set[str]]) -> Assignment:
        starred = next((i for i, part in enumerate(parts) if isinstance(part, ast.Starred)), None)
        if sum(isinstance(part, ast.Starred) for part in parts) > 1:
            raise ProgramError(Refusal.SYNTAX, f"line {parts[0].lineno}: several starred names in one assignment")
        stores = [self._target(part.value if isinstance(part, ast.Starred) else part, scopes) for part in parts]
        meter = self.meter

        def unpack(frame: Frame, given: Any) -> None:
            values = list(meter.items(given))
            if starred is not None:
                behind = len(stores) - starred - 1
                if len(values) < len(stores) - 1:
                    raise ProgramError(Refusal.VALUE, f"{len(values)} values for at least {len(stores) - 1} names")
                end = len(values) - behind
                values = [*values[:starred], meter.made(values[starred:end]), *values[end:]]
            if len(values) != len(stores):
                raise ProgramError(Refusal.VALUE, f"{len(values)} values for {len(stores)} names")
            for store, value in zip(stores, values, strict=True):
                store(frame, value)

        return unpack

    def _deletion(self, node: ast.expr, scopes: list[set[str]]) -> Statement:
        if isinstance(node, ast.Name):
            name = node.id
            return lambda frame: frame.variables.__delitem__(name)
        if isinstance(node, ast.Subscript):
            container, index = self._expression(node.value, scopes), self._index(node.slice, scopes)
            return lambda frame: operator.delitem(container(frame), index(frame))
        raise ProgramError(Refusal.FORBIDDEN, f"{type(node).__name__} cannot be deleted")

    # Names

    def _store_name(self, name: str) -> Assignment:
        return lambda frame, value: frame.variables.__setitem__(name, value)

    def _load_name(self, name: str, scopes: list[set[str]]) -> Expression:
        """A variable of the nearest scope that binds the name, otherwise a built-in function."""
        depth = next((i for i, scope in enumerate(reversed(scopes)) if name in scope), None)
        if depth is None:
            value = self.builtins.get(name)
            if value is None:  # bound elsewhere, in a function that this place does not see
                return lambda frame: _raise(ProgramError(Refusal.VALUE, f"the name {name} has no value here"))
            return lambda frame: value

        def load(frame: Frame) -> Any:
            here: Any = frame
            for _ in range(depth):
                here = here.outer
            try:
                return here.variables[name]
            except KeyError:
                raise ProgramError(Refusal.VALUE, f"the name {name} has no value yet") from None

        def load_own(frame: Frame) -> Any:
            try:
                return frame.variables[name]
            except KeyError:
                raise ProgramError(Refusal.VALUE, f"the name {name} has no value yet") from None

        return load if depth else load_own

    # Expressions

    def _expression(self, node: ast.expr, scopes: list[set[str]]) -> Expression:
        meter = self.meter
        match node:
            case ast.Constant(value=value):
                meter.made(value)
                return lambda frame: value
            case ast.Name(id=name):
                return self._load_name(name, scopes)
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(self._expression(left, scopes), type(op).__name__, self._expression(right, scopes))
            case ast.Compare():
                return self._comparison(node, scopes)
            case ast.BoolOp(op=op, values=values):
                *parts, last = [self._expression(one, scopes) for one in values]
                stop_at = isinstance(op, ast.Or)

                def chain(frame: Frame) -> Any:
                    for part in parts:
                        value = part(frame)
                        if bool(value) is stop_at:
                            return value
                    return last(frame)  # whose truth is not asked: it may be an array

                return chain
            case ast.UnaryOp(op=op, operand=operand):
                function, inner = _UNARY[type(op)], self._expression(operand, scopes)
                return lambda frame: meter.made(function(inner(frame)))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition, then, other = (self._expression(one, scopes) for one in (test, body, orelse))
                return lambda frame: then(frame) if condition(frame) else other(frame)
            case ast.Subscript(value=value, slice=place):
                container, index = self._expression(value, scopes), self._index(place, scopes)
                return lambda frame: self._get_item(container(frame), index(frame))
            case ast.Call():
                return self._call(node, scopes)
            case ast.Attribute():
                return self._attribute(node, scopes)
            case ast.List(elts=parts):
                return self._sequence(list, parts, scopes)
            case ast.Tuple(elts=parts):
                return self._sequence(tuple, parts, scopes)
            case ast.Set(elts=parts):
                return self._sequence(set, parts, scopes)
            case ast.Dict(keys=keys, values=values):
                if None in keys:
                    raise ProgramError(Refusal.FORBIDDEN, "** is not part of the language")
                pairs = [
                    (self._expression(key, scopes), self._expression(one, scopes)) for key, one in zip(keys, values, strict=True) if key
                ]
                return lambda frame: meter.made({key(frame): one(frame) for key, one in pairs})
            case ast.ListComp(elt=element, generators=generators):
                return self._collected(list, element, generators, scopes)
            case ast.SetComp(elt=element, generators=generators):
                return self._collected(set, element, generators, scopes)
            case ast.GeneratorExp(elt=element, generators=generators):
                return self._generator(element, generators, scopes)
            case ast.DictComp(key=key, value=value, generators=generators):
                both = ast.Tuple(elts=[key, value], ctx=ast.Load())
                return self._collected(dict, both, generators, scopes)
            case ast.JoinedStr(values=values):
                return self._joined(values, scopes)
            case ast.Lambda(args=arguments, body=body):
                return self._function("lambda", arguments, body, scopes)
        raise ProgramError(Refusal.FORBIDDEN, f"{type(node).__name__} is not part of the language")

    def _binary(self, left: Expression, name: str, right: Expression) -> Expression:
        meter, compute = self.meter, OPERATORS[name]
        plain = _PLAIN_OPERATORS.get(name)
        if plain is None:
            return lambda frame: compute(meter, left(frame), right(frame))
        top = 1 << 62

        def binary(frame: Frame) -> Any:
            a, b = left(frame), right(frame)
            # Small whole numbers are most of a program's arithmetic: their results stay below the limit.
            if type(a) is int and type(b) is int and -top < a < top and -top < b < top:
                return plain(a, b)
            return compute(meter, a, b)

        return binary

    def _comparison(self, node: ast.Compare, scopes: list[set[str]]) -> Expression:
        meter, first = self.meter, self._expression(node.left, scopes)
        names = [type(op).__name__ for op in node.ops]
        others = [self._expression(one, scopes) for one in node.comparators]

        def compared(name: str, left: Any, right: Any) -> Any:
            if type(left) not in _NUMBERS or type(right) not in _NUMBERS:
                if name in ("In", "NotIn"):
                    if type(right) not in (list, tuple, str, np.ndarray, dict, set, frozenset, range, *VIEWS):
                        raise ProgramError(Refusal.TYPE, f"in needs a container, not {kind_of(right)}")
                    meter.step(1 if type(right) in _QUICK_TO_SEARCH else len(right) // 8 + 1)
                elif name not in ("Is", "IsNot"):
                    if isinstance(left, np.dtype) and isinstance(right, Builtin):
                        right = dtype_of(right)
                    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
                        meter.step(meter.weight(left) // 16)
                    guard_broadcast(meter, left, right)
                    return meter.made(COMPARISONS[name](left, right))
            return COMPARISONS[name](left, right)

        if len(names) == 1:
            only, other = names[0], others[0]
            return lambda frame: compared(only, first(frame), other(frame))

        def chain(frame: Frame) -> Any:
            value, result = first(frame), None
            for name, other in zip(names, others, strict=True):
                following = other(frame)
                result = compared(name, value, following)
                if not result:
                    break
                value = following
            return result

        return chain

    def _sequence(self, kind: Callable[[Any], Any], parts: Sequence[ast.expr], scopes: list[set[str]]) -> Expression:
        meter = self.meter
        if any(isinstance(part, ast.Starred) for part in parts):
            read = self._spread(parts, scopes)
            return lambda frame: meter.made(kind(read(frame)))
        elements = [self._expression(part, scopes) for part in parts]

        def make(frame: Frame) -> Any:
            meter.cells_left -= len(elements)
            if meter.cells_left < 0:
                meter.cells(0)
            return kind([element(frame) for element in elements])

        return make

    def _joined(self, values: Sequence[ast.expr], scopes: list[set[str]]) -> Expression:
        meter, text = self.meter, self.builtins["str"]
        parts = [self._expression(one.value if isinstance(one, ast.FormattedValue) else one, scopes) for one in values]

        def join(frame: Frame) -> str:
            texts = [text(part(frame)) for part in parts]
            meter.cells(sum(map(len, texts)))
            return "".join(texts)

        return join

    def _spread(self, parts: Sequence[ast.expr], scopes: list[set[str]]) -> Callable[[Frame], list[Any]]:
        """The values of expressions, some of which may be starred."""
        meter = self.meter
        elements = [
            (isinstance(part, ast.Starred), self._expression(part.value if isinstance(part, ast.Starred) else part, scopes))
            for part in parts
        ]

        def spread(frame: Frame) -> list[Any]:
            values: list[Any] = []
            for starred, element in elements:
                if starred:
                    values.extend(meter.made(list(meter.items(element(frame)))))
                else:
                    values.append(element(frame))
            return values

        return spread

    def _generator(
        self, element: ast.expr, generators: Sequence[ast.comprehension], scopes: list[set[str]]
    ) -> Callable[[Frame], Iterator[Any]]:
        meter = self.meter
        names = {name for one in generators for name in bound_names(one.target)}
        inner = [*scopes, names]
        first = self._expression(generators[0].iter, scopes)  # read outside of the comprehension's own scope, as in Python
        levels = [
            (
                self._expression(one.iter, inner) if number else first,
                self._target(one.target, inner),
                [self._expression(test, inner) for test in one.ifs],
            )
            for number, one in enumerate(generators)
        ]
        value = self._expression(element, inner)

        def generate(frame: Frame, items: Any, number: int) -> Iterator[Any]:
            _, store, tests = levels[number]
            last = number + 1 == len(levels)
            for item in items:
                meter.steps_left -= 1
                if meter.steps_left < 0:
                    meter.step()
                store(frame, item)
                if all(test(frame) for test in tests) if tests else True:
                    if last:
                        yield value(frame)
                    else:
                        yield from generate(frame, meter.items(levels[number + 1][0](frame)), number + 1)

        return lambda frame: generate(Frame(frame), meter.items(first(frame)), 0)

    def _collected(
        self, kind: Callable[[Any], Any], element: ast.expr, generators: Sequence[ast.comprehension], scopes: list[set[str]]
    ) -> Expression:
        generate, meter = self._generator(element, generators, scopes), self.meter
        return lambda frame: meter.made(kind(generate(frame)))

    def _function(self, name: str, arguments: ast.arguments, body: Sequence[ast.stmt] | ast.expr, scopes: list[set[str]]) -> Expression:
        if arguments.kwarg is not None:
            raise ProgramError(Refusal.FORBIDDEN, "** is not part of the language")
        parameters = [one.arg for one in (*arguments.args, *arguments.kwonlyargs)]
        if arguments.vararg is not None and arguments.kwonlyargs:
            raise ProgramError(Refusal.FORBIDDEN, "parameters behind * are not part of the language")
        rest = arguments.vararg.arg if arguments.vararg else None
        given: list[tuple[str, ast.expr]] = []
        if arguments.defaults:
            given += zip([one.arg for one in arguments.args[-len(arguments.defaults) :]], arguments.defaults, strict=True)
        given += [(one.arg, value) for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value is not None]
        defaults = [(one, self._expression(value, scopes)) for one, value in given]
        if len({*parameters, rest}) < len(parameters) + 1:
            raise ProgramError(Refusal.SYNTAX, f"{name} has the same parameter twice")
        own = {*parameters, *([rest] if rest else []), *(set() if isinstance(body, ast.expr) else _own_names(body))}
        inner = [*scopes, own]
        if isinstance(body, ast.expr):
            run = self._expression(body, inner)
        else:
            block = self._block(body, inner)

            def run(frame: Frame) -> Any:
                done = block(frame)
                if type(done) is tuple:
                    return done[0]
                if done is not None:
                    raise ProgramError(Refusal.SYNTAX, "break or continue stands outside of a loop")
                return None

        function, meter = Function(name, parameters, rest, run), self.meter
        return lambda frame: function.bind(meter, frame, {one: value(frame) for one, value in defaults})

    def _call(self, node: ast.Call, scopes: list[set[str]]) -> Expression:
        meter = self.meter
        keywords: list[tuple[str, Expression]] = []
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ProgramError(Refusal.FORBIDDEN, "** is not part of the language")
            keywords.append((keyword.arg, self._expression(keyword.value, scopes)))
        read: Callable[[Frame], list[Any]]
        if any(isinstance(one, ast.Starred) for one in node.args):
            read = self._spread(node.args, scopes)
        else:
            arguments = [self._expression(one, scopes) for one in node.args]

            def read(frame: Frame) -> list[Any]:
                return [argument(frame) for argument in arguments]

        if isinstance(node.func, ast.Attribute) and not self._is_numpy(node.func.value, scopes):
            value, method = self._expression(node.func.value, scopes), node.func.attr

            def call_method(frame: Frame) -> Any:
                meter.steps_left -= 1
                held = value(frame)
                return self._method(held, method)(held, *read(frame), **{name: one(frame) for name, one in keywords})

            return call_method
        function = self._expression(node.func, scopes)

        def call(frame: Frame) -> Any:
            meter.steps_left -= 1
            called = function(frame)
            if type(called) is not Function and type(called) is not Builtin:
                raise ProgramError(Refusal.TYPE, f"{kind_of(called)} cannot be called")
            if keywords:
                return called(*read(frame), **{name: one(frame) for name, one in keywords})
            return called(*read(frame))

        return call

    def _is_numpy(self, node: ast.expr, scopes: list[set[str]]) -> bool:
        return isinstance(node, ast.Name) and node.id in NUMPY_NAMES and not any(node.id in scope for scope in scopes)

    def _attribute(self, node: ast.Attribute, scopes: list[set[str]]) -> Expression:
        name = node.attr
        if self._is_numpy(node.value, scopes):
            constant = self.numpy[name]
            return lambda frame: constant
        value = self._expression(node.value, scopes)

        def attribute(frame: Frame) -> Any:
            held = value(frame)
            if isinstance(held, np.ndarray | np.generic) and is_property(name):
                return self.meter.made(array_property(held, name))
            method = self._method(held, name)
            return Builtin(name, lambda *arguments, **keywords: method(held, *arguments, **keywords))

        return attribute

    def _method(self, value: Any, name: str) -> Callable[..., Any]:
        methods = self.array_methods if isinstance(value, np.ndarray | np.generic) else self.methods.get(type(value), {})
        if type(value) is Builtin and len(value.types) == 1:
            methods = {one: _unbound(value, method) for one, method in self.methods.get(value.types[0], {}).items() if one == name}
        if name not in methods:
            raise ProgramError(Refusal.TYPE, f"{kind_of(value)} has no {name}")
        return methods[name]

    # Items

    def _index(self, node: ast.expr, scopes: list[set[str]]) -> Expression:
        match node:
            case ast.Slice(lower=lower, upper=upper, step=step):
                parts = [self._expression(one, scopes) if one else _none for one in (lower, upper, step)]
                return lambda frame: slice(*[part(frame) for part in parts])
            case ast.Tuple(elts=elements) if not any(isinstance(one, ast.Starred) for one in elements):
                places = [self._index(one, scopes) for one in elements]
                return lambda frame: tuple([place(frame) for place in places])
        return self._expression(node, scopes)

    def _get_item(self, value: Any, index: Any) -> Any:
        kind = type(value)
        if kind is list or kind is tuple:
            item = value[index]
            return self.meter.made(item) if type(index) is slice else item
        if kind is np.ndarray:
            if type(index) is not int:
                guard_index(self.meter, value, index)
            item = value[index]
            return self.meter.made(item) if type(item) is np.ndarray else item
        if kind is dict:
            return value[index]
        if kind is str or kind is range:
            return value[index]
        raise ProgramError(Refusal.TYPE, f"{kind_of(value)} has no items")

    def _set_item(self, value: Any, index: Any, given: Any) -> None:
        kind = type(value)
        if kind is np.ndarray:
            if isinstance(given, list | tuple):
                self.meter.cells(self.meter.weight(given))
            self.meter.step(1 + (value.size // 256 if type(index) is not tuple else 0))
            value[index] = given
        elif kind is list:
            value[index] = self.meter.made(list(self.meter.items(given))) if type(index) is slice else given
        elif kind is dict:
            self.meter.cells(1)
            value[index] = given
        else:
            raise ProgramError(Refusal.TYPE, f"items of {kind_of(value)} cannot be assigned")


def _none(frame: Frame) -> None:
    return None


def _unbound(kind: Builtin, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method as an attribute of its type, `set.union`: the value is its first argument."""

    def call(_: Builtin, *arguments: Any, **keywords: Any) -> Any:
        if not arguments or type(arguments[0]) not in kind.types:
            raise ProgramError(Refusal.TYPE, f"the first argument of a method of {kind.name} is a {kind.name}")
        return method(*arguments, **keywords)

    return call


def _raise(error: ProgramError) -> NoReturn:
    raise error


_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_PLAIN_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mult": operator.mul,
    "FloorDiv": operator.floordiv,
    "Mod": operator.mod,
}
_IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.iadd,
    "Sub": operator.isub,
    "Mult": operator.imul,
    "Div": operator.itruediv,
    "FloorDiv": operator.ifloordiv,
    "Mod": operator.imod,
    "Pow": operator.ipow,
    "LShift": operator.ilshift,
    "RShift": operator.irshift,
    "BitOr": operator.ior,
    "BitXor": operator.ixor,
    "BitAnd": operator.iand,
    "MatMult": operator.matmul,  # makes a new array
}


def _own_names(body: ast.Module | Sequence[ast.stmt]) -> set[str]:
    """The names that a function's body or the top of a program binds, without those of functions and comprehensions within it."""
    names: set[str] = set()
    left: list[ast.AST] = list(body.body if isinstance(body, ast.Module) else body)
    while left:
        node = left.pop()
        match node:
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                pass
            case ast.Name(id=name, ctx=context):
                if not isinstance(context, ast.Load):
                    names.add(name)
            case _:
                left.extend(ast.iter_child_nodes(node))
    return names
