"""The source ttft as a run's worker: for each task an adapter trained on its own train pairs, then predictions with it.

The base is loaded once. Fine-tuning and inference share its weights but not its modules: the trained layers are in one module tree, and
an engine serves finished adapters from their files on another. A prediction is thus a function of the files on disk. An interrupted task
goes on from them: an existing adapter is not trained again and an existing prediction not made again. Does not know the run's budget
or other processes.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import read_task
from arc_submit.arc.files import append_lines, file_name
from arc_submit.arc.task import Task
from arc_submit.base_model.adapter_files import CONFIG
from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.device_memory import load_when_free, memory_came_back
from arc_submit.base_model.loading import choose_device, load_model, load_tokenizer
from arc_submit.base_model.lora import Adapter, attach, save_adapter
from arc_submit.base_model.memory import TrainingPlan, weights_of
from arc_submit.base_model.precision import choose_training_precision, repair_attention
from arc_submit.errors import ArcSubmitError, TimeIsUpError
from arc_submit.finetune.adapter_cache import make_room, mark_used
from arc_submit.finetune.joint import finetune_tasks, joint_warmup
from arc_submit.finetune.loss import check_adapted_loss, check_loss
from arc_submit.finetune.samples import TaskSampler
from arc_submit.finetune.settings import FinetuneSettings, task_groups
from arc_submit.finetune.trainer import FinetuneResult, Hooks, configured_plan, finetune_task, with_limit
from arc_submit.inference.load_transformers import make_engine
from arc_submit.inference.memory_limits import MemoryLimits, find_memory_limits
from arc_submit.inference.predict import Predictor, predict_tasks
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.truncation import PromptTooLongError
from arc_submit.storage.run_dir import RunPaths
from arc_submit.storage.task_result import TaskResult


@dataclass(frozen=True)
class _Worker:
    """The parts that all jobs of a worker share.

    Attributes:
        settings: the run's; a job may change steps and views.
        adapter: in the module tree that is trained.
        notes: lines about the adapter that every fine-tuning starts from.
        engine: over a second module tree with the same weights.
        sampler: of training samples, under the run's settings.
        max_seq_len: tokens of a prompt with its answer.
        heartbeat: shows that the worker is alive.
        memory: what fits on the device; None: the settings hold for every task.
    """

    settings: FinetuneSettings
    adapter: Adapter
    notes: list[str]
    engine: TransformersEngine
    sampler: TaskSampler
    max_seq_len: int
    heartbeat: Callable[[], None]
    memory: MemoryLimits | None = None


def open_worker(settings_json: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the base, attach the adapter and return the function that does a job: {"tasks": [task ids]} -> a result for each task.

    A job may have its own "steps" and "views", and "soft_deadline": a time on the monotonic clock at which work on it ends.

    Raises:
        ArcSubmitError: where the model, the adapter or the prompt configuration cannot work.
    """
    settings = FinetuneSettings.from_json(settings_json)
    model, sampler, max_seq_len = load_base(settings)
    engine = make_engine(with_same_weights(model), sampler.tokenizer.end_id, settings.predict.slots)  # before layers are attached
    adapter, notes = attach_adapter(model, settings)
    memory = _memory_limits(settings, sampler, adapter)
    worker = _Worker(settings, adapter, notes, engine, sampler, max_seq_len, beat, memory)
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        return {"tasks": {task_id: _do_task(worker, task_id, job).to_json() for task_id in job["tasks"]}}

    return do


def open_warm_up(settings_json: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The same for the joint warm-up: a job has one pseudo task, and leaves its adapter in the run directory.

    At the job's "soft_deadline" the adapter is saved with what it has learned.

    Raises:
        ArcSubmitError: where the model or the prompt configuration cannot work.
    """
    settings = FinetuneSettings.from_json(settings_json)
    model, sampler, _ = load_base(settings)
    adapter, _ = attach_adapter(model, settings)
    memory = _memory_limits(settings, sampler, adapter)
    beat()
    paths = RunPaths(Path(settings.predict.run))
    folder = settings.home_paths.joint_warmup

    def do(job: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        tasks = [read_task(paths.task(task_id)) for task_id in paths.task_ids()]

        plan, notes = _plan(memory, sampler, tasks)
        come_back = _watch(adapter, settings.predict.workers_per_device, beat)
        hooks = Hooks(_losses_writer(folder.parent / "losses.jsonl"), beat, job.get("soft_deadline", math.inf), come_back)
        result = joint_warmup(adapter, sampler, tasks, settings.joint_warmup_samples, hooks, plan)
        result.notes = [*notes, *result.notes]
        save_adapter(adapter, folder)
        done = replace(_finetune_result(result), seconds=round(time.monotonic() - started, 3))
        return {"tasks": dict.fromkeys(job["tasks"], done.to_json())}

    return do


def open_group_worker(settings_json: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The same for adapters that several tasks share: a job's "tasks" are groups (`task_groups`), each result is a group's.

    A group's adapter is saved for each of its tasks, as if it were its own. At the job's "soft_deadline" it is saved with what it has
    learned.

    Raises:
        ArcSubmitError: where the model, the adapter or the prompt configuration cannot work.
    """
    settings = FinetuneSettings.from_json(settings_json)
    model, sampler, _ = load_base(settings)
    adapter, start_notes = attach_adapter(model, settings)
    memory = _memory_limits(settings, sampler, adapter)
    beat()
    paths, home = RunPaths(Path(settings.predict.run)), settings.home_paths
    groups = task_groups(paths.task_ids(), settings.tasks_per_adapter)

    def do_group(name: str, deadline: float) -> TaskResult:
        started, folders = time.monotonic(), [home.adapter(task_id) for task_id in groups[name]]
        if all((folder / CONFIG).exists() for folder in folders):
            return replace(_finetune_result(None), seconds=_seconds_since(started))
        try:
            tasks = [read_task(paths.task(task_id)) for task_id in groups[name]]
            plan, notes = _plan(memory, sampler, tasks)
            come_back = _watch(adapter, settings.predict.workers_per_device, beat)
            hooks = Hooks(_losses_writer(losses_path(home.root, name)), beat, deadline, come_back)
            trained = finetune_tasks(adapter, sampler, tasks, name, hooks, plan)
            for folder in folders:
                save_adapter(adapter, folder, adapter.model.dtype)
                beat()
        except ArcSubmitError as error:
            return replace(_finetune_result(None), seconds=_seconds_since(started), failed=str(error))
        trained.notes = [*start_notes, *notes, *trained.notes]
        return replace(_finetune_result(trained), seconds=_seconds_since(started))

    def do(job: dict[str, Any]) -> dict[str, Any]:
        deadline = job.get("soft_deadline", math.inf)
        return {"tasks": {name: do_group(name, deadline).to_json() for name in job["tasks"]}}

    return do


def load_base(settings: FinetuneSettings) -> tuple[Any, TaskSampler, int]:
    """The base on its device, the sampler, and the tokens of a prompt with its answer."""
    predict, folder = settings.predict, Path(settings.predict.model)
    use_cpu(predict.threads)
    prompt_config = predict.prompt_config()
    device = choose_device(predict.device)
    precision = choose_training_precision(device, settings.ttft.fast_cpu)
    tokenizer = PromptTokenizer.from_config(load_tokenizer(folder), prompt_config)
    sampler = TaskSampler(tokenizer, settings.ttft, settings.max_seq_len or prompt_config.max_seq_len, predict.seed)

    def load() -> Any:
        return load_model(folder, device, precision.base, ATTENTION, settings.in_4_bits)

    model = load_when_free(device, load, 0 if settings.in_4_bits else weights_of(folder), predict.workers_per_device)
    print(f"model {predict.model}: {device}, {precision.base} ({precision.reason}); tokens: {tokenizer.summary}", flush=True)
    print(repair_attention(device), flush=True)
    check_loss(model, precision)
    return model, sampler, prompt_config.max_seq_len


def attach_adapter(model: Any, settings: FinetuneSettings) -> tuple[Adapter, list[str]]:
    """The adapter in its model, and a line where fine-tuning does not start from the configured one."""
    base_adapter, notes = settings.base_adapter, []
    warmup_adapter = settings.home_paths.joint_warmup
    if base_adapter and Path(base_adapter) == warmup_adapter and not (warmup_adapter / CONFIG).exists():
        # The joint warm-up serves the tasks, and each of them can do without it.
        base_adapter, notes = None, ["the joint warm-up left no adapter: started with a fresh one"]
        print(notes[0], flush=True)
    adapter = attach(model, settings.lora, settings.predict.seed, None if base_adapter is None else Path(base_adapter))
    print(f"adapter: {adapter.flat.numel():,} values in {len(adapter.layers)} layers ({adapter.reason})", flush=True)
    check_adapted_loss(adapter, choose_training_precision(adapter.flat.device, settings.ttft.fast_cpu))
    return adapter, notes


def with_same_weights(model: Any) -> Any:
    """A second module tree over the same weights, with the engine's attention: a layer that is put into one is not in the other."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    twin.set_attn_implementation(ATTENTION)
    return twin.eval()


def _do_task(worker: _Worker, task_id: str, job: dict[str, Any]) -> TaskResult:
    """Fine-tune on a task unless its adapter exists, and make the predictions that do not exist yet.

    A fine-tuning that the job's "soft_deadline" ends leaves no adapter; the task is then "unfinished".
    """
    started = time.monotonic()
    settings = worker.settings.for_job(job)
    folder = adapter_folder(settings.root, task_id)
    predict = replace(settings.predict, adapters=str(folder.parent), steps=settings.ttft.steps)
    paths, deadline = RunPaths(Path(predict.run)), job.get("soft_deadline")
    trained: FinetuneResult | None = None
    plan_notes: list[str] = []

    def on_pass() -> None:
        worker.heartbeat()
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeIsUpError(f"no time is left to fine-tune on {task_id}")

    def on_prediction() -> None:
        if settings.adapter_bytes is not None:
            mark_used(folder)  # for other workers, which delete the oldest
        worker.heartbeat()

    try:
        task = read_task(paths.task(task_id))
        tokenizer = worker.sampler.tokenizer
        requests, too_long = plan_requests(tokenizer, task, predict.for_requests(worker.max_seq_len))
        if predict.views and not requests:
            raise PromptTooLongError(too_long[0])  # before hours go into an adapter that no prompt can use
        mark_used(folder)
        if not (folder / CONFIG).exists():
            sampler = replace(worker.sampler, settings=settings.ttft)
            plan, plan_notes = _plan(worker.memory, sampler, [task])
            replace(sampler, max_seq_len=plan.tokens).check(task)
            if settings.adapter_bytes is not None:
                deleted = make_room(settings.home_paths.root, settings.adapter_bytes, job["tasks"])
                print(f"adapters deleted to free disk space: {len(deleted)}", flush=True)
            worker.heartbeat()
            hooks = Hooks(on_pass=on_pass, memory_came_back=_watch(worker.adapter, predict.workers_per_device, on_pass))
            trained = finetune_and_save(worker.adapter, sampler, task, settings.root, hooks, plan)
    except TimeIsUpError:
        return replace(_finetune_result(None), seconds=_seconds_since(started), unfinished=1)
    except ArcSubmitError as error:
        return replace(_finetune_result(None), seconds=_seconds_since(started), failed=str(error))
    result = _finetune_result(trained)
    result.notes = [*([*worker.notes, *plan_notes] if trained else []), *(result.notes or [])]
    if not predict.views:
        return result
    worker.heartbeat()
    predictor = Predictor(worker.engine, tokenizer, predict, worker.max_seq_len, worker.memory)
    predicted = predict_tasks(predictor, [task_id], lambda *_: on_prediction(), deadline)[task_id]
    trained_values = {name: getattr(result, name) for name in ("tokens", "steps", "train_seconds", "notes", "first_loss", "last_loss")}
    return replace(predicted, **trained_values, seconds=round(result.seconds + predicted.seconds, 3))


def _memory_limits(settings: FinetuneSettings, sampler: TaskSampler, adapter: Adapter) -> MemoryLimits | None:
    """The memory plan of a worker that fine-tunes; None for a base in 4 bits, whose bytes the formulas do not give."""
    if settings.in_4_bits:
        return None
    return find_memory_limits(settings.predict, adapter.flat.device, sampler.tokenizer, adapter.settings, trains=True)


def _plan(memory: MemoryLimits | None, sampler: TaskSampler, tasks: Sequence[Task]) -> tuple[TrainingPlan, list[str]]:
    """How the memory plan computes the steps of a training on tasks, and a note where its samples become shorter."""
    configured = configured_plan(sampler)
    if memory is None:
        return configured, []
    task = memory.longest(tasks)
    plan = memory.of_training(task, sampler.max_seq_len, configured.rows, configured.checkpointing)
    print(f"task {task.id}: {plan.reason}", flush=True)
    return with_limit(plan, sampler), [f"task {task.id}: {plan.reason}"] if plan.shortened else []


def _watch(adapter: Adapter, workers: int, beat: Callable[[], None]) -> Callable[[], bool]:
    """A function that tells whether other processes have given memory back, see `Hooks`."""
    return lambda: memory_came_back(adapter.flat.device, workers, beat)


def _seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def _finetune_result(trained: FinetuneResult | None) -> TaskResult:
    """A task's result with the figures of its fine-tuning; of a task without one, nothing was done."""
    if trained is None:
        return TaskResult(steps=0, tokens=0, train_seconds=0.0, notes=[])
    return TaskResult(
        seconds=round(trained.seconds, 3),
        tokens=trained.tokens,
        steps=len(trained.losses),
        train_seconds=round(trained.seconds, 3),
        notes=trained.notes,
        first_loss=round(trained.losses[0], 4),
        last_loss=round(trained.losses[-1], 4),
    )


def finetune_and_save(
    adapter: Adapter, sampler: TaskSampler, task: Task, root: Path, hooks: Hooks, plan: TrainingPlan | None = None
) -> FinetuneResult:
    """Fine-tune on a task and save its adapter and, for each step, a JSON line of {"step", "loss", "seconds"}.

    Args:
        root: the folder for adapters/ and losses/.
        hooks, plan: as of `finetune_task`; the losses are written in place of `on_step`. A task starts from its own plan, so that its
            adapter does not depend on the tasks before it.

    Raises:
        ArcSubmitError: where there is no sample, the loss is not finite, or memory does not suffice for the shortest samples.
    """
    hooks = replace(hooks, on_step=_losses_writer(losses_path(root, task.id)))
    result = finetune_task(adapter, sampler, task, hooks, plan=plan)
    save_adapter(adapter, adapter_folder(root, task.id), adapter.model.dtype)
    return result


def _losses_writer(path: Path) -> Callable[[int, float], None]:
    """A function to call after every step: it appends a line to a file that starts empty."""
    started = time.monotonic()
    path.unlink(missing_ok=True)

    def write(step: int, loss: float) -> None:
        line = {"step": step, "loss": round(loss, 6), "seconds": round(time.monotonic() - started, 3)}
        append_lines(path, json.dumps(line) + "\n")

    return write


def adapter_folder(root: Path, task_id: str) -> Path:
    """The folder of a task's adapter, in PEFT format."""
    return root / "adapters" / file_name(task_id)


def losses_path(root: Path, task_id: str) -> Path:
    """The file with the losses of a task's fine-tuning, a JSON line for each step."""
    return root / "losses" / f"{file_name(task_id)}.jsonl"
