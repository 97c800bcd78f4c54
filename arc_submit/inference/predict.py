"""The frozen source: predictions of a base model as it is, under several views of each task.

This is what a worker runs: it loads a model once, then takes jobs, each a few tasks, and appends every prediction to the run directory the
moment it ends. What is there already is not made again, and a task that fails is that task's alone. The source ttft makes its predictions
in the same way, with each task's adapter. With candidates "dfs" a test input's answers are kept together, each once and scored under all
views. Knows nothing about the run's budget or about workers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from arc_submit.arc.datasets import read_task
from arc_submit.arc.grid import Grid, grid_id
from arc_submit.arc.prediction import Prediction, append_predictions, read_predictions
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.inference.engine import Engine, NotServedError
from arc_submit.inference.requests import ViewRequest, plan_requests, read_answer
from arc_submit.inference.scoring import score_grids
from arc_submit.inference.settings import PredictSettings
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version

SOURCE = "frozen"


def open_worker(settings_json: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the model and return the function that does a job: {"tasks": [task ids]} -> counts, refusals and failures by task.

    A task whose adapter this engine does not serve is named under "cannot", for another engine to try.
    A job may say how many "views" it is about, and "soft_deadline" when on the monotonic clock; else the settings hold.

    Raises:
        ArcSubmitError: where the model or the way to ask it cannot work.
    """
    from arc_submit.inference.load import open_engine

    settings = PredictSettings(**settings_json)
    torch.set_num_threads(settings.threads)
    how = resolve_prompt_config(Path(settings.model), settings.grid_encoder, settings.prompt, settings.max_seq_len)
    engine, tokenizer, reason = open_engine(settings, how.max_seq_len)
    writer = PromptTokenizer(tokenizer, make_encoder(how.grid_encoder), prompt_version(how.prompt))
    print(f"model {settings.model}: {engine.name} on {settings.device} ({reason}); tokens: {writer.reason}", flush=True)
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        adapters = Path(settings.adapters) if settings.adapters else None
        asked = replace(settings, views=job.get("views", settings.views))
        tasks = predict_tasks(
            Path(settings.run),
            job["tasks"],
            engine,
            writer,
            asked,
            how.max_seq_len,
            beat,
            settings.source,
            adapters=adapters,
            until=job.get("soft_deadline"),
            tell=beat,
        )["tasks"]
        cannot = {task: told["failed"] for task, told in tasks.items() if told["not_served"]}
        return {"tasks": {task: told for task, told in tasks.items() if task not in cannot}, "cannot": cannot}

    return do


def predict_tasks(
    run: Path,
    task_ids: list[str],
    engine: Engine,
    writer: PromptTokenizer,
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

    Returns {"tasks": {id: {"made", "held", "malformed", "answered", "unfinished", "refused": [lines], "failed": line or "",
    "not_served", "tokens", "seconds"}}}: predictions made now, those that were there, answers without a grid, prompts (a test input under
    a view) that have been answered by now, those that the time did not suffice for, those that do not fit, why a task failed, whether
    that was this engine's alone, tokens generated and seconds to its last prediction.
    """
    started = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    planned: dict[str, ViewRequest] = {}
    told = {"made": 0, "answered": 0, "tokens": 0}

    def step() -> None:
        if tell:
            tell(dict(told))
        else:
            beat()

    def keep(task_id: str, made: Sequence[Prediction], answered: int, malformed: int, tokens: int) -> None:
        append_predictions(prediction_path(run, task_id, source), made)
        result = results[task_id]
        for name, number in (("made", len(made)), ("answered", answered), ("tokens", tokens)):
            result[name] += number
            told[name] += number
        result["unfinished"] -= answered
        result["malformed"] += malformed
        result["seconds"] = round(time.monotonic() - started, 3)

    for task_id in task_ids:
        counts = dict.fromkeys(("made", "held", "malformed", "answered", "unfinished", "tokens"), 0)
        result = results[task_id] = {**counts, "refused": [], "failed": "", "not_served": False, "seconds": 0.0}
        own = adapters / task_id if adapters else adapter
        try:
            task = read_task(run / "tasks" / f"{task_id}.json")
            if task.id != task_id:
                raise DataError(f"{task_id}.json: holds task {task.id}; name the file after its task")
            if own is not None:
                engine.check_adapter(own)
            asked, result["refused"] = plan_requests(
                writer, task, settings.views, settings.seed, max_seq_len, settings.keep_background, own, settings.temperature
            )
            held = _read_held(prediction_path(run, task_id, source), settings)
        except ArcSubmitError as error:
            result["failed"], result["not_served"] = str(error), isinstance(error, NotServedError)
            continue
        finally:
            beat()
        if not asked and not held:
            result["failed"] = result["refused"][0]  # no view of it fits: it is left to the sources that can take it
        there = {(p.test, p.view) for p in held}
        searched = {p.test for p in held} if settings.candidates == "dfs" else set()
        left = [one for one in asked if one.test not in searched and (one.test, one.view.key) not in there]
        planned |= {one.request.id: one for one in left}
        result["held"] = len(held)
        result["unfinished"], result["answered"] = len(left), len(asked) - len(left)
    name = Path(settings.model).name
    if settings.candidates == "dfs":
        for task_id in results:
            own_requests = [one for one in planned.values() if one.task == task_id]
            if own_requests and (until is None or time.monotonic() < until):
                for made, *counted in _search(engine, writer, own_requests, settings.threshold, name, source, step, until):
                    keep(task_id, made, *counted)
        return {"tasks": results}
    for completion in engine.generate([one.request for one in planned.values()], step, until):
        one = planned[completion.id]
        if completion.finished == "failed":
            results[one.task]["failed"], results[one.task]["not_served"] = completion.reason, True
            continue
        prediction = read_answer(writer, one, completion, name, source)
        keep(one.task, [prediction], 1, int(prediction.grid is None), len(completion.tokens))
    return {"tasks": results}


def _read_held(path: Path, settings: PredictSettings) -> list[Prediction]:
    """The predictions that are there, each (test input, view) once.

    Raises:
        DataError: where they were made in the other way: votes and scores cannot be weighed against each other.
    """
    held, _ = read_predictions(path)
    scored = settings.candidates == "dfs"
    if any((bool(p.logprobs) or not p.view) != scored for p in held):
        there = "views" if scored else "dfs"
        raise DataError(f"{path}: holds predictions of candidates {there}; go on with those, remove it, or give another --out")
    return held if scored else list({(p.test, p.view): p for p in held}.values())


def _search(
    engine: Engine,
    writer: PromptTokenizer,
    asked: Sequence[ViewRequest],
    threshold: float,
    model: str,
    source: str,
    step: Callable[[], None],
    until: float | None,
) -> Iterator[tuple[list[Prediction], int, int, int]]:
    """For each test input of a task its candidates, likeliest first, with how many prompts that answers, malformed answers and tokens.

    Where the time ends in the middle of the search, what has been found by then is scored and kept all the same.

    Raises:
        ConfigError: where the engine cannot search.
    """
    from arc_submit.inference.dfs import SearchLimits, search_completions
    from arc_submit.inference.transformers_engine import TransformersEngine

    if not isinstance(engine, TransformersEngine):
        raise ConfigError(f"--candidates dfs: the engine {engine.name} cannot search; take transformers")
    started = time.monotonic()
    by_id = {one.request.id: one for one in asked}
    found: dict[int, list[Prediction]] = {one.test: [] for one in asked}
    tokens = dict.fromkeys(found, 0)
    for completion in search_completions(engine, [one.request for one in asked], SearchLimits(threshold), step, until):
        one = by_id[completion.id]
        found[one.test].append(read_answer(writer, one, completion, model, source))
        tokens[one.test] += len(completion.tokens)
    in_time = until is None or time.monotonic() < until
    for test, answers in found.items():
        planned = [one for one in asked if one.test == test]
        best: dict[bytes, Prediction] = {}
        for answer in sorted(answers, key=lambda p: (-p.logprob, p.view)):
            if answer.grid is not None:
                best.setdefault(grid_id(answer.grid), answer)
        grids: list[Grid] = [p.grid for p in best.values() if p.grid is not None]
        scores = score_grids(engine, writer, planned, grids, engine.limit, step)
        seconds = time.monotonic() - started
        made = [
            replace(p, logprob=math.fsum(score.values()) / len(score), logprobs=score, seconds=seconds)
            for p, score in zip(best.values(), scores, strict=True)
            if score
        ]
        made.sort(key=lambda p: -p.logprob)
        if not made and in_time:
            reason = f"{len(grids)} grids among {len(answers)} answers above a probability of {threshold:g}, none could be scored"
            made = [Prediction(planned[0].task, test, None, source, "", 0.0, model, seconds, reason)]
        if made:
            yield made, len(planned), sum(p.grid is None for p in answers), tokens[test]


def prediction_path(run: Path, task_id: str, source: str = SOURCE) -> Path:
    """Where a source keeps a task's predictions."""
    return run / "predictions" / source / f"{task_id}.jsonl"
