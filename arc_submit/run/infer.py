"""Inference alone: predictions of a model, with or without an adapter for each task, into a run directory.

Works on a challenges file, or on a run directory that `run` or `finetune` has begun. A fast engine is tried first and a plain one does what
it gives up. Whatever has been predicted stays: the same command goes on where it was. Knows nothing about how an engine works.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from arc_submit.arc.datasets import Challenges, read_challenges, read_task, split_tasks
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.submission import Submission
from arc_submit.arc.task import Task, task_to_json
from arc_submit.base_model.checks import check_model_folder, files_fingerprint
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.durations import format_duration, parse_duration
from arc_submit.ensemble.combination import combine_predictions
from arc_submit.errors import ConfigError, DataError
from arc_submit.inference.settings import CANDIDATES, ENGINES, PredictSettings, check_candidates, check_temperature
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.storage.run_dir import RunDirectory, open_run
from arc_submit.workers.devices import visible_device, worker_device, worker_environment
from arc_submit.workers.fallback import run_with_fallback
from arc_submit.workers.pool import Backend, Event, Job, Launch, ProcessConfig, Timeouts, WorkerQuota, launch_locally
from arc_submit.workers.ray_cluster import EXECUTORS, check_executor, find_cluster

_DISK = 50e6  # bytes a second that the slowest disk reads a model with
_PROMPT = 100e6  # bytes of weights for each second that the slowest device reads a full prompt in


@dataclass(frozen=True)
class InferConfig:
    """What to predict and with what.

    Attributes:
        out: the run directory.
        challenges: a challenges file; None takes the tasks that the run directory holds.
        model: folder of the base model.
        adapters: a folder with one adapter for each task, named by its id; None answers with the base.
        engine: "vllm", "transformers", or "auto": vllm where it is installed, and transformers for what it gives up.
        views: predictions for each test input.
        seed: of views and of the choice of train pairs.
        candidates, threshold, temperature: see arc_submit.inference.settings; with "dfs", "auto" is transformers.
        keep_background, grid_encoder, prompt, max_seq_len: as in a run.
        executor, ray_address: see RunConfig.
        devices: a worker each, in turn.
        workers: worker processes; each device has one at least.
        threads: CPU threads of each.
        slots: answers written together.
        group: tasks in one job.
        budget: seconds for the whole; a twentieth before its end, at most two minutes, what is running is given up.
        max_failures: how often a task may be lost with an engine before the next one tries it.
        limits: by engine, what its workers may take, in place of what follows from the model.
        entry: what the workers load.
    """

    out: Path
    challenges: Path | None = None
    model: Path = field(default_factory=pocket_folder)
    adapters: Path | None = None
    engine: str = "auto"
    views: int = 8
    seed: int = 0
    candidates: str = "views"
    threshold: float = 0.1
    temperature: float = 0.0
    keep_background: bool = False
    grid_encoder: str | None = None
    prompt: str | None = None
    max_seq_len: int | None = None
    executor: str = "local"
    ray_address: str | None = None
    devices: tuple[str, ...] = ("cpu",)
    workers: int = 1
    threads: int = 1
    slots: int = 16
    group: int = 8
    budget: float = 12 * 3600.0
    max_failures: int = 2
    limits: dict[str, Timeouts] = field(default_factory=dict)
    entry: str = "arc_submit.inference.predict:open_worker"

    def __post_init__(self) -> None:
        for name in ("views", "workers", "threads", "group", "max_failures"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        # A job is written to a worker's pipe in one go: it must stay well below what a pipe holds.
        if self.group > 256:
            raise ConfigError(f"--group {self.group}: at most 256")
        if self.slots < 2:
            raise ConfigError(f"--slots {self.slots}: at least 2 are needed")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed {self.seed}: 0 to {2**31 - 1} is allowed")
        if self.engine not in ("auto", *ENGINES):
            raise ConfigError(f"--engine {self.engine}: choose from auto, {', '.join(ENGINES)}")
        check_candidates(self.candidates, self.threshold, self.engine)
        check_temperature(self.temperature, self.candidates)
        check_executor(self.executor, self.ray_address)

    @property
    def source(self) -> str:
        """Under whose name predictions are kept: a model with adapters is another source than the model alone."""
        return "ttft" if self.adapters else "frozen"

    @property
    def engines(self) -> tuple[str, ...]:
        """Engines in the order in which they are tried."""
        if self.engine != "auto":
            return (self.engine,)
        if self.candidates == "dfs":
            return ("transformers",)
        return ("vllm", "transformers") if importlib.util.find_spec("vllm") else ("transformers",)


@dataclass
class InferResult:
    """What came of it.

    Attributes:
        made, held, malformed, tokens: predictions made and found there, answers without a grid, tokens generated.
        answered: prompts (a test input under a view) that have been answered by now.
        done: tasks that have all of theirs.
        failed: reasons by task.
        unfinished: tasks for which the time did not suffice.
        refused: prompts that fit no limit.
        recoveries: seconds from each loss of a worker to the next prediction or finished job.
        seconds: of the whole; `working` from the first job's beginning.
    """

    made: int = 0
    held: int = 0
    malformed: int = 0
    answered: int = 0
    tokens: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    refused: int = 0
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0
    working: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        return {
            "made": self.made,
            "held": self.held,
            "malformed": self.malformed,
            "refused": self.refused,
            "done": self.done,
            "failed": len(self.failed),
            "unfinished": len(self.unfinished),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / self.working, 1) if self.working else 0.0,
            "recoveries": [round(seconds, 2) for seconds in self.recoveries],
            "seconds": round(self.seconds, 1),
        }


def infer(config: InferConfig) -> InferResult:
    """Make the predictions that the run directory does not hold yet.

    Raises:
        ArcSubmitError: where it cannot work at all.
    """
    check_model_folder(config.model)
    if config.adapters is not None and not config.adapters.is_dir():
        raise ConfigError(f"--adapters {config.adapters}: no such folder; give the one that holds an adapter for each task")
    resolve_prompt_config(config.model, config.grid_encoder, config.prompt, config.max_seq_len)
    began = time.monotonic()
    challenges = read_challenges(config.challenges) if config.challenges else None
    config, launch = _find_executor(config)
    with open_run(config.out, _identity(config, challenges)) as directory:
        if challenges:
            _check_same_tasks(challenges, config.out / "tasks")
            for task_id, reason in challenges.errors.items():
                tqdm.write(f"set aside {task_id}: {reason}")
            split_tasks(challenges, config.out / "tasks")
        tasks = sorted(path.stem for path in (config.out / "tasks").glob("*.json"))
        if not tasks:
            raise ConfigError(f"{config.out}: holds no tasks; give --challenges")
        deadline = began + config.budget
        soft = deadline - min(120.0, 0.05 * config.budget)
        stages = [_stage(name, config) for name in config.engines]
        jobs = [Job(tuple(tasks[i : i + config.group])) for i in range(0, len(tasks), config.group)]

        def environment(number: int) -> dict[str, str]:
            return worker_environment(config.threads, worker_device(config.devices, number))

        share = WorkerQuota(min(max(config.workers, len(config.devices)), len(jobs)))
        events = run_with_fallback(jobs, stages, ProcessConfig(config.out / "logs", environment, launch), share, deadline, soft)
        result = _follow(events, config, directory, tasks)
        if challenges:
            submission = Submission(challenges, config.out / "submission.json")
            found = [p for task in tasks for p in read_predictions(config.out / "predictions" / config.source / f"{task}.jsonl")[0]]
            for (task, test), grids in combine_predictions(found, [config.source]).items():
                submission.set(task, test, grids[:2])
            submission.save()
        result.seconds = time.monotonic() - began
    return result


def _find_executor(config: InferConfig) -> tuple[InferConfig, Launch]:
    """Where the workers are, and the configuration as they are to be told it."""
    if config.executor == "local":
        return config, launch_locally
    # A worker on another node is in a folder of its own.
    adapters = None if config.adapters is None else config.adapters.absolute()
    config = replace(config, out=config.out.absolute(), model=config.model.absolute(), adapters=adapters)
    cluster = find_cluster(config.ray_address, config.out, [folder for folder in (config.model, adapters) if folder])
    gpus = 0 if config.devices == ("cpu",) else 1
    cluster.check_capacity(max(config.workers, len(config.devices)), config.threads, gpus, "--devices, --workers:")
    return config, cluster.launch(config.threads, gpus)


def _stage(engine: str, config: InferConfig) -> Backend:
    def settings(number: int) -> PredictSettings:
        return PredictSettings(
            run=str(config.out),
            model=str(config.model),
            views=config.views,
            seed=config.seed,
            keep_background=config.keep_background,
            grid_encoder=config.grid_encoder,
            prompt=config.prompt,
            max_seq_len=config.max_seq_len,
            slots=config.slots,
            threads=config.threads,
            device=visible_device(worker_device(config.devices, number)),
            engine=engine,
            adapters=str(config.adapters) if config.adapters else None,
            source=config.source,
            candidates=config.candidates,
            threshold=config.threshold,
            temperature=config.temperature,
        )

    limits = config.limits.get(engine) or engine_limits(settings(0), config.max_failures)
    return Backend(engine, config.entry, lambda number: asdict(settings(number)), replace(limits, max_failures=config.max_failures))


def engine_limits(settings: PredictSettings, strikes: int = 2) -> Timeouts:
    """How long what may take, by the size of the model and the engine.

    The start is bound by the disk, and vllm compiles on a GPU. The first sign of life in a job may need a full prompt to be read; after
    that a worker beats at every step, and twenty times its own longest pause is a hang, however long the whole job takes.
    """
    weights = sum(path.stat().st_size for path in Path(settings.model).glob("*.safetensors"))
    compiling = 480.0 if settings.engine == "vllm" and settings.device != "cpu" else 0.0
    start = 120.0 + compiling + weights / _DISK
    # On a GPU a kernel may be compiled at its first use, in the middle of the work.
    least = 10.0 if settings.device == "cpu" else 30.0
    return Timeouts(
        startup_timeout=start,
        heartbeat_timeout=60.0 + weights / _PROMPT,
        pause_factor=20.0,
        min_heartbeat_timeout=least,
        max_failures=strikes,
    )


def _follow(stream: Any, config: InferConfig, directory: RunDirectory, tasks: list[str]) -> InferResult:
    """Go through the events of the workers, with a bar over predictions."""
    result = InferResult()
    doing: dict[int, dict[str, int]] = {}
    first: float | None = None
    lost: list[float] = []
    total = config.views * sum(_tests(config.out / "tasks" / f"{task}.json") for task in tasks)
    event: Event
    with tqdm(total=total, desc=config.source, unit=" prompts", mininterval=1.0) as bar:
        for event in stream:
            now = time.monotonic()
            if event.kind not in ("done", "progress"):
                directory.event(
                    f"worker_{event.kind}",
                    source=config.source,
                    worker=event.worker,
                    tasks=event.task_ids,
                    reason=event.reason,
                    pid=event.pid,
                )
            if event.kind == "begun":
                first = first or now
            elif event.kind == "progress":
                if event.result["made"]:
                    result.recoveries += [now - moment for moment in lost]
                    lost.clear()
                doing[event.worker] = event.result
            elif event.kind == "lost":
                doing.pop(event.worker, None)
                lost.append(now)
                tqdm.write(f"worker {event.worker} lost ({event.reason}); what is not finished of its {len(event.task_ids)} tasks goes on")
            elif event.kind == "handed_on":
                tqdm.write(f"{event.task_ids[0]}: left to the next engine ({event.reason})")
            elif event.kind == "given_up":
                result.failed[event.task_ids[0]] = event.reason
                tqdm.write(f"{event.task_ids[0]}: given up ({event.reason})")
            elif event.kind == "deadline":
                result.unfinished += event.task_ids
            elif event.kind == "done":
                doing.pop(event.worker, None)
                result.recoveries += [now - moment for moment in lost]
                lost.clear()
                for task, told in event.result["tasks"].items():
                    directory.event("infer_failed" if told["failed"] else "infer_done", source=config.source, task=task, **told)
                    _count(result, task, told)
                    tqdm.write(_line(task, told))
            answered = result.answered + sum(told["answered"] for told in doing.values())
            tokens = result.tokens + sum(told["tokens"] for told in doing.values())
            bar.n = answered + result.refused
            if first:
                bar.set_postfix_str(f"{tokens / max(1e-3, now - first):.0f} tokens/s", refresh=False)
                result.working = now - first
            bar.refresh()
    return result


def _tests(path: Path) -> int:
    """Test inputs of a task; of one that cannot be read none, and its worker says why."""
    try:
        return len(read_task(path).tests)
    except DataError:
        return 0


def _count(result: InferResult, task: str, told: dict[str, Any]) -> None:
    for name in ("made", "held", "malformed", "answered", "tokens"):
        setattr(result, name, getattr(result, name) + told[name])
    result.refused += len(told["refused"])
    if told["failed"]:
        result.failed[task] = told["failed"]
    elif told["unfinished"]:
        result.unfinished.append(task)
    else:
        result.done += 1


def _line(task: str, told: dict[str, Any]) -> str:
    if told["failed"]:
        return f"{task}: failed ({told['failed']})"
    parts = [f"{told['made'] + told['held']} predictions", f"{told['tokens']} tokens"]
    for name, words in (("malformed", "answers without a grid"), ("unfinished", "prompts not answered in time")):
        if told[name]:
            parts.append(f"{told[name]} {words}")
    if told["refused"]:
        parts.append(f"{len(told['refused'])} prompts do not fit")
    return f"{task}: {', '.join(parts)}"


def _check_same_tasks(challenges: Challenges, folder: Path) -> None:
    """Refuse a challenges file that says something else of a task than the directory, whoever began that.

    Raises:
        ConfigError: naming the first such task.
    """
    for task_id, task in challenges.tasks.items():
        path = folder / f"{task_id}.json"
        there = _readable(path) if path.exists() else None  # one that cannot be read is written again
        if there is not None and there != task_to_json(task):
            raise ConfigError(
                f"{path}: is not the task {task_id} of --challenges; give the file that the directory was begun with, or another --out"
            )


def _readable(path: Path) -> Any:
    try:
        return task_to_json(read_task(path))
    except DataError:
        return None


def _digest(tasks: Mapping[str, Task]) -> str:
    content = {task_id: task_to_json(task) for task_id, task in tasks.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _identity(config: InferConfig, challenges: Challenges | None) -> dict[str, Any]:
    """What a directory begun by another command says of itself, else what this one is about."""
    own: dict[str, Any] = {
        "command": "infer",
        "model": config.model.name,
        "model_files": files_fingerprint(config.model),
        "adapters": config.adapters.name if config.adapters else None,
        "views": config.views,
        "seed": config.seed,
        "keep_background": config.keep_background,
        "grid_encoder": config.grid_encoder,
        "prompt": config.prompt,
        "max_seq_len": config.max_seq_len,
        "source": config.source,
        **({"candidates": "dfs", "threshold": config.threshold} if config.candidates == "dfs" else {}),
        **({"temperature": config.temperature} if config.temperature else {}),
        **({"challenges": _digest(challenges.tasks)} if challenges else {}),
    }
    try:
        there: dict[str, Any] = json.loads((config.out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return own
    if there.get("command") == "infer":
        return own if challenges or "challenges" not in there else own | {"challenges": there["challenges"]}
    # A run's or a fine-tuning's own directory is gone on with, by the same model; one of another inference is not.
    return there | {name: own[name] for name in ("model", "model_files") if name in there}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit infer`."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="run directory; predictions that are there are not made again")
    add("--challenges", type=Path, help="challenges file (default: the tasks in the run directory)")
    add("--solutions", type=Path, help="its solutions, to score what comes of it")
    add("--model", type=Path, default=pocket_folder(), help="folder of the base model (default: the pocket model)")
    add("--adapters", type=Path, help="folder with an adapter for each task, named by its id")
    add("--engine", choices=("auto", *ENGINES), default="auto", help="auto: vllm, and transformers for what it gives up")
    add("--views", type=int, default=8, help="predictions for each test input")
    add("--seed", type=int, default=0, help="of the views")
    told = "views: the likeliest answer under each view; dfs: all above the threshold, each scored under all views"
    add("--candidates", choices=CANDIDATES, default="views", help=told)
    add("--threshold", type=float, default=0.1, help="least probability of a candidate of dfs")
    add("--temperature", type=float, default=0.0, help="0: the likeliest answer of each view; 1: drawn, for varied mistakes to learn from")
    add("--keep-background", action="store_true", help="views keep colour 0")
    add("--grid-encoder", help="specification (default: what the model's arc_submit.json says)")
    add("--prompt", help="prompt version (default: as above)")
    add("--max-seq-len", type=int, help="tokens of a prompt with its answer (default: as above)")
    add("--executor", choices=EXECUTORS, default="local", help="where the workers are: on this machine, or on the nodes of a Ray cluster")
    add("--ray-address", metavar="HOST:PORT", help="of that cluster (default: RAY_ADDRESS, else the one that this machine has joined)")
    add("--devices", default="cpu", help="cpu, cuda:0, or several with commas between")
    add("--workers", type=int, default=1, help="worker processes; each device has one at least")
    add("--threads", type=int, default=1, help="CPU threads of each worker")
    add("--slots", type=int, default=16, help="answers that a worker writes together")
    add("--group", type=int, default=8, help="tasks in one job")
    add("--budget", default="12h", metavar="TIME", help="for the whole, such as 90s, 10m or 11h30m")
    add("--json", action="store_true", help="end with one JSON line of figures")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run `arc-submit infer`; returns its figures."""
    given = {name: value for name, value in vars(args).items() if name not in ("command", "json", "devices", "budget", "solutions")}
    config = InferConfig(**given, devices=tuple(args.devices.split(",")), budget=parse_duration(args.budget))
    result = infer(config)
    figures = result.to_json()
    print(
        f"{result.made} predictions made, {result.held} were there, {result.malformed} without a grid, {result.refused} prompts too long; "
        f"{figures['tokens_per_second']:.0f} tokens/s; {len(result.failed)} tasks failed, {len(result.unfinished)} unfinished; "
        f"{format_duration(result.seconds)}"
    )
    return figures
