"""Resolving of the commands that run one source: `infer` and `search`, with the rules of their directories.

Both work in a directory of their own, or in one that another command has begun. Their events have other names than a run's, so that a
run does not take their work for its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from arc_submit.arc.datasets import Challenges, read_challenges, read_task
from arc_submit.arc.files import file_name, read_json
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.task import Task, task_to_json
from arc_submit.base_model.checks import check_model_folder
from arc_submit.ensemble.combination import EnsembleConfig, rank_all
from arc_submit.errors import ConfigError, DataError
from arc_submit.run.card_check import sources_that_fit_no_card
from arc_submit.run.config import RunConfig
from arc_submit.run.data import RunData
from arc_submit.run.fingerprint import infer_fingerprint, search_fingerprint
from arc_submit.run.orchestrator import Step
from arc_submit.run.prompt_check import check_prompts
from arc_submit.run.resolve import ResolvedRun
from arc_submit.run.resolve_host import resolve_host
from arc_submit.run.source import Source, SourceSetup, startup_timeout
from arc_submit.run.source_frozen import engines_of, predict_settings, prediction_source
from arc_submit.run.source_search import resolve_search
from arc_submit.storage.run_dir import RunPaths
from arc_submit.storage.task_result import TaskResult
from arc_submit.workers.supervisor import OVER_JOB_TIMEOUT, Timeouts

_PROMPT_RATE = 100e6  # bytes of weights for each second in which the slowest device reads a full prompt


def resolve_infer(config: RunConfig) -> ResolvedRun:
    """Resolve inference alone.

    Raises:
        ArcSubmitError: where it cannot work.
    """
    check_model_folder(config.model)
    if config.adapters is not None and not config.adapters.is_dir():
        raise ConfigError(f"--adapters {config.adapters}: no such folder; give the one that holds an adapter for each task")
    prompt = config.prompt_config()
    challenges = read_challenges(config.challenges) if config.challenges else None
    from arc_submit.base_model.architecture import check_for_engines  # with torch, which takes seconds

    skeleton = check_for_engines(config.model, _engines(config)[:1], max_seq_len=prompt.max_seq_len)
    check_prompts(config.model, prompt, skeleton.get_input_embeddings().num_embeddings)
    fingerprint = infer_fingerprint(config, challenges.tasks if challenges else None)
    config, host = resolve_host(config)
    if not host.on_cpu:
        host = replace(host, workers_per_gpu=max(1, config.workers // len(config.devices)))
        for reason in sources_that_fit_no_card(config, host.gpus, host.workers_per_gpu).values():
            raise ConfigError(reason)
    paths = RunPaths(config.out)
    data = _own_tasks(paths, challenges)
    if config.adapters is not None and config.engine == "vllm":
        _check_served(config.adapters, data.chosen)
    return ResolvedRun(
        paths=paths,
        data=data,
        fingerprint=fingerprint,
        sources=(_infer_source(SourceSetup(config.sources[0], config.sources[0], config, paths)),),
        answering=config.sources,
        host=host,
        budget=config.budget,
        reserve=0.0,
        reset_budget=False,
        adapter_budgets={},
        ensemble=EnsembleConfig(order=config.sources),
        submission=paths.submission,
        pictures=0,
        done_event="infer",
    )


def _check_served(adapters: Path, tasks: Sequence[str]) -> None:
    """Refuse adapters of a kind that vllm does not serve; a broken one is its own task's failure.

    Raises:
        NotServedError: naming the first one.
    """
    from arc_submit.inference.engine import NotServedError
    from arc_submit.inference.vllm_compat import check_kind

    for task_id in tasks:
        try:
            check_kind(adapters / file_name(task_id))
        except NotServedError:
            raise
        except ConfigError:
            continue


def _infer_source(setup: SourceSetup) -> Source:
    config = setup.config
    settings = replace(
        predict_settings(setup, config.views),
        adapters=str(config.adapters) if config.adapters else None,
        candidates=config.candidates,
        threshold=config.threshold,
        temperature=config.temperature,
        workers_per_device=1 if config.devices == ("cpu",) else max(1, config.workers // len(config.devices)),
    )
    engines = _engines(config)
    source = prediction_source(setup, settings, engines)
    backends = tuple(replace(one, timeouts=infer_timeouts(config, settings.device)) for one in source.backends)
    # All tasks are given out in their order: nothing is scheduled, because there is one level.
    return replace(source, backends=backends, ladder=None)


def _engines(config: RunConfig) -> tuple[str, ...]:
    """The engines in the order in which they are tried: the one that is named alone, or those that are there."""
    return engines_of("auto", config.candidates, config.devices != ("cpu",)) if config.engine == "auto" else (config.engine,)


def infer_timeouts(config: RunConfig, device: str) -> Timeouts:
    """How long what may take, by the size of the model.

    The first heartbeat in a job may need a full prompt to be read; after that
    a worker beats at every step, and many times its own longest pause is a hang, however long the whole job takes.
    """
    weights = sum(path.stat().st_size for path in config.model.glob("*.safetensors"))
    return Timeouts(
        startup_timeout=startup_timeout(config),
        heartbeat_timeout=60.0 + weights / _PROMPT_RATE,
        pause_factor=20.0,
        # On a GPU a kernel may be compiled at its first use, in the middle of the work.
        min_heartbeat_timeout=10.0 if device == "cpu" else 30.0,
    )


def resolve_search_alone(config: RunConfig) -> ResolvedRun:
    """Resolve the search command.

    Raises:
        ArcSubmitError: where it cannot work.
    """
    if config.challenges is None:
        raise ConfigError("search needs --challenges")
    challenges = read_challenges(config.challenges)
    config, host = resolve_host(config)
    paths = RunPaths(config.out)
    source = resolve_search(SourceSetup("search", "search", config, paths))[0]
    # A task is tried once in a call: its answers stay, and the report says how it ended.
    backend = replace(source.backends[0], timeouts=replace(source.backends[0].timeouts, max_failures=1))
    return ResolvedRun(
        paths=paths,
        data=RunData(str(config.challenges), challenges, dict(challenges.test_counts), sorted(challenges.tasks), None),
        fingerprint=search_fingerprint(config),
        sources=(replace(source, backends=(backend,)),),
        answering=("search",),
        host=host,
        budget=config.budget,
        reserve=0.0,
        reset_budget=False,
        adapter_budgets={},
        ensemble=EnsembleConfig("precedence", ("search",)),
        submission=paths.submission,
        pictures=0,
        done_event="search",
    )


def _own_tasks(paths: RunPaths, challenges: Challenges | None) -> RunData:
    """The tasks of a challenges file, or of the directory, whose files may be unreadable: their worker says why."""
    ids = sorted({*paths.task_ids(), *(challenges.tasks if challenges else ())})
    if challenges is None:
        tasks = {task_id: task for task_id in ids if (task := read_or_none(paths.task(task_id))) is not None}
        challenges = Challenges(tasks, {}, {task_id: len(task.tests) for task_id, task in tasks.items()})
    return RunData(str(paths.root), challenges, dict(challenges.test_counts), ids, None)


def check_same_tasks(challenges: Challenges, paths: RunPaths) -> None:
    """Refuse a challenges file with another task than the directory has under its id, whichever command began it.

    Raises:
        ConfigError: naming the first such task.
    """
    for task_id, task in challenges.tasks.items():
        existing = read_or_none(paths.task(task_id))  # one that cannot be read is written again
        if existing is not None and task_to_json(existing) != task_to_json(task):
            raise ConfigError(
                f"{paths.task(task_id)}: is not the task {task_id} of --challenges; give the file that the directory was begun with, "
                "or another --out"
            )


def read_or_none(path: Path) -> Task | None:
    """A task file, or None where it does not exist or cannot be read."""
    try:
        return read_task(path)
    except DataError:
        return None


def finished_inference(paths: RunPaths, source: str) -> dict[str, TaskResult]:
    """Results of the tasks that earlier calls of `infer` have finished in a directory of its own, and whose predictions are all there.

    A worker would find nothing to do for them. In the directory of another command, calls of `infer` may differ in their views: none is
    taken for finished there.
    """
    if (paths.read_config() or {}).get("command") != "infer":
        return {}
    results: dict[str, TaskResult] = {}
    for event in paths.read_events():
        task_id = event.get("task")
        if event["event"] != "infer_done" or event.get("source") != source or not isinstance(task_id, str):
            continue
        done = TaskResult.from_json(event)
        held = read_predictions(paths.predictions(source, task_id))[0]
        distinct = len(held) if any(one.logprobs for one in held) else len({(one.test, one.view) for one in held})
        results.pop(task_id, None)
        if distinct and distinct == done.made + done.held:
            results[task_id] = TaskResult(held=distinct, refused=done.refused, malformed=0, answered=done.answered, unfinished=0, tokens=0)
    return results


@dataclass(frozen=True)
class SearchReport:
    """How the search of one task ended.

    Attributes:
        task: task id.
        ending: "done"; "pass" where a further pass follows; "time" or "memory" where a limit stopped it, "died" where its process ended
            otherwise.
        seconds: wall-clock seconds of all passes.
        cpu_seconds: CPU seconds of all passes.
        answers: different answers in its file.
        effort: name of the effort.
        next_pass: the pass that it has not ended; 0 where it has ended all or none.
    """

    task: str
    ending: str
    seconds: float
    cpu_seconds: float
    answers: int
    effort: str
    next_pass: int = 0


def earlier_searches(paths: RunPaths, task_ids: Sequence[str], effort: str) -> dict[str, SearchReport]:
    """Reports of earlier calls with the same effort, by task."""
    reports = {}
    for task_id in task_ids:
        try:
            report = SearchReport(**read_json(paths.search_report(task_id)))
        except (DataError, TypeError):
            continue
        if report.effort == effort:
            reports[task_id] = report
    return reports


def goes_on(report: SearchReport, seconds: float | None) -> bool:
    """Whether a search of an earlier call has work left: a further pass, or another try where its process died or more time is allowed."""
    more_time = report.ending == "time" and (seconds is None or report.seconds < seconds)
    return report.ending in ("pass", "died") or more_time


def search_report(step: Step, paths: RunPaths, effort: str, earlier: Mapping[str, SearchReport]) -> list[SearchReport]:
    """The reports of the tasks whose pass a step has ended.

    Args:
        earlier: the reports of their earlier passes.
    """
    event = step.event
    if event is None or event.kind not in ("done", "given_up"):
        return []
    reports = []
    for task_id in event.task_ids:
        number, following = event.params.get("pass", 0), 0
        if event.kind == "given_up":
            ending = "time" if event.reason.startswith(OVER_JOB_TIMEOUT) else "died"
            seconds, cpu_seconds = event.seconds, step.progress.reports.get(task_id, {}).get("cpu_seconds", 0.0)  # at its last heartbeat
        else:
            result = TaskResult.from_json(event.result["tasks"][task_id])
            following = result.next_pass or 0
            ended = "pass" if following else "done"
            ending = "memory" if result.failed.startswith("memory") else "died" if result.failed else ended
            seconds, cpu_seconds = result.seconds, result.cpu_seconds or 0.0
        if number:
            seconds, cpu_seconds = seconds + earlier[task_id].seconds, cpu_seconds + earlier[task_id].cpu_seconds
        following = following if ending in ("pass", "done") else number
        answers = _count_answers(paths, task_id)
        reports.append(SearchReport(task_id, ending, round(seconds, 3), round(cpu_seconds, 3), answers, effort, following))
    return reports


def _count_answers(paths: RunPaths, task_id: str) -> int:
    predictions = read_predictions(paths.predictions("search", task_id))[0]
    return sum(map(len, rank_all(predictions).get("search", {}).values()))
