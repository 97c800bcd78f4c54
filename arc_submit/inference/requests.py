"""The requests of a task under its views, and the predictions in their completions. Does not know engines."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arc_submit.arc.prediction import Prediction
from arc_submit.arc.task import Task
from arc_submit.arc.views import View, choose_views
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.settings import RequestSettings
from arc_submit.language.encoders import NotAGridError
from arc_submit.language.grid_prefix_check import GridPrefixCheck
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.truncation import PromptTooLongError, fit_prompt


@dataclass(frozen=True)
class ViewRequest:
    """A request for one test input of a task under one view, with the train pairs that its prompt shows."""

    request: Request
    task: str
    test: int
    view: View
    train_indices: tuple[int, ...] = ()


def plan_requests(
    tokenizer: PromptTokenizer, task: Task, settings: RequestSettings, adapter: Path | None = None
) -> tuple[list[ViewRequest], list[str]]:
    """A request for each test input and view of a task, and a line for each that no prompt fits.

    The requests are a function of the arguments alone, whatever other tasks are in the run; the first views are the same for any number
    of views.

    Args:
        adapter: folder of the adapter to use; None uses the base model.
    """
    task_seed = zlib.crc32(task.id.encode())
    planned, refused = [], []
    views = choose_views(len(task.train), settings.views, settings.seed * 1_000_003 + task_seed, settings.keep_background)
    for number, view in enumerate(views):
        seen = view.apply_task(task)
        for test in range(len(task.tests)):
            rng = np.random.default_rng([settings.seed, task_seed, number, test])
            try:
                prompt = fit_prompt(tokenizer, seen, test, settings.max_seq_len, rng)
            except PromptTooLongError as error:
                refused.append(str(error))
                continue
            dead_end = GridPrefixCheck(tokenizer.tokenizer, tokenizer.encoder)
            # The seed is drawn at temperature 0 too: prompts and seeds then do not depend on the temperature.
            sampling_seed = int(rng.integers(2**31))
            request_id = f"{task.id}/{test}/{view.key}"
            request = Request(
                request_id,
                prompt.ids,
                prompt.answer_tokens,
                adapter,
                settings.temperature,
                sampling_seed,
                dead_end,
                tokenizer.end_ids,
            )
            planned.append(ViewRequest(request, task.id, test, view, prompt.train_indices))
    return planned, refused


def make_prediction(
    tokenizer: PromptTokenizer, view_request: ViewRequest, completion: Completion, model: str, source: str = "frozen"
) -> Prediction:
    """The prediction in a completion, in the task's own frame. Without a complete grid its grid is None, with a reason."""
    grid, reason = None, ""
    if completion.finished == "length":
        reason = f"no end after {len(completion.tokens)} tokens"
    elif completion.finished == "dead_end":
        reason = f"no grid can come of its first {len(completion.tokens)} tokens"
    else:
        try:
            grid = view_request.view.undo(tokenizer.decode(completion.tokens))
        except NotAGridError as error:
            reason = str(error)
    task, test, view = view_request.task, view_request.test, view_request.view.key
    return Prediction(task, test, grid, source, view, completion.logprob, model, completion.seconds, reason)
