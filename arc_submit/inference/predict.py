"""Predictions of a model under several views of each task: the worker of the source frozen, and the last step of the source ttft.

A worker loads a model once and then takes jobs of a few tasks. It appends every prediction to the run directory as soon as it is made,
skips predictions that exist, and confines a failure to its task. The source ttft uses an adapter for each task. With candidates "dfs" all
answers to a test input are written together, each once and scored under all views; more views, or an adapter of more steps, search again
and keep the answers that are there. Does not know the run's budget or other workers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import read_task
from arc_submit.arc.files import file_name
from arc_submit.arc.prediction import OutputKey, Prediction, append_predictions, group_by_output, read_predictions, replace_predictions
from arc_submit.arc.task import Task
from arc_submit.base_model.adapter_files import read_config
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.inference import load
from arc_submit.inference.candidates import score_candidates, search_views
from arc_submit.inference.engine import Engine, NotServedError
from arc_submit.inference.memory_limits import MemoryLimits, find_memory_limits
from arc_submit.inference.requests import ViewRequest, make_prediction, plan_requests
from arc_submit.inference.settings import PredictSettings, RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.storage.run_dir import RunPaths
from arc_submit.storage.task_result import TaskResult


class UnansweredError(ArcSubmitError):
    """A task for which this engine gives no answer, now or in another try."""


@dataclass(frozen=True)
class Predictor:
    """A loaded model and the settings of its predictions.

    Attributes:
        max_seq_len: tokens of a prompt with its answer, as resolved for the model.
        memory: what fits on the device; None: the settings hold for every task.
    """

    engine: Engine
    tokenizer: PromptTokenizer
    settings: PredictSettings
    max_seq_len: int
    memory: MemoryLimits | None = None


def open_worker(settings_json: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the model and return the function that does a job: {"tasks": [task ids]} -> {"tasks": {id: TaskResult as JSON}, "cannot": ...}.

    "cannot" holds the reasons by task for the tasks whose adapter this engine does not serve; another engine may serve them. A job's
    "views" replaces the number in the settings; its "soft_deadline" is on the monotonic clock.

    Raises:
        ArcSubmitError: where the model or its prompt configuration cannot work.
    """
    settings = PredictSettings.from_json(settings_json)
    use_cpu(settings.threads)
    config = settings.prompt_config()
    engine, base_tokenizer, reason = load.load_engine(settings, config.max_seq_len)
    tokenizer = PromptTokenizer.from_config(base_tokenizer, config)
    print(f"model {settings.model}: {engine.name} on {settings.device} ({reason}); tokens: {tokenizer.summary}", flush=True)
    memory = None
    if isinstance(engine, TransformersEngine):  # vllm divides its memory itself
        memory = find_memory_limits(settings, engine.device, tokenizer, _adapters_settings(settings))
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        job_settings = replace(settings, views=job.get("views", settings.views))
        predictor = Predictor(engine, tokenizer, job_settings, config.max_seq_len, memory)
        results = predict_tasks(predictor, job["tasks"], beat, job.get("soft_deadline"))
        return {
            "tasks": {task_id: result.to_json() for task_id, result in results.items() if not result.not_served},
            "cannot": {task_id: result.failed for task_id, result in results.items() if result.not_served},
        }

    return do


def _adapters_settings(settings: PredictSettings) -> LoraSettings | None:
    """Settings of the adapters that are served, for their size; all have those of the first."""
    for folder in load.find_adapters(settings.adapters):
        with contextlib.suppress(ConfigError):  # a broken adapter is reported by its task
            config = read_config(folder)
            ends = tuple(name for name in ("embed_tokens", "lm_head") if name in config.targets)
            return LoraSettings(rank=config.largest_rank, targets=(*LoraSettings().targets, *ends), dora=config.dora)
    return None


def predict_tasks(
    predictor: Predictor, task_ids: Sequence[str], beat: Callable[..., None], deadline: float | None = None
) -> dict[str, TaskResult]:
    """Make the predictions of some tasks that the run directory does not hold yet; a result for each task.

    A task fails alone where it cannot be read, no prompt fits, or its adapter is missing or broken.

    Args:
        beat: called without an argument after the preparation of each task, and with {"made", "answered", "tokens"}, counted from the
            beginning of this call, after every step of the engine.
        deadline: on the monotonic clock; requests that are unfinished then count as unfinished in the results.
    """
    job = _Job(predictor, beat)
    try:
        view_requests = [one for task_id in task_ids for one in job.plan(task_id)]
        if predictor.settings.candidates == "dfs":
            job.search(view_requests, deadline)
        else:
            job.generate(view_requests, deadline)
    finally:
        if isinstance(predictor.engine, TransformersEngine):
            predictor.engine.release_adapter()  # fine-tuning on the next task is planned without it
    return job.results


class _Job:
    """The tasks of one job and their results."""

    def __init__(self, predictor: Predictor, beat: Callable[..., None]):
        self.predictor = predictor
        self.beat = beat
        self.started = time.monotonic()
        self.results: dict[str, TaskResult] = {}
        self.slots: dict[str, int] = {}  # by task, where the memory plan or the batches of a search decide
        self.scoring: dict[str, list[ViewRequest]] = {}  # by task, the requests that score the candidates of a search
        self.earlier: dict[OutputKey, list[Prediction]] = {}  # candidates of earlier searches, also those without a grid
        self.progress = {"made": 0, "answered": 0, "tokens": 0}

    def plan(self, task_id: str) -> list[ViewRequest]:
        """The requests of a task without a prediction on disk; none where the task fails. Creates the task's result."""
        settings, engine = self.predictor.settings, self.predictor.engine
        paths = RunPaths(Path(settings.run))
        adapter = Path(settings.adapters) / file_name(task_id) if settings.adapters else None
        result = self.results[task_id] = TaskResult(malformed=0, answered=0, unfinished=0, not_served=False, tokens=0)
        try:
            task = read_task(paths.task(task_id))
            if task.id != task_id:
                raise DataError(f"{task_id}.json: holds task {task.id}; name the file after its task")
            if adapter is not None:
                engine.check_adapter(adapter)
            max_seq_len, searches, slots = self.predictor.max_seq_len, settings.candidates == "dfs", settings.slots
            if searches and settings.dfs.batch is not None:
                slots = self.slots[task_id] = min(slots, max(2, settings.dfs.batch * len(task.tests)))
            if self.predictor.memory is not None:
                self.slots[task_id], max_seq_len = self.predictor.memory.of_prediction(task, max_seq_len, slots, searches)
            request_settings = settings.for_requests(max_seq_len)
            planned, result.refused = plan_requests(self.predictor.tokenizer, task, request_settings, adapter)
            existing = _read_existing(paths.predictions(settings.source, task_id), searches)
            if searches:
                scoring = replace(request_settings, views=settings.dfs.score_views or settings.views)
                if scoring == request_settings:
                    self.scoring[task_id] = planned
                else:
                    self.scoring[task_id], _ = plan_requests(self.predictor.tokenizer, task, scoring, adapter)
                missing = self._unsearched(task, planned, group_by_output(existing), request_settings)
            else:
                answered = {(p.test, p.view) for p in existing}
                missing = [one for one in planned if (one.test, one.view.key) not in answered]
        except ArcSubmitError as error:
            result.failed, result.not_served = str(error), isinstance(error, NotServedError)
            return []
        finally:
            self.beat()
        if not planned and not existing:
            result.failed = result.refused[0]  # no view of the task fits: other sources may still solve it
        result.held, result.unfinished, result.answered = len(existing), len(missing), len(planned) - len(missing)
        return missing

    def _unsearched(
        self, task: Task, planned: Sequence[ViewRequest], existing: Mapping[OutputKey, list[Prediction]], request_settings: RequestSettings
    ) -> list[ViewRequest]:
        """The requests whose searches the candidates on disk do not contain.

        The candidates of a test input are written together, so one of them tells what has been searched. An adapter of more steps gives
        other answers, so that it searches all views again.
        """
        settings, missing = self.predictor.settings, list[ViewRequest]()
        for test in range(len(task.tests)):
            earlier = self.earlier[task.id, test] = existing.get((task.id, test), [])
            views, steps = max((p.searched for p in earlier), default=(0, 0))
            if (steps, views) >= (settings.steps, settings.views):
                continue
            done = set[str]()
            if steps == settings.steps and views:
                first, _ = plan_requests(self.predictor.tokenizer, task, replace(request_settings, views=views))
                done = {one.view.key for one in first}
            missing += [one for one in planned if one.test == test and one.view.key not in done]
        return missing

    def generate(self, view_requests: Sequence[ViewRequest], deadline: float | None) -> None:
        """One answer for each request; tasks with the same slots together, so that a task's slots do not depend on the others."""
        for slots in sorted({self.slots.get(one.task, 0) for one in view_requests}, reverse=True):
            with self._with_slots(slots):
                self._generate([one for one in view_requests if self.slots.get(one.task, 0) == slots], deadline)

    @contextlib.contextmanager
    def _with_slots(self, slots: int) -> Iterator[None]:
        """The engine with a number of slots; 0 leaves its own."""
        engine = self.predictor.engine
        if not slots or not isinstance(engine, TransformersEngine):
            yield
            return
        own, engine.slots = engine.slots, slots
        try:
            yield
        finally:
            engine.slots = own

    def _generate(self, view_requests: Sequence[ViewRequest], deadline: float | None) -> None:
        settings = self.predictor.settings
        by_id = {one.request.id: one for one in view_requests}
        failures: dict[str, list[str]] = {}
        for completion in self.predictor.engine.generate([one.request for one in by_id.values()], self.on_step, deadline):
            one = by_id[completion.id]
            if completion.finished == "failed":
                failures.setdefault(one.task, []).append(completion.reason)
                continue
            prediction = make_prediction(self.predictor.tokenizer, one, completion, Path(settings.model).name, settings.source)
            self.save(one.task, [prediction], answered=1, malformed=int(prediction.grid is None), tokens=len(completion.tokens))
        for task_id, reasons in failures.items():
            result = self.results[task_id]
            if result.answered:
                # The other views answer the task: what fails under one of them is no more than a prompt that does not fit.
                result.refused += reasons
                result.unfinished = (result.unfinished or 0) - len(reasons)
            else:
                result.failed, result.not_served = reasons[0], True

    def search(self, view_requests: Sequence[ViewRequest], deadline: float | None) -> None:
        """All candidates of each test input, one task after the other."""
        for task_id in self.results:
            own = [one for one in view_requests if one.task == task_id]
            if own and (deadline is None or time.monotonic() < deadline):
                try:
                    with self._with_slots(self.slots.get(task_id, 0)):
                        self._search_task(task_id, own, deadline)
                except UnansweredError as error:
                    self.results[task_id].failed, self.results[task_id].not_served = str(error), True

    def _search_task(self, task_id: str, view_requests: Sequence[ViewRequest], deadline: float | None) -> None:
        """Find, score and save the candidates of each test input, the most probable first.

        At the deadline the candidates found so far are scored and saved all the same.

        Raises:
            ConfigError: where the engine cannot search.
            UnansweredError: where the model gives no answer that could be used.
        """
        engine, tokenizer, settings = self.predictor.engine, self.predictor.tokenizer, self.predictor.settings
        if not isinstance(engine, TransformersEngine):
            raise ConfigError(f"--candidates dfs: the engine {engine.name} cannot search; take transformers")
        started, model = time.monotonic(), Path(settings.model).name
        answers: dict[int, list[Prediction]] = {one.test: [] for one in view_requests}
        tokens, failures = dict.fromkeys(answers, 0), list[str]()
        for one, completion in search_views(engine, view_requests, settings.threshold, settings.dfs, self.on_step, deadline):
            if completion.finished == "failed":
                failures.append(completion.reason)
                continue
            answers[one.test].append(make_prediction(tokenizer, one, completion, model, settings.source))
            tokens[one.test] += len(completion.tokens)
        if failures and not any(answers.values()):
            raise UnansweredError(failures[0])
        self.results[task_id].refused += failures
        in_time = deadline is None or time.monotonic() < deadline
        for test, found in answers.items():
            own = [one for one in view_requests if one.test == test]
            scoring = [one for one in self.scoring[task_id] if one.test == test]
            earlier = self.earlier[task_id, test]
            if earlier and not found and not in_time:
                continue  # the search has hardly begun: what is there remains as it is
            try:
                candidates = score_candidates(engine, tokenizer, found, scoring, self.on_step, earlier)
            except ConfigError as error:
                raise UnansweredError(str(error)) from None
            seconds, searched = time.monotonic() - started, (settings.views, settings.steps)
            candidates = [replace(p, seconds=seconds, searched=searched) for p in candidates]
            if not candidates and in_time:
                # A line without a grid marks the complete search, so that the next job does not repeat it.
                reason = f"0 grids among {len(found)} answers above a probability of {settings.threshold:g}, none could be scored"
                candidates = [Prediction(task_id, test, None, settings.source, "", 0.0, model, seconds, reason, searched=searched)]
            if candidates:
                malformed = sum(p.grid is None for p in found)
                self.save(task_id, candidates, len(own), malformed, tokens[test], len(earlier))

    def on_step(self) -> None:
        self.beat(dict(self.progress))

    def save(self, task_id: str, predictions: Sequence[Prediction], answered: int, malformed: int, tokens: int, earlier: int = 0) -> None:
        """Write predictions and count them; the arguments are numbers of requests, answers, tokens and predictions.

        Args:
            earlier: predictions of the same test input that these replace.
        """
        settings, result = self.predictor.settings, self.results[task_id]
        own = [replace(one, kind=settings.kind) for one in predictions] if settings.kind else predictions
        path = RunPaths(Path(settings.run)).predictions(settings.source, task_id)
        if earlier:
            replace_predictions(path, predictions[0].test, own)
        else:
            append_predictions(path, own)
        changes = {"made": max(0, len(predictions) - earlier), "answered": answered, "tokens": tokens}
        for name, number in changes.items():
            self.progress[name] += number
        for name, number in {**changes, "malformed": malformed, "unfinished": -answered}.items():
            setattr(result, name, getattr(result, name) + number)
        result.seconds = round(time.monotonic() - self.started, 3)


def _read_existing(path: Path, scored: bool) -> list[Prediction]:
    """The predictions in a file; those that are not scored candidates once for each test input and view.

    Raises:
        DataError: where they are of the other kind: votes and scores cannot be weighed against each other.
    """
    held, _ = read_predictions(path)
    if any((bool(p.logprobs or p.found) or not p.view) != scored for p in held):
        kind = "views" if scored else "dfs"
        raise DataError(f"{path}: holds predictions of candidates {kind}; go on with those, remove it, or give another --out")
    return held if scored else list({(p.test, p.view): p for p in held}.values())
