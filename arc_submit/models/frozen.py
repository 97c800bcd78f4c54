"""The frozen source: predictions of a base model as it is, under several views of each task.

This is what a worker runs: it loads a model once, then takes jobs, each a few tasks, and appends every prediction to the run directory the
moment it ends. What is there already is not made again, and a task that fails is that task's alone. The source ttft makes its predictions
in the same way, with each task's adapter. Knows nothing about the run's budget or about workers.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arc_submit.arc.datasets import read_task
from arc_submit.arc.prediction import Prediction, append_predictions, read_predictions
from arc_submit.arc.task import Task
from arc_submit.arc.views import View, choose_views
from arc_submit.errors import ArcSubmitError
from arc_submit.language.asked import choose_how
from arc_submit.language.encoders import NotAGridError, make_encoder
from arc_submit.language.fitting import DoesNotFitError, fit_prompt
from arc_submit.language.guard import AnswerGuard
from arc_submit.language.prompts import prompt_version
from arc_submit.language.tokens import PromptWriter
from arc_submit.models.engine import Completion, Engine, Request
from arc_submit.models.settings import PredictSettings

SOURCE = "frozen"


@dataclass(frozen=True)
class ViewRequest:
    """A request with what it takes to read its answer."""

    request: Request
    task: str
    test: int
    view: View


def plan_requests(
    writer: PromptWriter,
    task: Task,
    views: int,
    seed: int,
    max_seq_len: int,
    keep_background: bool = False,
    adapter: Path | None = None,
) -> tuple[list[ViewRequest], list[str]]:
    """One request for each test input and view of a task, and a line for each that no prompt fits.

    The same task, seed and number of views give the same requests whatever else is in the run.

    Args:
        adapter: the folder of the adapter to answer with, None for the base as it is.
    """
    identity = zlib.crc32(task.id.encode())
    planned, refused = [], []
    for number, view in enumerate(choose_views(len(task.train), views, seed * 1_000_003 + identity, keep_background)):
        seen = view.apply_task(task)
        for test in range(len(task.tests)):
            try:
                prompt = fit_prompt(writer, seen, test, max_seq_len, np.random.default_rng([seed, identity, number, test]))
            except DoesNotFitError as error:
                refused.append(str(error))
                continue
            guard = AnswerGuard(writer.tokenizer, writer.encoder)
            request = Request(f"{task.id}/{test}/{view.key}", prompt.ids, prompt.answer_tokens, adapter, hopeless=guard)
            planned.append(ViewRequest(request, task.id, test, view))
    return planned, refused


def read_answer(writer: PromptWriter, asked: ViewRequest, completion: Completion, model: str, source: str = SOURCE) -> Prediction:
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


def open_worker(settings_json: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the model and return the function that does a job: {"tasks": [task ids]} -> counts, refusals and failures by task.

    A job may say how many "views" it is about, and "until" when on the monotonic clock; else the settings hold.

    Raises:
        ArcSubmitError: where the model or the way to ask it cannot work.
    """
    from arc_submit.models.opening import open_engine

    settings = PredictSettings(**settings_json)
    torch.set_num_threads(settings.threads)
    how = choose_how(Path(settings.model), settings.grid_encoder, settings.prompt, settings.max_seq_len)
    engine, tokenizer, reason = open_engine(settings, how.max_seq_len)
    writer = PromptWriter(tokenizer, make_encoder(how.grid_encoder), prompt_version(how.prompt))
    print(f"model {settings.model}: {engine.name} on {settings.device} ({reason}); tokens: {writer.reason}", flush=True)
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        adapters = Path(settings.adapters) if settings.adapters else None
        told = replace(settings, views=job.get("views", settings.views))
        return predict_tasks(
            Path(settings.run),
            job["tasks"],
            engine,
            writer,
            told,
            how.max_seq_len,
            beat,
            settings.source,
            adapters=adapters,
            until=job.get("until"),
            tell=beat,
        )

    return do


def predict_tasks(
    run: Path,
    task_ids: list[str],
    engine: Engine,
    writer: PromptWriter,
    settings: PredictSettings,
    max_seq_len: int,
    beat: Callable[[], None],
    source: str = SOURCE,
    adapter: Path | None = None,
    adapters: Path | None = None,
    until: float | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Make every prediction of some tasks that the run directory does not hold yet.

    Args:
        beat: called often.
        source: under whose name they are kept.
        adapter: the folder of the adapter to answer with, None for the base as it is.
        adapters: a folder that holds an adapter for each task; a task without one, or with a broken one, fails alone.
        until: on the monotonic clock; what is not made by then is left unfinished.
        tell: called in place of `beat` with {"made", "tokens"} so far in this call.

    Returns {"tasks": {id: {"made", "held", "malformed", "unfinished", "refused": [lines], "failed": line or "", "tokens", "seconds"}}}:
    predictions made now, those that were there, those made that hold no grid, those that the time did not suffice for, prompts that do
    not fit, why a task failed, tokens generated and seconds to its last prediction.
    """
    started = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    planned: dict[str, ViewRequest] = {}
    for task_id in task_ids:
        result: dict[str, Any] = {"made": 0, "held": 0, "malformed": 0, "unfinished": 0, "refused": [], "failed": "", "tokens": 0}
        results[task_id] = {**result, "seconds": 0.0}
        result = results[task_id]
        own = adapters / task_id if adapters else adapter
        try:
            task = read_task(run / "tasks" / f"{task_id}.json")
            if own is not None:
                engine.check_adapter(own)
            asked, result["refused"] = plan_requests(
                writer, task, settings.views, settings.seed, max_seq_len, settings.keep_background, own
            )
        except ArcSubmitError as error:
            result["failed"] = str(error)
            continue
        finally:
            beat()
        held, _ = read_predictions(prediction_path(run, task_id, source))
        there = {(p.test, p.view) for p in held}
        result["held"] = len(there)
        if not asked and not there:
            result["failed"] = result["refused"][0]  # no view of it fits: it is left to the sources that can take it
        planned |= {one.request.id: one for one in asked if (one.test, one.view.key) not in there}
        result["unfinished"] = sum((one.test, one.view.key) not in there for one in asked)
    told = {"made": 0, "tokens": 0}

    def step() -> None:
        if tell:
            tell(dict(told))
        else:
            beat()

    for completion in engine.generate([asked.request for asked in planned.values()], step, until):
        one = planned[completion.id]
        result = results[one.task]
        if completion.finished == "failed":
            result["failed"] = completion.reason
            continue
        prediction = read_answer(writer, one, completion, Path(settings.model).name, source)
        append_predictions(prediction_path(run, prediction.task, source), [prediction])
        result["made"] += 1
        result["unfinished"] -= 1
        result["malformed"] += prediction.grid is None
        result["tokens"] += len(completion.tokens)
        result["seconds"] = round(time.monotonic() - started, 3)
        told["made"] += 1
        told["tokens"] += len(completion.tokens)
    return {"tasks": results}


def prediction_path(run: Path, task_id: str, source: str = SOURCE) -> Path:
    """Where a source keeps a task's predictions."""
    return run / "predictions" / source / f"{task_id}.jsonl"
