"""The interpreter of the Python subset: each node of a checked tree becomes a function of the variables, and running calls them.

Nothing of a program becomes Python code. Every statement, iteration, call and value goes through the meter. Does not know processes.
"""

from __future__ import annotations

import ast
import operator
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.calls import Expression, Frame, Function
from arc_submit.programs.python.expressions import Expressions, Scopes, no_value, outer_frame
from arc_submit.programs.python.functions import OPERATORS, Builtin, guard_broadcast
from arc_submit.programs.python.items import get_item, set_item
from arc_submit.programs.python.meter import Limits, kind_of
from arc_submit.programs.python.names import depth_of, parameters_of, scope_of
from arc_submit.programs.python.subset import entry_of

Statement = Callable[[Frame], Any]  # None: go on; _BREAK, _CONTINUE; a tuple of one: the value returned
YieldingStatement = Callable[[Frame], Generator[Any, None, Any]]  # yields what the program yields, and returns what a Statement does
_BREAK, _CONTINUE, _MISSING = object(), object(), object()
# Limits are no exceptions of a program: it cannot catch them.
_LIMITS = (ProgramError, RecursionError, MemoryError)


class Program(Expressions):
    """A checked tree, ready to run on inputs one after the other."""

    def __init__(self, tree: ast.Module, limits: Limits):
        super().__init__(limits)
        self.entry = entry_of(tree).name
        self.handled: list[Exception] = []  # by the except blocks that run now
        self.body = [self._statement(node, [scope_of(tree)]) for node in tree.body]

    def run(self, value: Any) -> Any:
        """What the program's function returns for a value.

        Raises:
            ProgramError: where a limit is exceeded.
            Exception: what Python and numpy raise for the operations.
        """
        self.meter.reset()
        self.handled.clear()
        frame = Frame(None)
        for statement in self.body:
            statement(frame)
        function = frame.variables.get(self.entry)
        if type(function) is not Function and type(function) is not Builtin:
            raise ProgramError(Refusal.TYPE, f"{self.entry} is no function")
        return function(value)

    # Statements

    def _block(self, nodes: Sequence[ast.stmt], scopes: Scopes) -> Statement:
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

    def _statement(self, node: ast.stmt, scopes: Scopes) -> Statement:
        match node:
            case ast.FunctionDef():
                return self._definition(node, scopes)
            case ast.Return(value=value):
                result = self._expression(value, scopes) if value else no_value
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
            case ast.Pass() | ast.Global():
                return no_value
            case ast.Nonlocal(names=names):
                for name in names:
                    if not depth_of(name, scopes[1:]):  # 0 would be the function itself
                        raise ProgramError(Refusal.SYNTAX, f"line {node.lineno}: no function around binds the name {name}")
                return no_value
            case ast.Try():
                return self._try(node, scopes)
            case ast.Raise(exc=raised, cause=cause):
                return self._raise(raised, cause, scopes)
            case ast.Assert(test=test):
                condition = self._expression(test, scopes)

                def check(frame: Frame) -> None:
                    if not condition(frame):
                        raise AssertionError("an assertion does not hold")

                return check
            case ast.Delete(targets=targets):
                deletions = [self._deletion(target, scopes) for target in targets]

                def delete(frame: Frame) -> None:
                    for deletion in deletions:
                        deletion(frame)

                return delete
        raise ProgramError(Refusal.FORBIDDEN, f"{type(node).__name__} is not part of the language")

    def _for(self, node: ast.For, scopes: Scopes) -> Statement:
        values, store = self._expression(node.iter, scopes), self._target(node.target, scopes)
        body, orelse, meter = self._block(node.body, scopes), self._block(node.orelse, scopes), self.meter

        def loop(frame: Frame) -> Any:
            for value in meter.items(values(frame)):
                store(frame, value)
                done = body(frame)
                if done is not None and done is not _CONTINUE:
                    return None if done is _BREAK else done
            return orelse(frame)

        return loop

    def _while(self, node: ast.While, scopes: Scopes) -> Statement:
        condition, body, orelse = self._expression(node.test, scopes), self._block(node.body, scopes), self._block(node.orelse, scopes)

        def loop(frame: Frame) -> Any:
            while condition(frame):
                done = body(frame)
                if done is not None and done is not _CONTINUE:
                    return None if done is _BREAK else done
            return orelse(frame)

        return loop

    def _definition(self, node: ast.FunctionDef, scopes: Scopes) -> Statement:
        inner = [*scopes, scope_of(node.body, parameters_of(node.args))]
        yields = any(map(_yields, node.body))
        run = _yielding_all(self._yielding_block(node.body, inner)) if yields else _returning(self._block(node.body, inner))
        make = self._function(node.name, node.args, run, scopes, yields)
        decorators, store = [self._expression(one, scopes) for one in reversed(node.decorator_list)], self._store_name(node.name, scopes)

        def define(frame: Frame) -> None:
            function = make(frame)
            for decorator in decorators:
                function = decorator(frame)(function)
            store(frame, function)

        return define

    # Exceptions

    def _raise(self, raised: ast.expr | None, cause: ast.expr | None, scopes: Scopes) -> Statement:
        value, of = self._expression(raised, scopes) if raised else no_value, self._expression(cause, scopes) if cause else no_value

        def throw(frame: Frame) -> None:
            error = value(frame)
            of(frame)
            if raised is None:
                if not self.handled:
                    raise RuntimeError("no exception to raise again")
                error = self.handled[-1]
            if type(error) is Builtin and error.types and issubclass(error.types[0], Exception):
                error = error()
            if not isinstance(error, Exception):
                raise TypeError(f"{kind_of(error)} cannot be raised")
            raise error from None

        return throw

    def _try(self, node: ast.Try, scopes: Scopes) -> Statement:
        meter, body, orelse = self.meter, self._block(node.body, scopes), self._block(node.orelse, scopes)
        handlers = [self._handler(one, scopes) for one in node.handlers]
        last = self._block(node.finalbody, scopes) if node.finalbody else None

        def attempt(frame: Frame) -> Any:
            depth = meter.depth
            try:
                done = body(frame)
            except _LIMITS:
                raise
            except Exception as error:
                meter.depth = depth
                caught = error.with_traceback(None)  # which would hold all variables
                caught.__context__ = None
                handle = next((one for matches, one in handlers if matches(frame, caught)), None)
                if handle is None:
                    raise
            else:
                return orelse(frame) if done is None else done
            self.handled.append(caught)
            try:
                return handle(frame, caught)
            finally:
                self.handled.pop()

        if last is None:
            return attempt

        def whole(frame: Frame) -> Any:
            depth = meter.depth
            raised: Exception | None = None
            try:
                done = attempt(frame)
            except _LIMITS:
                raise
            except Exception as error:  # noqa: BLE001 - raised again below
                meter.depth = depth
                raised, done = error, None
            ended = last(frame)
            if ended is not None:
                return ended
            if raised is not None:
                raise raised
            return done

        return whole

    def _handler(
        self, node: ast.ExceptHandler, scopes: Scopes
    ) -> tuple[Callable[[Frame, Exception], bool], Callable[[Frame, Exception], Any]]:
        """Whether an except block is for an exception, and what it does with it."""
        kinds, block, name = self._expression(node.type, scopes) if node.type else None, self._block(node.body, scopes), node.name

        def matches(frame: Frame, error: Exception) -> bool:
            if kinds is None:
                return True
            given = kinds(frame)
            wanted = given if type(given) is tuple else (given,)
            if not all(type(one) is Builtin and one.types and issubclass(one.types[0], Exception) for one in wanted):
                raise TypeError("except needs types of exceptions")
            return isinstance(error, tuple(kind for one in wanted for kind in one.types))

        if name is None:
            return matches, lambda frame, error: block(frame)
        store = self._store_name(name, scopes)

        def handle(frame: Frame, error: Exception) -> Any:
            store(frame, error)
            try:
                return block(frame)
            finally:
                frame.variables.pop(name, None)  # as in Python

        return matches, handle

    # Generators

    def _yielding_block(self, nodes: Sequence[ast.stmt], scopes: Scopes) -> YieldingStatement:
        meter = self.meter
        parts = [self._yielding(node, scopes) if _yields(node) else _without_yield(self._statement(node, scopes)) for node in nodes]

        def block(frame: Frame) -> Generator[Any, None, Any]:
            for part in parts:
                meter.step()
                done = yield from part(frame)
                if done is not None:
                    return done
            return None

        return block

    def _yielding(self, node: ast.stmt, scopes: Scopes) -> YieldingStatement:
        meter = self.meter
        match node:
            case ast.Expr(value=ast.Yield(value=value)) if not (value and _yields(value)):
                result = self._expression(value, scopes) if value else no_value

                def give(frame: Frame) -> Generator[Any, None, None]:
                    yield result(frame)

                return give
            case ast.Expr(value=ast.YieldFrom(value=value)) if not _yields(value):
                values = self._expression(value, scopes)

                def give_all(frame: Frame) -> Generator[Any, None, None]:
                    yield from meter.items(values(frame))

                return give_all
            case ast.If(test=test, body=body, orelse=orelse) if not _yields(test):
                condition, then, other = (
                    self._expression(test, scopes),
                    self._yielding_block(body, scopes),
                    self._yielding_block(orelse, scopes),
                )
                return lambda frame: then(frame) if condition(frame) else other(frame)
            case ast.For(iter=iterable, target=target) if not _yields(iterable):
                values, store = self._expression(iterable, scopes), self._target(target, scopes)
                return self._yielding_loop(node, lambda frame: (store(frame, value) for value in meter.items(values(frame))), scopes)
            case ast.While(test=test) if not _yields(test):
                condition = self._expression(test, scopes)

                def rounds(frame: Frame) -> Iterator[None]:
                    while condition(frame):
                        yield

                return self._yielding_loop(node, rounds, scopes)
        raise ProgramError(Refusal.FORBIDDEN, f"line {node.lineno}: yield is a statement of its own, or of if, for and while")

    def _yielding_loop(self, node: ast.For | ast.While, rounds: Callable[[Frame], Iterator[Any]], scopes: Scopes) -> YieldingStatement:
        body, orelse = self._yielding_block(node.body, scopes), self._yielding_block(node.orelse, scopes)

        def loop(frame: Frame) -> Generator[Any, None, Any]:
            for _ in rounds(frame):
                done = yield from body(frame)
                if done is not None and done is not _CONTINUE:
                    return None if done is _BREAK else done
            return (yield from orelse(frame))

        return loop

    # Assignments

    def _augmented(self, node: ast.AugAssign, scopes: Scopes) -> Statement:
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
            if (type(value) is dict and name == "BitOr") or (type(value) is Counter and name in ("Add", "Sub", "BitOr", "BitAnd")):
                meter.cells(meter.weight(other))
                meter.step(len(value))
                return meter.made(in_place(value, other))
            if type(value) is deque and name == "Add":
                value.extend(meter.made(list(meter.items(other))))
                return meter.made(value)
            if (type(value) is np.ndarray and name != "MatMult") or type(value) is set:
                guard_broadcast(meter, value, other)
                return meter.made(in_place(value, other))
            return compute(meter, value, other)

        if isinstance(node.target, ast.Subscript):
            container, index = self._expression(node.target.value, scopes), self._index(node.target.slice, scopes)

            def change(frame: Frame) -> None:
                held, place = container(frame), index(frame)
                set_item(meter, held, place, combined(get_item(meter, held, place), result(frame)))

            return change
        assert isinstance(node.target, ast.Name)
        load = self._load_name(node.target.id, scopes)
        store = self._store_name(node.target.id, scopes)
        return lambda frame: store(frame, combined(load(frame), result(frame)))

    def _deletion(self, node: ast.expr, scopes: Scopes) -> Statement:
        if isinstance(node, ast.Name):
            name, depth = node.id, self._depth_of_own(node.id, scopes)

            def delete(frame: Frame) -> None:
                if outer_frame(frame, depth).variables.pop(name, _MISSING) is _MISSING:
                    raise NameError(f"the name {name} has no value yet")

            return delete
        if isinstance(node, ast.Subscript):
            container, index = self._expression(node.value, scopes), self._index(node.slice, scopes)
            return lambda frame: operator.delitem(container(frame), index(frame))
        raise ProgramError(Refusal.FORBIDDEN, f"{type(node).__name__} cannot be deleted")


def _yields(node: ast.AST) -> bool:
    """Whether a node has a yield of its own function."""
    if isinstance(node, ast.Yield | ast.YieldFrom):
        return True
    return not isinstance(node, ast.FunctionDef | ast.Lambda) and any(map(_yields, ast.iter_child_nodes(node)))


def _returning(block: Statement) -> Expression:
    """What the body of a function returns."""

    def run(frame: Frame) -> Any:
        done = block(frame)
        if type(done) is tuple:
            return done[0]
        if done is not None:
            raise ProgramError(Refusal.SYNTAX, "break or continue stands outside of a loop")
        return None

    return run


def _without_yield(statement: Statement) -> YieldingStatement:
    def run(frame: Frame) -> Generator[Any, None, Any]:
        return statement(frame)
        yield  # which makes it a generator

    return run


def _yielding_all(block: YieldingStatement) -> Expression:
    """What the body of a function with yield yields."""

    def run(frame: Frame) -> Iterator[Any]:
        done = yield from block(frame)
        if done is not None and type(done) is not tuple:
            raise ProgramError(Refusal.SYNTAX, "break or continue stands outside of a loop")

    return run


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
