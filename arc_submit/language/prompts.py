"""Prompt versions: a task as the turns of a chat, whose parts are texts and grids.

Each version has a name, which a model's arc_submit.json holds, and a kind: the question (the output; one more input; which of two outputs
is right; whether an output is right). Turns hold the grids themselves, so that any grid encoder and any model's own chat template can
render them. Does not know tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Pair
from arc_submit.errors import ConfigError

Part = str | Grid
Kind = Literal["output", "inputs", "select", "verify"]
PROMPT_SUFFIX = ".jinja"  # of a prompt file's name, see arc_submit.language.prompt_files
SELECT_ANSWERS = ("1", "2")
VERIFY_ANSWERS = ("yes", "no")
CANDIDATES_OF: dict[Kind, int] = {"output": 0, "inputs": 0, "select": 2, "verify": 1}  # candidate outputs in a question


@dataclass(frozen=True, eq=False)
class Turn:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]


def _answer_alone(answer: Part) -> tuple[Part, ...]:
    return (answer,)


@dataclass(frozen=True)
class PromptVersion:
    """One wording of one kind of question. Its words never change: a model is trained on them; a change is a new version.

    Attributes:
        name: in configurations and model files.
        kind: the question; it determines the arguments of `build` and the form of the answer.
        build: (pairs, test input, which the kind "inputs" does not use, candidate outputs) -> turns, the last of them the user's.
        answers: the two possible answers where they are words: for "select" the first and the second candidate, for "verify" right and
            wrong.
        write_answer: the parts of the turn that answers, the answer once among them.
    """

    name: str
    kind: Kind
    build: Callable[[Sequence[Pair], Grid, Sequence[Grid]], list[Turn]]
    answers: tuple[str, ...] = ()
    write_answer: Callable[[Part], tuple[Part, ...]] = _answer_alone

    def turns(self, pairs: Sequence[Pair], test: Grid | None = None, candidates: Sequence[Grid] = ()) -> list[Turn]:
        """The chat up to the answer.

        Args:
            pairs: the train pairs; the kind "inputs" shows only their inputs.
            test: the test input; None for the kind "inputs".
            candidates: two outputs for "select", one for "verify", otherwise none.

        Raises:
            ConfigError: where the arguments do not fit the kind.
        """
        needed = CANDIDATES_OF[self.kind]
        if len(candidates) != needed or (test is None) != (self.kind == "inputs"):
            raise ConfigError(f"prompt {self.name} takes {needed} candidates and {'no' if self.kind == 'inputs' else 'a'} test input")
        return self.build(pairs, cast("Grid", test), candidates)


def prompt_kind(name: str) -> Kind:
    """The question of a version, or of a prompt file, which asks for the output.

    Raises:
        ConfigError: where there is no version of that name.
    """
    return "output" if name.endswith(PROMPT_SUFFIX) else prompt_version(name).kind


def prompt_version(name: str) -> PromptVersion:
    """The version with a name.

    Raises:
        ConfigError: where there is none.
    """
    if name not in PROMPTS:
        raise ConfigError(f"no prompt version {name!r}; known: {', '.join(PROMPTS)}")
    return PROMPTS[name]


_SYSTEM = "You solve grid puzzles: find the rule that the examples share and apply it exactly."


def _question(rule: str, pairs: Sequence[Pair], test: Grid, *rest: Part) -> list[Turn]:
    parts: list[Part] = [f"Every example below turns an input grid into an output grid by one common rule. {rule}\n"]
    for i, pair in enumerate(pairs, 1):
        parts += [f"\n# Example {i}\n\nInput:\n", pair.input, "\n\nOutput:\n", pair.output, "\n"]
    return [Turn("system", (_SYSTEM,)), Turn("user", (*parts, "\n# Test\n\nInput:\n", test, *rest))]


def _output_v0(pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    return _question("Cells are digits that stand for colours.", pairs, test, "\n\nWrite the output grid of the test.")


def _output_v1(pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    """The shortest wording, for a small max_seq_len, in which words take the place of cells."""
    parts: list[Part] = []
    for pair in pairs:
        parts += ["Input:\n", pair.input, "\nOutput:\n", pair.output, "\n\n"]
    return [Turn("system", ("ARC puzzle.",)), Turn("user", (*parts, "Input:\n", test, "\nOutput:"))]


def _output_from_turns(pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    """No words: each train pair is a turn of the user and the assistant's answer. The pocket model's version."""
    turns: list[Turn] = []
    for pair in pairs:
        turns += [Turn("user", (pair.input,)), Turn("assistant", (pair.output,))]
    return [*turns, Turn("user", (test,))]


def _inputs_v0(pairs: Sequence[Pair], _: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    parts: list[Part] = ["The grids below were drawn by one common rule. Cells are digits that stand for colours.\n"]
    for i, pair in enumerate(pairs, 1):
        parts += [f"\n# Grid {i}\n\n", pair.input, "\n"]
    return [Turn("system", (_SYSTEM,)), Turn("user", (*parts, "\nWrite one more grid that follows the same rule."))]


def _inputs_from_turns(pairs: Sequence[Pair], _: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    """No words: the inputs follow each other in one turn, and the answer is one more."""
    return [Turn("user", tuple(pair.input for pair in pairs))]


def _select_v0(pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    proposals = ("\n\n# Proposal 1\n\n", candidates[0], "\n\n# Proposal 2\n\n", candidates[1])
    question = "\n\nOne of them follows the rule. Answer with its number, 1 or 2, and nothing else."
    return _question("Two outputs are proposed for the test.", pairs, test, *proposals, question)


def _verify_v0(pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    question = "\n\nDoes it follow the rule in every cell? Answer yes or no, and nothing else."
    return _question("An output is proposed for the test.", pairs, test, "\n\n# Proposal\n\n", candidates[0], question)


def _candidates_from_turns(pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    """No words: the candidates follow the test input in the last turn. For a model whose vocabulary holds nothing but grids."""
    return [*_output_from_turns(pairs, test, ())[:-1], Turn("user", (test, *candidates))]


def _candidates_as_answers(pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    """No words: each candidate is a turn of the assistant, followed by an empty turn of the user.

    The model reads a candidate in the position in which it predicts its own answer.
    """
    turns = _output_from_turns(pairs, test, ())
    for candidate in candidates:
        turns += [Turn("assistant", (candidate,)), Turn("user", ())]
    return turns


def is_grid(part: Part) -> bool:
    """Whether a part of a turn is a grid rather than a text."""
    return isinstance(part, np.ndarray)


PROMPTS = {
    version.name: version
    for version in (
        PromptVersion("output-from-examples-v0", "output", _output_v0),
        PromptVersion("output-from-examples-v1", "output", _output_v1),
        PromptVersion("output-from-turns-v0", "output", _output_from_turns),
        PromptVersion("input-from-inputs-v0", "inputs", _inputs_v0),
        PromptVersion("input-from-turns-v0", "inputs", _inputs_from_turns),
        PromptVersion("select-output-from-examples-v0", "select", _select_v0, SELECT_ANSWERS),
        PromptVersion("verify-output-from-examples-v0", "verify", _verify_v0, VERIFY_ANSWERS),
        PromptVersion("select-output-from-turns-v0", "select", _candidates_from_turns, SELECT_ANSWERS),
        PromptVersion("verify-output-from-turns-v0", "verify", _candidates_from_turns, ("1", "0")),
        PromptVersion("select-output-from-turns-v1", "select", _candidates_as_answers, SELECT_ANSWERS),
        PromptVersion("verify-output-from-turns-v1", "verify", _candidates_as_answers, ("1", "0")),
    )
}
