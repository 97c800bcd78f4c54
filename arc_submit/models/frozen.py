"""The frozen source: predictions of a base model as it is, under several views of each task.

This is what a worker runs: it loads a model once, then takes jobs, each a few tasks, and appends every prediction to the run directory the
moment it ends. What is there already is not made again, and a task that fails is that task's alone. The source ttft makes its predictions
in the same way, with each task's adapter. Knows nothing about the run's budget or about workers.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
            request = Request(f"{task.id}/{test}/{view.key}", prompt.ids, prompt.answer_tokens, adapter)
            planned.append(ViewRequest(request, task.id, test, view))
    return planned, refused


def read_answer(writer: PromptWriter, asked: ViewRequest, completion: Completion, model: str, source: str = SOURCE) -> Prediction:
    """The prediction in a completion, with its view undone; one that ran out of tokens or holds no grid says so."""
    grid, reason = None, ""
    if completion.finished == "length":
        reason = f"no end after {len(completion.tokens)} tokens"
    else:
        try:
            grid = asked.view.undo(writer.decode(completion.tokens))
        except NotAGridError as error:
            reason = str(error)
    return Prediction(asked.task, asked.test, grid, source, asked.view.key, completion.logprob, model, completion.seconds, reason)


def predict(
    engine: Engine,
    writer: PromptWriter,
    planned: list[ViewRequest],
    model: str,
    on_step: Callable[[], None] | None = None,
    source: str = SOURCE,
) -> Iterator[Prediction]:
    """Predictions for planned requests, as they end."""
    by_id = {asked.request.id: asked for asked in planned}
    for completion in engine.generate([asked.request for asked in planned], on_step):
        yield read_answer(writer, by_id[completion.id], completion, model, source)


def open_worker(settings_json: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the model and return the function that does a job: {"tasks": [task ids]} -> counts, refusals and failures by task.

    Raises:
        ArcSubmitError: where the model or the way to ask it cannot work.
    """
    from arc_submit.models.loading import choose_device
    from arc_submit.models.transformers_engine import load_transformers_engine

    settings = PredictSettings(**settings_json)
    torch.set_num_threads(settings.threads)
    how = choose_how(Path(settings.model), settings.grid_encoder, settings.prompt, settings.max_seq_len)
    engine, tokenizer, reason = load_transformers_engine(Path(settings.model), choose_device(settings.device), settings.slots)
    writer = PromptWriter(tokenizer, make_encoder(how.grid_encoder), prompt_version(how.prompt))
    print(f"model {settings.model}: {settings.device}, {engine.model.dtype} ({reason}); tokens: {writer.reason}", flush=True)
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        return predict_tasks(Path(settings.run), job["tasks"], engine, writer, settings, how.max_seq_len, beat)

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
) -> dict[str, Any]:
    """Make every prediction of some tasks that the run directory does not hold yet.

    Args:
        source: under whose name they are kept.
        adapter: the folder of the adapter to answer with, None for the base as it is.

    Returns {"tasks": {id: {"made", "held", "refused": [lines], "failed": line or "", "seconds"}}}.
    """
    started = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    planned: list[ViewRequest] = []
    for task_id in task_ids:
        result: dict[str, Any] = {"made": 0, "held": 0, "refused": [], "failed": "", "seconds": 0.0}
        results[task_id] = result
        try:
            task = read_task(run / "tasks" / f"{task_id}.json")
            asked, result["refused"] = plan_requests(
                writer, task, settings.views, settings.seed, max_seq_len, settings.keep_background, adapter
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
        planned += [one for one in asked if (one.test, one.view.key) not in there]
    for prediction in predict(engine, writer, planned, Path(settings.model).name, beat, source):
        append_predictions(prediction_path(run, prediction.task, source), [prediction])
        results[prediction.task]["made"] += 1
        results[prediction.task]["seconds"] = round(time.monotonic() - started, 3)
    return {"tasks": results}


def prediction_path(run: Path, task_id: str, source: str = SOURCE) -> Path:
    """Where a source keeps a task's predictions."""
    return run / "predictions" / source / f"{task_id}.jsonl"
