"""Scoring of candidate grids: the log-probability of each grid under each view of its task. Does not know rankings."""

from __future__ import annotations

from collections.abc import Sequence

from arc_submit.arc.grid import Grid
from arc_submit.inference.engine import Engine, OnStep, ScoringMemoryError
from arc_submit.inference.requests import ViewRequest
from arc_submit.language.prompt_tokenizer import PromptTokenizer


def score_grids(
    engine: Engine, tokenizer: PromptTokenizer, view_requests: Sequence[ViewRequest], grids: Sequence[Grid], on_view: OnStep = None
) -> list[dict[str, float]]:
    """For every grid its log-probability under every view, by the view's key, with the adapter of the view's request.

    A view's prompt is read once for all grids. A view is left out for all grids where a grid with its prompt exceeds the engine's
    context length or its memory, so that sums over views stay comparable.

    Args:
        view_requests: one for each view of one test input.
        grids: candidates in the task's own frame.
        on_view: called after every view.
    """
    scores: list[dict[str, float]] = [{} for _ in grids]
    for view_request in view_requests if grids else ():
        request, view = view_request.request, view_request.view
        answers = [tokenizer.answer_ids(view.apply(grid)) for grid in grids]
        if len(request.prompt) + max(map(len, answers)) > engine.context_length:
            continue
        try:
            values = engine.score(request.prompt, answers, request.adapter)
        except ScoringMemoryError as error:
            print(f"{request.id}: not scored under this view ({error})", flush=True)
            values = []
        for score, value in zip(scores, values, strict=False):
            score[view.key] = value
        if on_view:
            on_view()
    return scores
