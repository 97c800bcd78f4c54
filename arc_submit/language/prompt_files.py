"""Prompts as files: a Jinja template with the wording that a model was trained on elsewhere.

A file has the blocks `pairs` (variable `pairs`, each with `input` and `output`), `test` (variable `test`) and `answer` (variable `answer`),
and may have `system`. With a chat template, `system` is the system turn, `pairs` and `test` the user's, and `answer` the assistant's.
Without one, they follow each other. All blocks know the tokenizer's special tokens, such as `eos_token`. Templates run in a sandbox. White
space follows the rules of chat templates: a line that holds nothing but a block's tag leaves no trace.

    {% block pairs %}
    {% for pair in pairs %}
    Input:
    {{ pair.input }}
    Output:
    {{ pair.output }}

    {% endfor %}
    {% endblock %}
    {% block test %}
    Input:
    {{ test }}
    Output:
    {% endblock %}
    {% block answer %}{{ answer }}{{ eos_token }}{% endblock %}

What cannot work is refused when a file is read: pairs out of order, an answer that does not follow the prompt, grids that cannot be told
apart. Does not know tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from arc_submit.arc.grid import Grid, frozen
from arc_submit.arc.task import Pair
from arc_submit.errors import ConfigError
from arc_submit.language.encoders import GridEncoder
from arc_submit.language.prompts import Part, PromptVersion, Turn, is_grid

_NEEDED = ("pairs", "test", "answer")
_BLOCKS = ("system", *_NEEDED)
_FIRST_MARK = 0xE000  # private use characters stand for grids while a file is rendered
_MARK = re.compile("([\ue000-\uf8ff])")
# For checks without a tokenizer: what a special token says does not matter to them.
_EXAMPLE_TOKENS = {name: f"<{name}>" for name in ("bos_token", "eos_token", "pad_token", "unk_token")}


def read_prompt(name: str, text: str, special_tokens: Mapping[str, str] | None = None) -> PromptVersion:
    """The prompt version of kind "output" that a file holds.

    Args:
        name: the file's, for messages.
        text: its content.
        special_tokens: of the tokenizer; None takes stand-ins.

    Raises:
        ConfigError: where the file is no such template, or its prompt cannot work.
    """
    file = _PromptFile(name, text, _EXAMPLE_TOKENS if special_tokens is None else special_tokens)
    version = PromptVersion(name, "output", file.build, write_answer=file.write_answer)
    for count in range(4):
        _check_order(version, count)
    if [is_grid(part) for part in version.write_answer(frozen(np.zeros((1, 1))))].count(True) != 1:
        raise ConfigError(f"prompt {name}: its block answer must write {{{{ answer }}}} once")
    return version


def check_grids_apart(version: PromptVersion, encoder: GridEncoder) -> None:
    """Refuse a prompt in which the grids that a grid encoder writes cannot be told apart, or are not the encoder's any more.

    Raises:
        ConfigError: naming the prompt.
    """

    def text(pairs: Sequence[tuple[list[int], list[int]]], test: list[int]) -> str:
        def column(cells: list[int]) -> Grid:
            return frozen(np.array(cells)[:, None])

        turns = version.turns([Pair(column(one), column(other)) for one, other in pairs], column(test))
        return "\0".join("".join(part if isinstance(part, str) else encoder.encode(part) for part in turn.parts) for turn in turns)

    # The same rows in the same order, divided between the grids in different ways.
    same_rows = (
        ([([1, 2], [3]), ([4], [5])], [6]),
        ([([1], [2, 3]), ([4], [5])], [6]),
        ([([1], [2]), ([3, 4], [5])], [6]),
        ([([1], [2]), ([3], [4, 5])], [6]),
        ([([1], [2]), ([3], [4])], [5, 6]),
    )
    if len({text(pairs, test) for pairs, test in same_rows}) < len(same_rows):
        raise ConfigError(f"prompt {version.name}: with {encoder.spec} a grid's last row and the next grid's first cannot be told apart")


def _check_order(version: PromptVersion, count: int) -> None:
    grids = [frozen(np.zeros((1, 1))) for _ in range(2 * count + 1)]
    pairs = [Pair(grids[2 * i], grids[2 * i + 1]) for i in range(count)]
    shown = [part for turn in version.turns(pairs, grids[-1]) for part in turn.parts if is_grid(part)]
    if [id(grid) for grid in shown] != [id(grid) for grid in grids]:
        raise ConfigError(
            f"prompt {version.name}: with {count} train pairs it writes {len(shown)} grids; each pair's input and output must stand in it "
            "once, in the order of the pairs, and then the test input"
        )


class _PromptFile:
    """A template and the special tokens that it may write."""

    def __init__(self, name: str, text: str, special_tokens: Mapping[str, str]):
        self.name = name
        self.special_tokens = dict(special_tokens)
        self.rendered: dict[tuple[str, int], str] = {}
        if _MARK.search(text):
            raise ConfigError(f"prompt {name}: it holds a private use character, which stands for a grid here; leave it out")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
        self.template: Template = self._guarded("cannot be read", lambda: environment.from_string(text))
        unknown = [block for block in self.template.blocks if block not in _BLOCKS]
        missing = [block for block in _NEEDED if block not in self.template.blocks]
        if unknown or missing:
            found = f"has a block {unknown[0]}" if unknown else f"has no block {missing[0]}"
            raise ConfigError(f"prompt {name}: it {found}; the blocks are pairs, test and answer, and system where there is one")

    def build(self, pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
        """The turns of a question."""
        grids: list[Part] = [*(grid for pair in pairs for grid in (pair.input, pair.output)), test]
        system = self._render("system", 0) if "system" in self.template.blocks else ""
        question = self._render("pairs", len(pairs)) + self._render("test", len(pairs))
        turns = [Turn("system", (system,))] if system else []
        return [*turns, Turn("user", _parts(question, grids))]

    def write_answer(self, answer: Part) -> tuple[Part, ...]:
        """The parts of the turn that answers."""
        return _parts(self._render("answer", 0), [answer])

    def _render(self, block: str, pairs: int) -> str:
        """A block's text for a number of train pairs, with marks in the place of grids; cached, as it is the same for all tasks.

        A filter would change the mark and not the grid, which comes in its place later. So the block is rendered a second time, with texts
        of several lines for the grids: where a filter changes them, the two texts differ.
        """
        if (block, pairs) not in self.rendered:
            count = 2 * pairs + 1
            text = self._text(block, [chr(_FIRST_MARK + i) for i in range(count)])
            lines = [f" {i}0\n1{i} \n" for i in range(count)]
            pieces = _MARK.split(text)
            if "".join(lines[ord(piece) - _FIRST_MARK] if i % 2 else piece for i, piece in enumerate(pieces)) != self._text(block, lines):
                raise ConfigError(f"prompt {self.name}: its block {block} changes a grid's text; choose a grid encoder instead")
            self.rendered[block, pairs] = text
        return self.rendered[block, pairs]

    def _text(self, block: str, grids: Sequence[str]) -> str:
        """A block's text with texts for the grids: those of the pairs, in order, and then the test input's or the answer's."""
        variables: dict[str, Any] = dict(self.special_tokens)
        if block == "pairs":
            variables["pairs"] = [{"input": one, "output": other} for one, other in zip(grids[:-1:2], grids[1::2], strict=True)]
        elif block != "system":
            variables[block] = grids[-1]

        def render() -> str:
            return "".join(self.template.blocks[block](self.template.new_context(variables)))

        return str(self._guarded(f"its block {block} cannot be rendered", render))

    def _guarded(self, what: str, do: Any) -> Any:
        try:
            return do()
        except Exception as error:  # noqa: BLE001 - a template can raise any kind
            line = " ".join(str(error).split())
            raise ConfigError(f"prompt {self.name}: {what} ({type(error).__name__}: {line})") from None


def _parts(text: str, grids: Sequence[Part]) -> tuple[Part, ...]:
    """A text with marks as the parts of a turn."""
    pieces = _MARK.split(text)
    return tuple(grids[ord(piece) - _FIRST_MARK] if i % 2 else piece for i, piece in enumerate(pieces) if i % 2 or piece)
