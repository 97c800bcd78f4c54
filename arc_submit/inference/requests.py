"""The prompts of a task under its views, and the predictions in their completions. Knows no engine."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arc_submit.arc.prediction import Prediction
from arc_submit.arc.task import Task
from arc_submit.arc.views import View, choose_views
from arc_submit.inference.engine import Completion, Request
from arc_submit.language.encoders import NotAGridError
from arc_submit.language.grid_prefix_check import GridPrefixCheck
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.truncation import PromptTooLongError, fit_prompt


@dataclass(frozen=True)
class ViewRequest:
    """A request with what it takes to read its answer."""

    request: Request
    task: str
    test: int
    view: View


def plan_requests(
    writer: PromptTokenizer,
    task: Task,
    views: int,
    seed: int,
    max_seq_len: int,
    keep_background: bool = False,
    adapter: Path | None = None,
    temperature: float = 0.0,
) -> tuple[list[ViewRequest], list[str]]:
    """One request for each test input and view of a task, and a line for each that no prompt fits.

    The same task, seed and number of views give the same requests whatever else is in the run.

    Args:
        adapter: the folder of the adapter to answer with, None for the base as it is.
        temperature: of the drawing of answers, each by its own seed; 0 takes the likeliest.
    """
    identity = zlib.crc32(task.id.encode())
    planned, refused = [], []
    for number, view in enumerate(choose_views(len(task.train), views, seed * 1_000_003 + identity, keep_background)):
        seen = view.apply_task(task)
        for test in range(len(task.tests)):
            rng = np.random.default_rng([seed, identity, number, test])
            try:
                prompt = fit_prompt(writer, seen, test, max_seq_len, rng)
            except PromptTooLongError as error:
                refused.append(str(error))
                continue
            guard = GridPrefixCheck(writer.tokenizer, writer.encoder)
            drawn = int(rng.integers(2**31))
            request = Request(f"{task.id}/{test}/{view.key}", prompt.ids, prompt.answer_tokens, adapter, temperature, drawn, guard)
            planned.append(ViewRequest(request, task.id, test, view))
    return planned, refused


def read_answer(writer: PromptTokenizer, asked: ViewRequest, completion: Completion, model: str, source: str = "frozen") -> Prediction:
    """The prediction in a completion, with its view undone; one that ran out of tokens or holds no grid says so."""
    grid, reason = None, ""
    if completion.finished == "length":
        reason = f"no end after {len(completion.tokens)} tokens"
    elif completion.finished == "hopeless":
        reason = f"no grid can come of its first {len(completion.tokens)} tokens"
    else:
        try:
            grid = asked.view.undo(writer.decode(completion.tokens))
        except NotAGridError as error:
            reason = str(error)
    return Prediction(asked.task, asked.test, grid, source, asked.view.key, completion.logprob, model, completion.seconds, reason)
