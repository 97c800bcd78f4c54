"""The check, before a worker starts, that a model's tokenizer can write its prompts and read its answers. Does not know weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from arc_submit.arc.grid import COLOURS, frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import ConfigError
from arc_submit.language.prompt_config import PromptConfig


def make_example() -> Task:
    """A made-up task with every colour, whose output is the input upside down."""
    grids = [frozen(np.arange(k, k + 6).reshape(2, 3) % COLOURS) for k in (0, 5, 8)]
    return Task("example", tuple(Pair(grid, frozen(grid[::-1])) for grid in grids[:2]), (grids[2],))


def check_prompts(model: Path, asked: PromptConfig, vocabulary: int) -> None:
    """Refuse a tokenizer that cannot write the prompts, whose answers have no end or cannot be read, or that is another model's.

    Args:
        vocabulary: number of tokens that the model has.

    Raises:
        ConfigError: with the remedy.
    """
    from arc_submit.base_model.loading import load_tokenizer  # with torch, which takes seconds
    from arc_submit.language.prompt_tokenizer import PromptTokenizer

    tokenizer = PromptTokenizer.from_config(load_tokenizer(model), asked, reuse=False)
    example = make_example()
    ids, _ = tokenizer.sample_ids(tokenizer.prompt.turns(example.train, example.tests[0]), example.tests[0])
    largest = max((*ids, *tokenizer.end_ids))
    if largest >= vocabulary:
        token = tokenizer.tokenizer.convert_ids_to_tokens(largest)
        raise ConfigError(
            f"model {model}: its tokenizer writes token {largest} ({token}), and the model has {vocabulary}; give the tokenizer that "
            "belongs to the weights"
        )
