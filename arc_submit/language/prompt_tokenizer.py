"""Chat turns to token ids, without tokenizing the same row twice.

Rendering a chat and tokenizing its text costs more than a small model's forward pass. Here the chat template is rendered once for each
shape of a chat, with marks in the place of the grids. The literal text between marks is tokenized once, and a row's tokens are composed
from the tokens of its cells (or, where cells merge into one token, cached by the row's content). A trial on random tasks shows, when a
PromptTokenizer is made, whether the result equals the tokens of the whole text. Where it does not, the whole text is tokenized, and
`reason` explains it. Does not know task files or models.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from arc_submit.arc.grid import COLOURS, MAX_SIDE, Grid, frozen, same_grid
from arc_submit.arc.task import Pair
from arc_submit.errors import ConfigError
from arc_submit.language.chat_template import FIXED_DATE, Chat, ChatTemplate, PlainChat
from arc_submit.language.encoders import GridEncoder, NotAGridError, make_encoder
from arc_submit.language.end_marks import find_end_ids
from arc_submit.language.prompt_config import NO_CHAT_TEMPLATE, PromptConfig
from arc_submit.language.prompts import CANDIDATES_OF, Part, PromptVersion, Turn

_FIRST_MARK = 0xE000  # grids are marked by private use characters, which no template or encoder writes
_MARK = re.compile("([\ue000-\uf8ff])")
_CACHED_ROWS = 200_000
_CACHED_TEXTS = 10_000


@dataclass(frozen=True)
class _RowPattern:
    """A row's tokens as a function of its cells: prefix + columns[0][cell 0] + columns[1][cell 1] + ... + suffix."""

    prefix: list[int]
    columns: list[list[list[int]]]
    suffix: list[int]

    def tokens(self, cells: Sequence[int]) -> list[int]:
        ids = self.prefix.copy()
        for column, cell in zip(self.columns, cells, strict=False):
            ids += column[cell]
        return ids + self.suffix


class PromptTokenizer:
    """Tokenizes one prompt version with one grid encoder for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer.
        encoder: of the grids.
        prompt: the words around the grids.
        reuse: False always tokenizes the whole text (the usual practice, for comparisons).
        chat_template: its text; None takes the tokenizer's, "none" writes the turns one after another.
        end_marks: the tokens that end an answer, by their text; empty: found, see `find_end_ids`.

    Attributes:
        reuse: whether tokens are reused.
        reason: of `reuse`.
        end_id: the token that ends an answer in training.
        end_ids: the tokens that end an answer in generation, `end_id` first.

    Raises:
        ConfigError: where the tokenizer has no chat template or end token, or cannot write the prompt.
    """

    def __init__(
        self,
        tokenizer: Any,
        encoder: GridEncoder,
        prompt: PromptVersion,
        reuse: bool = True,
        chat_template: str | None = None,
        end_marks: Sequence[str] = (),
    ):
        self.tokenizer = tokenizer
        self._chat: Chat = PlainChat() if chat_template == NO_CHAT_TEMPLATE else ChatTemplate(tokenizer, chat_template)
        self.encoder = encoder
        self.prompt = prompt
        self._templates: dict[Any, str] = {}
        self._literals: dict[str, list[int]] = {}
        self._last_words = ""
        self._ending = ""  # what ends an answer where the template writes nothing behind it
        self._unwritten = self._find_unwritten()
        self._lengths: dict[tuple[int, int], int] = {}
        self._longest_rows: dict[int, npt.NDArray[np.int8]] = {}
        self._rows: dict[tuple[bytes, int, bool], list[int]] = {}
        self._patterns: dict[tuple[int, bool], _RowPattern | None] = {}
        self.reuse, self.reason = False, "reuse is off"
        self._check_vocabulary()
        # Raises here, before hours are spent, where a template does not end an answer.
        self._answer_template, self.end_ids = self._find_end(end_marks)
        self.end_id = self.end_ids[0]
        # The words that training teaches before and behind an answer's grid.
        words = (self._tokenize(piece) for piece in self._answer_template.split(chr(_FIRST_MARK)))
        self._around = tuple(self._text_of(itertools.takewhile(lambda token: token not in self.end_ids, ids)) for ids in words)
        if reuse:
            self.reuse, self.reason = self._try_reuse()
        self._check_answers()

    @classmethod
    def from_config(cls, tokenizer: Any, config: PromptConfig, prompt: PromptVersion | None = None, reuse: bool = True) -> PromptTokenizer:
        """The one for a model's prompt configuration.

        Args:
            prompt: another question than the configuration's, asked in the same way.
            reuse: see the class.
        """
        special_tokens = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        version = prompt or config.version(special_tokens)
        return cls(tokenizer, make_encoder(config.grid_encoder), version, reuse, config.chat_template, config.end_marks)

    def let_think(self) -> None:
        """Let the model think before its answer in the prompts from now on, where the chat template has a switch for it."""
        self._chat.thinking = True
        self._templates.clear()

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of the chat, with the template's beginning of an answer at its end."""
        return self._tokens(self._question(turns), _grids(turns))

    def sample_ids(self, turns: Sequence[Turn], answer: Part) -> tuple[list[int], int]:
        """Token ids of the chat with its answer and end token, and the position at which the answer begins.

        The prompt's tokens are exactly those of `prompt_ids`, so that training and inference see the same prompt; only where the template
        opens thinking in the prompt and `let_think` lets the model think, they are without that.

        Raises:
            ConfigError: where the chat template does not write the answer after the prompt and the end token after the answer.
        """
        prompt = self._tokens(self._template(turns, True), _grids(turns))
        template, grids = self._after_prompt(turns, answer)
        return prompt + self._up_to_end(self._answer_tokens(template, grids)), len(prompt)

    def _after_prompt(self, turns: Sequence[Turn], answer: Part) -> tuple[str, list[Grid]]:
        """What the template writes behind a chat's prompt, with a mark where the answer is a grid, and the grids of the whole chat.

        Raises:
            ConfigError: where the answer does not follow the prompt.
        """
        chat = [*turns, Turn("assistant", self.prompt.write_answer(answer))]
        prompt_template, chat_template = self._template(turns, True), self._template(chat, False)
        if not chat_template.startswith(prompt_template):
            raise ConfigError(
                f"the chat template of {self.tokenizer.name_or_path} does not write an answer right after its prompt; give another one "
                "with --chat-template FILE"
            )
        return chat_template[len(prompt_template) :] + self._ending, _grids(chat)

    def _up_to_end(self, answer: list[int]) -> list[int]:
        """An answer's tokens with its end token, without what the template writes behind that: the model must learn to stop there."""
        if self.end_id not in answer:
            raise ConfigError(f"the chat template of {self.tokenizer.name_or_path} does not end every answer with {self.end_marks[0]}")
        return answer[: answer.index(self.end_id) + 1]

    def grid_spans(self, turns: Sequence[Turn]) -> list[tuple[int, int]]:
        """The positions of the chat's grids in `prompt_ids`: the first one and the one behind the last row, in order.

        A grid's header belongs to its span where its tokens are separate from the words before.

        Raises:
            ConfigError: where this tokenizer merges rows with the text around them.
        """
        if not self.reuse:
            raise ConfigError(
                f"{self.tokenizer.name_or_path} merges grids with the text around them ({self.reason}): their positions are unknown"
            )
        spans: list[tuple[int, int]] = []
        self._tokens(self._template(turns, True), _grids(turns), spans)
        return spans

    def reply_spans(self, turns: Sequence[Turn], whole: bool) -> list[tuple[int, int]]:
        """The positions that a model learns to write each of the chat's grids, the first one and the one behind the last, in order.

        The token after a grid ends it, and is learned with it.

        Args:
            whole: up to the end mark, where one follows before the next grid.

        Raises:
            ConfigError: as `grid_spans`.
        """
        spans = self.grid_spans(turns)
        if not whole:
            return [(first, stop + 1) for first, stop in spans]
        ids = self.prompt_ids(turns)
        borders = [*(first for first, _ in spans[1:]), len(ids)]
        ends = [
            next((i for i in range(stop, border) if ids[i] == self.end_id), stop) for (_, stop), border in zip(spans, borders, strict=True)
        ]
        return [(first, end + 1) for (first, _), end in zip(spans, ends, strict=True)]

    def answer_ids(self, grid: Grid) -> list[int]:
        """Token ids of a grid as the answer to any prompt, end token included."""
        return self._up_to_end(self._answer_tokens(self._answer_template, [grid]))

    def answer_length(self, shape: tuple[int, int]) -> int:
        """The number of tokens of an answer with a grid of a shape: all that training teaches, from the prompt's end to the end token.

        Exact for tokenizers that write every cell alike. For those that merge cells it is what the longest of many rows takes in every row.
        """
        if shape not in self._lengths:
            self._lengths[shape] = len(self.answer_ids(self.longest_grid(shape)))
        return self._lengths[shape]

    def longest_grid(self, shape: tuple[int, int]) -> Grid:
        """A grid of a shape that takes as many tokens as any, or nearly so where cells merge."""
        if shape[1] not in self._longest_rows:
            self._longest_rows[shape[1]] = self._longest_row(shape[1])
        return frozen(np.tile(self._longest_rows[shape[1]], (shape[0], 1)))

    def _longest_row(self, width: int) -> npt.NDArray[np.int8]:
        """Of rows in which every two colours alternate, and of random ones, the one with the most tokens; int8, (width,)."""
        rng = np.random.default_rng(0)
        pairs = [(a, b) for a in range(COLOURS) for b in range(COLOURS)]
        rows = [np.resize(np.array(pair, dtype=np.int8), width) for pair in pairs]
        if self.reuse and self._pattern(0, False):
            return rows[0]
        rows += [rng.integers(0, COLOURS, width, dtype=np.int8) for _ in range(len(rows))]
        lengths = list(map(len, self._tokenize_rows([row.tolist() for row in rows], 0, True)))
        return rows[lengths.index(max(lengths))]

    def decode(self, ids: Sequence[int]) -> Grid:
        """The grid in an answer's tokens, with or without an end token.

        Raises:
            NotAGridError: where there is not exactly one.
        """
        # Not every tokenizer counts its end marks among the special tokens.
        answer = list(itertools.takewhile(lambda token: token not in self.end_ids, ids))
        before, behind = self._around
        return self.encoder.decode(self._text_of(answer).removeprefix(before).removesuffix(behind))

    def _text_of(self, ids: Iterable[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def text(self, turns: Sequence[Turn], generation: bool = True) -> str:
        """The chat as text, rendered by the model's own template."""
        return self._filled(self._question(turns) if generation else self._template(turns, False), _grids(turns))

    def outline(self, turns: Sequence[Turn]) -> str:
        """The chat in one line, for people: the text around the grids as the template writes it, and each grid by its size."""
        pieces = _MARK.split(self._question(turns))
        grids = _grids(turns)
        sizes = (grids[ord(piece) - _FIRST_MARK].shape if i % 2 else () for i, piece in enumerate(pieces))
        return "".join(f"[{size[0]}x{size[1]}]" if size else repr(piece)[1:-1] for size, piece in zip(sizes, pieces, strict=True))

    def _filled(self, template: str, grids: Sequence[Grid]) -> str:
        """A rendered template, or a part of it, with the grids in the place of their marks."""
        pieces = _MARK.split(template)
        return "".join(self.encoder.encode(grids[ord(p) - _FIRST_MARK]) if i % 2 else p for i, p in enumerate(pieces))

    def _tokens(self, template: str, grids: Sequence[Grid], spans: list[tuple[int, int]] | None = None) -> list[int]:
        """Tokens of a rendered template, or of its end, composed from cached ones where `reuse` holds.

        Args:
            template: text with marks; `grids` holds the marked grids.
            spans: receives the first position and the position behind the end of every grid.
        """
        if not self.reuse:
            return self._tokenize(self._filled(template, grids))
        ids: list[int] = []
        literal = ""
        newlines, numbered = self.encoder.separator == "\n", self.encoder.row_dependent
        # Pieces alternate: literal text, mark, literal text, ... The text between two grids' rows (the one's footer, the words, the other's
        # header) is tokenized as one literal: a tokenizer may merge across the inner borders, and the trial decides about the outer ones.
        for i, piece in enumerate(_MARK.split(template)):
            if i % 2 == 0:
                literal += piece
                continue
            grid = grids[ord(piece) - _FIRST_MARK]
            start, words = len(ids), self._literal(literal) if spans is not None else []
            ids += self._literal(literal + self.encoder.header(grid))
            height, width = grid.shape
            cells = grid.tobytes()
            first = start + len(words) if ids[start : start + len(words)] == words else len(ids)
            for row in range(height):
                ids += self._row(cells[row * width : (row + 1) * width], row if numbered else 0, newlines and row < height - 1)
            if spans is not None:
                spans.append((first, len(ids)))
            literal = self.encoder.footer
        return ids + self._literal(literal)

    def _answer_tokens(self, template: str, grids: Sequence[Grid]) -> list[int]:
        """Tokens of what the template writes behind a prompt.

        Some tokenizers write a space in front of every text. Behind a prompt there is none, so the answer is tokenized behind the prompt's
        last words.
        """
        if self.reuse:
            return self._tokens(template, grids)
        answer, words = self._filled(template, grids), self._tokenize(self._last_words)
        both = self._tokenize(self._last_words + answer)
        return both[len(words) :] if both[: len(words)] == words else self._tokenize(answer)

    def _row(self, cells: bytes, index: int, newline: bool) -> list[int]:
        """Tokens of a row.

        Args:
            cells: a byte 0..9 for each cell.
            index: of the row; 0 for encoders whose rows do not depend on it.
            newline: whether a newline follows.
        """
        pattern = self._pattern(index, newline)
        if pattern:
            return pattern.tokens(cells)  # not cached: random views rarely repeat a row, so caching costs more than it saves
        key = (cells, index, newline)
        if key not in self._rows:
            if len(self._rows) >= _CACHED_ROWS:
                self._rows.clear()
            self._rows[key] = self._tokenize_row(*key)
        return self._rows[key]

    def _literal(self, text: str) -> list[int]:
        if text not in self._literals:
            if len(self._literals) >= _CACHED_TEXTS:
                self._literals.clear()
            self._literals[text] = self._tokenize(text) if text else []
        return self._literals[text]

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _tokenize_row(self, cells: Sequence[int], index: int, newline: bool) -> list[int]:
        return self._tokenize_rows([cells], index, newline)[0]

    def _tokenize_rows(self, rows: Sequence[Sequence[int]], index: int, newline: bool) -> list[list[int]]:
        """Tokens of rows of one index; one call for many rows takes a fraction of the time of many calls."""
        texts = [self.encoder.row_text(cells, index) + "\n" * newline for cells in rows]
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _pattern(self, index: int, newline: bool) -> _RowPattern | None:
        if (index, newline) not in self._patterns:
            self._patterns[index, newline] = self._find_pattern(index, newline)
        return self._patterns[index, newline]

    def _find_pattern(self, index: int, newline: bool) -> _RowPattern | None:
        """The pattern of rows with an index, found on short rows and tried on random ones; None where there is none."""
        # Rows of one cell: the tokens that are equal for all colours at the beginning and at the end are prefix and suffix.
        ones = self._tokenize_rows([[c] for c in range(COLOURS)], index, newline)
        start = next((i for i, column in enumerate(zip(*ones, strict=False)) if len(set(column)) > 1), None)
        if start is None or len({len(ids) for ids in ones}) > 1:
            return None
        end = next(i for i, column in enumerate(zip(*(ids[::-1] for ids in ones), strict=False)) if len(set(column)) > 1)
        stop = len(ones[0]) - end
        columns = [[ids[start:stop] for ids in ones]]
        # A further column's tokens are those that one more cell adds. All columns but the first are alike, unless the encoder writes a cell
        # differently in every column; the first may lack a separator.
        before = stop
        later = range(1, MAX_SIDE if self.encoder.column_dependent else 2)
        tokens = self._tokenize_rows([[0] * column + [c] for column in later for c in range(COLOURS)], index, newline)
        for first in range(0, len(tokens), COLOURS):
            columns.append([ids[before : len(ids) - end] for ids in tokens[first : first + COLOURS]])
            before = len(tokens[first]) - end
        columns += columns[-1:] * (MAX_SIDE - len(columns))
        pattern = _RowPattern(ones[0][:start], columns, ones[0][stop:])
        if any(not ids for column in columns for ids in column):
            return None
        rng = np.random.default_rng(index)
        # Every two colours begin a row, and among so many random cells every two meet further on: a merge of any two would show.
        rows = [
            [a, b, *rng.integers(0, COLOURS, (a + b * COLOURS) % (MAX_SIDE - 1)).tolist()] for a in range(COLOURS) for b in range(COLOURS)
        ]
        rows += [[c] * width for c in range(COLOURS) for width in (1, 2, 3, 4, 7, MAX_SIDE)]
        return pattern if [pattern.tokens(row) for row in rows] == self._tokenize_rows(rows, index, newline) else None

    def _template(self, turns: Sequence[Turn], generation: bool) -> str:
        """The chat rendered with a mark for each grid; cached by words and roles, which repeat from task to task."""
        key = (generation, *((turn.role, *(part if isinstance(part, str) else None for part in turn.parts)) for turn in turns))
        if key not in self._templates:
            if len(self._templates) >= _CACHED_TEXTS:  # questions that hold programs rarely repeat
                self._templates.clear()
            marks = map(chr, itertools.count(_FIRST_MARK))
            contents = ["".join(part if isinstance(part, str) else next(marks) for part in turn.parts) for turn in turns]
            messages = [{"role": turn.role, "content": content} for turn, content in zip(turns, contents, strict=True)]
            text = self._chat.render(messages, generation)
            self._templates[key] = text.removesuffix(self._unwritten) if generation else text
        return self._templates[key]

    def _question(self, turns: Sequence[Turn]) -> str:
        """The prompt's template, with the thinking that it opens where the model may think."""
        return self._template(turns, True) + (self._unwritten if self._chat.thinking else "")

    def _find_unwritten(self) -> str:
        """What the template writes at the end of a prompt, and not before an answer in a chat.

        Templates of models that always think (DeepSeek-R1, QwQ) open the thinking in the prompt, and leave thoughts out of a chat. The
        model learns to answer at once, so the prompt ends where its answers begin.
        """
        self._unwritten = ""
        turns, answer = self._random_turns(np.random.default_rng(0)), Turn("assistant", self.prompt.write_answer(self._any_answer()))
        prompt, chat = self._template(turns, True), self._template([*turns, answer], False)
        self._templates.clear()  # of the whole prompts
        common = next((i for i, (one, other) in enumerate(zip(prompt, chat, strict=False)) if one != other), len(prompt))
        number = len(_grids(turns))
        words = "".join(part if isinstance(part, str) else chr(_FIRST_MARK + number) for part in answer.parts)
        return prompt[common:] if chat[common:].startswith(words.strip()) else ""

    def _any_answer(self) -> Part:
        return self.prompt.answers[0] if self.prompt.answers else frozen(np.arange(COLOURS)[None])

    def _random_turns(self, rng: np.random.Generator, colour: int | None = None) -> list[Turn]:
        """A random question, with grids of random colours or of one."""

        def grid() -> Grid:
            low, high = (0, COLOURS) if colour is None else (colour, colour + 1)
            return frozen(rng.integers(low, high, rng.integers(1, MAX_SIDE + 1, 2)))

        pairs = [Pair(grid(), grid()) for _ in range(int(rng.integers(1, 5)))]
        test = None if self.prompt.kind == "inputs" else grid()
        return self.prompt.turns(pairs, test, [grid() for _ in range(CANDIDATES_OF[self.prompt.kind])])

    def _check_vocabulary(self) -> None:
        ids = self._tokenize(self.text(self._random_turns(np.random.default_rng(0))))
        unknown = self.tokenizer.unk_token_id
        if not ids or (unknown is not None and unknown in ids):
            raise ConfigError(
                f"{self.tokenizer.name_or_path}: its vocabulary cannot write prompt {self.prompt.name} with {self.encoder.spec}; "
                "use the prompt and grid encoder that the model's arc_submit.json names"
            )

    def _find_end(self, end_marks: Sequence[str]) -> tuple[str, tuple[int, ...]]:
        """What the template writes behind a prompt, with the first mark where the answer's grid belongs, and the tokens that end it."""
        grid, turns = frozen(np.arange(COLOURS)[None]), self._random_turns(np.random.default_rng(0))
        self._last_words = _MARK.split(self._template(turns, True))[-1]
        template, grids = self._after_prompt(turns, grid)
        pieces = _MARK.split(template)
        if len(pieces) != 3 or not same_grid(grids[ord(pieces[1]) - _FIRST_MARK], grid):
            raise ConfigError(
                f"the chat template of {self.tokenizer.name_or_path} does not write the answer once right after its prompt; give another "
                "one with --chat-template FILE"
            )
        before, _, behind = pieces
        answer = {*self._tokenize(before), *self._tokenize(self.encoder.encode(grid))}
        written, further = self._tokenize(behind), self._before_question(turns, grid)
        ends = find_end_ids(self.tokenizer, written, answer, end_marks, self._tokenize(further))
        if ends[0] not in written:
            mark = str(self.tokenizer.convert_ids_to_tokens(ends[0]))
            self._ending = further.partition(mark)[0] + mark if mark in further else mark
        return before + chr(_FIRST_MARK) + behind + self._ending, ends

    def _before_question(self, turns: Sequence[Turn], answer: Grid) -> str:
        """What the template writes between an answer and the words of a further question; "" where it writes the answer otherwise then."""
        chat, words = [*turns, Turn("assistant", self.prompt.write_answer(answer))], "?"
        try:
            before, longer = self._template(chat, False), self._template([*chat, Turn("user", (words,))], False)
        except ConfigError:  # a template that refuses a further question
            return ""
        return longer[len(before) :].partition(words)[0] if longer.startswith(before) else ""

    def _check_answers(self) -> None:
        rng = np.random.default_rng(2)
        for shape in ((1, 1), (1, 3), (3, 1), (5, 4)):
            grid = frozen(rng.integers(0, COLOURS, shape))
            ids = self.answer_ids(grid)
            try:
                read = same_grid(self.decode(ids), grid)
            except NotAGridError:
                read = False
            if not read:
                raise ConfigError(
                    f"{self.tokenizer.name_or_path}: prompt {self.prompt.name} with {self.encoder.spec} writes an answer as "
                    f"{self._text_of(ids)!r}, from which the grid cannot be read; choose another prompt or grid encoder"
                )

    def _try_reuse(self) -> tuple[bool, str]:
        self.reuse = True
        rng = np.random.default_rng(1)
        # Also grids of a single colour, so that every colour meets the text before and after the rows.
        for colour in (None, None, None, None, *range(COLOURS)):
            turns = self._random_turns(rng, colour)
            grid = _grids(turns)[-1]
            answer = self._up_to_end(self._tokenize(self._filled(self._answer_template, [grid])))
            if self.prompt_ids(turns) != self._tokenize(self.text(turns)) or self.answer_ids(grid) != answer:
                return False, "rows tokenized alone differ from rows tokenized in the text, so the whole text is tokenized each time"
        return True, "rows tokenized alone equal rows tokenized in the text"

    @property
    def summary(self) -> str:
        """A line for people: how tokens are made, what ends an answer, and the date in the prompts."""
        first, *others = self.end_marks
        ends = f"an answer ends with {first}" + (f" (or {', '.join(others)})" if others else "")
        dated = f"; the chat template's date is always {FIXED_DATE:%d %b %Y}" if self._chat.writes_date else ""
        cut = f"; prompts end before {self._unwritten!r}, which the chat template does not write in a chat" if self._unwritten else ""
        return f"{self.reason}; {ends}{dated}{cut}"

    @property
    def end_marks(self) -> list[str]:
        """The tokens that end an answer, as texts."""
        return [str(self.tokenizer.convert_ids_to_tokens(token)) for token in self.end_ids]


def _grids(turns: Sequence[Turn]) -> list[Grid]:
    return [part for turn in turns for part in turn.parts if not isinstance(part, str)]
