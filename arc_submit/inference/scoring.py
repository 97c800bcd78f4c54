"""Scoring of candidate grids under the views of a task: what each view's prompt makes of each grid. Knows nothing about ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from arc_submit.arc.grid import Grid
from arc_submit.inference.engine import Engine
from arc_submit.inference.requests import ViewRequest
from arc_submit.language.prompt_tokenizer import PromptTokenizer


def score_grids(
    engine: Engine,
    writer: PromptTokenizer,
    planned: Sequence[ViewRequest],
    grids: Sequence[Grid],
    limit: int,
    on_view: Callable[[], None] | None = None,
) -> list[dict[str, float]]:
    """For every grid its log-probability under every view, by the view's key; the views' adapters answer.

    A view's prompt is read once for all grids. Where a grid does not fit behind some view's prompt that view is left out for all
    grids, so that their sums stay comparable.

    Args:
        planned: one request for each view of one test input.
        grids: candidates in the task's own frame.
        limit: tokens that the engine takes in all.
        on_view: called after every view.
    """
    scores: list[dict[str, float]] = [{} for _ in grids]
    for asked in planned if grids else ():
        answers = [writer.answer_ids(asked.view.apply(grid)) for grid in grids]
        if len(asked.request.prompt) + max(map(len, answers)) > limit:
            continue
        values = engine.score(asked.request.prompt, answers, asked.request.adapter)
        for score, value in zip(scores, values, strict=True):
            score[asked.view.key] = value
        if on_view:
            on_view()
    return scores
