"""A guard over answers as they are written: is there any way left for the tokens so far to become one grid?

A model that has lost its way goes on writing rows of the wrong length, or the same row for ever. Each row is checked as soon as it is
complete, once, so that a guard costs next to nothing. An answer without a beginning that the guard knows is never judged. Knows
nothing about engines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from arc_submit.arc.grid import COLOURS, MAX_SIDE
from arc_submit.language.encoders import LETTERS, GridEncoder, column_cell

_FENCE = re.compile(r"```grid(?: shape: ([0-9]+)x([0-9]+))?\n")


class GridPrefixCheck:
    """Whether an answer is hopeless, for one answer; called with all its tokens each time there are more.

    Hopeless is what `encoder.decode` would refuse whatever came next: a row that is none, a row of another length than the first, more
    rows than announced or than a grid can have. In a fenced form the answer is taken to be its first block.
    """

    def __init__(self, tokenizer: Any, encoder: GridEncoder):
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.compact = encoder.separator == ""
        self._read = 0  # tokens
        self._text = ""
        self._checked = 0  # characters
        self._body: int | None = None  # where the rows begin
        self._announced: tuple[int, int] | None = None
        self._rows = 0
        self._width = 0
        self._closed = False

    def __call__(self, tokens: Sequence[int]) -> bool:
        self._text += self.tokenizer.decode(list(tokens[self._read :]), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self._read = len(tokens)
        return self._compact_spoilt() if self.compact else self._lines_spoilt()

    def _compact_spoilt(self) -> bool:
        """Two letters for the size, then rows of a letter and as many cells as the second said."""
        text = self._text
        if not text.isalnum() or len(text) < 3:
            return False  # the reader looks for a grid between other characters
        if any(letter not in LETTERS for letter in text[:2]):
            return True
        height, width = LETTERS.index(text[0]) + 1, LETTERS.index(text[1]) + 1
        for place in range(max(0, self._checked - 2), len(text) - 2):
            row, column = divmod(place, width + 1)
            if row >= height or not self._belongs(text[place + 2], row, column):
                return True
        self._checked = len(text)
        return False

    def _belongs(self, character: str, row: int, column: int) -> bool:
        """Whether a character can stand at that place of a row, its letter being at 0."""
        if column == 0:
            return character == LETTERS[row]
        lowest, highest = (column_cell(column - 1, c) for c in (0, COLOURS - 1)) if self.encoder.columned else "09"
        return lowest <= character <= highest

    def _lines_spoilt(self) -> bool:
        """Rows between line ends, after the fence where the encoder writes one."""
        if self._body is None:
            self._find_body()
        if self._body is None:
            return False
        while not self._closed and (end := self._text.find("\n", self._body)) >= 0:
            line = self._text[self._body : end]
            self._body = end + 1
            if self.encoder.footer and line == self.encoder.footer.strip():
                self._closed = True
                break
            cells = self.encoder.row_cells(line, self._rows)
            width = self._announced[1] if self._announced else self._width
            if cells is None:
                if not self.encoder.footer:
                    self._closed = True  # what surrounds a grid without a fence is the reader's business
                    break
                return True
            self._rows += 1
            self._width = self._width or len(cells)
            if (width and len(cells) != width) or self._rows > (self._announced[0] if self._announced else MAX_SIDE):
                return True
        return False

    def _find_body(self) -> None:
        if not self.encoder.footer:
            first = self._text.partition("\n")[0]
            if "\n" in self._text and self.encoder.row_cells(first, 0) is not None:
                self._body = 0
            elif "\n" in self._text:
                self._closed, self._body = True, len(self._text)
            return
        found = _FENCE.search(self._text)
        if found:
            self._body = found.end()
            self._announced = (int(found[1]), int(found[2])) if found[1] else None
