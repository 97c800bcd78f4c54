"""Random and hostile programs through a language's interpreter: nothing may crash, hang, write a file or take more memory than allowed.

    python benchmarks/fuzz_programs.py --programs 100000 --json

A third of the programs are mutations of valid ones, a third random trees, a third hostile texts, drawn by --seed. Prints how many programs
gave grids and how many each class of refusal refused, the longest time, the restarts of the child process and its largest memory, and
fails where anything but a ProgramError came out. Another language joins with an entry in LANGUAGES.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arc_submit.arc.grid import Grid, make_grid
from arc_submit.programs.interface import Language, ProgramError
from arc_submit.programs.painter.language import PainterLanguage
from arc_submit.programs.painter.shapes import HAS_COLUMN2, HAS_ROW2, KINDS
from arc_submit.programs.python.language import PythonLanguage
from arc_submit.programs.python.names import LIBRARY
from arc_submit.programs.python.subset import ATTRIBUTES, BUILTINS, NUMPY_FUNCTIONS

INPUTS = [make_grid(rows) for rows in ([[1, 2, 0], [3, 0, 0]], [[5]], [[(r * c) % 10 for c in range(12)] for r in range(9)])]
VALID = (
    "import numpy as np\ndef transform(grid):\n    return np.rot90(grid, 2)",
    "def transform(grid):\n    return [row[::-1] for row in grid]",
    "import numpy as np\ndef transform(grid):\n    h, w = grid.shape\n    out = np.zeros((h, w), dtype=int)\n    for r in range(h):\n"
    "        for c in range(w):\n            if grid[r, c] != 0:\n                out[h - 1 - r, c] = grid[r, c]\n    return out",
    "def neighbours(r, c, h, w):\n    return [(r + a, c + b) for a, b in [(0, 1), (1, 0)] if r + a < h and c + b < w]\n"
    "def transform(grid):\n    h, w = len(grid), len(grid[0])\n    seen = set()\n    left = [(0, 0)]\n    while left:\n"
    "        r, c = left.pop()\n        if (r, c) in seen:\n            continue\n        seen.add((r, c))\n"
    "        left.extend(neighbours(r, c, h, w))\n    return [[1 if (r, c) in seen else 0 for c in range(w)] for r in range(h)]",
    "import numpy as np\ndef transform(grid):\n    values, counts = np.unique(grid, return_counts=True)\n"
    "    best = values[np.argmax(counts)]\n    return np.where(grid == best, 0, np.clip(grid + 1, 0, 9))",
    "def transform(grid):\n    counts = {}\n    for row in grid:\n        for v in row:\n            counts[v] = counts.get(v, 0) + 1\n"
    "    order = sorted(counts, key=lambda v: (-counts[v], v))\n    return [[v] * min(30, counts[v]) for v in order[:1]]",
    "from collections import Counter, deque, defaultdict\nimport copy\ndef transform(grid):\n    out = copy.deepcopy(grid)\n"
    "    left, seen = deque([(0, 0)]), set()\n    while left:\n        r, c = left.popleft()\n        if (r, c) in seen:\n"
    "            continue\n        seen.add((r, c))\n        left.extend((a, b) for a, b in [(r + 1, c), (r, c + 1)] if a < len(grid)\n"
    "                    and b < len(grid[0]))\n    counts = Counter(int(v) for row in grid for v in row)\n    places = defaultdict(list)\n"
    "    for r, c in sorted(seen):\n        places[int(grid[r][c])].append((r, c))\n"
    "    for v, n in counts.most_common(2):\n        for r, c in places[v]:\n            out[r][c] = min(9, n)\n    return out",
    "from itertools import product, groupby\nfrom functools import lru_cache, reduce\nimport math\ndef transform(grid):\n"
    "    @lru_cache(maxsize=None)\n    def ways(r, c):\n        return 1 if r == 0 or c == 0 else ways(r - 1, c) + ways(r, c - 1)\n"
    "    runs = [[k for k, _ in groupby(row)] for row in grid]\n    total = reduce(lambda a, b: a + b, map(len, runs), 0)\n"
    "    return [[(ways(r, c) + total + math.gcd(r, c)) % 10 for c in range(len(grid[0]))] for r in range(len(grid))]",
    "from scipy.ndimage import label, binary_fill_holes\nimport numpy as np\ndef transform(grid):\n    parts, n = label(grid > 0)\n"
    "    full = binary_fill_holes(grid > 0, structure=np.ones((3, 3)))\n    return np.where(full, np.clip(parts, 0, 9), 0)",
    "def cells(grid):\n    for row in grid:\n        for v in row:\n            if v:\n                yield v\n    yield 0\n"
    "def transform(grid):\n    total = 0\n    def add(v):\n        nonlocal total\n        total += int(v)\n"
    "    for v in cells(grid):\n        try:\n            add(10 // v if not isinstance(v, str) else v)\n"
    "        except (ZeroDivisionError, KeyError) as e:\n            add(len(str(e)) > 0)\n        finally:\n            add(1)\n"
    "    if (last := total % 10) < 0:\n        raise ValueError(f'{last:>3}')\n    return [[last, total // 10 % 10]]",
    "import numpy as np\ndef transform(grid):\n    big = np.kron(grid, np.ones((2, 2), dtype=int))\n    return big[:30, :30]",
)
HOSTILE = (
    "def transform(grid):\n    return ().__class__.__bases__[0].__subclasses__()",
    "def transform(grid):\n    return transform.__globals__",
    "def transform(grid):\n    return getattr(grid, '__class__')",
    "import os\ndef transform(grid):\n    return os.system('true')",
    "from numpy import *\ndef transform(grid):\n    return grid",
    "import numpy as np\ndef transform(grid):\n    return np.load('x', allow_pickle=True)",
    "import numpy as np\ndef transform(grid):\n    return np.lib.npyio.DataSource",
    "import numpy as np\ndef transform(grid):\n    return np.array(grid).tofile('leak')",
    "import numpy as np\ndef transform(grid):\n    return np.memmap('leak', mode='w+', shape=9)",
    "import numpy as np\ndef transform(grid):\n    return np.zeros((10**6, 10**6))",
    "import numpy as np\ndef transform(grid):\n    return np.arange(10**6)[:, None] + np.arange(10**6)[None]",
    "import numpy as np\ndef transform(grid):\n    return np.pad(grid, 10**9)",
    "import numpy as np\ndef transform(grid):\n    return np.tile(grid, (10**5, 10**5))",
    "import numpy as np\ndef transform(grid):\n    return np.bincount(np.array([10**12]))",
    "import numpy as np\ndef transform(grid):\n    return np.zeros((1000, 1000))[np.zeros(10**6, dtype=int)]",
    "import numpy as np\ndef transform(grid):\n    return np.array(['a' * 10**6] * 10**3)",
    "import numpy as np\ndef transform(grid):\n    return np.add(1, 2, extobj=[1])",
    "def transform(grid):\n    return [[0] * 10**9]",
    "def transform(grid):\n    return 10**10**10",
    "def transform(grid):\n    return 1 << 10**12",
    "def transform(grid):\n    return 'a' * 10**9",
    "def transform(grid):\n    return round(7, -10**12)",
    "def transform(grid):\n    return '%1000000000d' % 7",
    "def transform(grid):\n    return '{:>1000000000}'.format(7)",
    "def transform(grid):\n    return f'{grid!r:>1000000000}'",
    "def transform(grid):\n    while True:\n        pass",
    "def transform(grid):\n    return transform(grid)",
    "def transform(grid):\n    return [x for x in iter(int, 1)]",
    "def transform(grid):\n    a = [1]\n    for i in range(40):\n        a = [a, a]\n    return str(a)",
    "def transform(grid):\n    a = [1]\n    a.append(a)\n    return a == [a]",
    "def transform(grid):\n    a = ['b' * 1000]\n    while True:\n        a += a",
    "def transform(grid):\n    f = lambda f: f(f)\n    return f(f)",
    "def transform(grid):\n    x = 'ab'\n    while True:\n        x = x.replace('a', 'aab')",
    "@print\ndef transform(grid):\n    return grid",
    "async def transform(grid):\n    await grid",
    "def transform(grid):\n    yield grid",
    "def transform(grid):\n    return (x := grid)",
    "class Grid(list):\n    pass\ndef transform(grid):\n    return Grid(grid)",
    "class A:\n    def __del__(self):\n        print(self)\ndef transform(grid):\n    while True:\n        A()",
    "def transform(grid):\n    match grid:\n        case [[*a], *b] | {'a': a, **b}:\n            return a\n        case _:\n"
    "            return b",
    "def transform(grid):\n    a = grid[0][:]\n    while True:\n        a = a + a[:]",
    "def transform(grid):\n    try:\n        return 1\n    except:\n        return 2",
    "def transform(grid):\n    global secret\n    secret = grid\n    return secret",
    "def transform(grid):\n    with open('leak', 'w') as f:\n        f.write('x')",
    "def transform(grid):\n    return \uff45val('1')",
    "def transform(grid):\n    return gr\u0456d",
    "def transform(grid):\n    return exec\x00('1')",
    "def transform(grid):\n    return '\ud800'",
    "def transform(grid):\n    return 1j ** 2",
    "def transform(grid):\n    print(*grid, file=open('leak', 'w'))\n    return grid",
    "def transform(grid):\n    return sorted(grid, key=__import__)",
    "def transform(grid):\n    return max({None, 1}, key=str)",
    "x = [0] * 10**6\ndef transform(grid):\n    return [list(x) for _ in range(10**6)]",
    "import copy\ndef transform(grid):\n    a = []\n    a.append(a)\n    while True:\n        a.append(copy.deepcopy(a))",
    "import copy\ndef transform(grid):\n    a = (1,)\n    for i in range(60):\n        a = (a, a)\n    return copy.deepcopy(a)",
    "from itertools import product\ndef transform(grid):\n    return list(product(range(10**9), repeat=9))",
    "from itertools import product\ndef transform(grid):\n    return sum(1 for _ in product([0] * 999, repeat=1000))",
    "from itertools import permutations\ndef transform(grid):\n    return max(permutations(range(40)))",
    "from itertools import permutations\ndef transform(grid):\n    return list(permutations([1], 10**12))",
    "from itertools import combinations_with_replacement as c\ndef transform(grid):\n    return next(c([1], 10**12))",
    "from itertools import cycle, count, chain, repeat, zip_longest\ndef transform(grid):\n"
    "    return list(zip_longest(cycle(grid), count(), repeat(1)))",
    "from itertools import count, islice\ndef transform(grid):\n    return list(islice(count(), 10**15, None))",
    "from itertools import accumulate\ndef transform(grid):\n    return list(accumulate(range(1, 10**5), lambda a, b: a * b))",
    "from itertools import chain\ndef transform(grid):\n    a = [1]\n    for i in range(900):\n        a = chain(a, [1])\n"
    "    return list(a)",
    "from itertools import repeat\ndef transform(grid):\n    return list(repeat(grid, 10**15))",
    "from collections import deque\ndef transform(grid):\n    q = deque([0])\n    while True:\n        q.extend(q.copy())",
    "from collections import deque\ndef transform(grid):\n    q = deque([0] * 10**5)\n    while True:\n"
    "        q.rotate(50000)\n        q.insert(50000, q * 9)",
    "from collections import deque\ndef transform(grid):\n    q = deque()\n    q.append(q)\n"
    "    return str(q) == f'{q}' and q == deque([q])",
    "from collections import defaultdict\ndef transform(grid):\n    tree = lambda: defaultdict(tree)\n    t = tree()\n"
    "    while True:\n        t = t[0]",
    "from collections import defaultdict\ndef transform(grid):\n    f = lambda: defaultdict(f)[0]\n    return f()",
    "from collections import defaultdict\ndef transform(grid):\n    d = defaultdict(lambda: transform(grid))\n    return d[0]",
    "from collections import Counter\ndef transform(grid):\n    return Counter('ab' * 10**8)",
    "from collections import Counter\ndef transform(grid):\n    return list(Counter(a=10**12).elements())",
    "from collections import Counter\ndef transform(grid):\n    c = Counter(range(10**5))\n    while True:\n        c += c\n"
    "        c.most_common()",
    "import math\ndef transform(grid):\n    return math.factorial(10**9)",
    "import math\ndef transform(grid):\n    return math.comb(10**18, 10**9) + math.perm(10**18, 10**9)",
    "import math\ndef transform(grid):\n    return math.lcm(*range(1, 9000))",
    "import math\ndef transform(grid):\n    return math.prod([2**900] * 10**5)",
    "from functools import reduce\ndef transform(grid):\n    return reduce(lambda a, b: a + a, range(10**5), [1])",
    "from functools import lru_cache\n@lru_cache(None)\ndef f(n):\n    return f(n + 1)\ndef transform(grid):\n    return f(0)",
    "from functools import partial\ndef transform(grid):\n    f = len\n    while True:\n        f = partial(f)\n    return f(grid)",
    "from functools import partial\ndef transform(grid):\n    f = len\n    for i in range(20000):\n        f = partial(f)\n"
    "    return f(grid)",
    "from heapq import heapify, heappush\ndef transform(grid):\n    h = list(range(10**6))\n    while True:\n        heapify(h)",
    "from heapq import nlargest\ndef transform(grid):\n    return nlargest(10**18, range(10**6))",
    "from bisect import insort\ndef transform(grid):\n    a = []\n    while True:\n        insort(a, 1)",
    "import numpy as np\nfrom scipy.ndimage import label\ndef transform(grid):\n    return label(np.ones((1000, 1000)))",
    "import numpy as np\nfrom scipy.ndimage import binary_dilation as d\ndef transform(grid):\n"
    "    return d(np.eye(300), np.ones((9, 9)), iterations=10**9)",
    "from scipy.ndimage import find_objects\ndef transform(grid):\n    return find_objects(grid, 10**12)",
    "import numpy as np\ndef transform(grid):\n    return np.lib.stride_tricks.sliding_window_view(np.ones((999, 999)), (500, 500)).sum()",
    "import numpy as np\ndef transform(grid):\n    return np.power.accumulate(np.arange(10**6)) + np.add.reduce(grid, out=grid)",
    "def transform(grid):\n    while True:\n        try:\n            while True:\n                pass\n        except:\n            pass",
    "def transform(grid):\n    try:\n        return transform(grid)\n    except Exception:\n        return transform(grid)\n"
    "    finally:\n        transform(grid)",
    "def transform(grid):\n    for i in range(10**6):\n        try:\n            raise ValueError(str(grid) * 100)\n"
    "        except ValueError as e:\n            kept = e",
    "def transform(grid):\n    a = [1]\n    for i in range(40):\n        a = [a, a]\n    raise ValueError(a)",
    "def transform(grid):\n    raise StopIteration(transform)",
    "def transform(grid):\n    try:\n        {}[grid.tobytes]\n    except Exception as e:\n        raise e.__traceback__",
    "def transform(grid):\n    def g(n):\n        yield from g(n + 1)\n    return next(g(0))",
    "def transform(grid):\n    def g(n):\n        yield n\n        for x in g(n + 1):\n            yield x\n    return list(g(0))",
    "def transform(grid):\n    def g():\n        while True:\n            yield grid\n    return [g() for _ in range(10**5)]",
    "def transform(grid):\n    def g():\n        yield from h\n    h = g()\n    return list(h)",
    "def transform(grid):\n    def g(a=[]):\n        a.append(g())\n        yield a\n        yield from a[0]\n    return list(g())",
    "def transform(grid):\n    def g():\n        nonlocal x\n        x = (y := [x, x])\n        yield f'{y!r:>99}'\n"
    "    x = 1\n    while True:\n        list(g())",
    "def transform(*a, **k):\n    return transform(*a, *a, **k, **{str(len(k)): k})",
    "def transform(grid):\n    return transform(**{'__class__': 1, 'grid\\u0131': 2})",
    "def transform(grid):\n    return f'{10**300:99d}{1.5:.99f}'.zfill(10**9).center(10**9)",
    "import math as transform\ndef transform(grid):\n    return grid",
    "from collections import *\ndef transform(grid):\n    return namedtuple('A', 'b')",
    "import numpy.ctypeslib as c\ndef transform(grid):\n    return c.load_library('libc.so.6', '/')",
    "import collections.abc\ndef transform(grid):\n    return collections.abc.sys.modules",
    "from itertools import product as p\ndef transform(grid):\n    return p.__self__.__loader__",
    "from operator import itemgetter\ndef transform(grid):\n    return itemgetter(*range(10**5))(range(10**6))",
)
_BRACKETS = ("()", "[]", "{}")


@dataclass
class Outcome:
    """What a fuzz found: numbers of programs by outcome, an example's message by outcome, and the faults."""

    counts: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    slowest_program: str = ""


def fuzz(language: Language, programs: Sequence[str] | Iterator[str], inputs: Sequence[Grid] = INPUTS) -> Outcome:
    """Run programs; anything but grids or a ProgramError with a message of one line is a fault."""
    outcome = Outcome()
    for program in programs:
        begun = time.monotonic()
        try:
            outputs = language.run(program, inputs)
            ending = "grids"
            if len(outputs) != len(inputs) or any(one.ndim != 2 or not 0 <= one.min() <= one.max() <= 9 for one in outputs):
                outcome.faults.append(f"no grids: {program!r:.200}")
        except ProgramError as error:
            ending = error.refusal.value
            outcome.messages.setdefault(ending, error.message)
            if not error.message or "\n" in error.message:
                outcome.faults.append(f"no message of one line: {program!r:.200}")
        except Exception as error:  # noqa: BLE001 - whatever escapes is what a fuzz looks for
            ending = "escaped"
            outcome.faults.append(f"{type(error).__name__}: {error!s:.100}: {program!r:.200}")
        outcome.counts[ending] += 1
        seconds = time.monotonic() - begun
        if seconds > outcome.slowest:
            outcome.slowest, outcome.slowest_program = seconds, program[:300]
    return outcome


def python_programs(seed: int) -> Iterator[str]:
    """An endless row of programs for the Python subset."""
    rng = random.Random(seed)
    while True:
        yield mutated(rng, rng.choice(VALID))
        yield random_tree(rng)
        yield hostile(rng)


def mutated(rng: random.Random, program: str) -> str:
    """A valid program with one to four changes to its tree: names, numbers, operators or parts replaced, lines left out or doubled."""
    tree = ast.parse(program)
    for _ in range(rng.randint(1, 4)):
        nodes = list(ast.walk(tree))
        node: Any = rng.choice(nodes)
        if isinstance(node, ast.Name):
            node.id = rng.choice([one.id for one in nodes if isinstance(one, ast.Name)] + ["len", "sum", "max", "sorted", "None"])
        elif isinstance(node, ast.Constant):
            node.value = rng.choice([0, 1, 2, -1, 10, 31, 10**6, 2**70, 0.5, True, None, "a", ""])
        elif isinstance(node, ast.Attribute):
            node.attr = rng.choice(sorted(ATTRIBUTES))
        elif isinstance(node, ast.BinOp):
            node.op = rng.choice([ast.Add(), ast.Mult(), ast.Pow(), ast.LShift(), ast.Mod(), ast.FloorDiv(), ast.MatMult(), ast.BitAnd()])
        elif isinstance(node, ast.Compare):
            node.ops[0] = rng.choice([ast.Eq(), ast.In(), ast.Lt(), ast.Is(), ast.NotIn()])
        elif isinstance(node, ast.Call) and node.args:
            node.args = rng.choice([node.args[:-1], node.args + node.args[:1], [ast.Starred(node.args[0], ast.Load())]])
        elif isinstance(node, ast.FunctionDef | ast.For | ast.While | ast.If) and len(node.body) > 1:
            node.body = rng.choice([node.body[1:], node.body[:-1], node.body[::-1], node.body + node.body])
        elif isinstance(node, ast.Return | ast.Expr):
            node.value = _expression(rng, 3)
    return _printed(tree, program)


def random_tree(rng: random.Random) -> str:
    """A function of random statements and expressions."""
    body = [_statement(rng, 3) for _ in range(rng.randint(1, 6))] + [ast.Return(_expression(rng, 4))]
    arguments = ast.arguments(posonlyargs=[], args=[ast.arg("grid")], kwonlyargs=[], kw_defaults=[], defaults=[])
    tree = ast.Module([ast.FunctionDef("transform", arguments, body, [])], [])
    return _printed(tree, "def transform(grid):\n    return grid")


def _printed(tree: ast.Module, otherwise: str) -> str:
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    except (RecursionError, TypeError, ValueError, AttributeError):
        return otherwise


def _statement(rng: random.Random, depth: int) -> Any:
    def body() -> list[Any]:
        return [_statement(rng, depth - 1) for _ in range(rng.randint(1, 3))]

    def name() -> Any:
        return ast.Name(rng.choice("abcd"), ast.Store())

    choice = rng.randrange(9 if depth > 0 else 3)
    if choice == 0:
        return ast.Assign([name()], _expression(rng, depth + 1), lineno=1)
    if choice == 1:
        return ast.AugAssign(name(), rng.choice([ast.Add(), ast.Mult(), ast.Pow(), ast.BitOr()]), _expression(rng, depth))
    if choice == 2:
        return rng.choice([ast.Pass(), ast.Expr(_expression(rng, depth)), ast.Return(_expression(rng, depth))])
    if choice == 3:
        return ast.For(name(), _expression(rng, 2), body(), [], lineno=1)
    if choice == 4:
        return ast.While(_expression(rng, 2), body(), [])
    if choice == 5:
        return ast.If(_expression(rng, 2), body(), body())
    if choice == 6:
        handler = ast.ExceptHandler(
            ast.Name(rng.choice(["Exception", "ValueError", "TypeError"]), ast.Load()), rng.choice(["e", None]), body()
        )
        return ast.Try(body(), [handler], [], body() if rng.randrange(2) else [])
    if choice == 7:
        inner = [ast.Expr(ast.Yield(_expression(rng, 2))), *body()] if rng.randrange(2) else body()
        arguments = ast.arguments([], [], None, [], [], None, [])
        return ast.FunctionDef(rng.choice("abcd"), arguments, inner, [], lineno=1)
    return ast.Assign([ast.Subscript(ast.Name("grid", ast.Load()), _expression(rng, 1), ast.Store())], _expression(rng, 2), lineno=1)


def _expression(rng: random.Random, depth: int) -> Any:
    def inner() -> Any:
        return _expression(rng, depth - 1)

    numpy = ast.Name("np", ast.Load())
    choice = rng.randrange(12 if depth > 0 else 2)
    if choice == 0:
        return ast.Constant(rng.choice([0, 1, 2, 3, 9, 10**6, 2**64, -1, 0.5, "a", None, True]))
    if choice == 1:
        return ast.Name(rng.choice(["grid", "grid", "a", "b", "c", "d"]), ast.Load())
    if choice == 2:
        operators = [ast.Add(), ast.Sub(), ast.Mult(), ast.Pow(), ast.Mod(), ast.LShift(), ast.FloorDiv(), ast.BitXor(), ast.MatMult()]
        return ast.BinOp(inner(), rng.choice(operators), inner())
    if choice == 3:
        return ast.Compare(inner(), [rng.choice([ast.Eq(), ast.Lt(), ast.In(), ast.Is()])], [inner()])
    if choice == 4:
        return ast.Subscript(inner(), rng.choice([inner(), ast.Slice(inner(), None, None), ast.Tuple([inner(), inner()])]), ast.Load())
    if choice == 5:
        return ast.Call(ast.Name(rng.choice(sorted(BUILTINS)), ast.Load()), [inner() for _ in range(rng.randint(0, 2))], [])
    if choice == 6:
        function = ast.Attribute(numpy, rng.choice(sorted(NUMPY_FUNCTIONS)), ast.Load())
        return ast.Call(function, [inner() for _ in range(rng.randint(1, 3))], [])
    if choice == 7:
        function = ast.Attribute(inner(), rng.choice(sorted(ATTRIBUTES)), ast.Load())
        return ast.Call(function, [inner() for _ in range(rng.randint(0, 2))], [])
    if choice == 8:
        return rng.choice([ast.List, ast.Tuple])([inner() for _ in range(rng.randint(0, 3))], ast.Load())
    if choice == 9:
        return ast.ListComp(inner(), [ast.comprehension(ast.Name("a", ast.Store()), inner(), [], 0)])
    if choice == 10:
        name = ast.parse(rng.choice(sorted(LIBRARY)), mode="eval").body
        return ast.Call(name, [inner() for _ in range(rng.randint(0, 3))], [])
    return ast.Lambda(ast.arguments([], [ast.arg("a")], None, [], [], None, []), inner())


def hostile(rng: random.Random) -> str:
    """A hostile text as it is, damaged, nested deeply, or with a long literal."""
    text = rng.choice(HOSTILE)
    choice = rng.randrange(8)
    if choice == 0:
        left, right = rng.choice(_BRACKETS)
        return f"def transform(grid):\n    return {left * (depth := rng.choice([50, 70, 1000, 9000]))}1{right * depth}"
    if choice == 1:
        prefix = rng.choice(["-", "not ", "~", "lambda: ", "1 + ", "1 if 1 else "])
        return f"def transform(grid):\n    return {prefix * rng.choice([40, 900, 2400])}1"
    if choice == 2:
        return f"def transform(grid):\n    return {rng.choice(['9' * 4000, '9' * 9000, '0x' + 'f' * 15000, '1e999', '1_0' * 3000])}"
    if choice == 3:
        return f"def transform(grid):\n    return grid{rng.choice(['.T', '[0]', '()', '.copy()']) * rng.choice([30, 200, 3000])}"
    if choice == 4:
        return "\n".join(" " * i + "if 1:" for i in range(rng.choice([5, 99, 150]))) + "\n"
    if choice == 5:
        at = rng.randrange(len(text))
        return text[:at] + rng.choice(["\x00", "\ufeff", "\\", "'", "(", "\n", "\t", "\u202e", "`", "$", "lambda"]) + text[at:]
    if choice == 6:
        return "".join(chr(rng.randrange(1, 300)) for _ in range(rng.randint(0, 200)))
    return text


def painter_programs(seed: int) -> Iterator[str]:
    """An endless row of texts for the painter's language: drawings, drawings with damaged words, and texts that are none."""
    rng = random.Random(seed)
    while True:
        words = [_shape(rng) for _ in range(rng.choice([0, 1, 2, 3, 5, 20, 256, 300]))]
        yield "\n".join(map(" ".join, words))
        for _ in range(rng.randint(1, 3) if words else 0):
            line = rng.choice(words)
            line[rng.randrange(len(line))] = rng.choice(
                [*KINDS, "", "-1", "30", "07", "+7", "1e3", "1_0", "\u0663", "9" * 5000, "\x00", "\n", "rect rect"]
            )
        yield "\n".join(map(" ".join, words))
        yield hostile(rng)


def _shape(rng: random.Random) -> list[str]:
    kind = rng.choice(KINDS)
    ends = (kind in HAS_ROW2) + (kind in HAS_COLUMN2)
    most = rng.choice([9, 11, 29])  # cells that small grids do not have too
    return [*(str(rng.randint(0, most)) for _ in range(2)), kind, str(rng.randint(0, 9)), *(str(rng.randint(0, most)) for _ in range(ends))]


@dataclass(frozen=True)
class Fuzzed:
    """A language, an endless row of programs for it, and the inputs that they get."""

    language: Callable[[], Any]
    programs: Callable[[int], Iterator[str]]
    inputs: Sequence[Grid]


LANGUAGES = {
    "painter": Fuzzed(PainterLanguage, painter_programs, [make_grid([[0] * 30] * 30), make_grid([[0] * 12] * 10)]),
    "python": Fuzzed(PythonLanguage, python_programs, INPUTS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", choices=sorted(LANGUAGES), default="python")
    parser.add_argument("--programs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")
    arguments = parser.parse_args()
    entry = LANGUAGES[arguments.language]
    total, begun = Outcome(), time.monotonic()
    # Whatever a program writes, it writes here.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(one).resolve()) for one in sys.path if one)
        os.chdir(folder)
        language, programs, done = entry.language(), entry.programs(arguments.seed), 0
        while done < arguments.programs:
            part = fuzz(language, [next(programs) for _ in range(min(1000, arguments.programs - done))], entry.inputs)
            done += sum(part.counts.values())
            total.counts += part.counts
            total.faults += part.faults
            total.messages = part.messages | total.messages
            if part.slowest > total.slowest:
                total.slowest, total.slowest_program = part.slowest, part.slowest_program
            print(f"{done} programs, {time.monotonic() - begun:.0f} s, {dict(total.counts)}", flush=True)
            for fault in part.faults:
                print(fault, flush=True)
        starts = language.process.starts if isinstance(language, PythonLanguage) else 0
        if isinstance(language, PythonLanguage):
            language.close()
        files = sorted(path.name for path in Path(folder).iterdir())
    figures = {
        "language": arguments.language,
        "programs": done,
        "counts": dict(total.counts.most_common()),
        "faults": total.faults,
        "files": files,
        "starts": starts,
        "slowest_seconds": round(total.slowest, 2),
        "seconds": round(time.monotonic() - begun),
        "parent_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "largest_child_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }
    for ending, count in total.counts.most_common():
        print(f"{ending:10} {count:7}  {total.messages.get(ending, '')[:90]}")
    print(f"slowest: {total.slowest:.2f} s: {total.slowest_program!r}")
    if arguments.json:
        print(json.dumps(figures))
    if total.faults or files:
        sys.exit(1)


if __name__ == "__main__":
    main()
