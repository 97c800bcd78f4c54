"""The check, before a worker starts, that a model's tokenizer can write its prompts and read its answers. Does not know weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from arc_submit.arc.grid import COLOURS, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import ConfigError
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.language.prompts import CANDIDATES_OF, Part, PromptVersion


def make_example() -> Task:
    """A made-up task with every colour, whose output is the input upside down."""
    grids = [frozen(np.arange(k, k + 6).reshape(2, 3) % COLOURS) for k in (0, 5, 8)]
    return Task("example", tuple(Pair(grid, frozen(grid[::-1])) for grid in grids[:2]), (grids[2],))


def check_prompts(model: Path, asked: PromptConfig, vocabulary: int, version: PromptVersion | None = None) -> None:
    """Refuse a tokenizer that cannot write the prompts, whose answers have no end or cannot be read, or that is another model's.

    Args:
        vocabulary: number of tokens that the model has.
        version: another question than that for outputs.

    Raises:
        ConfigError: with the remedy.
    """
    from arc_submit.base_model.loading import load_tokenizer  # with torch, which takes seconds
    from arc_submit.language.prompt_tokenizer import PromptTokenizer

    other = None if version is None or version.name == asked.prompt else version
    tokenizer = PromptTokenizer.from_config(load_tokenizer(model), asked, other, reuse=False)
    example = make_example()
    candidates = [pair.output for pair in example.train][: CANDIDATES_OF[tokenizer.prompt.kind]]
    turns = tokenizer.prompt.turns(example.train, example.tests[0], candidates)
    answers: tuple[Part, ...] = tokenizer.prompt.answers or (example.tests[0],)
    largest = max((*(token for answer in answers for token in tokenizer.sample_ids(turns, answer)[0]), *tokenizer.end_ids))
    if largest >= vocabulary:
        token = tokenizer.tokenizer.convert_ids_to_tokens(largest)
        raise ConfigError(
            f"model {model}: its tokenizer writes token {largest} ({token}), and the model has {vocabulary}; give the tokenizer that "
            "belongs to the weights"
        )
