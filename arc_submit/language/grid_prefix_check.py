"""Early detection of answers that cannot become a grid.

A model that has failed continues with rows of a wrong length, or repeats a row up to the token limit. This check lets an engine stop at the
first wrong row. Each row is checked once, when it is complete, so the check costs far less than a decoding step. Does not know engines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from arc_submit.arc.grid import COLOURS, MAX_SIDE
from arc_submit.language.encoders import LETTERS, GridEncoder, column_cell

_FENCE = re.compile(r"```grid(?: shape: ([0-9]+)x([0-9]+))?\n")


class GridPrefixCheck:
    """The check of one answer: called with all its tokens so far, more of them each time, it returns True at a dead end.

    A call with no more tokens than the one before begins another answer.

    At a dead end `encoder.decode` would refuse the answer with every continuation: a line is not a row, rows differ in length, or there are
    more rows than announced or than a grid may have. Every rule is conservative: an answer of an unknown form, such as a text before an
    unfenced grid, is never a dead end. Of a fenced form only the first block is checked.
    """

    def __init__(self, tokenizer: Any, encoder: GridEncoder):
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.compact = encoder.separator == ""
        self._begin()

    def _begin(self) -> None:
        # Tokens are decoded and characters are checked once: these are the numbers of those done so far.
        self._decoded = 0
        self._checked = 0
        self._text = ""
        self._body: int | None = None  # index in the text of the next row to check
        self._shape: tuple[int, int] | None = None  # as announced in the header
        self._rows = 0
        self._width = 0
        self._closed = False

    def __call__(self, tokens: Sequence[int]) -> bool:
        if len(tokens) <= self._decoded:
            self._begin()
        self._text += self.tokenizer.decode(list(tokens[self._decoded :]), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self._decoded = len(tokens)
        return self._compact_dead_end() if self.compact else self._lines_dead_end()

    def _compact_dead_end(self) -> bool:
        """For forms without newlines: two letters for height and width, then rows of a letter and `width` cells."""
        text = self._text
        if not text.isalnum() or len(text) < 3:
            return False  # the decoder also finds a grid between other characters
        if any(letter not in LETTERS for letter in text[:2]):
            return True
        height, width = LETTERS.index(text[0]) + 1, LETTERS.index(text[1]) + 1
        for index in range(max(0, self._checked - 2), len(text) - 2):
            row, column = divmod(index, width + 1)
            if row >= height or not self._is_valid(text[index + 2], row, column):
                return True
        self._checked = len(text)
        return False

    def _is_valid(self, character: str, row: int, column: int) -> bool:
        """Whether a character is possible in a row; column 0 is the row's letter."""
        if column == 0:
            return character == LETTERS[row]
        lowest, highest = (column_cell(column - 1, c) for c in (0, COLOURS - 1)) if self.encoder.column_dependent else "09"
        return lowest <= character <= highest

    def _lines_dead_end(self) -> bool:
        """For forms with newlines: rows, behind a fence where the encoder writes one."""
        if self._body is None:
            self._find_body()
        if self._body is None:
            return False
        while not self._closed and (end := self._text.find("\n", self._body)) >= 0:
            line = self._text[self._body : end]
            self._body = end + 1
            cells = self.encoder.row_cells(line, self._rows)
            if self.encoder.footer and line == self.encoder.footer.strip():
                self._closed = True
            elif cells is None:
                if self.encoder.footer:
                    return True
                self._closed = True  # text around an unfenced grid is left to the decoder
            else:
                self._rows += 1
                height, width = self._shape or (MAX_SIDE, self._width)
                if self._rows > height or (width and len(cells) != width):
                    return True
                self._width = len(cells)
        return False

    def _find_body(self) -> None:
        """Set the index of the first row as soon as the text shows it."""
        if self.encoder.footer:
            if found := _FENCE.search(self._text):
                self._body = found.end()
                self._shape = (int(found[1]), int(found[2])) if found[1] else None
        elif "\n" in self._text:
            self._body = 0
            self._closed = self.encoder.row_cells(self._text.partition("\n")[0], 0) is None  # other text comes first
