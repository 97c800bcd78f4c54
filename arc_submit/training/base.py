"""Training of a base model: an adapter or all weights, on a weighted mixture of data and prompts, by one process or many.

A plain loop. Each step's samples are shared out by number, every process adds up the gradients of its own in one flat tensor, that tensor
is summed over the processes by one call, and all of them take the same optimizer step; with the loss divided by the tokens learnt in the
whole step, the number of processes changes nothing but speed. accelerate starts and places the processes (`accelerate launch`,
torchrun, a scheduler's job). DistributedDataParallel is not used: the low-rank layers add to their gradient themselves, where its hooks
would see nothing. transformers' Trainer is not used for the same reason, and because it costs some milliseconds a step.

What a run leaves in its folder: train.json (what it was told), log.jsonl, checkpoints/, data/ (the packed data), and at the end adapter/
(PEFT's format) or model/ (as transformers and vllm load it). Given the same folder again it goes on from the last checkpoint and ends
with the weights of a run that was never cut off. Knows nothing about submissions.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.checkpoint import checkpoint as recompute

from arc_submit.arc.datasets import write_json
from arc_submit.arc.prediction import append_lines
from arc_submit.errors import ConfigError, DataError
from arc_submit.language.asked import SHORTEST, AskedHow, read_asked_how
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompts import prompt_version
from arc_submit.language.tokens import PromptWriter
from arc_submit.models.loading import choose_device, load_model, load_model_in_4_bits, load_tokenizer
from arc_submit.models.lora import Adapter, attach, save_adapter
from arc_submit.models.precision import TrainingPrecision, choose_training_precision, repair_attention
from arc_submit.models.saving import own_dtype, save_model
from arc_submit.models.states import hidden_states_from
from arc_submit.training.base_settings import TrainConfig, TrainSettings
from arc_submit.training.checkpoints import checkpoint_folders, load_optimizers, read_state, save_checkpoint
from arc_submit.training.guards import Measured, read_measured
from arc_submit.training.mixture import MixturePart, TokenSample, check_fit, open_mixture, prepare_part
from arc_submit.training.stream import stream_steps
from arc_submit.training.ttft import MicroBatch, batch_loss

_LOGITS = 1 << 26  # logits computed at a time: 256 MB in float32
_WAIT = datetime.timedelta(hours=6)  # for the process that packs the data
# What may be told anew when a run goes on: none of it changes what an undisturbed run would have come to, but for steps and minutes.
_FREE = {"steps", "minutes", "tokens_per_pass", "save_every", "save_minutes", "keep", "log_every", "eval_every", "eval_samples", "loaders"}


@dataclass
class Processes:
    """This process among those that train together.

    Attributes:
        rank, world: which one it is, of how many.
        device: its own.
        control: a group for small things on the CPU, so that no GPU has to be waited for; None with one process.
    """

    rank: int
    world: int
    device: torch.device
    control: Any = None

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.control)
        total: list[float] = tensor.tolist()
        return total

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier(group=self.control)


def open_processes(device: str) -> Processes:
    """Join the processes that a launcher started, or be the only one.

    Raises:
        ConfigError: where the device is not there.
    """
    from accelerate import PartialState

    if device != "cpu":
        choose_device(device)
    state = PartialState(cpu=device == "cpu")
    if state.num_processes == 1:
        return Processes(0, 1, choose_device(device))
    return Processes(state.process_index, state.num_processes, state.device, dist.new_group(backend="gloo", timeout=_WAIT))


@dataclass
class Learner:
    """What is trained.

    Attributes:
        model: with the adapter in it, if there is one.
        adapter: None where all weights are trained.
        parameters: what the optimizers change.
        gradient: one flat float32 tensor of which every parameter's gradient is a view.
    """

    model: Any
    adapter: Adapter | None
    parameters: list[torch.nn.Parameter]
    gradient: torch.Tensor


def make_learner(config: TrainConfig, device: torch.device, precision: TrainingPrecision, resumed: Path | None) -> Learner:
    """Load the base and make it ready to be trained, with a checkpoint's weights where there is one."""
    from safetensors.torch import load_file

    settings = config.settings
    if settings.full:
        model = load_model(resumed / "model" if resumed else config.model, device, torch.float32, "sdpa")
        model.requires_grad_(True)
        parameters = list(model.parameters())
        gradient = torch.zeros(sum(parameter.numel() for parameter in parameters), device=device)
        for parameter, part in zip(parameters, gradient.split([parameter.numel() for parameter in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        return Learner(model, None, parameters, gradient)
    load = load_model_in_4_bits if settings.in_4_bits else load_model
    model = load(config.model, device, precision.base, "sdpa")
    adapter = attach(model, config.lora, config.seed, config.base_adapter)
    if resumed:
        with torch.no_grad():
            adapter.flat.copy_(load_file(resumed / "trainable.safetensors")["flat"])
    assert adapter.flat.grad is not None
    return Learner(model, adapter, [adapter.flat], adapter.flat.grad.view(-1))


def make_optimizers(learner: Learner, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """The optimizers; together they have every parameter once."""
    rate, decay = settings.learning_rate, settings.weight_decay
    fused = learner.gradient.device.type in ("cuda", "cpu")

    def adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, settings.beta2), weight_decay=decay, fused=fused)

    if settings.optimizer == "muon":
        # Rows of the embedding are learnt each for itself: Muon's common scale for a whole matrix does not suit it (arXiv 2502.16982).
        table = learner.model.get_input_embeddings().weight
        head = learner.model.get_output_embeddings().weight
        matrices = [p for p in learner.parameters if p.ndim == 2 and p is not table and p is not head]
        others = [p for p in learner.parameters if all(p is not matrix for matrix in matrices)]
        muon = torch.optim.Muon(matrices, lr=rate, momentum=0.95, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        return [muon, adamw(others)]
    if settings.optimizer == "sgd":
        return [torch.optim.SGD(learner.parameters, lr=rate, momentum=0.9, weight_decay=decay)]
    if settings.optimizer == "adafactor":
        return [torch.optim.Adafactor(learner.parameters, lr=rate, weight_decay=decay)]
    return [adamw(learner.parameters)]


def rate_factor(schedule: str, warmup_ratio: float, progress: float) -> float:
    """Factor of the peak learning rate after a part of the training, 0 to 1."""
    if progress < warmup_ratio:
        return progress / warmup_ratio
    if schedule == "constant":
        return 1.0
    if schedule == "wsd":
        return min(1.0, (1 - progress) / 0.4)
    left = (1 - progress) / (1 - warmup_ratio)
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def prompt_weight(settings: TrainSettings, progress: float) -> float:
    """Weight of the loss on what is not learnt in full."""
    return settings.prompt_weight + (settings.prompt_weight_end - settings.prompt_weight) * min(1.0, 2 * progress)


def cut_passes(samples: Sequence[TokenSample], tokens: int) -> list[list[TokenSample]]:
    """Samples of like length together, as many in a pass as its tokens allow with padding, and at least one."""
    passes: list[list[TokenSample]] = []
    for sample in sorted(samples, key=lambda sample: (-len(sample.ids), sample.number)):
        if not passes or (len(passes[-1]) + 1) * len(passes[-1][0].ids) > tokens:
            passes.append([])
        passes[-1].append(sample)
    return passes


def make_pass(samples: Sequence[TokenSample], weight: float, total: float, device: torch.device) -> tuple[MicroBatch, torch.Tensor]:
    """One forward pass's tensors and, (learnt,) bool, which of its places are learnt in full.

    Args:
        weight: of the places that are not, beside 1.
        total: what all weights are divided by.
    """
    length = max(len(sample.ids) for sample in samples)
    ids = np.zeros((len(samples), length), dtype=np.int64)
    weights = np.zeros((len(samples), length), dtype=np.float32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, 1 : len(sample.ids)] = weight
        weights[row, : len(sample.ids)][sample.learnt] = 1.0
    rows, places = np.nonzero(weights)
    first = int(places.min()) - 1
    chosen = weights[rows, places]
    learnt = np.zeros_like(weights, dtype=np.bool_)
    for row, sample in enumerate(samples):
        learnt[row, : len(sample.ids)] = sample.learnt
    batch = MicroBatch(
        torch.from_numpy(ids).to(device),
        first,
        torch.from_numpy(rows * (length - first) + places - 1 - first).to(device),
        torch.from_numpy(ids[rows, places]).to(device),
        torch.from_numpy(chosen / np.float32(total)).to(device),
        torch.zeros(len(rows), dtype=torch.long, device=device),
    )
    return batch, torch.from_numpy(learnt[rows, places]).to(device)


def full_loss(model: Any, batch: MicroBatch, precision: TrainingPrecision) -> tuple[torch.Tensor, torch.Tensor]:
    """As `ttft.batch_loss`, with gradients for the output layer too; its logits are computed again backward where they are many."""

    def piece(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model.lm_head(hidden).float(), labels, reduction="none")

    with _autocast(batch.ids.device, precision):
        hidden = hidden_states_from(model, batch.ids, batch.first).flatten(0, 1)[batch.places]
        count = max(1, _LOGITS // model.lm_head.out_features)
        if len(hidden) <= count:
            by_token = piece(hidden, batch.labels)
        else:
            pieces = zip(hidden.split(count), batch.labels.split(count), strict=True)
            by_token = torch.cat([recompute(piece, *one, use_reentrant=False) for one in pieces])
    return (by_token * batch.weights).sum(), by_token.detach()


def _autocast(device: torch.device, precision: TrainingPrecision) -> Any:
    return torch.autocast(device.type, dtype=precision.autocast or torch.bfloat16, enabled=precision.autocast is not None)


@torch.no_grad()
def evaluate(
    learner: Learner, samples: Sequence[TokenSample], tokens: int, precision: TrainingPrecision, group: Processes
) -> dict[str, float]:
    """Mean loss a learnt token, and the share of samples whose every answer token is the likeliest one behind the right ones.

    The samples are shared out over the processes.
    """
    loss = learnt_tokens = right = 0.0
    for rows in cut_passes(samples[group.rank :: group.world], tokens):
        batch, learnt = make_pass(rows, 0.0, 1.0, group.device)
        with _autocast(group.device, precision):
            hidden = hidden_states_from(learner.model, batch.ids, batch.first).flatten(0, 1)[batch.places]
            count = max(1, _LOGITS // learner.model.lm_head.out_features)
            pieces = zip(hidden.split(count), batch.labels.split(count), strict=True)
            found = [_log_probability(learner.model.lm_head(states), labels) for states, labels in pieces]
        loss -= float(torch.cat([one for one, _ in found]).sum())
        learnt_tokens += int(learnt.sum())
        hits = torch.cat([hit for _, hit in found]).cpu().numpy()
        start = 0
        for sample in rows:
            behind = start + int(sample.learnt.sum())
            right += bool(hits[behind - (len(sample.ids) - sample.answer) : behind].all())
            start = behind
    loss, learnt_tokens, right = group.sum([loss, learnt_tokens, right])
    return {"eval_loss": round(loss / learnt_tokens, 5), "eval_right": round(right / len(samples), 4)}


def _log_probability(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.float()
    return logits.log_softmax(-1).gather(1, labels[:, None])[:, 0], logits.argmax(-1) == labels


def choose_precision(asked: str, device: torch.device, full: bool) -> TrainingPrecision:
    """The precision of training, with its reason.

    Raises:
        ConfigError: where the device does not have what was asked for.
    """
    chosen = choose_training_precision(device, asked == "bfloat16" and device.type == "cpu")
    if asked == "float32":
        chosen = TrainingPrecision(torch.float32, None, False, "asked")
    elif asked != "auto" and str(chosen.autocast) != f"torch.{asked}":
        if asked == "float16" and device.type == "cuda":
            chosen = TrainingPrecision(torch.float16, torch.float16, True, "asked")
        else:
            raise ConfigError(f"--precision {asked}: {device} trains in {chosen.autocast or chosen.base} ({chosen.reason}); choose auto")
    return dataclasses.replace(chosen, base=torch.float32) if full else chosen


def train(config: TrainConfig) -> dict[str, Any]:
    """Train, or go on training; returns figures.

    Raises:
        ArcSubmitError: where something cannot work, the loss is no number, or what lies in the folder is another training.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it would warn in every loader
    torch.set_num_threads(config.threads)
    group = open_processes(config.device)
    say = print if group.rank == 0 else _silent
    settings = config.settings
    if settings.batch_size % group.world:
        raise ConfigError(f"--batch-size {settings.batch_size} cannot be shared out over {group.world} processes; make it a multiple")
    how, writers = _how_to_ask(config)
    tokens = settings.tokens_per_pass or how.max_seq_len
    folders, eval_folders = prepare_data(config, group, say)
    mixture = open_mixture(config.parts, folders, writers, how.max_seq_len, settings.loss_on, config.seed)
    held_out = _held_out(config, eval_folders, writers, how)
    if group.rank == 0:
        for sampler in mixture.samplers:
            say(check_fit(sampler)[1], flush=True)

    found = checkpoint_folders(config.out / "checkpoints")
    resumed = found[-1] if found else None
    state: dict[str, Any] = read_state(resumed) if resumed else {"step": 0, "tokens": 0, "learnt": 0, "seconds": 0.0}
    # Loaders are forked before the model and its device's threads are there.
    stream = stream_steps(mixture, settings.batch_size, group.rank, group.world, state["step"], settings.loaders)
    ahead = [next(stream)]
    precision = choose_precision(settings.precision, group.device, settings.full)
    say(f"{group.world} process(es), {group.device}: {precision.autocast or precision.base} ({precision.reason})", flush=True)
    say(repair_attention(group.device), flush=True)
    learner = make_learner(config, group.device, precision, resumed)
    if learner.adapter:
        say(f"adapter: {learner.gradient.numel():,} values in {len(learner.adapter.layers)} layers ({learner.adapter.reason})", flush=True)
    else:
        say(f"all weights: {learner.gradient.numel():,}", flush=True)
    optimizers = make_optimizers(learner, settings)
    scaler = torch.amp.GradScaler(group.device.type, enabled=precision.scale)
    if resumed:
        load_optimizers(resumed, state, optimizers)
        scaler.load_state_dict(state["scaler"])
        say(f"going on from step {state['step']}, {state['tokens']:,} tokens", flush=True)
    log = Log(config, group, state["step"])
    if settings.gradient_checkpointing:
        learner.model.gradient_checkpointing_enable({"use_reentrant": False})
        learner.model.train()  # transformers checkpoints in this mode only; there is no dropout in it

    def save() -> None:
        if group.rank == 0:
            kept = {name: state[name] for name in ("tokens", "learnt", "seconds")}
            write = _weights_writer(learner, config, how)
            save_checkpoint(
                config.out / "checkpoints", state["step"], {**kept, "scaler": scaler.state_dict()}, optimizers, write, settings.keep
            )

    loss_of: Callable[..., tuple[torch.Tensor, torch.Tensor]] = batch_loss if learner.adapter else full_loss
    running = torch.zeros((), device=group.device)  # of the steps since the last line
    since, waited, last, saved_at = 0, 0.0, time.monotonic(), time.monotonic()
    begun, stopped, norm = time.monotonic(), False, torch.zeros(())
    line_began, line_tokens = time.monotonic(), 0
    with _told_to_stop() as told:
        while not settings.steps or state["step"] < settings.steps:
            samples = ahead.pop() if ahead else next(stream)
            waited += time.monotonic() - last
            learnt, read, stops, seconds = group.sum(
                [
                    sum(int(sample.learnt.sum()) for sample in samples),
                    sum(len(sample.ids) for sample in samples),
                    float(bool(told)),
                    state["seconds"] if group.rank == 0 else 0.0,
                ]
            )
            stopped = stops > 0
            if stopped or (settings.minutes and seconds >= settings.minutes * 60):
                break
            progress = (state["step"] + 1) / (settings.steps + 1) if settings.steps else max(1e-3, seconds / (settings.minutes * 60))
            factor = rate_factor(settings.schedule, settings.warmup_ratio, progress)
            for optimizer in optimizers:
                for parameters in optimizer.param_groups:
                    parameters["lr"] = settings.learning_rate * factor
            weight = prompt_weight(settings, progress)
            for rows in cut_passes(samples, tokens):
                batch, in_full = make_pass(rows, weight, learnt, group.device)
                try:
                    total, by_token = loss_of(learner.model, batch, precision)
                    torch.autograd.backward(scaler.scale(total))
                except torch.OutOfMemoryError as error:
                    raise ConfigError(
                        f"out of memory with {tuple(batch.ids.shape)} tokens in a pass ({str(error)[:80]}); lower --tokens-per-pass or "
                        "--max-seq-len, or give --gradient-checkpointing"
                    ) from None
                running += torch.where(in_full, by_token, 0).sum() / learnt
            if group.world > 1:
                dist.all_reduce(learner.gradient)
            norm = take_step(learner, optimizers, scaler, settings.max_grad_norm)
            since += 1
            state["step"] += 1
            state["tokens"] += int(read)
            state["learnt"] += int(learnt)
            line_tokens += int(read)
            last = time.monotonic()
            state["seconds"] += last - begun
            begun = last
            logs, evaluates = (every and state["step"] % every == 0 for every in (settings.log_every, settings.eval_every))
            if logs or state["step"] == settings.steps:
                [loss] = group.sum([float(running)])
                line = {
                    "step": state["step"],
                    "loss": round(loss / since, 5),
                    "learning_rate": settings.learning_rate * factor,
                    "grad_norm": round(float(norm), 4),
                    "tokens": state["tokens"],
                    "learnt": state["learnt"],
                    "seconds": round(state["seconds"], 2),
                    "tokens_per_second": round(line_tokens / (last - line_began), 1),
                    "waited": round(waited / (last - line_began), 4),
                }
                log.write(line)
                if not math.isfinite(loss):
                    raise ConfigError(f"step {state['step']}: the loss is {loss}; lower --learning-rate and go on from the last checkpoint")
                running.zero_()
                since, waited, line_began, line_tokens = 0, 0.0, last, 0
            if evaluates and held_out:
                log.write({"step": state["step"], **evaluate(learner, held_out, tokens, precision, group)})
            minutes = settings.save_minutes
            if state["step"] % settings.save_every == 0 or (minutes and time.monotonic() - saved_at > 60 * minutes):
                if not math.isfinite(float(running)):
                    raise ConfigError(
                        f"step {state['step']}: the loss is no number; lower --learning-rate and go on from the last checkpoint"
                    )
                save()
                saved_at = time.monotonic()
            last = time.monotonic()
    del stream
    save()
    figures = {
        **{name: state[name] for name in ("step", "tokens", "learnt")},
        "seconds": round(state["seconds"], 2),
        "processes": group.world,
    }
    if held_out:
        scores = evaluate(learner, held_out, tokens, precision, group)
        if state["step"] % settings.eval_every:
            log.write({"step": state["step"], **scores})
        figures |= scores
    if stopped:
        say(f"stopped when told to; the same command goes on from step {state['step']}", flush=True)
    elif group.rank == 0:
        figures["result"] = str(export(learner, config, how))
        say(f"done: {state['step']} steps, {state['tokens']:,} tokens in {state['seconds']:.0f} s; {figures['result']}", flush=True)
    log.close()
    group.wait()
    return figures


def take_step(learner: Learner, optimizers: Sequence[torch.optim.Optimizer], scaler: torch.amp.GradScaler, longest: float) -> torch.Tensor:
    """Clip the gradient, step all optimizers and clear it; returns its length before."""
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    norm = learner.gradient.norm()
    if longest:
        learner.gradient.mul_((longest / (norm + 1e-6)).clamp(max=1.0))
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    if learner.adapter:
        # The fused kernel does not say that it has written; the layers renew their effective weights when the version changes.
        torch.autograd.graph.increment_version(learner.adapter.flat)
    learner.gradient.zero_()
    return norm


def export(learner: Learner, config: TrainConfig, how: AskedHow) -> Path:
    """Write what was trained, as engines load it, with the way to ask it beside it."""
    if learner.adapter:
        folder = config.out / "adapter"
        save_adapter(learner.adapter, folder)
        how.save(folder)
        return folder
    asked = config.settings.save_dtype
    dtype = getattr(torch, asked) if asked != "auto" else own_dtype(config.model)
    save_model(learner.model, load_tokenizer(config.model), how, config.out / "model", dtype)
    return config.out / "model"


def _weights_writer(learner: Learner, config: TrainConfig, how: AskedHow) -> Callable[[Path], None]:
    from safetensors.torch import save_file

    def write(folder: Path) -> None:
        if learner.adapter:
            save_file({"flat": learner.adapter.flat.detach().cpu()}, folder / "trainable.safetensors")
            save_adapter(learner.adapter, folder / "adapter")
            how.save(folder / "adapter")
        else:
            save_model(learner.model, load_tokenizer(config.model), how, folder / "model", torch.float32)

    return write


def _how_to_ask(config: TrainConfig) -> tuple[AskedHow, dict[str, PromptWriter]]:
    """How the trained model will be asked, and what writes each prompt version.

    Raises:
        ConfigError: where that is not known, or cannot work with the model.
    """
    stated = read_asked_how(config.model)
    encoder = config.grid_encoder or (stated.grid_encoder if stated else None)
    length = config.max_seq_len or (stated.max_seq_len if stated else None)
    if encoder is None or length is None:
        raise ConfigError(f"model {config.model} has no arc_submit.json: give --grid-encoder and --max-seq-len")
    limit = json.loads((config.model / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings", length)
    if not SHORTEST <= length <= limit:
        raise ConfigError(f"--max-seq-len {length}: {SHORTEST} to {limit}, which is what the model takes")
    tokenizer = load_tokenizer(config.model)
    prompts = [part.prompt for part in (*config.parts, *config.eval_parts)]
    writers = {prompt: PromptWriter(tokenizer, make_encoder(encoder), prompt_version(prompt)) for prompt in dict.fromkeys(prompts)}
    for_outputs = [prompt for prompt in prompts if prompt_version(prompt).kind == "output"]
    prompt = for_outputs[0] if for_outputs else stated.prompt if stated else prompts[0]
    return AskedHow(encoder, prompt, length), writers


def prepare_data(config: TrainConfig, group: Processes, say: Callable[..., None]) -> tuple[list[Path], list[Path]]:
    """Pack every part's data once, in the first process; the others wait. Returns the folders of what is learnt and of what is held out.

    Raises:
        ArcSubmitError: where a part's data cannot be read or repeats what is measured.
    """
    folders = [config.out / "data" / f"part-{number}" for number in range(len(config.parts))]
    eval_folders = [config.out / "data" / f"eval-{number}" for number in range(len(config.eval_parts))]
    if group.rank == 0:
        _keep_to_what_was_told(config, say)
        measured: Measured | None = None
        for part, folder in zip(config.parts, folders, strict=True):
            key = _data_key(part, (config.measured, config.drop_measured))
            if not _is_packed(folder, key):
                if measured is None:
                    measured = read_measured(config.measured)
                notes = prepare_part(part, folder, measured, config.drop_measured)
                write_json(folder / "part.json", {"key": key, "notes": notes})
            for line in json.loads((folder / "part.json").read_text(encoding="utf-8"))["notes"]:
                say(line, flush=True)
        for part, folder in zip(config.eval_parts, eval_folders, strict=True):
            key = _data_key(part, "held out")
            if not _is_packed(folder, key):
                write_json(folder / "part.json", {"key": key, "notes": prepare_part(part, folder, Measured(), False)})
    group.wait()
    return folders, eval_folders


def _data_key(part: MixturePart, guard: Any) -> str:
    """What the packed data is a function of: the part, its files' names, sizes and times, and what is guarded against."""
    files = []
    for source in (part.data, part.wrong):
        path = Path(source) if source and ":" not in source else None
        found = sorted(path.rglob("*")) if path and path.is_dir() else [path] if path and path.exists() else []
        files += [(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in found]
    return hashlib.sha256(json.dumps([dataclasses.asdict(part), files, guard]).encode()).hexdigest()


def _is_packed(folder: Path, key: str) -> bool:
    try:
        known: bool = json.loads((folder / "part.json").read_text(encoding="utf-8"))["key"] == key
        return known
    except (OSError, ValueError, KeyError):
        return False


def _keep_to_what_was_told(config: TrainConfig, say: Callable[..., None]) -> None:
    """Note what this training is told, or check it against what it was told before.

    Raises:
        ConfigError: naming what differs in what decides the result.
    """
    told = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    path = config.out / "train.json"
    if checkpoint_folders(config.out / "checkpoints"):
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); give another --out, or remove the folder") from None
        differ = [
            name
            for name in ("model", "parts", "lora", "base_adapter", "grid_encoder", "max_seq_len", "seed")
            if told[name] != before.get(name)
        ]
        differ += [name for name, value in told["settings"].items() if name not in _FREE and value != before["settings"].get(name)]
        if differ:
            raise ConfigError(f"{config.out}: the training there was told another {', '.join(differ)}; give the same, or another --out")
        for name in ("steps", "minutes"):
            if told["settings"][name] != before["settings"][name]:
                say(f"{name} {before['settings'][name]} -> {told['settings'][name]}: the schedule is another one from here on", flush=True)
    write_json(path, told)


def _held_out(config: TrainConfig, folders: list[Path], writers: dict[str, PromptWriter], how: AskedHow) -> list[TokenSample]:
    """The samples of every evaluation, drawn once."""
    settings = config.settings
    if not settings.eval_every:
        return []
    seed = config.seed + 1_000_000_007  # no sample of training: they are drawn by another seed
    parts = config.eval_parts or config.parts
    where = folders or [config.out / "data" / f"part-{number}" for number in range(len(parts))]
    mixture = open_mixture(parts, where, writers, how.max_seq_len, "answer", seed)
    return [mixture.sample(number) for number in range(settings.eval_samples)]


class Log:
    """Lines of figures: a JSON line each in log.jsonl, on the screen, and in TensorBoard or wandb where asked.

    Lines of steps behind the checkpoint that training goes on from are taken out: these steps are done again.
    """

    def __init__(self, config: TrainConfig, group: Processes, step: int):
        self.path = config.out / "log.jsonl"
        self.active = group.rank == 0
        self.board: Any = None
        self.run: Any = None
        if not self.active:
            return
        if self.path.exists():
            lines = [line for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines() if _step_of(line) <= step]
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            temporary.replace(self.path)
        if config.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ConfigError("--tensorboard needs the package tensorboard: pip install it, or leave the option out") from None
            self.board = SummaryWriter(config.out / "tensorboard", purge_step=step + 1)
        if config.wandb:
            try:
                import wandb
            except ImportError:
                raise ConfigError("--wandb needs the package wandb: pip install it, or leave the option out") from None
            self.run = wandb.init(
                project=config.wandb, dir=config.out, config=json.loads(json.dumps(dataclasses.asdict(config), default=str))
            )

    def write(self, line: dict[str, Any]) -> None:
        """Keep one line, which has a "step"."""
        if not self.active:
            return
        append_lines(self.path, json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        figures = {name: value for name, value in line.items() if name != "step"}
        if self.board:
            for name, value in figures.items():
                self.board.add_scalar(name, value, line["step"])
        if self.run:
            self.run.log(figures, step=line["step"])

    def close(self) -> None:
        """Bring everything to the disk."""
        if self.board:
            self.board.close()
        if self.run:
            self.run.finish()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut short by a kill


def _silent(*_: Any, **__: Any) -> None:
    pass


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """A list that holds something once the process was told to end (SIGTERM, as schedulers do): the step in hand is finished and saved."""
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
