"""How a language model is asked for a Python program, and the program in its answer.

A first question shows the train pairs and a test input. A further one shows a program that failed with its error, or with what it drew
beside what was asked. What a model thinks before its answer is cut off. Does not know engines or how programs run.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import PROMPT_SUFFIX, Part, PromptVersion, Turn
from arc_submit.programs.code_settings import CODE_PROMPTS
from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.subset import ENTRY, definitions_of

MOST_SHOWN = 2  # pairs that a question about a failed program shows

# The words of a version never change: models may be trained on them.
_SYSTEM_V0 = (
    "You write Python programs that solve grid puzzles. A grid is a numpy array of integers from 0 to 9. You know numpy as np; there is no "
    "other import, no class, no try statement and no text formatting."
)
_RULE_V0 = "Every example below turns an input grid into an output grid by one common rule. Cells are digits that stand for colours.\n"
_ASK_V0 = (
    "\n\nWrite one function transform(grid) that takes an input grid and returns its output grid by the rule. Helper functions are "
    "allowed. Answer with the program in one code block:\n```python\nimport numpy as np\n\ndef transform(grid):\n    ...\n```"
)
_SYSTEM_V1 = (
    "You write Python programs that solve grid puzzles. A grid is a numpy array of integers from 0 to 9. Import only from numpy, "
    "scipy.ndimage, collections, itertools, functools, heapq, bisect, math, operator and copy. Use no class, match, with or random."
)
_RULE_V1 = "One rule turns every input grid below into its output grid. Digits stand for colours.\n"
_ASK_V1 = (
    "\n\nWrite transform(grid), which returns the output grid of any input grid by this rule, in one code block:\n"
    "```python\nimport numpy as np\n\ndef transform(grid):\n    ...\n```"
)
# What stands around a model's thinking: the first mark opens it, the second one ends it, the third one is written where it is cut.
_THINKING = (
    ("<think>", "</think>", "\n</think>\n\n```python\n"),
    (
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>```python\n",
    ),
)
_FENCE = re.compile(r"```[ \t]*(?:python|py|Python)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_ENTRY = re.compile(rf"^def[ \t]+{ENTRY}\b", re.MULTILINE)
_DEFINITION = re.compile(r"^(?:import|def|[A-Za-z_]\w*[ \t]*=)", re.MULTILINE)


class QuestionTooLongError(ArcSubmitError):
    """A question that fits no context, even with a single train pair."""


def _from_examples(words: tuple[str, str, str], pairs: Sequence[Pair], test: Grid, candidates: Sequence[Grid]) -> list[Turn]:
    system, rule, ask = words
    parts: list[Part] = [rule]
    for number, pair in enumerate(pairs, 1):
        parts += [f"\n# Example {number}\n\nInput:\n", pair.input, "\n\nOutput:\n", pair.output, "\n"]
    return [Turn("system", (system,)), Turn("user", (*parts, "\n# Test\n\nInput:\n", test, ask))]


_WORDS = ((_SYSTEM_V0, _RULE_V0, _ASK_V0), (_SYSTEM_V1, _RULE_V1, _ASK_V1))
_QUESTIONS = {name: PromptVersion(name, "output", partial(_from_examples, words)) for name, words in zip(CODE_PROMPTS, _WORDS, strict=True)}


def code_prompt(name: str) -> PromptVersion:
    """The question of a name, or of a prompt file (arc_submit.language.prompt_files) whose words ask for a program.

    Raises:
        ConfigError: where there is none, or the file cannot work.
    """
    if name in _QUESTIONS:
        return _QUESTIONS[name]
    if not name.endswith(PROMPT_SUFFIX):
        raise ConfigError(f"--code-prompt {name}: choose from {', '.join(CODE_PROMPTS)}, or give a file NAME{PROMPT_SUFFIX}")
    from arc_submit.language.prompt_files import read_prompt  # with Jinja, which most prompts do not need

    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--code-prompt {name}: cannot be read ({type(error).__name__}); check the path") from None
    return read_prompt(Path(name).name, text)


def check_vocabulary(tokenizer: Any, prompt: PromptVersion) -> None:
    """Refuse a tokenizer whose vocabulary cannot write the words of a question.

    Args:
        tokenizer: a transformers tokenizer.

    Raises:
        ConfigError: naming it.
    """
    words = [part for turn in prompt.turns([], np.zeros((1, 1), np.int8)) for part in turn.parts if isinstance(part, str)]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in words]
    if not all(ids) or (tokenizer.unk_token_id is not None and any(tokenizer.unk_token_id in one for one in ids)):
        raise ConfigError(f"{tokenizer.name_or_path}: its vocabulary cannot write the question {prompt.name}; take a language model")


def first_question(tokenizer: PromptTokenizer, prompt: PromptVersion, task: Task, limit: int, rng: np.random.Generator) -> list[int]:
    """Token ids of the question for a program, with as many randomly chosen train pairs as fit.

    Args:
        task: under its view.
        limit: tokens of the question.
        rng: decides which pairs are left out.

    Raises:
        QuestionTooLongError: naming the task where no pair fits.
    """
    for turns in _with_fewer_pairs(prompt, task, rng):
        ids = tokenizer.prompt_ids(turns)
        if len(ids) <= limit:
            return ids
    raise QuestionTooLongError(f"no question for a program smaller than {limit} tokens for task {task.id}")


def _with_fewer_pairs(prompt: PromptVersion, task: Task, rng: np.random.Generator) -> Iterator[list[Turn]]:
    """The first question with all train pairs, then with one less each time."""
    order = rng.permutation(len(task.train)).tolist()
    for count in range(len(order), 0, -1):
        yield prompt.turns([task.train[i] for i in sorted(order[:count])], task.tests[0])


def program_sample(
    tokenizer: PromptTokenizer, prompt: PromptVersion, task: Task, text: str, limit: int, rng: np.random.Generator
) -> tuple[list[int], int]:
    """A training sample: the token ids of the first question with a program as its answer, and the position where the answer begins.

    Args:
        tokenizer: of this question.
        task, rng: as of `first_question`.
        text: the program.
        limit: tokens of the question with its answer.

    Raises:
        QuestionTooLongError: naming the task where no pair fits.
        ConfigError: as `PromptTokenizer.sample_ids`.
    """
    for turns in _with_fewer_pairs(prompt, task, rng):
        ids, start = tokenizer.sample_ids(turns, f"```python\n{text.strip()}\n```")
        if len(ids) <= limit:
            return ids, start
    raise QuestionTooLongError(f"no sample with a program smaller than {limit} tokens for task {task.id}")


def next_question(
    tokenizer: PromptTokenizer, prompt: PromptVersion, task: Task, failed: tuple[str, Sequence[Part]], limit: int
) -> list[int]:
    """Token ids of the question about a failed program.

    Args:
        task: under the program's view.
        failed: the program's text, and what was wrong with it (`feedback`).
        limit: tokens of the question.

    Raises:
        QuestionTooLongError: naming the task where it does not fit.
    """
    text, wrong = failed
    again = "\n\nWrite the whole corrected program in one code block."
    for count in range(len(task.train), 0, -1):
        turns = prompt.turns(task.train[:count], task.tests[0])
        turns += [Turn("assistant", (f"```python\n{text.strip()}\n```",)), Turn("user", (*wrong, again))]
        ids = tokenizer.prompt_ids(turns)
        if len(ids) <= limit:
            return ids
    raise QuestionTooLongError(f"no question about a program smaller than {limit} tokens for task {task.id}")


def feedback(task: Task, outputs: Sequence[Grid | None], error: str) -> list[Part]:
    """What was wrong with a program: the inputs that it fails for, with an error, and what it drew beside what was asked.

    Args:
        task: under the program's view.
        outputs: of the program for the train inputs and then the test inputs, under the view; None where it gave none.
        error: of the program for the first input that it gave no output for, in the program's own names.
    """
    count = len(task.train)
    # A question shows the first test input alone, and numbers the examples from 1.
    names = [*(f"example {i + 1}" for i in range(count)), "the test input", *["another test input"] * (len(task.tests) - 1)]
    failing = list(dict.fromkeys(name for name, output in zip(names, outputs, strict=True) if output is None))
    if all(output is None for output in outputs):
        return [f"This program fails for every input: {error}"]
    given = [(i, output) for i, output in enumerate(outputs[:count]) if output is not None]
    wrong = [(i, output) for i, output in given if not np.array_equal(task.train[i].output, output)]
    parts: list[Part] = [f"This program is right for {len(given) - len(wrong)} of {count} examples."]
    if failing:
        parts.append(f"\n\nIt fails for {', '.join(failing)}. For {failing[0]} the error is: {error}")
    for i, output in wrong[:MOST_SHOWN]:
        parts += [f"\n\nFor example {i + 1} it gives:\n", output, "\n\nand the output is:\n", task.train[i].output]
    return parts


def thinking_of(answer: str) -> tuple[str, str, str] | None:
    """The marks of the thinking that an answer has begun and not ended; None where there is none."""
    for opening, closing, cut in _THINKING:
        if opening in answer and closing not in answer:
            return opening, closing, cut
    return None


def opened_thinking(question: str) -> str:
    """The mark at the end of a question that opens the thinking of its answer; empty where there is none."""
    return next((opening for opening, _, _ in _THINKING if question.rstrip().endswith(opening)), "")


def extract_program(answer: str) -> str:
    """The program in an answer: its last code block with the function transform, or else the last one with any function, or else all
    from its first definition on.

    What the model thought before is left out, and so is what a program has beside its definitions, such as a call at its end.

    Raises:
        ProgramError: SYNTAX where there is none.
    """
    for _, closing, _ in _THINKING:
        answer = answer.rpartition(closing)[2]
    if thinking_of(answer) is not None:
        raise ProgramError(Refusal.SYNTAX, "the answer ends within its thinking")
    blocks = [textwrap.dedent(block) for block in _FENCE.findall(answer) if "def " in block]
    entries = [block for block in blocks if _ENTRY.search(block)]  # an example of use may follow in a block of its own
    if blocks:
        return definitions_of((entries or blocks)[-1])
    begin = _DEFINITION.search(answer)
    if begin is None or "def " not in answer[begin.start() :]:
        raise ProgramError(Refusal.SYNTAX, "the answer holds no program")
    return definitions_of(answer[begin.start() :].partition("```")[0])
