"""The source ttft as a run's worker: for each task an adapter learnt from its own train pairs, then predictions with it.

The base is loaded once. Fine-tuning and inference share its weights but not its modules: the layers that are trained are put into one
module tree, and the engine serves finished adapters from their files on another. A prediction is thus a function of the files, and a
task that was cut short goes on from them: an adapter that is there is not trained again, a prediction that is there not made again.
Of a job's tasks those for which it is faster are trained in one batch (arc_submit.finetune.grouped). Knows nothing of the run's budget or
about the processes around it.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from arc_submit.arc.datasets import read_task
from arc_submit.arc.prediction import append_lines
from arc_submit.arc.task import Task
from arc_submit.base_model.adapter_files import CONFIG
from arc_submit.base_model.loading import choose_device, load_model, load_tokenizer
from arc_submit.base_model.lora import Adapter, attach, resize, save_adapter
from arc_submit.base_model.precision import choose_training_precision, repair_attention
from arc_submit.errors import ArcSubmitError
from arc_submit.finetune.adapter_cache import make_room, mark_used
from arc_submit.finetune.grouped import plan_groups
from arc_submit.finetune.joint_warmup import warm_up
from arc_submit.finetune.settings import WARMUP_ADAPTER, FinetuneSettings, TTFTSettings
from arc_submit.finetune.trainer import FinetuneError, FinetuneResult, check_loss, check_task, finetune_task, finetune_tasks
from arc_submit.inference.predict import Predictor, predict_tasks
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.slot_cache import ATTENTION
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.prompt_config import SHORTEST, resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.truncation import PromptTooLongError

SOURCE = "ttft"


class TimeIsUpError(ArcSubmitError):
    """A fine-tuning was given up because its time was up; nothing is wrong with it."""


def open_worker(settings_json: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the base, put the adapter in and return the function that does a job: {"tasks": [task ids]} -> what came of each.

    A job may name "steps" and "views" of its own, and "soft_deadline" when on the monotonic clock predictions may be made.

    Raises:
        ArcSubmitError: where the model, the adapter or the way to ask cannot work.
    """
    settings = FinetuneSettings.from_json(settings_json)
    model, writer, prompt_len = _load(settings)
    engine = TransformersEngine(with_same_weights(model), writer.end_id, settings.predict.slots)
    adapter, from_what = _attach(model, settings)
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        return {
            "tasks": _do_tasks(
                job["tasks"], adapter, engine, writer, settings.for_job(job), prompt_len, from_what, beat, job.get("soft_deadline")
            )
        }

    return do


def open_warm_up(settings_json: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The same for the common warm-up: a job names the one thing there is to do, and leaves WARMUP_ADAPTER in the run directory.

    At the job's "soft_deadline" what has been learnt is kept.

    Raises:
        ArcSubmitError: where the model or the way to ask cannot work.
    """
    settings = FinetuneSettings.from_json(settings_json)
    model, writer, prompt_len = _load(settings)
    adapter, _ = _attach(model, settings)
    beat()
    run, max_seq_len = Path(settings.predict.run), settings.max_seq_len or prompt_len
    folder = run / WARMUP_ADAPTER

    def do(job: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        tasks = [read_task(path) for path in sorted((run / "tasks").glob("*.json"))]

        def train(ttft: TTFTSettings, max_seq_len: int) -> FinetuneResult:
            note = _note_losses(folder.parent / "losses.jsonl")
            until = job.get("soft_deadline")
            return warm_up(adapter, writer, tasks, ttft, max_seq_len, settings.predict.seed, settings.warm_up_samples, note, beat, until)

        result = _within_memory(train, "warmup", settings.ttft, max_seq_len, beat)
        save_adapter(adapter, folder)
        done = _result(time.monotonic() - started, **_trained(result))
        return {"tasks": dict.fromkeys(job["tasks"], done)}

    return do


def _load(settings: FinetuneSettings) -> tuple[Any, PromptTokenizer, int]:
    """The base on its device, what writes its prompts, and the tokens of a prompt with its answer."""
    predict = settings.predict
    torch.set_num_threads(predict.threads)
    how = resolve_prompt_config(Path(predict.model), predict.grid_encoder, predict.prompt, predict.max_seq_len)
    device = choose_device(predict.device)
    precision = choose_training_precision(device, settings.ttft.fast_cpu)
    writer = PromptTokenizer.from_config(load_tokenizer(Path(predict.model)), how)
    check_loss(writer, settings.ttft)
    model = load_model(Path(predict.model), device, precision.base, "sdpa", settings.in_4_bits)
    print(f"model {predict.model}: {device}, {precision.base} ({precision.reason}); tokens: {writer.reason}", flush=True)
    print(repair_attention(device), flush=True)
    return model, writer, how.max_seq_len


def _attach(model: Any, settings: FinetuneSettings) -> tuple[Adapter, list[str]]:
    """The adapter in its model, and a line on what every task's fine-tuning begins from where it is not what was asked."""
    folder, notes = settings.base_adapter, []
    if folder is not None and Path(folder) == Path(settings.predict.run) / WARMUP_ADAPTER and not (Path(folder) / CONFIG).exists():
        # What failed there was done for the tasks' sake, and each of them can do without.
        folder, notes = None, ["the common warm-up left no adapter: begun with a fresh one"]
        print(notes[0], flush=True)
    adapter = attach(model, settings.lora, settings.predict.seed, None if folder is None else Path(folder))
    print(f"adapter: {adapter.flat.numel():,} values in {len(adapter.layers)} layers ({adapter.reason})", flush=True)
    return adapter, notes


def with_same_weights(model: Any) -> Any:
    """A second module tree over the very same weights, with the engine's attention: what is put into one is not in the other."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    twin.set_attn_implementation(ATTENTION)
    return twin.eval()


def _do_tasks(
    task_ids: Sequence[str],
    adapter: Adapter,
    engine: TransformersEngine,
    writer: PromptTokenizer,
    settings: FinetuneSettings,
    prompt_len: int,
    from_what: list[str],
    beat: Callable[[], None],
    until: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Fine-tune on each task whose adapter is not there, and make the predictions that are not there yet.

    At `until`, on the monotonic clock, what is running is given up: its tasks are then "unfinished", and go on from their files.
    """

    def beat_in_time() -> None:
        beat()
        if until is not None and time.monotonic() >= until:
            raise TimeIsUpError(f"no time is left to fine-tune on {', '.join(task_ids)}")

    run, max_seq_len, predict = Path(settings.predict.run), settings.max_seq_len or prompt_len, settings.predict
    results: dict[str, dict[str, Any]] = {}
    tasks: dict[str, Task] = {}
    tokens: dict[str, int] = {}  # of those that are to be trained
    for task_id in task_ids:
        started = time.monotonic()
        try:
            tasks[task_id] = read_task(run / "tasks" / f"{task_id}.json")
            asked, refused = plan_requests(writer, tasks[task_id], predict.for_requests(prompt_len))
            if predict.views and not asked:
                raise PromptTooLongError(refused[0])  # before hours go into an adapter that nothing can be asked with
            folder = adapter_folder(settings.root, task_id)
            mark_used(folder)
            if not (folder / CONFIG).exists():
                tokens[task_id], _ = check_task(writer, tasks[task_id], max_seq_len, settings.ttft)
        except ArcSubmitError as error:
            results[task_id] = _result(time.monotonic() - started, failed=str(error))
        beat()
    weights = sum(layer.base.weight.numel() for layer in adapter.layers.values())
    device = adapter.flat.device
    groups = plan_groups(tokens, weights, device, choose_training_precision(device, settings.ttft.fast_cpu))
    there = [([task_id], "") for task_id in tasks if task_id not in tokens and task_id not in results]
    for group, reason in [*there, *groups]:
        trained: dict[str, FinetuneResult | ArcSubmitError] = {}
        if group[0] in tokens:
            if len(task_ids) > 1:
                print(f"in one batch {', '.join(group)}: {reason}", flush=True)
            if settings.bound is not None:
                deleted = make_room(run, settings.bound, task_ids)
                print(f"adapters deleted for want of room: {len(deleted)}", flush=True)
            members = [tasks[task_id] for task_id in group]
            trained = finetune_and_save(adapter, writer, members, settings.ttft, max_seq_len, predict.seed, settings.root, beat_in_time)
        for task_id in group:
            results[task_id] = _predict(task_id, trained.get(task_id), engine, writer, settings, prompt_len, from_what, beat, until)
    return {task_id: results[task_id] for task_id in task_ids}


def _predict(
    task_id: str,
    trained: FinetuneResult | ArcSubmitError | None,
    engine: TransformersEngine,
    writer: PromptTokenizer,
    settings: FinetuneSettings,
    prompt_len: int,
    from_what: list[str],
    beat: Callable[[], None],
    until: float | None,
) -> dict[str, Any]:
    """Make the predictions with a task's adapter, if there is one; what is told of the task then."""
    if isinstance(trained, TimeIsUpError):
        return _result(0.0, unfinished=1)
    if isinstance(trained, ArcSubmitError):
        return _result(0.0, failed=str(trained))
    result = _result(0.0) if trained is None else _result(trained.seconds, **_trained(trained))
    result["notes"] = [*(from_what if trained else []), *result["notes"]]
    if settings.predict.views:
        beat()
        folder = adapter_folder(settings.root, task_id)

        def beat_and_mark() -> None:
            mark_used(folder)  # for other workers, which make room
            beat()

        in_use = beat if settings.bound is None else beat_and_mark
        predict = replace(settings.predict, source=SOURCE, adapters=str(folder.parent))
        predictor = Predictor(engine, writer, predict, prompt_len)
        made = predict_tasks(predictor, [task_id], lambda *_: in_use(), until)[task_id].to_json()
        seconds = round(result["seconds"] + made["seconds"], 3)
        result = {**result, **made, "tokens": result["tokens"], "seconds": seconds}
    return result


def _result(seconds: float, **changes: Any) -> dict[str, Any]:
    """What a worker tells of a task, in which nothing was done unless said otherwise."""
    nothing = {"made": 0, "held": 0, "refused": [], "failed": "", "steps": 0, "tokens": 0, "train_seconds": 0.0, "notes": []}
    return {**nothing, "seconds": round(seconds, 3), **changes}


def finetune_and_save(
    adapter: Adapter,
    writer: PromptTokenizer,
    tasks: Sequence[Task],
    ttft: TTFTSettings,
    max_seq_len: int,
    seed: int,
    run: Path,
    beat: Callable[[], None],
) -> dict[str, FinetuneResult | ArcSubmitError]:
    """Fine-tune on tasks in one batch and keep each one's adapter and a JSON line of {"step", "loss", "seconds"} for each of its steps.

    What several cannot do together, for lack of memory or for one that gives no sample, each does alone. Where memory does not suffice for
    one alone it is tried again with gradient checkpointing and then with shorter samples, and the result's notes say so. A task always
    begins from the settings as given, so that its adapter does not depend on which tasks came before it.

    Returns a result or the reason why there is none (no sample, a loss that is no number, no memory for the shortest samples worth learning
    from) by task.
    """
    if len(tasks) > 1:
        try:
            return _finetune_together(adapter, writer, tasks, ttft, max_seq_len, seed, run, beat)
        except (ArcSubmitError, RuntimeError, MemoryError) as error:
            if not isinstance(error, ArcSubmitError) and not is_out_of_memory(error):
                raise
            note = f"not in one batch with others ({error})".splitlines()[0]
        # Out of the handler: the exception holds the tensors of the failed step.
        _free_memory()
        found: dict[str, FinetuneResult | ArcSubmitError] = {}
        for task in tasks:
            found |= finetune_and_save(adapter, writer, [task], ttft, max_seq_len, seed, run, beat)
            if isinstance(result := found[task.id], FinetuneResult):
                found[task.id] = replace(result, notes=[note, *result.notes])
        return found
    (task,) = tasks
    if adapter.tasks != 1:
        resize(adapter, 1)

    def train(ttft: TTFTSettings, max_seq_len: int) -> FinetuneResult:
        return finetune_task(adapter, writer, task, ttft, max_seq_len, seed, _note_losses(losses_path(run, task.id)), beat)

    try:
        result = _within_memory(train, task.id, ttft, max_seq_len, beat)
    except ArcSubmitError as error:
        return {task.id: error}
    save_adapter(adapter, adapter_folder(run, task.id), dtype=adapter.model.dtype)
    return {task.id: result}


def _finetune_together(
    adapter: Adapter,
    writer: PromptTokenizer,
    tasks: Sequence[Task],
    ttft: TTFTSettings,
    max_seq_len: int,
    seed: int,
    run: Path,
    beat: Callable[[], None],
) -> dict[str, FinetuneResult | ArcSubmitError]:
    """`finetune_and_save` in one batch, or nothing of it.

    Raises:
        ArcSubmitError: where it cannot be done in one.
        RuntimeError, MemoryError: where memory does not suffice.
    """
    if adapter.tasks != len(tasks):
        resize(adapter, len(tasks))
    notes = [_note_losses(losses_path(run, task.id)) for task in tasks]

    def on_step(step: int, losses: list[float]) -> None:
        for note, loss in zip(notes, losses, strict=True):
            note(step, loss)

    found: dict[str, FinetuneResult | ArcSubmitError] = {}
    results = finetune_tasks(adapter, writer, tasks, ttft, max_seq_len, seed, on_step, beat)
    for number, (task, result) in enumerate(zip(tasks, results, strict=True)):
        if isinstance(result, FinetuneResult):
            save_adapter(adapter, adapter_folder(run, task.id), number, adapter.model.dtype)
            result = replace(result, notes=[f"in one batch with {len(tasks) - 1} others", *result.notes])
        found[task.id] = result
    return found


def _within_memory(
    train: Callable[[TTFTSettings, int], FinetuneResult], task_id: str, ttft: TTFTSettings, max_seq_len: int, beat: Callable[[], None]
) -> FinetuneResult:
    """What `train` gives, tried with ever lower demands where memory does not suffice; the result's notes say so."""
    notes: list[str] = []
    while True:
        try:
            result = train(ttft, max_seq_len)
            return replace(result, notes=[*notes, *result.notes])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler: the exception holds the tensors of the failed step.
        ttft, max_seq_len, line = with_less_memory(task_id, ttft, max_seq_len)
        notes.append(line)
        _free_memory()
        beat()


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _note_losses(path: Path) -> Callable[[int, float], None]:
    """What is to be called after every step: begins the file anew and appends a line."""
    began = time.monotonic()
    path.unlink(missing_ok=True)

    def note(step: int, loss: float) -> None:
        line = {"step": step, "loss": round(loss, 6), "seconds": round(time.monotonic() - began, 3)}
        append_lines(path, json.dumps(line) + "\n")

    return note


def _trained(result: FinetuneResult) -> dict[str, Any]:
    """What the timeline keeps of a fine-tuning."""
    return {
        "steps": len(result.losses),
        "tokens": result.tokens,
        "train_seconds": round(result.seconds, 3),
        "notes": result.notes,
        "first_loss": round(result.losses[0], 4),
        "last_loss": round(result.losses[-1], 4),
    }


def with_less_memory(task_id: str, ttft: TTFTSettings, max_seq_len: int) -> tuple[TTFTSettings, int, str]:
    """What to try next where memory did not suffice, and a line that says so.

    Raises:
        FinetuneError: where nothing is left to try.
    """
    if not ttft.gradient_checkpointing:
        return (
            replace(ttft, gradient_checkpointing=True),
            max_seq_len,
            f"task {task_id}: out of memory, tried again with gradient checkpointing",
        )
    shorter = max_seq_len * 3 // 4
    if shorter < max(SHORTEST, 256):
        raise FinetuneError(
            f"task {task_id}: out of memory even with samples of {max_seq_len} tokens; lower batch_size or the model's size"
        )
    return ttft, shorter, f"task {task_id}: out of memory, tried again with samples of at most {shorter} tokens"


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, on a GPU or on a CPU (where torch has no class for it)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def adapter_folder(run: Path, task_id: str) -> Path:
    """Where a task's adapter lies, in PEFT format."""
    return run / "adapters" / task_id


def losses_path(run: Path, task_id: str) -> Path:
    """Where the losses of a task's fine-tuning lie, a JSON line for each step."""
    return run / "losses" / f"{task_id}.jsonl"
