"""The source ttft as a run's worker: for each task an adapter learnt from its own train pairs, then predictions with it.

The base is loaded once. Fine-tuning and inference share its weights but not its modules: the layers that are trained are put into one
module tree, and the engine serves finished adapters from their files on another. A prediction is thus a function of the files, and a
task that was cut short goes on from them: an adapter that is there is not trained again, a prediction that is there not made again.
Knows nothing of the run's budget or about the processes around it.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from arc_submit.arc.datasets import read_task
from arc_submit.arc.prediction import append_lines
from arc_submit.arc.task import Task
from arc_submit.errors import ArcSubmitError
from arc_submit.language.asked import SHORTEST, choose_how
from arc_submit.language.encoders import make_encoder
from arc_submit.language.fitting import DoesNotFitError
from arc_submit.language.prompts import prompt_version
from arc_submit.language.tokens import PromptWriter
from arc_submit.models.adapters import CONFIG
from arc_submit.models.frozen import plan_requests, predict_tasks
from arc_submit.models.loading import choose_device, load_model, load_model_in_4_bits, load_tokenizer
from arc_submit.models.lora import Adapter, attach, save_adapter
from arc_submit.models.precision import choose_training_precision, repair_attention
from arc_submit.models.transformers_engine import ATTENTION, TransformersEngine
from arc_submit.training.settings import WARMED, FinetuneSettings, TTFTSettings
from arc_submit.training.ttft import FinetuneError, FinetuneResult, finetune_task
from arc_submit.training.warmup import warm_up

SOURCE = "ttft"


def open_worker(settings_json: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the base, put the adapter in and return the function that does a job: {"tasks": [task ids]} -> what came of each.

    A job may name "steps" and "views" of its own, and "until" when on the monotonic clock predictions may be made.

    Raises:
        ArcSubmitError: where the model, the adapter or the way to ask cannot work.
    """
    settings = FinetuneSettings.from_json(settings_json)
    model, writer, prompt_len = _load(settings)
    engine = TransformersEngine(with_same_weights(model), writer.end_id, settings.predict.slots)
    adapter = _attach(model, settings)
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        results: dict[str, dict[str, Any]] = {}
        for task_id in job["tasks"]:
            results |= _do_task(task_id, adapter, engine, writer, settings.for_job(job), prompt_len, job.get("until"), beat)
        return {"tasks": results}

    return do


def open_warm_up(settings_json: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The same for the common warm-up: a job names the one thing there is to do, and leaves WARMED in the run directory.

    Raises:
        ArcSubmitError: where the model or the way to ask cannot work.
    """
    settings = FinetuneSettings.from_json(settings_json)
    model, writer, prompt_len = _load(settings)
    adapter = _attach(model, settings)
    beat()
    run, max_seq_len = Path(settings.predict.run), settings.max_seq_len or prompt_len
    folder = run / WARMED

    def do(job: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        tasks = [read_task(path) for path in sorted((run / "tasks").glob("*.json"))]

        def train(ttft: TTFTSettings, max_seq_len: int) -> FinetuneResult:
            note = _note_losses(folder.parent / "losses.jsonl", beat)
            return warm_up(adapter, writer, tasks, ttft, max_seq_len, settings.predict.seed, note)

        result = _within_memory(train, "warmup", settings.ttft, max_seq_len, beat)
        save_adapter(adapter, folder)
        done = {"made": 0, "held": 0, "refused": [], "failed": "", "seconds": round(time.monotonic() - started, 3), **_trained(result)}
        return {"tasks": dict.fromkeys(job["tasks"], done)}

    return do


def _load(settings: FinetuneSettings) -> tuple[Any, PromptWriter, int]:
    """The base on its device, what writes its prompts, and the tokens of a prompt with its answer."""
    predict = settings.predict
    torch.set_num_threads(predict.threads)
    how = choose_how(Path(predict.model), predict.grid_encoder, predict.prompt, predict.max_seq_len)
    device = choose_device(predict.device)
    precision = choose_training_precision(device, settings.ttft.fast_cpu)
    writer = PromptWriter(load_tokenizer(Path(predict.model)), make_encoder(how.grid_encoder), prompt_version(how.prompt))
    load = load_model_in_4_bits if settings.in_4_bits else load_model
    model = load(Path(predict.model), device, precision.base, "sdpa")
    print(f"model {predict.model}: {device}, {precision.base} ({precision.reason}); tokens: {writer.reason}", flush=True)
    print(repair_attention(device), flush=True)
    return model, writer, how.max_seq_len


def _attach(model: Any, settings: FinetuneSettings) -> Adapter:
    base_adapter = None if settings.base_adapter is None else Path(settings.base_adapter)
    adapter = attach(model, settings.lora, settings.predict.seed, base_adapter)
    print(f"adapter: {adapter.flat.numel():,} values in {len(adapter.layers)} layers ({adapter.reason})", flush=True)
    return adapter


def with_same_weights(model: Any) -> Any:
    """A second module tree over the very same weights, with the engine's attention: what is put into one is not in the other."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    twin.set_attn_implementation(ATTENTION)
    return twin.eval()


def _do_task(
    task_id: str,
    adapter: Adapter,
    engine: TransformersEngine,
    writer: PromptWriter,
    settings: FinetuneSettings,
    prompt_len: int,
    until: float | None,
    beat: Callable[[], None],
) -> dict[str, dict[str, Any]]:
    """Fine-tune on one task, unless its adapter is there, and make the predictions that are not there yet."""
    started, run = time.monotonic(), Path(settings.predict.run)
    folder = adapter_folder(settings.root, task_id)
    trained: dict[str, Any] = {"steps": 0, "tokens": 0, "train_seconds": 0.0, "notes": []}
    try:
        task = read_task(run / "tasks" / f"{task_id}.json")
        predict = settings.predict
        asked, refused = plan_requests(writer, task, predict.views, predict.seed, prompt_len, predict.keep_background)
        if predict.views and not asked:
            raise DoesNotFitError(refused[0])  # before hours go into an adapter that nothing can be asked with
        if not (folder / CONFIG).exists():
            result = finetune_and_save(
                adapter,
                writer,
                task,
                settings.ttft,
                settings.max_seq_len or prompt_len,
                settings.predict.seed,
                folder,
                losses_path(settings.root, task_id),
                beat,
            )
            trained = _trained(result)
    except ArcSubmitError as error:
        failed = {"made": 0, "held": 0, "refused": [], "failed": str(error), "seconds": round(time.monotonic() - started, 3)}
        return {task_id: {**failed, **trained}}
    if not settings.predict.views:
        return {task_id: {"made": 0, "held": 0, "refused": [], "failed": "", "seconds": round(time.monotonic() - started, 3), **trained}}
    beat()
    made = predict_tasks(run, [task_id], engine, writer, settings.predict, prompt_len, beat, SOURCE, folder, until=until)["tasks"][task_id]
    return {task_id: {**made, **trained, "seconds": round(time.monotonic() - started, 3)}}


def finetune_and_save(
    adapter: Adapter,
    writer: PromptWriter,
    task: Task,
    ttft: TTFTSettings,
    max_seq_len: int,
    seed: int,
    folder: Path,
    losses: Path,
    beat: Callable[[], None],
) -> FinetuneResult:
    """Fine-tune on one task and keep its adapter and a JSON line of {"step", "loss", "seconds"} for each step.

    Where memory does not suffice it is tried again with gradient checkpointing and then with shorter samples, and the result's notes say
    so. A task always begins from the settings as given, so that its adapter does not depend on which tasks came before it.

    Raises:
        DoesNotFitError: where the task gives no sample.
        FinetuneError: where the loss is no number, or memory does not suffice for the shortest samples worth learning from.
    """

    def train(ttft: TTFTSettings, max_seq_len: int) -> FinetuneResult:
        return finetune_task(adapter, writer, task, ttft, max_seq_len, seed, _note_losses(losses, beat))

    result = _within_memory(train, task.id, ttft, max_seq_len, beat)
    save_adapter(adapter, folder)
    return result


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
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        beat()


def _note_losses(path: Path, beat: Callable[[], None]) -> Callable[[int, float], None]:
    """What is to be called after every step: begins the file anew, appends a line and shows that the worker is alive."""
    began = time.monotonic()
    path.unlink(missing_ok=True)

    def note(step: int, loss: float) -> None:
        line = {"step": step, "loss": round(loss, 6), "seconds": round(time.monotonic() - began, 3)}
        append_lines(path, json.dumps(line) + "\n")
        beat()

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
