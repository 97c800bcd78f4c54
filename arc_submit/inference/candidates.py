"""The candidates of a task: grids that depth-first searches find under its views, each once, with its score under views.

A search or a task that reaches its limit keeps what was found by then. Does not know files or jobs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from arc_submit.arc.grid import Grid, grid_id
from arc_submit.arc.prediction import Prediction
from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Completion, OnStep
from arc_submit.inference.requests import ViewRequest
from arc_submit.inference.scoring import score_grids
from arc_submit.inference.settings import DfsLimits
from arc_submit.inference.transformers_engine import TransformersEngine, is_past
from arc_submit.language.prompt_tokenizer import PromptTokenizer


def search_views(
    engine: TransformersEngine,
    view_requests: Sequence[ViewRequest],
    threshold: float,
    limits: DfsLimits,
    on_step: OnStep = None,
    deadline: float | None = None,
) -> Iterator[tuple[ViewRequest, Completion]]:
    """Search under every view of a task, batch by batch, and yield each completion as soon as it is found.

    With a limit for the task, each search gets an equal share of the tokens that are left. A search that needs less leaves the rest to
    the batches after its own, so that the shares do not depend on the number of slots or on which search ends first.

    Args:
        view_requests: of one task, for all of its test inputs, in the order of the views.
        threshold: least probability of a completion.
    """
    views = list(dict.fromkeys(one.view.key for one in view_requests))
    left, waiting, cut = limits.task_steps, len(view_requests), 0
    for first in range(0, len(views), limits.batch or len(views)):
        together = views[first : first + (limits.batch or len(views))]
        batch = {one.request.id: one for one in view_requests if one.view.key in together}
        share = limits.steps if left is None else min(limits.steps, left // waiting)
        if share and not is_past(deadline):
            steps: dict[str, int] = {}
            requests = [one.request for one in batch.values()]
            for completion in search_completions(engine, requests, SearchLimits(threshold, share), on_step, deadline, steps):
                yield batch[completion.id], completion
            left = None if left is None else left - sum(steps.values())
            cut += sum(count >= share for count in steps.values())
        waiting -= len(batch)
    if cut:
        print(
            f"task {view_requests[0].task}: {cut} of {len(view_requests)} searches ended at their limit, what they found is kept",
            flush=True,
        )


def score_candidates(
    engine: TransformersEngine,
    tokenizer: PromptTokenizer,
    found: Sequence[Prediction],
    scoring: Sequence[ViewRequest],
    on_view: OnStep = None,
    earlier: Sequence[Prediction] = (),
) -> list[Prediction]:
    """A prediction for each distinct grid among the answers to one test input, the most probable first.

    Its log-probability is the mean over the views that scored it; where memory suffices for none of them, the mean over the views that
    found it.

    Args:
        found: the answers, in the task's own frame, each with its view.
        scoring: one request for each view that scores.
        earlier: candidates of earlier searches, which stay candidates and are scored like the others.

    Raises:
        ConfigError: as `Engine.score`.
    """
    best: dict[bytes, Prediction] = {}
    finders: dict[bytes, dict[str, float]] = {}
    for answer in sorted(found, key=lambda p: (-p.logprob, p.view)):
        if answer.grid is not None:
            key = grid_id(answer.grid)
            best.setdefault(key, answer)
            finders.setdefault(key, {}).setdefault(answer.view, answer.logprob)  # two token sequences of a view may be one grid
    for candidate in earlier:
        if candidate.grid is not None:
            key = grid_id(candidate.grid)
            best.setdefault(key, candidate)
            finders[key] = {**candidate.found, **finders.get(key, {})}
    grids: list[Grid] = [p.grid for p in best.values() if p.grid is not None]
    scores = score_grids(engine, tokenizer, scoring, grids, on_view)
    candidates = []
    for (key, answer), score in zip(best.items(), scores, strict=True):
        values = score or finders[key]
        mean = math.fsum(values.values()) / len(values)
        candidates.append(replace(answer, logprob=mean, logprobs=score, found=finders[key]))
    return sorted(candidates, key=lambda p: -p.logprob)
