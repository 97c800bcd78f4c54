"""What programs of the Python subset may import, and exceptions, generators and scopes: equal to Python's, bounded and refused in words."""

from __future__ import annotations

import pytest

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.child import run_program
from arc_submit.programs.python.library import make_library
from arc_submit.programs.python.meter import Limits, Meter
from arc_submit.programs.python.names import LIBRARY
from arc_submit.programs.python.subset import definitions_of, normal_form, size

GRID = [[1, 2, 0], [3, 0, 0]]
LIMITS = Limits(steps=20_000, value_cells=100_000, cells=1_000_000)


def run(text: str) -> list[list[int]]:
    """The output of a program, which its normal form gives too."""
    output = run_program(text, [GRID], LIMITS)[0]
    assert run_program(normal_form(text), [GRID], LIMITS)[0] == output
    return output


def refusal(text: str) -> tuple[Refusal, str]:
    with pytest.raises(ProgramError) as caught:
        run(text)
    assert "\n" not in caught.value.message
    return caught.value.refusal, caught.value.message


def function(*lines: str, top: str = "") -> str:
    return "\n".join([*filter(None, [top]), "def transform(grid):", *("    " + line for line in lines)])


def test_the_library_has_what_its_table_names() -> None:
    assert set(make_library(Meter(LIMITS))) == LIBRARY


@pytest.mark.parametrize(
    ("top", "lines", "output"),
    [
        (
            "from collections import Counter, deque as queue, defaultdict",
            [
                *("counts = Counter(v for row in grid for v in row)", "counts[3] += 4", "left = queue([(0, 1)], maxlen=3)"),
                *("left.appendleft((2, 3))", "lists = defaultdict(list)", "for v in grid[0]:", "    lists[v % 2].append(int(v))"),
                "return [[counts.most_common(1)[0][0], counts[9], left.pop()[1]], [lists[0][0], len(lists), left.maxlen]]",
            ],
            [[3, 0, 1], [2, 2, 3]],
        ),
        (
            "import collections, copy",
            ["a = [[1], 2]", "b = copy.deepcopy(a)", "c = copy.copy(a)", "a[0].append(5)", "copy = collections.Counter('aab')"],
            None,
        ),
        (
            "import copy as cp",
            ["a = [[1]]", "a.append(a)", "b = cp.deepcopy(a)", "b[0][0] = 4", "copy = 7", "return [[a[0][0], b[1][0][0], copy]]"],
            [[1, 4, 7]],
        ),
        (
            "from itertools import product, groupby, chain\nimport itertools as it",
            [
                "pairs = [a * b for a, b in product([1, 2], repeat=2)]",
                "runs = [len(list(g)) for k, g in groupby([1, 1, 0, 5])] + [0]",
                "rest = list(chain.from_iterable([[1], [2]])) + list(it.accumulate([1, 1]))",
                "three = [sum(p) for p in it.combinations([1, 2, 3], 2)] + [next(it.count(4))]",
                "return [pairs, runs, rest, three]",
            ],
            [[1, 2, 2, 4], [2, 1, 1, 0], [1, 2, 1, 2], [3, 4, 5, 4]],
        ),
        (
            "import math\nfrom functools import reduce, lru_cache\nfrom heapq import heappush, heappop",
            [
                *("@lru_cache(maxsize=None)", "def steps(n):", "    return 1 if n < 2 else steps(n - 1) + steps(n - 2)"),
                *("heap = []", "for v in (3, 1, 2):", "    heappush(heap, (v, v))"),
                "return [[reduce(lambda a, b: a + b, [1, 2, 3]), heappop(heap)[0], steps(70) % 10, math.floor(2.5), math.isqrt(16)]]",
            ],
            [[6, 1, 9, 2, 4]],
        ),
        (
            "from scipy.ndimage import label, find_objects\nimport scipy.ndimage as ndi\nimport numpy as np",
            [
                "parts, count = label(np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]]))",
                "rows, columns = find_objects(parts)[2]",
                "joined, one = ndi.label(parts > 0, structure=np.ones((3, 3)))",
                "ring = np.pad(np.zeros((1, 1), int), 1, constant_values=1)",
                "full = ndi.binary_fill_holes(ring)",
                "return [[count, one, full.sum()], parts[2], [rows.start, rows.stop, columns.stop]]",
            ],
            [[3, 1, 9], [3, 3, 0], [1, 3, 2]],
        ),
        (
            "from scipy import ndimage",
            ["def f(label=1):", "    return label", "parts, n = ndimage.label(grid)", "return [[f(label=2), n, int(parts[1, 0])]]"],
            [[2, 1, 1]],
        ),
        (
            "import numpy as np\nfrom scipy.ndimage import binary_fill_holes as fill",
            ["return [fill(np.array([1, 0, 1, 0, 0]))]"],
            [[1, 1, 1, 0, 0]],
        ),
        ("", ["q = deque([1, 2])", "q.rotate(1)", "return [list(q)]"], [[2, 1]]),
        ("from numpy import rot90 as turn, array", ["return turn(array(grid), 2)"], [[0, 0, 3], [0, 2, 1]]),
        ("import numpy as np", ["return [[int(np.linalg.norm([3, 4])), int(np.logical_or.reduce([0, 1]))]]"], [[5, 1]]),
        (
            "from typing import List, Tuple\nGrid = List[List[int]]\nCell = tuple[int, int]",
            ["cell: Cell = (0, 1)", "return [row[:] for row in grid[1:]]"],
            [[3, 0, 0]],
        ),
    ],
)
def test_imports_mean_what_python_means(top: str, lines: list[str], output: list[list[int]] | None) -> None:
    if output is None:  # in Python, the name has no value when it is used
        assert refusal(function(*lines, "return grid", top=top))[0] is Refusal.FORBIDDEN
    else:
        assert run(function(*lines, top=top)) == output


@pytest.mark.parametrize(
    ("lines", "output"),
    [
        (["try:", "    x = grid[9]", "except IndexError:", "    x = 4", "else:", "    x = 5", "return [[x]]"], [[4]]),
        (["try:", "    return [[1 // 0]]", "except (KeyError, ArithmeticError) as e:", "    return [[int(len(str(e)) > 3)]]"], None),
        (["n = []", "try:", "    n.append(1)", "finally:", "    n.append(2)", "return [n]"], [[1, 2]]),
        (
            [
                "for i in range(3):",
                "    try:",
                "        continue",
                "    finally:",
                "        if i == 1:",
                "            break",
                "return [[i]]",
            ],
            [[1]],
        ),
        (
            [
                "try:",
                "    try:",
                "        raise KeyError('a')",
                "    except KeyError as e:",
                "        raise",
                "except:",
                "    return [[8]]",
            ],
            [[8]],
        ),
        (["def f():", "    try:", "        return 1", "    finally:", "        return 2", "return [[f()]]"], [[2]]),
        (
            # The depth of calls is as before: 30 times 60 calls are more than may be within each other.
            [
                *("def f(n):", "    if n:", "        return f(n - 1)", "    raise ValueError", "for i in range(30):"),
                *("    try:", "        f(60)", "    except ValueError:", "        pass", "return [[i % 10]]"),
            ],
            [[9]],
        ),
        (["try:", "    assert False", "except Exception as e:", "    return [[int(isinstance(e, AssertionError))]]"], [[1]]),
        (
            [
                "def g(n):",
                "    while n:",
                "        n -= 1",
                "        if n == 1:",
                "            continue",
                "        yield n",
                "return [list(g(4))]",
            ],
            None,
        ),
        (["def walk(n):", "    if n:", "        yield n", "        yield from walk(n - 1)", "return [list(walk(3))]"], [[3, 2, 1]]),
        (
            ["def g():", "    i = 0", "    while True:", "        yield i", "        i += 1", "a = g()", "next(a)", "return [[next(a)]]"],
            [[1]],
        ),
        (
            [
                "n = 0",
                "def f():",
                "    nonlocal n",
                "    n += 1",
                "    def h():",
                "        nonlocal n",
                "        n += 5",
                "    h()",
                "f()",
                "return [[n]]",
            ],
            [[6]],
        ),
        (["if (n := len(grid)) > 1:", "    a = [m for v in grid if (m := v[0]) > 1]", "return [[n, m, len(a)]]"], [[2, 3, 1]]),
        (
            [
                "def f(a, /, *rest, key=1, **more):",
                "    return a + len(rest) + key + more['x']",
                "return [[f(1, 0, 0, x=2, **{'key': 3})]]",
            ],
            [[8]],
        ),
        (["d = {'a': 1, **{'b': 2}}", "return [[len(d), len(dict.fromkeys('xyx')), int(type(d) is dict)]]"], [[2, 2, 1]]),
        (["return [[int(c) for c in f'{7:02d}{3.14159:.2f}'[:2]]]"], [[0, 7]]),
        (["s = slice(0, 1)", "return [list(grid[0][s])]"], [[1]]),
    ],
)
def test_statements_mean_what_python_means(lines: list[str], output: list[list[int]] | None) -> None:
    names: dict[str, object] = {}
    exec(function(*lines), names)  # what Python does
    expected = names["transform"](GRID)  # type: ignore[operator]
    assert run(function(*lines)) == expected
    assert output is None or output == expected


def test_a_global_name_begins_anew_for_each_input() -> None:
    text = "COUNT = 0\ndef transform(grid):\n    global COUNT\n    COUNT += 1\n    return [[COUNT]]"
    assert run_program(text, [GRID, GRID], LIMITS) == [[[1]], [[1]]]


@pytest.mark.parametrize(
    ("kind", "top", "lines"),
    [
        (Refusal.STEPS, "", ["while True:", "    try:", "        while True:", "            pass", "    except:", "        pass"]),
        (Refusal.STEPS, "", ["def f():", "    try:", "        f()", "    except:", "        f()", "    finally:", "        f()", "f()"]),
        (Refusal.STEPS, "", ["def g(n):", "    yield from g(n + 1)", "return list(g(0))"]),
        (Refusal.STEPS, "", ["def g():", "    while True:", "        yield 1", "return list(g())"]),
        (Refusal.STEPS, "", ["try:", "    f = lambda f: f(f)", "    f(f)", "except RuntimeError:", "    return grid"]),
        (Refusal.CELLS, "", ["try:", "    return [0] * 10 ** 9", "except:", "    return grid"]),
        (Refusal.VALUE, "", ["try:", "    return 10 ** 10 ** 9", "except Exception:", "    return grid"]),
        (Refusal.VALUE, "", ["raise ValueError('no', 3)"]),
        (Refusal.VALUE, "", ["raise Exception(grid)"]),
        (Refusal.TYPE, "", ["raise 3"]),
        (Refusal.TYPE, "", ["try:", "    return list({None, 1})", "except:", "    return grid"]),  # Python has an order
        (Refusal.CELLS, "from itertools import product", ["return list(product(range(10 ** 9), repeat=9))"]),
        (Refusal.CELLS, "from itertools import product", ["return list(product([1, 2], repeat=10 ** 9))"]),
        (Refusal.STEPS, "from itertools import permutations", ["for p in permutations(range(40)):", "    pass"]),
        (Refusal.STEPS, "from itertools import count", ["return sum(count())"]),
        (Refusal.STEPS, "from collections import deque", ["q = deque([1])", "while True:", "    q.extend(list(q))"]),
        (Refusal.CELLS, "from collections import Counter", ["return Counter('a' * 10 ** 9)"]),
        (Refusal.STEPS, "from collections import defaultdict", ["f = lambda: defaultdict(f)[0]", "return f()"]),
        (Refusal.STEPS, "from functools import reduce", ["return reduce(lambda a, b: a + b, range(10 ** 5))"]),
        (Refusal.VALUE, "import math", ["return math.factorial(10 ** 9)"]),
        (Refusal.VALUE, "import math", ["return math.comb(10 ** 9, 5 * 10 ** 8)"]),
        (Refusal.CELLS, "from scipy.ndimage import label\nimport numpy as np", ["return label(np.ones((300, 340)))"]),
        (Refusal.FORBIDDEN, "import math", ["return math"]),
        (Refusal.FORBIDDEN, "import math", ["return math.__loader__"]),
        (Refusal.FORBIDDEN, "import scipy.ndimage", ["return scipy.ndimage.convolve(grid)"]),
        (Refusal.FORBIDDEN, "from collections import Counter", ["return Counter.__init__.__globals__"]),
        (Refusal.FORBIDDEN, "import random", ["return grid"]),
        (Refusal.FORBIDDEN, "from os import path", ["return grid"]),
        (Refusal.FORBIDDEN, "from . import numpy", ["return grid"]),
        (Refusal.FORBIDDEN, "from typing import List", ["return List"]),
        (Refusal.FORBIDDEN, "", ["import copy as cp", "cp = 3", "return grid"]),
        (Refusal.FORBIDDEN, "", ["x = yield 3", "return grid"]),
        (Refusal.FORBIDDEN, "", ["try:", "    yield 1", "finally:", "    pass"]),
        (Refusal.FORBIDDEN, "", ["return transform(**{'__class__': 1})"]),
        (Refusal.FORBIDDEN, "", ["try:", "    pass", "except ValueError as __loader__:", "    pass"]),
        (Refusal.SYNTAX, "", ["nonlocal missing", "missing = 1", "return grid"]),
    ],
)
def test_what_is_refused_and_cannot_be_caught(kind: Refusal, top: str, lines: list[str]) -> None:
    assert refusal(function(*lines, top=top))[0] is kind


def test_the_normal_form_of_imports_is_one() -> None:
    forms = {
        normal_form(function("return [list(deque(grid[0]))]", top="from collections import deque")),
        normal_form(function("return [list(d(grid[0]))]", top="from collections import deque as d")),
        normal_form(function("import collections", "return [list(collections.deque(grid[0]))]")),
        normal_form(function("return [list(c.deque(grid[0]))]", top="import collections as c\nimport math")),
    }
    assert forms == {"def transform(v1):\n    return [list(collections.deque(v1[0]))]"}
    renamed = normal_form(function("global total", "try:", "    total = 2", "except NameError as e:", "    e", "return grid"))
    assert "total" not in renamed
    assert size(renamed) == size(normal_form(renamed))


def test_definitions_keep_the_imports_that_the_language_knows() -> None:
    text = (
        "import os\nfrom collections import deque\nimport scipy.ndimage as ndi\nimport matplotlib.pyplot as plt\nfrom typing import List\n"
    )
    kept = definitions_of(text + "def transform(grid):\n    return grid\n\nif __name__ == '__main__':\n    print(transform([[1]]))")
    assert kept.splitlines() == [
        *("from collections import deque", "import scipy.ndimage as ndi"),
        *("def transform(grid):", "    return grid"),
    ]


def test_a_program_that_fails_with_an_array_and_says_nothing_of_it_gets_a_list() -> None:
    assert run("def transform(g):\n    return [row + row if row == g[0] else row * 2 for row in g]") == [[1, 2, 0] * 2, [3, 0, 0] * 2]
    assert run("def transform(g):\n    if not g:\n        return g\n    return [g[0] + [1]]") == [[1, 2, 0, 1]]
    kind, message = refusal("def transform(g):\n    return [row + row if row == g[0] else row * 2 for row in g[:, :]]")
    assert kind is Refusal.VALUE
    assert "truth value of an array" in message
    # What is refused for both is refused for the array, as which the question describes the input.
    assert "truth value of an array" in refusal("def transform(g):\n    return g[0] if g == g else 1 // 0")[1]
