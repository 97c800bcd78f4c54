"""The expressions of the Python subset: each becomes a function of the variables. Does not know statements."""

from __future__ import annotations

import ast
import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.arrays import array_property, dtype_of, is_property, make_array_methods, make_numpy
from arc_submit.programs.python.calls import Expression, Frame, Function, Parameters
from arc_submit.programs.python.functions import COMPARISONS, OPERATORS, Builtin, guard_broadcast, make_builtins
from arc_submit.programs.python.items import get_item, set_item
from arc_submit.programs.python.library import make_library
from arc_submit.programs.python.meter import MAPPINGS, SEQUENCES, VIEWS, Limits, Meter, kind_of
from arc_submit.programs.python.methods import make_methods
from arc_submit.programs.python.names import NUMPY_NAMES, Scope, depth_of, dotted_name, parameters_of, scope_of, scope_of_comprehension
from arc_submit.programs.python.subset import OTHER_PROPERTIES

Assignment = Callable[[Frame, Any], None]
Scopes = list[Scope]
_NUMBERS = (int, float)
_QUICK_TO_SEARCH = (*MAPPINGS, set, frozenset, range, VIEWS[0])
_SEARCHED = (*SEQUENCES, *MAPPINGS, str, np.ndarray, set, frozenset, range, *VIEWS)


class Expressions:
    """What turns the expressions of a checked tree into functions; scopes are those around an expression, from the top of the program.

    Attributes:
        meter: that counts what they do.
        builtins, library, numpy: functions of the language by name.
        methods: by type and name.
    """

    def __init__(self, limits: Limits):
        self.meter = Meter(limits)
        self.builtins = make_builtins(self.meter)
        self.numpy = make_numpy(self.meter)
        self.library = make_library(self.meter) | {f"np.{name}": value for name, value in self.numpy.items()}
        self.methods = make_methods(self.meter)
        self.array_methods = make_array_methods(self.meter)

    # Names and targets

    def _target(self, node: ast.expr, scopes: Scopes) -> Assignment:
        match node:
            case ast.Name(id=name):
                return self._store_name(name, scopes)
            case ast.Subscript(value=value, slice=place):
                container, index, meter = self._expression(value, scopes), self._index(place, scopes), self.meter
                return lambda frame, given: set_item(meter, container(frame), index(frame), given)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return self._unpacking(parts, scopes)
        raise ProgramError(Refusal.FORBIDDEN, f"{type(node).__name__} cannot be assigned")

    def _unpacking(self, parts: Sequence[ast.expr], scopes: Scopes) -> Assignment:
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
                    raise ValueError(f"{len(values)} values for at least {len(stores) - 1} names")
                end = len(values) - behind
                values = [*values[:starred], meter.made(values[starred:end]), *values[end:]]
            if len(values) != len(stores):
                raise ValueError(f"{len(values)} values for {len(stores)} names")
            for store, value in zip(stores, values, strict=True):
                store(frame, value)

        return unpack

    def _store_name(self, name: str, scopes: Scopes) -> Assignment:
        """To the scope that the name belongs to: the last one, unless that declares it as nonlocal or global."""
        depth = self._depth_of_own(name, scopes)
        if depth == 0:
            return lambda frame, value: frame.variables.__setitem__(name, value)
        return lambda frame, value: outer_frame(frame, depth).variables.__setitem__(name, value)

    def _depth_of_own(self, name: str, scopes: Scopes) -> int:
        depth = depth_of(name, scopes)
        if depth is None:
            raise ProgramError(Refusal.SYNTAX, f"no function around binds the name {name}")
        return depth

    def _load_name(self, name: str, scopes: Scopes) -> Expression:
        """A variable of the nearest scope that binds the name, otherwise a function of the language."""
        depth = depth_of(name, scopes)
        if depth is None:
            value = self.builtins.get(name) or self.library.get(name)
            if value is None:  # bound elsewhere, in a function that this place does not see
                return lambda frame: _raise(NameError(f"the name {name} has no value here"))
            return lambda frame: value

        def load(frame: Frame) -> Any:
            try:
                return outer_frame(frame, depth).variables[name]
            except KeyError:
                raise NameError(f"the name {name} has no value yet") from None

        def load_own(frame: Frame) -> Any:
            try:
                return frame.variables[name]
            except KeyError:
                raise NameError(f"the name {name} has no value yet") from None

        return load if depth else load_own

    # Expressions

    def _expression(self, node: ast.expr, scopes: Scopes) -> Expression:
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
                return lambda frame: get_item(meter, container(frame), index(frame))
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
                return self._dict(keys, values, scopes)
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
                run = self._expression(body, [*scopes, scope_of(body, parameters_of(arguments))])
                return self._function("lambda", arguments, run, scopes)
            case ast.NamedExpr(target=target, value=value):
                return self._walrus(target.id, self._expression(value, scopes), scopes)
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

    def _comparison(self, node: ast.Compare, scopes: Scopes) -> Expression:
        meter, first = self.meter, self._expression(node.left, scopes)
        names = [type(op).__name__ for op in node.ops]
        others = [self._expression(one, scopes) for one in node.comparators]

        def compared(name: str, left: Any, right: Any) -> Any:
            if type(left) not in _NUMBERS or type(right) not in _NUMBERS:
                if name in ("In", "NotIn"):
                    if type(right) not in _SEARCHED:
                        raise TypeError(f"in needs a container, not {kind_of(right)}")
                    meter.step(1 if type(right) in _QUICK_TO_SEARCH else len(right) // 8 + 1)
                elif name not in ("Is", "IsNot"):
                    if isinstance(left, np.dtype) and isinstance(right, Builtin):
                        right = dtype_of(right)
                    if isinstance(left, SEQUENCES) and isinstance(right, SEQUENCES):
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

    def _sequence(self, kind: Callable[[Any], Any], parts: Sequence[ast.expr], scopes: Scopes) -> Expression:
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

    def _dict(self, keys: Sequence[ast.expr | None], values: Sequence[ast.expr], scopes: Scopes) -> Expression:
        meter = self.meter
        # Without a key, the value is a dictionary whose items are taken.
        pairs = [
            (self._expression(key, scopes) if key else None, self._expression(one, scopes)) for key, one in zip(keys, values, strict=True)
        ]

        def make(frame: Frame) -> Any:
            made: dict[Any, Any] = {}
            for key, value in pairs:
                if key is None:
                    made |= _mapping(meter, value(frame))
                else:
                    made[key(frame)] = value(frame)
            return meter.made(made)

        return make

    def _walrus(self, name: str, value: Expression, scopes: Scopes) -> Expression:
        # A comprehension's frame holds its targets alone.
        inner = next(depth for depth, scope in enumerate(reversed(scopes)) if not scope.of_comprehension)
        depth = inner + self._depth_of_own(name, scopes[: len(scopes) - inner])

        def assign(frame: Frame) -> Any:
            given = value(frame)
            outer_frame(frame, depth).variables[name] = given
            return given

        return assign

    def _joined(self, values: Sequence[ast.expr], scopes: Scopes) -> Expression:
        meter = self.meter
        parts = [self._formatted(one, scopes) if isinstance(one, ast.FormattedValue) else self._expression(one, scopes) for one in values]

        def join(frame: Frame) -> str:
            texts = [part(frame) for part in parts]
            meter.cells(sum(map(len, texts)))
            return "".join(texts)

        return join

    def _formatted(self, node: ast.FormattedValue, scopes: Scopes) -> Expression:
        value, text = self._expression(node.value, scopes), self.builtins["repr" if node.conversion == ord("r") else "str"]
        parts = node.format_spec.values if isinstance(node.format_spec, ast.JoinedStr) else []
        form = "".join(str(one.value) for one in parts if isinstance(one, ast.Constant))
        if not form:
            return lambda frame: text(value(frame))

        def formatted(frame: Frame) -> str:
            given = value(frame) if node.conversion == -1 else text(value(frame))
            if not isinstance(given, int | float | str | np.integer | np.floating | np.bool_):
                raise TypeError(f"{kind_of(given)} has no format")
            return format(given, form)

        return formatted

    def _spread(self, parts: Sequence[ast.expr], scopes: Scopes) -> Callable[[Frame], list[Any]]:
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

    def _generator(self, element: ast.expr, generators: Sequence[ast.comprehension], scopes: Scopes) -> Callable[[Frame], Iterator[Any]]:
        meter = self.meter
        inner = [*scopes, scope_of_comprehension(generators)]
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
        self, kind: Callable[[Any], Any], element: ast.expr, generators: Sequence[ast.comprehension], scopes: Scopes
    ) -> Expression:
        generate, meter = self._generator(element, generators, scopes), self.meter
        return lambda frame: meter.made(kind(generate(frame)))

    def _function(self, name: str, arguments: ast.arguments, run: Expression, scopes: Scopes, makes_generator: bool = False) -> Expression:
        """What makes a function of parameters and a body, where its definition is reached."""
        places, by_name = [*arguments.posonlyargs, *arguments.args], [*arguments.args, *arguments.kwonlyargs]
        given = list(zip([one.arg for one in places][len(places) - len(arguments.defaults) :], arguments.defaults, strict=True))
        given += [(one.arg, value) for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value is not None]
        defaults = [(one, self._expression(value, scopes)) for one, value in given]
        parameters = Parameters(
            tuple(one.arg for one in places),
            tuple(one.arg for one in by_name),
            tuple(parameters_of(arguments)),
            arguments.vararg.arg if arguments.vararg else None,
            arguments.kwarg.arg if arguments.kwarg else None,
        )
        function, meter = Function(name, parameters, run, makes_generator), self.meter
        return lambda frame: function.bind(meter, frame, {one: value(frame) for one, value in defaults})

    def _call(self, node: ast.Call, scopes: Scopes) -> Expression:
        meter = self.meter
        named = self._keywords(node.keywords, scopes)
        read: Callable[[Frame], list[Any]]
        if any(isinstance(one, ast.Starred) for one in node.args):
            read = self._spread(node.args, scopes)
        else:
            arguments = [self._expression(one, scopes) for one in node.args]

            def read(frame: Frame) -> list[Any]:
                return [argument(frame) for argument in arguments]

        if isinstance(node.func, ast.Attribute) and not self._of_library(node.func, scopes):
            value, method = self._expression(node.func.value, scopes), node.func.attr

            def call_method(frame: Frame) -> Any:
                meter.steps_left -= 1
                held = value(frame)
                function = self._method(held, method)
                return function(held, *read(frame), **named(frame)) if named else function(held, *read(frame))

            return call_method
        function = self._expression(node.func, scopes)

        def call(frame: Frame) -> Any:
            meter.steps_left -= 1
            called = function(frame)
            if type(called) is not Function and type(called) is not Builtin:
                raise TypeError(f"{kind_of(called)} cannot be called")
            return called(*read(frame), **named(frame)) if named else called(*read(frame))

        return call

    def _keywords(self, keywords: Sequence[ast.keyword], scopes: Scopes) -> Callable[[Frame], dict[str, Any]] | None:
        """The keywords of a call; None without any."""
        meter = self.meter
        given = [(one.arg, self._expression(one.value, scopes)) for one in keywords]
        if not given:
            return None

        def read(frame: Frame) -> dict[str, Any]:
            values: dict[str, Any] = {}
            for name, value in given:
                new = {name: value(frame)} if name else _mapping(meter, value(frame))
                if not all(type(one) is str for one in new) or values.keys() & new.keys():
                    raise TypeError("keywords are texts, each given once")
                if not all(one.isidentifier() and one.isascii() and not one.startswith("_") for one in new):
                    raise ProgramError(Refusal.FORBIDDEN, "a keyword with such a name is not part of the language")
                values |= new
            return values

        return read

    def _of_library(self, node: ast.expr, scopes: Scopes) -> Any:
        """The function or constant of a module that a chain of attributes names; None where it names none."""
        name = dotted_name(node)
        root = name.partition(".")[0]
        if depth_of(root, scopes) is not None:
            return None
        return self.library.get(f"np{name[len(root) :]}" if root in NUMPY_NAMES else name)

    def _attribute(self, node: ast.Attribute, scopes: Scopes) -> Expression:
        name = node.attr
        constant = self._of_library(node, scopes)
        if constant is not None or dotted_name(node) == "np.newaxis":
            return lambda frame: constant
        value = self._expression(node.value, scopes)

        def attribute(frame: Frame) -> Any:
            held = value(frame)
            if isinstance(held, np.ndarray | np.generic) and is_property(name):
                return self.meter.made(array_property(held, name))
            if name in OTHER_PROPERTIES and type(held) in (slice, deque, range):
                return getattr(held, name)
            method = self._method(held, name)
            return Builtin(name, lambda *arguments, **keywords: method(held, *arguments, **keywords))

        return attribute

    def _method(self, value: Any, name: str) -> Callable[..., Any]:
        methods = self.array_methods if isinstance(value, np.ndarray | np.generic) else self.methods.get(type(value), {})
        if type(value) is Builtin and len(value.types) == 1:
            methods = {one: _unbound(value, method) for one, method in self.methods.get(value.types[0], {}).items() if one == name}
        if type(value) is Builtin and name in value.attributes:
            function = value.attributes[name]
            return lambda _, *arguments, **keywords: function(*arguments, **keywords)
        if name not in methods:
            # What Python has and the language has not is no error that a program may catch.
            message = f"{kind_of(value)} has no {name}"
            raise ProgramError(Refusal.TYPE, message) if hasattr(value, name) else AttributeError(message)
        return methods[name]

    # Items

    def _index(self, node: ast.expr, scopes: Scopes) -> Expression:
        match node:
            case ast.Slice(lower=lower, upper=upper, step=step):
                parts = [self._expression(one, scopes) if one else no_value for one in (lower, upper, step)]
                return lambda frame: slice(*[part(frame) for part in parts])
            case ast.Tuple(elts=elements) if not any(isinstance(one, ast.Starred) for one in elements):
                places = [self._index(one, scopes) for one in elements]
                return lambda frame: tuple([place(frame) for place in places])
        return self._expression(node, scopes)


def outer_frame(frame: Frame, depth: int) -> Frame:
    """The frame so many functions and comprehensions outside of a frame."""
    here: Any = frame
    for _ in range(depth):
        here = here.outer
    return here  # type: ignore[no-any-return]


def _mapping(meter: Meter, value: Any) -> dict[Any, Any]:
    if type(value) not in MAPPINGS:
        raise TypeError(f"** needs a dict, not {kind_of(value)}")
    meter.cells(len(value))
    return dict(value)


def no_value(frame: Frame) -> None:
    """None, whatever the variables."""
    return None


def _unbound(kind: Builtin, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method as an attribute of its type, `set.union`: the value is its first argument."""

    def call(_: Builtin, *arguments: Any, **keywords: Any) -> Any:
        if not arguments or type(arguments[0]) not in kind.types:
            raise ProgramError(Refusal.TYPE, f"the first argument of a method of {kind.name} is a {kind.name}")
        return method(*arguments, **keywords)

    return call


def _raise(error: Exception) -> NoReturn:
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
