"""Training of a base model: an adapter or all weights, on a weighted mixture of data and prompts, by one process or several.

A plain loop. The processes share each step's samples by number. Every process adds the gradients of its samples to one flat tensor, one
call sums that tensor over the processes, and all of them take the same optimizer step. The loss is divided by the tokens in the loss of
the whole step, so the number of processes changes nothing but speed. accelerate starts and places the processes (`accelerate launch`,
torchrun, a scheduler's job). DistributedDataParallel and transformers' Trainer are not used: the low-rank layers add to their gradient
themselves, which DDP's hooks do not see.

A training leaves in its folder: train.json (its configuration), log.jsonl, checkpoints/, data/ (the packed data), and at the end adapter/
(PEFT's format) or model/ (as transformers and vllm load it). The same command goes on from the last checkpoint and ends with the weights
of an uninterrupted training. Does not know submissions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from arc_submit.arc.files import read_json, write_json
from arc_submit.base_model.checks import adapter_values, check_adapter_folder, check_model_folder, differing, files_fingerprint
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.loading import load_tokenizer
from arc_submit.base_model.precision import repair_attention
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.language.prompt_config import SHORTEST, PromptConfig, read_chat_template, read_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import PROMPT_SUFFIX, prompt_kind, prompt_version
from arc_submit.options import Identity, flag_of, options_of
from arc_submit.train.checkpoints import checkpoint_folders, exclusive_folder, load_optimizers, read_state, save_checkpoint
from arc_submit.train.config import TrainConfig, TrainSettings
from arc_submit.train.data import evaluation_samples, overlap_share, prepare_data
from arc_submit.train.dataloader import LoaderDiedError, loader_death, loader_death_waits, stream_steps
from arc_submit.train.distributed import Processes, ProcessLostError, open_processes, stop_signals
from arc_submit.train.mixture import MixturePart, TokenSample, check_fit, open_mixture
from arc_submit.train.sharding import part_of_whole
from arc_submit.train.step import (
    PassTooLargeError,
    Trainable,
    add_gradients,
    evaluate,
    export,
    gathered_optimizer_state,
    load_trainable,
    make_optimizers,
    prompt_weight,
    rate_factor,
    take_step,
    weights_writer,
)
from arc_submit.train.train_log import MetricsLog, check_loggers

# Names in train.json, where they differ from those of the configuration's fields.
_JSON_NAMES = {"benchmarks": "measured", "drop_benchmarks": "drop_measured"}


@dataclass
class Training:
    """A training in progress.

    Attributes:
        group: the processes that share it.
        prompt_config: of the trained model.
        eval_samples: of each evaluation.
        step, tokens, learned_tokens, seconds: progress: optimizer steps, tokens without padding, those of them in the loss mask, and time,
            that of earlier runs included.
        overlap: share of the evaluations' tasks that are trained on too.
        consistent: whether the weights are those of `step`: no optimizer is in the middle of the next step.
    """

    config: TrainConfig
    group: Processes
    prompt_config: PromptConfig
    trainable: Trainable
    optimizers: Sequence[torch.optim.Optimizer]
    eval_samples: Sequence[TokenSample]
    metrics: MetricsLog
    step: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    seconds: float = 0.0
    consistent: bool = True
    overlap: float = 0.0

    @property
    def pass_tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.config.settings.tokens_per_pass or self.prompt_config.max_seq_len

    def evaluate(self) -> dict[str, float]:
        """Scores on the evaluation samples, labelled where they are of tasks that are trained on too."""
        scores = evaluate(self.trainable, self.eval_samples, self.pass_tokens, self.group)
        return {**scores, "eval_overlap": round(self.overlap, 4)} if self.overlap else scores


@dataclass
class Interval:
    """Figures since the last line of the log.

    Attributes:
        loss: this process's share of the loss, on the device, summed over the steps.
        steps, tokens: counts.
        waiting_seconds: in which the loop waited for samples.
        started: on the monotonic clock.
    """

    loss: torch.Tensor
    steps: int = 0
    tokens: int = 0
    waiting_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)


def train(config: TrainConfig) -> dict[str, Any]:
    """Train, or go on with a training; returns figures.

    Raises:
        ArcSubmitError: where something cannot work, the loss is not finite, or the folder holds another training.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # else every loader prints a warning
    use_cpu(config.threads)
    group = open_processes(config.device)
    if config.settings.batch_size % group.world:
        raise ConfigError(f"--batch-size {config.settings.batch_size} cannot be shared by {group.world} processes; make it a multiple")
    check_loggers(config)
    prompt_config, tokenizers = resolve_prompts(config)
    check_adapter(config)
    with exclusive_folder(config.out, group.log) if group.rank == 0 else contextlib.nullcontext():
        return _train(config, group, prompt_config, tokenizers)


def _train(config: TrainConfig, group: Processes, prompt_config: PromptConfig, tokenizers: dict[str, PromptTokenizer]) -> dict[str, Any]:
    """`train` in a folder of its own: data, samples, model, the loop, and the result."""
    settings = config.settings
    config_json = check_same_training(config, prompt_config, group.log) if group.rank == 0 else {}
    checkpoints = checkpoint_folders(config.out / "checkpoints")
    folders, eval_folders = prepare_data(config, group, group.log, bool(checkpoints))
    if group.rank == 0:
        write_json(config.out / "train.json", config_json)  # after the checks: a refused command must not change it
    mixture = open_mixture(config.parts, folders, tokenizers, prompt_config.max_seq_len, settings.loss_on, config.seed)
    eval_samples, eval_samplers = evaluation_samples(config, folders, eval_folders, tokenizers, prompt_config.max_seq_len)
    if group.rank == 0:
        for sampler in mixture.samplers:
            group.log(check_fit(sampler)[1])
        for sampler in eval_samplers:
            group.log(f"for evaluations: {check_fit(sampler)[1]}")
    checkpoint = checkpoints[-1] if checkpoints else None
    state: dict[str, Any] = read_state(checkpoint) if checkpoint else {"step": 0, "tokens": 0, "learnt": 0, "seconds": 0.0}
    # The loaders are forked before the model and its device's threads exist.
    stream = stream_steps(mixture, settings.batch_size, group.rank, group.world, state["step"], settings.loaders)
    stream = chain([next(stream)], stream)

    trainable = load_trainable(config, group.device, checkpoint, group)
    precision = trainable.precision
    group.log(f"{group.world} process(es), {group.device}: {precision.autocast or precision.base} ({precision.reason})")
    group.log(repair_attention(group.device))
    if trainable.sharding:
        group.log(trainable.sharding.describe())
    group.log(f"{trainable.trained_values:,} values are trained ({trainable.adapter.reason if trainable.adapter else 'all weights'})")
    optimizers = make_optimizers(trainable, settings)
    if checkpoint:
        load_optimizers(checkpoint, state, optimizers, partial(part_of_whole, group=group) if trainable.divided else lambda whole: whole)
        trainable.scaler.load_state_dict(state["scaler"])
        group.log(f"going on from step {state['step']}, {state['tokens']:,} tokens")
        if settings.steps and state["step"] >= settings.steps:
            group.log(f"there is nothing left to do for --steps {settings.steps}")
    metrics = MetricsLog(config, group, state["step"])
    progress = (state["step"], state["tokens"], state["learnt"], state["seconds"])
    training = Training(config, group, prompt_config, trainable, optimizers, eval_samples, metrics, *progress)
    training.overlap = overlap_share(config)

    with stop_signals() as signals:  # to the end: a second signal must not cut the checkpoint short
        stopped = run_and_save(training, stream, signals)
        figures = finish(training, stopped)
    metrics.close()
    group.wait()
    return figures


def run_and_save(training: Training, stream: Iterator[list[TokenSample]], signals: Sequence[int]) -> bool:
    """`run_steps`, and a checkpoint at its end, whatever ended it, unless the weights may be wrong.

    Raises:
        ArcSubmitError: the reason of the end, and whether there is a checkpoint.
    """
    try:
        stopped = run_steps(training, stream, signals)
    except (ArcSubmitError, RuntimeError) as error:
        reason = loader_death(error) if isinstance(error, RuntimeError) else error
        # None of these is about the weights.
        if not isinstance(reason, DataError | ProcessLostError | LoaderDiedError | PassTooLargeError):
            raise
        # Divided weights are saved by all processes together, of which some may have ended.
        if training.consistent and not training.trainable.divided and save(training):
            raise type(reason)(f"{reason}; saved, the same command goes on from step {training.step}") from None
        raise reason from None
    save(training)
    return stopped


def finish(training: Training, stopped: bool) -> dict[str, Any]:
    """The last evaluation and the exported weights, unless the training was stopped; returns figures."""
    config, group = training.config, training.group
    figures: dict[str, Any] = {
        "step": training.step,
        "tokens": training.tokens,
        "learnt": training.learned_tokens,
        "seconds": round(training.seconds, 2),
        "processes": group.world,
    }
    if training.eval_samples and not stopped:
        scores = training.evaluate()
        if not config.settings.eval_every or training.step % config.settings.eval_every:
            training.metrics.write({"step": training.step, "tokens": training.tokens, **scores})
        figures |= scores
    if stopped:
        group.log(f"stopped by a signal; the same command goes on from step {training.step}")
    elif group.rank == 0 or training.trainable.divided:
        figures["result"] = str(export(training.trainable, config, training.prompt_config))
        group.log(f"done: {training.step} steps, {training.tokens:,} tokens in {training.seconds:.0f} s; {figures['result']}")
    return figures


def run_steps(training: Training, stream: Iterator[list[TokenSample]], signals: Sequence[int]) -> bool:
    """Take steps until their number or the time is reached or a process gets a signal; returns whether it was a signal."""
    settings, group, trainable = training.config.settings, training.group, training.trainable
    interval = Interval(torch.zeros((), device=group.device))
    saved_at = last = time.monotonic()
    rate, norm, stops = 0.0, torch.zeros(()), 0.0
    while not settings.steps or training.step < settings.steps:
        waiting_since = time.monotonic()
        samples = next(stream)
        interval.waiting_seconds += time.monotonic() - waiting_since
        # All processes use the same figures: the sums, and the first process's clock.
        learned_tokens, tokens, stops, seconds = group.sum(
            [
                sum(int(sample.loss_mask.sum()) for sample in samples),
                sum(len(sample.ids) for sample in samples),
                len(signals),
                training.seconds if group.rank == 0 else 0.0,
            ]
        )
        if stops or (settings.minutes and seconds >= settings.minutes * 60):
            break
        progress = (training.step + 1) / (settings.steps + 1) if settings.steps else max(1e-3, seconds / (settings.minutes * 60))
        factor = rate_factor(settings.schedule, settings.warmup_ratio, progress)
        rate = settings.learning_rate * factor
        for parameters in chain.from_iterable(optimizer.param_groups for optimizer in training.optimizers):
            parameters["lr"] = parameters["peak"] * factor
        interval.loss += add_gradients(trainable, samples, prompt_weight(settings, progress), learned_tokens, training.pass_tokens)
        if not trainable.divided:  # the backward passes sum the gradients of divided weights
            group.sum_gradient(trainable.gradient)
        with loader_death_waits():
            training.consistent = False
            norm = take_step(trainable, training.optimizers, settings.max_grad_norm)
            training.step += 1
            training.tokens += int(tokens)
            training.learned_tokens += int(learned_tokens)
            training.consistent = True
        interval.steps += 1
        interval.tokens += int(tokens)
        training.seconds += time.monotonic() - last
        last = time.monotonic()
        if training.step % settings.log_every == 0:
            write_metrics(training, interval, rate, float(norm))
            interval = Interval(torch.zeros((), device=group.device))
        if settings.eval_every and training.step % settings.eval_every == 0:
            training.metrics.write({"step": training.step, "tokens": training.tokens, **training.evaluate()})
        late = settings.save_minutes and time.monotonic() - saved_at > 60 * settings.save_minutes
        if training.step % settings.save_every == 0 or late:
            save(training)
            saved_at = time.monotonic()
        if late or training.step % settings.save_every == 0 or training.eval_samples:
            interval.started += time.monotonic() - last  # neither evaluations nor checkpoints count in the speed of training
            last = time.monotonic()
    if interval.steps:
        write_metrics(training, interval, rate, float(norm))
    return stops > 0


def write_metrics(training: Training, interval: Interval, rate: float, norm: float) -> None:
    """Write the figures since the last line of the log.

    Raises:
        ConfigError: where the loss is not finite.
    """
    # The sum waits for the device, so the time is taken after it. The waiting time is the mean of the processes'.
    loss, waiting_seconds = training.group.sum([float(interval.loss), interval.waiting_seconds])
    elapsed = max(1e-9, time.monotonic() - interval.started)
    training.metrics.write(
        {
            "step": training.step,
            "loss": round(loss / interval.steps, 5),
            "learning_rate": rate,
            "grad_norm": round(norm, 4),
            "tokens": training.tokens,
            "learnt": training.learned_tokens,
            "seconds": round(training.seconds, 2),
            "tokens_per_second": round(interval.tokens / elapsed, 1),
            "waited": round(waiting_seconds / training.group.world / elapsed, 4),
        }
    )
    if not math.isfinite(loss):
        raise ConfigError(f"step {training.step}: the loss is {loss}; lower --learning-rate and go on from the last checkpoint")


def save(training: Training) -> bool:
    """Write a checkpoint, in the first process; where the weights are divided, all processes send it their parts.

    There is none before the first update, which float16's scaler may delay for some steps.

    Returns whether there is one.

    Raises:
        ConfigError: where the weights are not finite; the checkpoint before can be used.
    """
    trainable, group = training.trainable, training.group
    if (group.rank and not trainable.divided) or not any(optimizer.state for optimizer in training.optimizers):
        return False
    wrong = sum(not bool(torch.isfinite(parameter).all()) for parameter in trainable.parameters)
    if group.sum([wrong])[0] if trainable.divided else wrong:
        raise ConfigError(f"step {training.step}: weights are not finite; lower --learning-rate and go on from the last checkpoint")
    state = {"tokens": training.tokens, "learnt": training.learned_tokens, "seconds": training.seconds}
    optimizer = gathered_optimizer_state(trainable, training.optimizers)
    write_weights = weights_writer(trainable, training.config, training.prompt_config)
    if group.rank == 0:
        save_checkpoint(
            training.config.out / "checkpoints",
            training.step,
            {**state, "scaler": trainable.scaler.state_dict()},
            optimizer,
            write_weights,
            training.config.settings.keep,
        )
    if trainable.divided:
        group.wait()  # here, where it may take long, and not in a step
    return True


def resolve_prompts(config: TrainConfig) -> tuple[PromptConfig, dict[str, PromptTokenizer]]:
    """The trained model's prompt configuration, and the tokenizer of each prompt version in the mixture.

    Raises:
        ConfigError: where the grid encoder or max_seq_len is not known, or cannot work with the model.
    """
    check_model_folder(config.model)
    of_model = read_prompt_config(config.model, config.model_config)
    encoder = config.grid_encoder or (of_model.grid_encoder if of_model else None)
    length = config.max_seq_len or (of_model.max_seq_len if of_model else None)
    if encoder is None or length is None:
        raise ConfigError(f"model {config.model} has no arc_submit.json: give --model-config FILE, or --grid-encoder and --max-seq-len")
    limit = json.loads((config.model / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings", length)
    if not SHORTEST <= length <= limit:
        raise ConfigError(f"--max-seq-len {length}: {SHORTEST} to {limit}, the model's limit")
    tokenizer = load_tokenizer(config.model)
    prompts = [part.prompt for part in (*config.parts, *config.eval_parts)]
    for_outputs = [prompt for prompt in prompts if prompt_kind(prompt) == "output"]
    prompt = for_outputs[0] if for_outputs else of_model.prompt if of_model else prompts[0]
    files = {of_model.prompt: of_model.prompt_text} if of_model and of_model.prompt_text is not None else {}
    if unread := [one for one in prompts if one.endswith(PROMPT_SUFFIX) and one not in files]:
        raise ConfigError(f"--data: prompt {unread[0]}: name the file in the model's arc_submit.json, or in one for --model-config")
    text = files.get(prompt)
    asked = replace(
        of_model or PromptConfig(encoder, prompt, length), grid_encoder=encoder, prompt=prompt, max_seq_len=length, prompt_text=text
    )
    if config.chat_template is not None:
        asked = replace(asked, chat_template=read_chat_template(config.chat_template))
    tokenizers = {}
    for one in dict.fromkeys(prompts):
        own = replace(asked, prompt=one, prompt_text=files.get(one))
        tokenizers[one] = PromptTokenizer.from_config(tokenizer, own, None if one in files else prompt_version(one))
    return asked, tokenizers


def check_adapter(config: TrainConfig) -> None:
    """Refuse, before any data is read, an adapter that cannot be continued or created.

    Raises:
        ConfigError: where the base adapter's folder holds none, or no layer of the model has a name among the targets.
    """
    if config.base_adapter is not None:
        check_adapter_folder(config.base_adapter)
    elif not config.settings.full and not adapter_values(config.model, config.lora):
        raise ConfigError(f"--lora-targets {','.join(config.lora.targets)}: {config.model} has no such layers")


def check_same_training(config: TrainConfig, prompt_config: PromptConfig, log: Callable[[str], None]) -> dict[str, Any]:
    """The content of train.json, checked against that of the training in the folder.

    Raises:
        ConfigError: naming the options that differ and change the weights.
    """
    fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    current = {_JSON_NAMES.get(name, name): value for name, value in fields.items()}
    # Other weights may have taken the place of those before, and the same weights may lie elsewhere on the next machine.
    folders: dict[str, Path | None] = {"model": config.model, "base_adapter": config.base_adapter}
    current |= {f"{name}_files": None if folder is None else files_fingerprint(folder) for name, folder in folders.items()}
    if config.model_config or config.chat_template:
        current["prompt_config"] = prompt_config.digest()
    path = config.out / "train.json"
    if checkpoint_folders(config.out / "checkpoints"):
        try:
            before = read_json(path)
        except DataError as error:
            raise DataError(f"{error}; give another --out, or remove the folder") from None
        before["parts"] = [_with_defaults(MixturePart, part) for part in before["parts"]]
        before["settings"] = _with_defaults(TrainSettings, before["settings"])
        before["lora"] = _with_defaults(LoraSettings, before["lora"])
        different = ["--data or --mixture"] if current["parts"] != before["parts"] else []
        different += [_flag(name) for name in _fixed(TrainConfig) if current[name] != before.get(name)]
        different += [_flag(f"lora_{name}") for name, value in current["lora"].items() if value != before["lora"].get(name)]
        different += ["--model-config or --chat-template"] if current.get("prompt_config") != before.get("prompt_config") else []
        for name in folders:
            if f"{name}_files" not in before:  # earlier versions wrote the folder alone
                different += [_flag(name)] if current[name] != before.get(name) else []
            elif changed := differing(before[f"{name}_files"] or {}, current[f"{name}_files"] or {}):
                different.append(f"{_flag(name)} (by {', '.join(changed)})")
        different += [_flag(name) for name in _fixed(TrainSettings) if current["settings"][name] != before["settings"].get(name)]
        if different:
            raise ConfigError(f"{config.out}: the training there has another {', '.join(different)}; give the same, or another --out")
        for name in ("steps", "minutes"):
            if current["settings"][name] != before["settings"][name]:
                log(f"{name} {before['settings'][name]} -> {current['settings'][name]}: the schedule changes from here on")
    return current


def _fixed(kind: type) -> list[str]:
    """The options that a resumed training must not change."""
    return [name for name, definition in options_of(kind) if definition.identity is Identity.SAME]


def _flag(name: str) -> str:
    return f"--{flag_of(name)}"


def _with_defaults(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The values of an earlier version; settings that came later have their defaults, which change nothing."""
    return {field.name: field.default for field in dataclasses.fields(kind)} | values
