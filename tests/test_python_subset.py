"""The Python subset: what programs give, what is refused and why, and that no program harms the process that asked."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from arc_submit.arc.grid import make_grid
from arc_submit.errors import ArcSubmitError
from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python import process
from arc_submit.programs.python.child import run_program
from arc_submit.programs.python.input_type import InputType, input_type
from arc_submit.programs.python.language import PythonLanguage
from arc_submit.programs.python.meter import Limits
from arc_submit.programs.python.process import ProgramProcess
from arc_submit.programs.python.subset import NUMPY_FUNCTIONS, definitions_of, normal_form, parse, size, takes_list

GRID = [[1, 2, 0], [3, 0, 0]]
LIMITS = Limits(steps=20_000, value_cells=100_000, cells=1_000_000)


def run(text: str, grid: list[list[int]] = GRID) -> list[list[int]]:
    return run_program(text, [grid], LIMITS)[0]


def refusal(text: str) -> tuple[str, str]:
    with pytest.raises(ProgramError) as caught:
        run(text)
    assert "\n" not in caught.value.message
    return caught.value.refusal.value, caught.value.message


def function(*lines: str) -> str:
    return "\n".join(["import numpy as np", "def transform(grid):", *("    " + line for line in lines)])


@pytest.mark.parametrize(
    ("lines", "output"),
    [
        (["return np.rot90(grid, 2)"], [[0, 0, 3], [0, 2, 1]]),
        (["return [row[::-1] for row in grid]"], [[0, 2, 1], [0, 0, 3]]),
        (["h, w = grid.shape", "out = np.zeros((h, w))", "out[grid > 1] = 7", "return out"], [[0, 7, 0], [7, 0, 0]]),
        (
            ["counts = {}", "for row in grid:", "    for v in row:", "        counts[v] = counts.get(v, 0) + 1", "return [[counts[0]]]"],
            [[3]],
        ),
        (["first, *rest = [4, 5, 6]", "a, (b, c) = 1, (2, 3)", "return [[first, len(rest)], [b, c]]"], [[4, 2], [2, 3]]),
        (["f = lambda x, k=2: x * k", "return [list(map(f, row)) for row in [[1, 2]]]"], [[2, 4]]),
        (["def fill(n):", "    return 0 if n == 0 else 1 + fill(n - 1)", "return [[fill(9)]]"], [[9]]),
        (
            ["n = 0", "while True:", "    n += 1", "    if n % 2:", "        continue", "    if n > 5:", "        break", "return [[n]]"],
            [[6]],
        ),
        (["l = [v for r in grid for v in r]", "return [[max(sorted(set(l)), key=l.count)]]"], [[0]]),
        (["return [[next(x for x in range(100) if x * x > 20)]]"], [[5]]),
        (["values, counts = np.unique(grid, return_counts=True)", "return np.array([values, counts])"], [[0, 1, 2, 3], [3, 1, 1, 1]]),
        (["return np.pad(grid, ((0, 0), (0, 1)), mode='constant', constant_values=9)"], [[1, 2, 0, 9], [3, 0, 0, 9]]),
        (["a = [1]", "b = a", "a += [2]", "return [b]"], [[1, 2]]),
        (["x = np.arange(3)", "y = x", "y += 1", "return [x]"], [[1, 2, 3]]),
        (["return [[int(1 < 2 < 3), int(not 1), 7 // 2, -7 % 3]]"], [[1, 0, 3, 2]]),
        (["fs = [lambda: i for i in range(3)]", "return [[f() for f in fs]]"], [[2, 2, 2]]),
        (["def add(v, to=[]):", "    to.append(v)", "    return len(to)", "add(1)", "return [[add(2)]]"], [[2]]),
        (["return [[isinstance(grid, np.ndarray), isinstance(1, int), isinstance(np.int64(1), np.integer)]]"], [[1, 1, 1]]),
    ],
)
def test_programs_mean_what_python_means(lines: list[str], output: list[list[int]]) -> None:
    assert run(function(*lines)) == output


def test_a_program_for_lists_gets_lists_and_one_for_arrays_an_array() -> None:
    for lines, is_array in (
        (["return grid[0] + grid[1]"], True),
        (["return grid[0, 1]"], True),
        (["return grid.T"], True),
        (["grid = np.array(grid)", "return grid + 1"], True),
        (["out = grid.copy()", "out[out == 3] = 5", "return out"], True),
        (["return [row[::-1] for row in grid]"], True),
        (["row = []", "row.append(grid[0][1])", "return [row]"], True),
        (["row = [row[0] for row in grid]", "row.append(1)", "return [row]"], True),
        (["grid = grid.tolist()", "grid.append([1])", "return grid"], True),
        (["grid.append(grid[0])", "return grid"], False),
        (["return [[row.count(0)] for row in grid]"], False),
        (["for i, row in enumerate(grid):", "    row.reverse()", "return grid"], False),
        (["return [row + [0] * 3 for row in grid]"], False),
        (["return [row[:] for row in grid]"], False),
        (["out = grid[1:]", "del out[0]", "return out"], False),
        (["return [row + row[::-1] for row in grid]"], False),
        (["return [list(reversed(row)) + row for row in grid]"], False),
        (["row = 1", "return [row[:] for row in grid]"], False),
        (["h, w = grid.shape", "return [row + row[::-1] for row in grid]"], True),
        (["row = grid[0]", "new = row[:]", "new[0] = 5", "return [row, new]"], False),
        (["out = []", "for row in grid:", "    out.append(row[1:][:])", "return out"], False),
        (["out = grid[:]", "return out"], True),
        (["grid[0][:] = 1", "return grid"], True),
        (["for row in zip(grid, grid):", "    row = row[:]", "return grid"], True),
        (["crop = [row[1:] for row in grid[1:]]", "return [row + row for row in crop]"], False),
        (["sums = [row[0] for row in grid]", "return [[one + 1 for one in sums]]"], True),
        (["row = 1", "return [list(reversed(row)) + row[:] for row in grid]"], False),
        (["return [[len(set(grid[0] + grid[1] + grid[1]))]]"], False),
        (["return [sorted(grid[0] + 1)]"], True),
    ):
        assert takes_list(parse(function(*lines))) is not is_array, lines
    kept = ["out = grid.copy()", "for r in range(2):", "    for c in range(3):", "        out[r][c] = grid[1 - r][c]", "return out"]
    assert run(function(*kept)) == GRID[::-1]
    assert run(function("return [[3 in grid, int((grid[::-1] + grid)[0, 0])], [(grid * 0 + 4)[0, 0], len(grid)]]")) == [[1, 4], [4, 2]]
    assert run("def transform(grid: List[List[int]]):\n    return [grid[0] + grid[1]]") == [[1, 2, 0, 3, 0, 0]]
    # The normal form tells the input's type too: it is what runs.
    assert normal_form("def f(g: 'list[int]'):\n    return g") == "def transform(v1: list):\n    return v1"
    assert normal_form("def f(g: np.ndarray) -> list:\n    return g") == "def transform(v1):\n    return v1"
    assert run("def transform(grid: list):\n    return [grid[0] + grid[1]]") == [[1, 2, 0, 3, 0, 0]]


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (Refusal.SYNTAX, ["return ("]),
        (Refusal.SYNTAX, ["return " + "(" * 5000 + "1" + ")" * 5000]),
        (Refusal.SYNTAX, ["return " + "-" * 15000 + "1"]),
        (Refusal.SYNTAX, ["return 0x" + "f" * 15000]),
        (Refusal.SYNTAX, ["return '\x00'"]),
        (Refusal.FORBIDDEN, ["return ().__class__"]),
        (Refusal.FORBIDDEN, ["return eval('1')"]),
        (Refusal.FORBIDDEN, ["return \uff45val('1')"]),
        (Refusal.FORBIDDEN, ["return getattr(grid, 'shape')"]),
        (Refusal.FORBIDDEN, ["return np.load('x')"]),
        (Refusal.FORBIDDEN, ["return np.lib"]),
        (Refusal.FORBIDDEN, ["return np"]),
        (Refusal.FORBIDDEN, ["np = 1", "return np"]),
        (Refusal.FORBIDDEN, ["return f'{grid!a}'"]),
        (Refusal.FORBIDDEN, ["return f'{1:99999999}'"]),
        (Refusal.CELLS, ["a = 'a' * 1000", "for i in range(40):", "    a = f'{a}{a}'", "return a"]),
        (Refusal.FORBIDDEN, ["return '{}'.format(grid)"]),
        (Refusal.FORBIDDEN, ["return '%9999999999d' % 1"]),
        (Refusal.OUTPUT, ["yield grid"]),
        (Refusal.FORBIDDEN, ["import os"]),
        (Refusal.FORBIDDEN, ["from numpy import *"]),
        (Refusal.FORBIDDEN, ["grid.shape = 1"]),
        (Refusal.FORBIDDEN, ["return np.add(grid, 1, casting='unsafe')"]),
        (Refusal.TYPE, ["return grid.append(1)", "grid.T"]),
        (Refusal.TYPE, ["return 1 + 'a'"]),
        (Refusal.TYPE, ["return np.array([['a']])"]),
        (Refusal.TYPE, ["return np.zeros(3, dtype=str)"]),
        (Refusal.TYPE, ["return list({None, 1})"]),
        (Refusal.VALUE, ["return missing"]),
        (Refusal.VALUE, ["if False:", "    x = 1", "return x"]),
        (Refusal.VALUE, ["return grid[99]"]),
        (Refusal.VALUE, ["return 1 // 0"]),
        (Refusal.VALUE, ["return 10 ** 10 ** 10"]),
        (Refusal.VALUE, ["return 1 << 10 ** 12"]),
        (Refusal.VALUE, ["return round(5, -10 ** 9)"]),
        (Refusal.VALUE, ["x = 3", "while True:", "    x *= x"]),
        (Refusal.STEPS, ["while True:", "    pass"]),
        (Refusal.STEPS, ["return sum(range(10 ** 5)) + sum(range(10 ** 5))"]),
        (Refusal.STEPS, ["f = lambda f: f(f)", "return f(f)"]),
        (Refusal.CELLS, ["return [[0] * 10 ** 9]"]),
        (Refusal.CELLS, ["return 'a' * 10 ** 9"]),
        (Refusal.CELLS, ["return np.zeros((10 ** 6, 10 ** 6))"]),
        (Refusal.CELLS, ["a = np.arange(10 ** 4)", "return a[:, None] + a[None]"]),
        (Refusal.CELLS, ["return np.zeros((100, 100))[np.zeros(10 ** 4, dtype=int)]"]),
        (Refusal.CELLS, ["return np.pad(grid, 10 ** 9)"]),
        (Refusal.CELLS, ["return np.tile(grid, (10 ** 5, 10 ** 5))"]),
        (Refusal.CELLS, ["return np.bincount(np.array([10 ** 12]))"]),
        (Refusal.CELLS, ["a = [1]", "for i in range(40):", "    a = [a, a]", "return str(a)"]),
        (Refusal.CELLS, ["a = [1]", "while True:", "    a = a + a"]),
        (Refusal.OUTPUT, ["return [[1], [1, 2]]"]),
        (Refusal.OUTPUT, ["return [[10]]"]),
        (Refusal.OUTPUT, ["return [[0.5]]"]),
        (Refusal.OUTPUT, ["return None"]),
        (Refusal.OUTPUT, ["return np.zeros((31, 1))"]),
    ],
)
def test_what_the_language_refuses(kind: Refusal, lines: list[str]) -> None:
    assert refusal(function(*lines))[0] == kind


@pytest.mark.parametrize(
    "text",
    [
        "@print\ndef transform(grid):\n    return grid",
        "class A:\n    pass\ndef transform(grid):\n    return grid",
        "async def transform(grid):\n    return grid",
        "print(1)\ndef transform(grid):\n    return grid",
    ],
)
def test_what_the_language_does_not_define(text: str) -> None:
    assert refusal(text)[0] == Refusal.FORBIDDEN


def test_the_normal_form_is_the_same_for_equal_programs() -> None:
    first = "import numpy as np\nK = 2\ndef unused(a):\n    return other(a)\ndef other(b):\n    return b\n" + (
        "def solve(g: np.ndarray) -> list:\n    '''Doubles.'''\n    out = np.array(g) * K  # twice\n    return out\n"
    )
    second = "def transform(x):\n    y = np.array(x) * z\n    return y\nz = 2"
    third = "z = 2\ndef transform(x):\n    y = np.array( x )*z\n    return y"
    assert normal_form(first) == normal_form(third) == normal_form(normal_form(first))
    assert normal_form(second) != normal_form(third)  # the order of definitions may have an effect
    assert size(first) == size(third) > size("def transform(x):\n    return x")
    assert run("def helper(a, by=1):\n    return a + by\ndef transform(g):\n    return [[helper(1, by=2)]]") == [[3]]
    assert run(normal_form("def helper(a, by=1):\n    return a + by\ndef transform(g):\n    return [[helper(1, by=2)]]")) == [[3]]


@pytest.fixture(scope="module")
def language() -> Iterator[PythonLanguage]:
    with PythonLanguage(Limits(cpu_seconds=0.5)) as one:
        yield one


def test_the_child_is_killed_when_it_does_not_answer_and_works_on(language: PythonLanguage) -> None:
    inputs = [make_grid(GRID)]
    double = ["a = (1,)", "for i in range(60):", "    a = (a, a)", "return {a: 1}"]  # hashing it takes for ever, in one call of C
    with pytest.raises(ProgramError) as caught:
        language.run(function(*double), inputs)
    assert caught.value.refusal is Refusal.TIME
    starts = language.process.starts
    assert np.array_equal(language.run(function("return grid[::-1]"), inputs)[0], GRID[::-1])
    assert language.process.starts == starts + 1
    # A result is kept: the killed program is not run again.
    with pytest.raises(ProgramError, match=r"more than 0\.5 seconds"):
        language.run(function(*double), inputs)
    assert language.process.starts == starts + 1
    assert language.process._child is not None
    language.process._child.kill()
    assert np.array_equal(language.run(function("return grid[:, ::-1]"), inputs)[0], np.array(GRID)[:, ::-1])


def test_the_child_has_little_memory_and_no_files(language: PythonLanguage) -> None:
    limits = "\n".join(
        [
            "import sys; from arc_submit.programs.python.child import bound_process; from pathlib import Path",
            "bound_process(64)",
            "try: bytearray(2**28)",
            "except MemoryError: print('memory')",
            "try: Path('/tmp/leak').open('w')",
            "except OSError: print('files')",
        ]
    )
    done = subprocess.run([sys.executable, "-c", limits], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["memory", "files"]


def test_random_programs_harm_nothing(language: PythonLanguage) -> None:
    path = Path(__file__).parent.parent / "benchmarks" / "fuzz_programs.py"
    spec = importlib.util.spec_from_file_location("fuzz_programs", path)
    assert spec is not None
    assert spec.loader is not None
    fuzz = sys.modules["fuzz_programs"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    outcome = fuzz.fuzz(language, itertools.islice(fuzz.python_programs(7), 250))
    assert outcome.faults == []
    assert outcome.counts["grids"] > 20
    assert {"syntax", "forbidden", "type", "value", "cells", "output"} <= set(outcome.counts)


_ARGUMENTS = (
    *("grid / 2", "grid", "grid, 1", "grid, grid", "[grid, grid]", "3", "(2, 2)", "grid[0]", "grid[0], grid[0]", "grid, 0, 1"),
    *("grid > 0, grid, 0", "grid, 1, 5", "1, 5", "3, grid.shape", "(1, 1), grid.shape", "grid, (2, 3)"),
)


def test_every_function_of_numpy_runs_in_a_child_that_opens_no_files(language: PythonLanguage) -> None:
    calls = []
    for name in sorted(NUMPY_FUNCTIONS):
        for arguments in _ARGUMENTS:
            try:
                run(function(f"np.{name}({arguments})", "return grid"))
            except ProgramError:
                continue
            calls.append(f"np.{name}({arguments})")
            break
        else:
            pytest.fail(f"np.{name} runs with none of the arguments")
    language.close()
    assert language.process.run(function(*calls, "return [[1]]"), [GRID]) == [[[1]]]


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("None or grid[:1]", [[1, 2, 0]]),
        ("len(grid) > 1 and grid[:, ::-1]", [[0, 2, 1], [0, 0, 3]]),
        ("[[0 or False or 4, 3 and 5, 0 and 1 / 0, 1 or 1 / 0]]", [[4, 5, 0, 1]]),
    ],
)
def test_and_and_or_give_the_last_value_without_asking_its_truth(value: str, output: list[list[int]]) -> None:
    assert run(function(f"return {value}")) == output


def test_annotations_of_variables_are_removed() -> None:
    annotated = function(
        "counts: Dict[int, int] = {}", "x: list", "if len(grid):", "    y: int", "counts[0]: int = 3", "return [[counts[0]]]"
    )
    assert run(annotated) == [[3]]
    plain = function("counts = {}", "if len(grid):", "    pass", "counts[0] = 3", "return [[counts[0]]]")
    assert normal_form(annotated) == normal_form(plain)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        (
            "def flip(g, axis):\n    return np.flip(g, axis=axis)\ndef transform(grid):\n    return [flip][0](grid, axis=1)",
            [[0, 2, 1], [0, 0, 3]],
        ),
        ("def transform(grid):\n    fs = {'a': lambda g, shift=0: g[shift:]}\n    return fs['a'](grid, shift=1)", [[3, 0, 0]]),
        ("def best(fn, items, key):\n    return fn(items, key=key)\ndef transform(grid):\n    return [best(max, [[1], [2]], len)]", [[1]]),
        ("def by(g, v1=1, v2=2):\n    return g[v1:]\ndef transform(grid):\n    return by(grid, v1=0)", GRID),
        ("def use(g, transform):\n    return transform(g)\ndef solve(grid):\n    return use(grid, transform=np.flipud)", GRID[::-1]),
        ("def solve(grid):\n    return grid[:1]\ndef other(grid):\n    return grid\ntransform = solve", GRID[:1]),
    ],
)
def test_the_normal_form_calls_what_the_program_calls(text: str, output: list[list[int]]) -> None:
    assert run(text) == run(normal_form(text)) == output
    assert normal_form(normal_form(text)) == normal_form(text)


@pytest.mark.parametrize(
    ("lines", "output"),
    [
        (["a = {1: 2}", "b = a", "a |= {3: 4}", "return [[len(b)]]"], [[2]]),
        (["a = [1, 2]", "b = a", "a *= 2", "return [b]"], [[1, 2, 1, 2]]),
        (["a = [1, 2]", "a += np.array([3, 4])", "return [a]"], [[4, 6]]),
        (["a = np.eye(2, dtype=int)", "b = a", "a @= np.array([[1, 1], [0, 1]])", "return [b[0], a[0]]"], [[1, 0], [1, 1]]),
        (["return [[int(grid.dtype == int), int(grid.dtype != bool)]]"], [[1, 1]]),
        (["return [[int(np.array_equal(np.zeros((340, 32)), np.zeros((32, 340))))]]"], [[0]]),
        (["if len(grid) > 5:", "    return hidden", "f = lambda hidden: hidden", "return f(grid)"], GRID),
        (["a = {1: 2}", "keys = a.keys()", "a[5] = 6", "return [sorted(keys & {5, 7}), [sum(a.values())]]"], [[5], [8]]),
        (["a = {1: 2}", "return [[k + v for k, v in a.items()] + [int(1 in a.keys()), len(a.items())]]"], [[3, 1, 1]]),
        (["return [sum([[1], [2]], start=[3])]"], [[3, 1, 2]]),
        (["return [[a + b for a, b in zip([1, 2], (3, 4), strict=True)]]"], [[4, 6]]),
        (["return [[int(x) for x in f'{grid[0, 1]}{3}4'], [len(f'{{}}{[1]}'), 0, 0]]"], [[2, 3, 4], [5, 0, 0]]),
        (
            ["return [sorted(set.union(*[set(row.tolist()) for row in grid])), list(map(len, map(str.split, ['a b'] * 4)))]"],
            [[0, 1, 2, 3], [2] * 4],
        ),
        (["return grid.flatten(order='F').reshape(3, 2) + np.max(grid[:0], initial=1)"], [[2, 4], [3, 1], [1, 1]]),
        (["out = grid.copy()", "out.flat[1] = 5", "return out"], [[1, 5, 0], [3, 0, 0]]),
    ],
)
def test_operations_mean_what_python_means(lines: list[str], output: list[list[int]]) -> None:
    assert run(function(*lines)) == output


@pytest.mark.parametrize(
    ("kind", "lines", "words"),
    [
        (Refusal.VALUE, ["grid.T.flat[0] = 1", "return grid"], "read-only"),
        (Refusal.VALUE, ["return list(zip([1], [2, 3], strict=True))"], "zip"),
        (Refusal.VALUE, ["return [hidden]", "f = lambda hidden: 1"], "has no value here"),
        (Refusal.SYNTAX, ["*a, *b = [1, 2]", "return grid"], "several starred"),
        (Refusal.SYNTAX, ["def f(g, g):", "    return g", "return grid"], "the same parameter twice"),
        (Refusal.SYNTAX, ["break", "return grid"], "outside of a loop"),
        (Refusal.TYPE, ["return set.union([1], {2})"], "the first argument of a method of set is a set"),
        (Refusal.TYPE, ["return str([len])"], "a function has no text"),
        (Refusal.TYPE, ["return str({1: (zip(),)})"], "a zip has no text"),
        (Refusal.VALUE, ["return {}[lambda: 1]"], "KeyError: <function lambda>"),
        (Refusal.TYPE, ["return len([1], start=1)"], "takes no keyword"),
        (Refusal.TYPE, ["return abs(1, start=1)"], "the function got an unexpected keyword argument 'start'"),
        (Refusal.TYPE, ["return np.sum(lambda: 1)"], "numpy does not take a function"),
        (Refusal.OUTPUT, ["return 3"], "input 1: an int is no grid"),
        (Refusal.FORBIDDEN, ["class A:", "    pass", "return grid"], "line 3: class is not part of the language"),
        (Refusal.FORBIDDEN, ["match grid:", "    case [1, *_]:", "        pass", "return grid"], "line 3: match is not part of"),
        (Refusal.FORBIDDEN, ["with np.errstate():", "    return grid"], "line 3: with is not part of the language"),
    ],
)
def test_a_refusal_says_why(kind: Refusal, lines: list[str], words: str) -> None:
    assert refusal(function(*lines))[0] == kind
    assert words in refusal(function(*lines))[1]


def test_a_child_that_does_not_start_is_no_result_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_CHILD", ("-c", "raise SystemExit('no space')"))
    with pytest.raises(ArcSubmitError, match="does not start: no space"):
        ProgramProcess(LIMITS).run("def transform(grid):\n    return grid", [GRID])
    monkeypatch.setattr(process, "_CHILD", ("-c", "import time; time.sleep(9)"))
    monkeypatch.setattr(process, "_START_SECONDS", 0.01)
    with PythonLanguage(LIMITS) as language:
        with pytest.raises(ArcSubmitError, match=r"within 0\.01 seconds"):
            language.run("def transform(grid):\n    return grid", [make_grid(GRID)])
        assert not language._results


def test_what_a_function_in_its_own_variable_holds_is_freed(language: PythonLanguage) -> None:
    lines = ["held = [np.zeros((1000, 1000)) for _ in range(5)]", "f = lambda: (f, held)", "return grid"]  # 40 MB for each input
    assert len(language.run(function(*lines), [make_grid([[i % 10] * (i // 10 + 1)]) for i in range(16)])) == 16


def test_a_question_is_written_whole(language: PythonLanguage, monkeypatch: pytest.MonkeyPatch) -> None:
    language.run(function("return grid + 0"), [make_grid(GRID)])
    child = language.process._child
    assert child is not None
    assert child.stdin is not None
    write = child.stdin.write

    class Pipe:
        def write(self, data: bytes) -> int:
            return write(data[:7])

        def close(self) -> None:
            pass

    monkeypatch.setattr(child, "stdin", Pipe())
    assert language.process.run(function("return grid[::-1]"), [GRID]) == [GRID[::-1]]


def test_definitions_are_cut_where_python_ends_lines() -> None:
    text = "x = '\u2028'; y = 2\nprint(y)\n\f@f\ndef transform(grid):\r\n    return grid\r\n"
    assert definitions_of(text) == "x = '\u2028'\ny = 2\n@f\ndef transform(grid):\r\n    return grid"


def test_a_class_is_refused_by_name_where_the_program_uses_it_and_left_out_elsewhere() -> None:
    text = "class A:\n    pass\n\n\ndef transform(grid: A) -> A:\n    copy: A = grid\n    return copy\n"
    assert definitions_of(text) == text[text.index("def") :].strip()
    used = definitions_of("@frozen\n" + text.replace("= grid", "= A(grid)"))
    assert used.startswith("@frozen\nclass A:\n    pass\ndef transform")
    with pytest.raises(ProgramError, match=r"^forbidden: line 2: class is not part of the language$"):
        normal_form(used)


CUT = ("print(transform([[1, 2", "This rotates the grid.\n\nprint(1)", "print(1)\nprint(f'{x", "```", "An example:\n  >>> transform(1)")


@pytest.mark.parametrize("behind", CUT)
def test_what_python_cannot_read_behind_the_last_function_is_left_out(behind: str) -> None:
    program = "def f(x):\n    return x\ndef transform(grid):\n    return f(\n        grid\n)"
    assert normal_form(definitions_of(f"{program}\n\n{behind}")) == normal_form(program)


@pytest.mark.parametrize(
    "text", ["def transform(grid):\n    return f(grid\n", "def transform(g):\n    return f(g)\ndef f(g):\n    return (\n\nx"]
)
def test_a_function_that_the_end_cuts_is_not_left_out(text: str) -> None:
    assert definitions_of(text) == text


def test_names_that_are_bound_to_each_other_many_times_are_looked_up_once() -> None:
    """To follow every path through twelve bindings of each of ten names would take minutes."""
    bindings = [f"    {name} = {before}" for before, name in itertools.pairwise(["grid", *"abcdefghij"]) for _ in range(12)]
    tree = ast.parse("\n".join(["def transform(grid):", *bindings, "    out = j[:]", "    return out"]))
    entry = tree.body[0]
    assert isinstance(entry, ast.FunctionDef)
    assert input_type(tree, entry) is InputType.EITHER
