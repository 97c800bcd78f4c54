"""Grid encoders: a grid as text and back, composed from a safe specification string.

A specification such as `GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))` is parsed, never evaluated, into one flat encoder: a base
that writes a row of cells, steps that change each row's text, and a frame around the rows. Decoding is strict about the grid (its text must
equal the encoder's text for it) and tolerant of the text around it. Does not know prompts or tokens. The names and layouts of the steps are
those of arc24 (3rd, ARC Prize 2024).

    MinimalGridEncoder()             012          rows of digits
    GridWithSeparationEncoder("|")   0|1|2        a character between cells
    CompactGridEncoder()             BCA012B345   height and width as letters, each row after its letter, no newline
    ColumnGridEncoder()              BCA가객갺B갃갠갽  the same with one character for each colour in each column (`column_cell`)
    RowNumberEncoder(e)              1 012        each row after its number
    RepeatNumberEncoder(e, 3)        000111222    each character n times
    ReplaceNumberEncoder(e, "ab..")  abc          digits replaced by ten symbols
    GridCodeBlockEncoder(e)          ```grid ... ```
    GridShapeEncoder(e)              ```grid shape: 2x3 ... ```
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, make_grid
from arc_submit.errors import ArcSubmitError, ConfigError, DataError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcd"  # 1..30 in the compact form
DEFAULT_SYMBOLS = "abcdefghij"
_DIGITS = "0123456789"
_FIRST_SYLLABLE, _FINALS = 0xAC00, 28


def column_cell(column: int, colour: int) -> str:
    """The character of a colour in a column: a Hangul syllable whose lead and vowel encode the column, and whose final encodes the colour.

    A model that reads a row of digits must count cells to know their columns. Here every cell's token carries its column, at no more tokens
    (the importance of two-dimensional positions: ViTARC, arXiv 2410.06405).
    """
    return chr(_FIRST_SYLLABLE + _FINALS * column + colour)


class NotAGridError(ArcSubmitError):
    """A text that does not hold exactly one grid."""


@dataclass(frozen=True)
class _Step:
    """One reversible change of a row's text, (text, row index) -> text.

    `decode` may accept invalid text: every decoded row is encoded again and compared.
    """

    encode: Callable[[str, int], str]
    decode: Callable[[str, int], str]


@dataclass(frozen=True)
class _Frame:
    """The text around the rows.

    Attributes:
        find: a text -> (the rows' text, the announced height and width or None) for each possible grid in it.
    """

    header: Callable[[Grid], str]
    footer: str
    find: Callable[[str], list[tuple[str, tuple[int, int] | None]]]


@dataclass(frozen=True)
class GridEncoder:
    """A composed encoder, made by `make_encoder`.

    Attributes:
        spec: its specification.
        row_dependent: whether a row's text depends on its index.
        column_dependent: whether a cell's text depends on its column.
        separator: between two rows: a newline, or nothing.
    """

    spec: str
    row_dependent: bool
    column_dependent: bool
    separator: str
    _steps: tuple[_Step, ...]
    _frame: _Frame | None

    def header(self, grid: Grid) -> str:
        """The text before the rows."""
        return self._frame.header(grid) if self._frame else ""

    @property
    def footer(self) -> str:
        """The text after the rows."""
        return self._frame.footer if self._frame else ""

    def encode(self, grid: Grid) -> str:
        """The grid's text, without white space at its beginning or end."""
        return self.header(grid) + self.separator.join(self._row_texts(grid)) + self.footer

    def _row_texts(self, grid: Grid) -> list[str]:
        return [self.row_text(row.tolist(), i) for i, row in enumerate(grid)]

    def row_text(self, cells: Sequence[int], index: int) -> str:
        """One row's text, without the separator."""
        text = "".join(map(str, cells))
        for step in self._steps:
            text = step.encode(text, index)
        return text

    def row_cells(self, text: str, index: int) -> list[int] | None:
        """The cells of a row with an index, or None where the text is not exactly what this encoder writes for them."""
        cells = self._decode_row(text, index)
        return cells if cells is not None and self.row_text(cells, index) == text else None

    def decode(self, text: str) -> Grid:
        """The one grid in a text.

        Raises:
            NotAGridError: where there is none, or several that differ, or its text differs from the encoder's.
        """
        found: dict[str, Grid] = {}
        reasons = []
        for body, shape in self._frame.find(text) if self._frame else self._find_rows(text):
            try:
                grid = self._decode_rows(body)
                if shape is not None and grid.shape != shape:
                    raise DataError(f"announced as {shape[0]}x{shape[1]} but {grid.shape[0]}x{grid.shape[1]}")
                found.setdefault(body, grid)
            except DataError as error:
                reasons.append(str(error))
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise NotAGridError(f"{len(found)} different grids in the text, expected one")
        raise NotAGridError(f"no grid in the text{': ' if reasons else ''}{reasons[0] if reasons else ''}")

    def _decode_rows(self, body: str) -> Grid:
        rows = body.split(self.separator) if self.separator else re.findall(rf"[A-Za-z](?:[0-9]+|[{_SYLLABLES}]+)", body)
        if len(rows) > MAX_SIDE:
            raise DataError(f"{len(rows)} rows")
        cells = [self._decode_row(row, i) for i, row in enumerate(rows)]
        if None in cells:
            raise DataError(f"row {cells.index(None)} is not a row of cells")
        grid = make_grid(cells, "text")
        if self._row_texts(grid) != rows or self.separator.join(rows) != body:
            raise DataError("the text is not what the encoder writes for the grid")
        return grid

    def _decode_row(self, text: str, index: int) -> list[int] | None:
        for step in reversed(self._steps):
            text = step.decode(text, index)
        ok = 0 < len(text) <= MAX_SIDE and all(c in _DIGITS for c in text)
        return [int(c) for c in text] if ok else None

    def _find_rows(self, text: str) -> list[tuple[str, None]]:
        """For encoders without a frame: every longest run of lines that are rows."""
        runs: list[list[str]] = [[]]
        longest = len(self.row_text([0] * MAX_SIDE, COLOURS))
        for line in text.strip().split("\n"):
            # A row with a wrong number joins the run and makes it invalid. Otherwise the rows before it would pass as a grid.
            indices = dict.fromkeys((len(runs[-1]), 0, *(range(2 * MAX_SIDE) if self.row_dependent else ())))
            index = next((i for i in indices if len(line) <= longest and self.row_cells(line, i) is not None), None)
            if index is None or (index == 0 and runs[-1]):
                runs.append([])
            if index is not None:
                runs[-1].append(line)
        return [(self.separator.join(run), None) for run in runs if run]


@lru_cache(maxsize=64)
def make_encoder(spec: str) -> GridEncoder:
    """Build an encoder from its specification; the same object for the same text.

    Raises:
        ConfigError: naming the part that is unknown or does not fit.
    """
    (base, arguments), *wrappers = reversed(_parse(spec))
    steps: list[_Step] = []
    frame: _Frame | None = None
    if base == "GridWithSeparationEncoder":
        steps.append(_separation(spec, *arguments))
    elif base in _LETTERED:
        if wrappers:
            raise ConfigError(f"grid encoder {spec!r}: {base} has its own shape and row marks and cannot be wrapped")
        if base == "ColumnGridEncoder":
            steps.append(_Step(_to_syllables, _from_syllables))
        steps.append(_Step(lambda row, i: LETTERS[i] + row, lambda text, i: text[1:]))
        frame = _LETTERED[base]
    elif base != "MinimalGridEncoder":
        raise ConfigError(f"grid encoder {spec!r}: {base} is not one to begin with; known: {', '.join(_NAMES)}")
    for name, arguments in wrappers:
        if name in _STEPS and frame is not None:
            raise ConfigError(f"grid encoder {spec!r}: {name} changes rows and belongs inside the encoder that writes the fence")
        if name in _STEPS:
            steps.append(_STEPS[name](spec, *arguments))
        elif name in _FRAMES and frame is not None:
            raise ConfigError(f"grid encoder {spec!r}: GridShapeEncoder and GridCodeBlockEncoder both write the fence; keep one")
        elif name in _FRAMES:
            frame = _FRAMES[name]
        else:
            raise ConfigError(f"grid encoder {spec!r}: {name} is not known; known: {', '.join(_NAMES)}")
    row_dependent = base in _LETTERED or "RowNumberEncoder" in dict(wrappers)
    separator = "" if base in _LETTERED else "\n"
    return GridEncoder(spec, row_dependent, base == "ColumnGridEncoder", separator, tuple(steps), frame)


def _parse(spec: str) -> list[tuple[str, list[str | int]]]:
    """The names in a specification, the outermost first, each with its plain arguments."""
    try:
        node: ast.expr = ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(f"grid encoder {spec!r}: not of the form Outer(Inner())") from None
    chain: list[tuple[str, list[str | int]]] = []
    while True:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
            raise ConfigError(f"grid encoder {spec!r}: each part must be a name with its arguments in brackets")
        name = node.func.id
        inner = [argument for argument in node.args if isinstance(argument, ast.Call)]
        constants = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str | int)]
        if len(inner) + len(constants) != len(node.args) or len(inner) > 1 or (inner and node.args[0] is not inner[0]):
            raise ConfigError(f"grid encoder {spec!r}: {name} takes one encoder first, then plain strings or numbers")
        if name in _NAMES and len(constants) > (name in _WITH_ARGUMENT):
            raise ConfigError(f"grid encoder {spec!r}: {name} cannot take {len(constants)} plain arguments")
        chain.append((name, constants))
        if not inner:
            return chain
        node = inner[0]


def _separation(spec: str, mark: str | int = "|") -> _Step:
    if not isinstance(mark, str) or len(mark) != 1 or not mark.isprintable() or mark in _DIGITS + "`":
        raise ConfigError(f"grid encoder {spec!r}: the separation must be one printable character that is no digit or backtick")
    return _Step(lambda row, i: mark.join(row), lambda text, i: text[::2])


def _row_number(spec: str) -> _Step:
    return _Step(lambda row, i: f"{i + 1} {row}", lambda text, i: text.partition(" ")[2])


def _repeat(spec: str, times: str | int = 3) -> _Step:
    if not isinstance(times, int) or not 2 <= times <= 9:
        raise ConfigError(f"grid encoder {spec!r}: RepeatNumberEncoder repeats 2 to 9 times")
    return _Step(lambda row, i: "".join(c * times for c in row), lambda text, i: text[::times])


def _replace(spec: str, symbols: str | int = DEFAULT_SYMBOLS) -> _Step:
    ok = isinstance(symbols, str) and len(symbols) == len(set(symbols)) == COLOURS
    if not ok or any(not c.isprintable() or c in _DIGITS + " `" for c in str(symbols)):
        raise ConfigError(f"grid encoder {spec!r}: ReplaceNumberEncoder needs ten different printable symbols, no digit, space or backtick")
    encode, decode = str.maketrans(_DIGITS, str(symbols)), str.maketrans(str(symbols), _DIGITS)
    return _Step(lambda row, i: row.translate(encode), lambda text, i: text.translate(decode))


def _find_block(text: str) -> list[tuple[str, tuple[int, int] | None]]:
    return [(body, None) for body in re.findall(r"```grid\n([^`]*)\n```(?![`\w])", text)]


def _find_shape_block(text: str) -> list[tuple[str, tuple[int, int] | None]]:
    blocks = re.findall(r"```grid shape: ([1-9][0-9]?)x([1-9][0-9]?)\n([^`]*)\n```(?![`\w])", text)
    return [(body, (int(height), int(width))) for height, width, body in blocks]


def _to_syllables(row: str, index: int) -> str:
    return "".join(column_cell(column, int(c)) for column, c in enumerate(row))


def _from_syllables(text: str, index: int) -> str:
    return "".join(str((ord(c) - _FIRST_SYLLABLE) % _FINALS) for c in text)


def _lettered(cell: str) -> _Frame:
    """The frame of rows that begin with a letter: height and width as letters; `cell` is a regular expression's class for one cell."""
    pattern = re.compile(rf"(?<![A-Za-z{cell}])([A-Za-d])([A-Za-d])((?:[A-Za-d][{cell}]{{1,30}}){{1,30}})(?![A-Za-z{cell}])")

    def find(text: str) -> list[tuple[str, tuple[int, int] | None]]:
        return [(body, (LETTERS.index(height) + 1, LETTERS.index(width) + 1)) for height, width, body in pattern.findall(text)]

    return _Frame(lambda grid: LETTERS[grid.shape[0] - 1] + LETTERS[grid.shape[1] - 1], "", find)


_SYLLABLES = f"{column_cell(0, 0)}-{column_cell(MAX_SIDE - 1, COLOURS - 1)}"
_LETTERED = {"CompactGridEncoder": _lettered("0-9"), "ColumnGridEncoder": _lettered(_SYLLABLES)}
_STEPS: dict[str, Callable[..., _Step]] = {
    "RowNumberEncoder": _row_number,
    "RepeatNumberEncoder": _repeat,
    "ReplaceNumberEncoder": _replace,
}
_FRAMES = {
    "GridCodeBlockEncoder": _Frame(lambda grid: "```grid\n", "\n```", _find_block),
    "GridShapeEncoder": _Frame(lambda grid: f"```grid shape: {grid.shape[0]}x{grid.shape[1]}\n", "\n```", _find_shape_block),
}
_NAMES = ("MinimalGridEncoder", "GridWithSeparationEncoder", *_LETTERED, *_STEPS, *_FRAMES)
_WITH_ARGUMENT = ("GridWithSeparationEncoder", "RepeatNumberEncoder", "ReplaceNumberEncoder")
