"""Training of a base model: an adapter or all weights, on a weighted mixture of data and prompts, by one process or many.

A plain loop. Each step's samples are shared out by number, every process adds up the gradients of its own in one flat tensor, that tensor
is summed over the processes by one call, and all of them take the same optimizer step; with the loss divided by the tokens learnt in the
whole step, the number of processes changes nothing but speed. accelerate starts and places the processes (`accelerate launch`,
torchrun, a scheduler's job). DistributedDataParallel is not used: the low-rank layers add to their gradient themselves, where its hooks
would see nothing. transformers' Trainer is not used for the same reason; at its fastest, a sample in each pass, it is as fast or a
little slower, and twice as slow with padded batches (benchmarks/train.py --tables trainer).

What a run leaves in its folder: train.json (what it was told), log.jsonl, checkpoints/, data/ (the packed data), and at the end adapter/
(PEFT's format) or model/ (as transformers and vllm load it). Given the same folder again it goes on from the last checkpoint and ends
with the weights of a run that was never cut off. Knows nothing about submissions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch

from arc_submit.arc.datasets import write_json
from arc_submit.base_model.checks import adapter_values, check_adapter_folder, check_model_folder, differing, files_fingerprint
from arc_submit.base_model.loading import load_tokenizer
from arc_submit.base_model.precision import TrainingPrecision, repair_attention
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import SHORTEST, PromptConfig, read_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.options import Identity, options_of
from arc_submit.train.checkpoints import alone_in, checkpoint_folders, load_optimizers, read_state, save_checkpoint
from arc_submit.train.config import TrainConfig, TrainSettings
from arc_submit.train.data import held_out_samples, prepare_data
from arc_submit.train.dataloader import LoaderDiedError, died, stream_steps
from arc_submit.train.distributed import Processes, ProcessLostError, open_processes, told_to_stop
from arc_submit.train.mixture import MixturePart, TokenSample, check_fit, open_mixture
from arc_submit.train.step import (
    Learner,
    PassTooLargeError,
    add_gradients,
    choose_precision,
    evaluate,
    export,
    make_learner,
    make_optimizers,
    prompt_weight,
    rate_factor,
    take_step,
    weights_writer,
)
from arc_submit.train.train_log import Log, check_logging

# Options that may change when a training goes on.
_FREE = {name for name, definition in options_of(TrainSettings) if definition.identity is Identity.FREE}


@dataclass
class Training:
    """A training on its way.

    Attributes:
        config: what it was told.
        group: the processes that share it.
        how: how the model will be asked.
        learner, optimizers, scaler, precision: what is trained, and with what.
        held_out: the samples of evaluations.
        log: where figures go.
        step, tokens, learnt, seconds: how far it is: optimizer steps, tokens without padding, how many of them were learnt in full, and
            time, that of runs before included.
        whole: whether the weights are those of `step`, no optimizer being in the middle of the next.
    """

    config: TrainConfig
    group: Processes
    how: PromptConfig
    learner: Learner
    optimizers: Sequence[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    precision: TrainingPrecision
    held_out: Sequence[TokenSample]
    log: Log
    step: int = 0
    tokens: int = 0
    learnt: int = 0
    seconds: float = 0.0
    whole: bool = True

    @property
    def pass_tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.config.settings.tokens_per_pass or self.how.max_seq_len


@dataclass
class Interval:
    """What happened since the last line of the log.

    Attributes:
        loss: sum over the steps of this process's share of the loss, on the device.
        steps, tokens: how many.
        waited: seconds in which the loop waited for samples.
        began: on the monotonic clock.
    """

    loss: torch.Tensor
    steps: int = 0
    tokens: int = 0
    waited: float = 0.0
    began: float = field(default_factory=time.monotonic)


def train(config: TrainConfig) -> dict[str, Any]:
    """Train, or go on training; returns figures.

    Raises:
        ArcSubmitError: where something cannot work, the loss is no number, or what lies in the folder is another training.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it would warn in every loader
    torch.set_num_threads(config.threads)
    settings = config.settings
    group = open_processes(config.device)
    say: Callable[[str], None] = (lambda line: print(line, flush=True)) if group.rank == 0 else (lambda line: None)
    if settings.batch_size % group.world:
        raise ConfigError(f"--batch-size {settings.batch_size} cannot be shared out over {group.world} processes; make it a multiple")
    check_logging(config)
    how, writers = how_to_ask(config)
    check_adapter_of(config)
    with alone_in(config.out, say) if group.rank == 0 else contextlib.nullcontext():
        return _train(config, group, how, writers, say)


def _train(
    config: TrainConfig, group: Processes, how: PromptConfig, writers: dict[str, PromptTokenizer], say: Callable[[str], None]
) -> dict[str, Any]:
    """`train`, in a folder of its own: data, samples, model, the loop, and what comes of it."""
    settings = config.settings
    note = check_what_was_told(config, say) if group.rank == 0 else {}
    found = checkpoint_folders(config.out / "checkpoints")
    folders, eval_folders = prepare_data(config, group, say, bool(found))
    if group.rank == 0:
        write_json(config.out / "train.json", note)  # a command that was refused is not what the next one has to go by
    mixture = open_mixture(config.parts, folders, writers, how.max_seq_len, settings.loss_on, config.seed)
    held_out, eval_samplers = held_out_samples(config, folders, eval_folders, writers, how)
    if group.rank == 0:
        for sampler in mixture.samplers:
            say(check_fit(sampler)[1])
        for sampler in eval_samplers:
            say(f"for evaluations: {check_fit(sampler)[1]}")
    resumed = found[-1] if found else None
    state: dict[str, Any] = read_state(resumed) if resumed else {"step": 0, "tokens": 0, "learnt": 0, "seconds": 0.0}
    # Loaders are forked before the model and its device's threads are there.
    stream = stream_steps(mixture, settings.batch_size, group.rank, group.world, state["step"], settings.loaders)
    stream = chain([next(stream)], stream)

    precision = choose_precision(settings.precision, group.device, settings.full)
    say(f"{group.world} process(es), {group.device}: {precision.autocast or precision.base} ({precision.reason})")
    say(repair_attention(group.device))
    learner = make_learner(config, group.device, precision, resumed)
    say(f"{learner.gradient.numel():,} values are trained ({learner.adapter.reason if learner.adapter else 'all weights'})")
    optimizers = make_optimizers(learner, settings)
    scaler = torch.amp.GradScaler(group.device.type, enabled=precision.scale)
    if resumed:
        load_optimizers(resumed, state, optimizers)
        scaler.load_state_dict(state["scaler"])
        say(f"going on from step {state['step']}, {state['tokens']:,} tokens")
        if settings.steps and state["step"] >= settings.steps:
            say(f"there is nothing left to do for --steps {settings.steps}")
    log = Log(config, group, state["step"])
    progress = (state["step"], state["tokens"], state["learnt"], state["seconds"])
    training = Training(config, group, how, learner, optimizers, scaler, precision, held_out, log, *progress)

    with told_to_stop() as told:  # to the end: a second signal must not cut the checkpoint short
        stopped = learn_and_save(training, stream, told)
        figures = finish(training, stopped, say)
    log.close()
    group.wait()
    return figures


def learn_and_save(training: Training, stream: Iterator[list[TokenSample]], told: Sequence[int]) -> bool:
    """`learn`, and a checkpoint of what it came to, whatever ended it, unless the weights themselves are what is wrong.

    Raises:
        ArcSubmitError: the reason, and that it is saved.
    """
    try:
        stopped = learn(training, stream, told)
    except (ArcSubmitError, RuntimeError) as error:
        reason = died(error) if isinstance(error, RuntimeError) else error
        # Of these none says anything about the weights.
        if not isinstance(reason, DataError | ProcessLostError | LoaderDiedError | PassTooLargeError):
            raise
        if training.whole and save(training):
            raise type(reason)(f"{reason}; saved, the same command goes on from step {training.step}") from None
        raise reason from None
    save(training)
    return stopped


def finish(training: Training, stopped: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The last evaluation and the result, unless training was stopped; returns figures."""
    config, group = training.config, training.group
    figures: dict[str, Any] = {
        "step": training.step,
        "tokens": training.tokens,
        "learnt": training.learnt,
        "seconds": round(training.seconds, 2),
        "processes": group.world,
    }
    if training.held_out and not stopped:
        scores = evaluate(training.learner, training.held_out, training.pass_tokens, training.precision, group)
        if not config.settings.eval_every or training.step % config.settings.eval_every:
            training.log.write({"step": training.step, "tokens": training.tokens, **scores})
        figures |= scores
    if stopped:
        say(f"stopped when told to; the same command goes on from step {training.step}")
    elif group.rank == 0:
        figures["result"] = str(export(training.learner, config, training.how))
        say(f"done: {training.step} steps, {training.tokens:,} tokens in {training.seconds:.0f} s; {figures['result']}")
    return figures


def learn(training: Training, stream: Iterator[list[TokenSample]], told: Sequence[int]) -> bool:
    """Steps until there are enough, or time is up, or the process is told to end; returns whether it was that."""
    settings, group = training.config.settings, training.group
    interval = Interval(torch.zeros((), device=group.device))
    saved_at = last = time.monotonic()
    rate, norm, stops = 0.0, torch.zeros(()), 0.0
    while not settings.steps or training.step < settings.steps:
        asked_at = time.monotonic()
        samples = next(stream)
        interval.waited += time.monotonic() - asked_at
        # All processes go by the same figures: the sums, and the first one's clock.
        learnt, tokens, stops, seconds = group.sum(
            [
                sum(int(sample.learnt.sum()) for sample in samples),
                sum(len(sample.ids) for sample in samples),
                len(told),
                training.seconds if group.rank == 0 else 0.0,
            ]
        )
        if stops or (settings.minutes and seconds >= settings.minutes * 60):
            break
        progress = (training.step + 1) / (settings.steps + 1) if settings.steps else max(1e-3, seconds / (settings.minutes * 60))
        rate = settings.learning_rate * rate_factor(settings.schedule, settings.warmup_ratio, progress)
        for parameters in chain.from_iterable(optimizer.param_groups for optimizer in training.optimizers):
            parameters["lr"] = rate
        interval.loss += add_gradients(
            training.learner,
            samples,
            prompt_weight(settings, progress),
            learnt,
            training.pass_tokens,
            training.precision,
            training.scaler,
        )
        group.sum_gradient(training.learner.gradient)
        training.whole = False
        norm = take_step(training.learner, training.optimizers, training.scaler, settings.max_grad_norm)
        training.step += 1
        training.tokens += int(tokens)
        training.learnt += int(learnt)
        training.whole = True
        interval.steps += 1
        interval.tokens += int(tokens)
        training.seconds += time.monotonic() - last
        last = time.monotonic()
        if training.step % settings.log_every == 0:
            write_line(training, interval, rate, float(norm))
            interval = Interval(torch.zeros((), device=group.device))
        if settings.eval_every and training.step % settings.eval_every == 0:
            scores = evaluate(training.learner, training.held_out, training.pass_tokens, training.precision, group)
            training.log.write({"step": training.step, "tokens": training.tokens, **scores})
        late = settings.save_minutes and time.monotonic() - saved_at > 60 * settings.save_minutes
        if training.step % settings.save_every == 0 or late:
            save(training)
            saved_at = time.monotonic()
        if late or training.step % settings.save_every == 0 or training.held_out:
            interval.began += time.monotonic() - last  # neither evaluations nor checkpoints count in the speed of training
            last = time.monotonic()
    if interval.steps:
        write_line(training, interval, rate, float(norm))
    return stops > 0


def write_line(training: Training, interval: Interval, rate: float, norm: float) -> None:
    """Write what happened since the last line.

    Raises:
        ConfigError: where the loss is no number.
    """
    # Waits for the device: the time is taken behind it. What the processes waited for samples is their mean.
    loss, waited = training.group.sum([float(interval.loss), interval.waited])
    passed = max(1e-9, time.monotonic() - interval.began)
    training.log.write(
        {
            "step": training.step,
            "loss": round(loss / interval.steps, 5),
            "learning_rate": rate,
            "grad_norm": round(norm, 4),
            "tokens": training.tokens,
            "learnt": training.learnt,
            "seconds": round(training.seconds, 2),
            "tokens_per_second": round(interval.tokens / passed, 1),
            "waited": round(waited / training.group.world / passed, 4),
        }
    )
    if not math.isfinite(loss):
        raise ConfigError(f"step {training.step}: the loss is {loss}; lower --learning-rate and go on from the last checkpoint")


def save(training: Training) -> bool:
    """Write a checkpoint, in the first process; none before the first update, which float16's scaler may put off for some steps.

    Returns whether there is one now.

    Raises:
        ConfigError: where the weights are no numbers: the checkpoint before is to go on from.
    """
    if training.group.rank or not any(optimizer.state for optimizer in training.optimizers):
        return False
    if not all(bool(torch.isfinite(parameter).all()) for parameter in training.learner.parameters):
        raise ConfigError(f"step {training.step}: weights are no numbers; lower --learning-rate and go on from the last checkpoint")
    state = {name: getattr(training, name) for name in ("tokens", "learnt", "seconds")}
    save_checkpoint(
        training.config.out / "checkpoints",
        training.step,
        {**state, "scaler": training.scaler.state_dict()},
        training.optimizers,
        weights_writer(training.learner, training.config, training.how),
        training.config.settings.keep,
    )
    return True


def how_to_ask(config: TrainConfig) -> tuple[PromptConfig, dict[str, PromptTokenizer]]:
    """How the trained model will be asked, and what writes each prompt version.

    Raises:
        ConfigError: where that is not known, or cannot work with the model.
    """
    check_model_folder(config.model)
    stated = read_prompt_config(config.model)
    encoder = config.grid_encoder or (stated.grid_encoder if stated else None)
    length = config.max_seq_len or (stated.max_seq_len if stated else None)
    if encoder is None or length is None:
        raise ConfigError(f"model {config.model} has no arc_submit.json: give --grid-encoder and --max-seq-len")
    limit = json.loads((config.model / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings", length)
    if not SHORTEST <= length <= limit:
        raise ConfigError(f"--max-seq-len {length}: {SHORTEST} to {limit}, which is what the model takes")
    tokenizer = load_tokenizer(config.model)
    prompts = [part.prompt for part in (*config.parts, *config.eval_parts)]
    writers = {prompt: PromptTokenizer(tokenizer, make_encoder(encoder), prompt_version(prompt)) for prompt in dict.fromkeys(prompts)}
    for_outputs = [prompt for prompt in prompts if prompt_version(prompt).kind == "output"]
    prompt = for_outputs[0] if for_outputs else stated.prompt if stated else prompts[0]
    return PromptConfig(encoder, prompt, length), writers


def check_adapter_of(config: TrainConfig) -> None:
    """Refuse at once, before any data is read, an adapter that cannot be gone on with or made.

    Raises:
        ConfigError: where the base adapter's folder holds none, or no layer of the model has a name among the targets.
    """
    if config.base_adapter is not None:
        check_adapter_folder(config.base_adapter)
    elif not config.settings.full and not adapter_values(config.model, config.lora):
        raise ConfigError(f"--lora-targets {','.join(config.lora.targets)}: {config.model} has no such layers")


def check_what_was_told(config: TrainConfig, say: Callable[[str], None]) -> dict[str, Any]:
    """What this training is told, as train.json is to say it, checked against what it was told before.

    Raises:
        ConfigError: naming what differs in what decides the result.
    """
    told: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    # Weights trained anew may lie where those before lay, and the same ones elsewhere on the next machine.
    told |= {
        f"{name}_files": None if told[name] is None else files_fingerprint(getattr(config, name)) for name in ("model", "base_adapter")
    }
    path = config.out / "train.json"
    if checkpoint_folders(config.out / "checkpoints"):
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); give another --out, or remove the folder") from None
        before["parts"] = [_with_defaults(MixturePart, part) for part in before["parts"]]
        before["settings"] = _with_defaults(TrainSettings, before["settings"])
        differ = ["--data or --mixture"] if told["parts"] != before["parts"] else []
        differ += [_option(name) for name in ("grid_encoder", "max_seq_len", "seed") if told[name] != before.get(name)]
        differ += [_option(f"lora_{name}") for name, value in told["lora"].items() if value != before["lora"].get(name)]
        for name in ("model", "base_adapter"):
            if f"{name}_files" not in before:  # earlier versions noted the folder alone
                differ += [_option(name)] if told[name] != before.get(name) else []
            elif changed := differing(before[f"{name}_files"] or {}, told[f"{name}_files"] or {}):
                differ.append(f"{_option(name)} (by {', '.join(changed)})")
        differ += [_option(name) for name, value in told["settings"].items() if name not in _FREE and value != before["settings"].get(name)]
        if differ:
            raise ConfigError(f"{config.out}: the training there was told another {', '.join(differ)}; give the same, or another --out")
        for name in ("steps", "minutes"):
            if told["settings"][name] != before["settings"][name]:
                say(f"{name} {before['settings'][name]} -> {told['settings'][name]}: the schedule is another one from here on")
    return told


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _with_defaults(kind: Any, told: dict[str, Any]) -> dict[str, Any]:
    """What an earlier version noted; settings that came later stand at their defaults, which change nothing."""
    return {field.name: field.default for field in dataclasses.fields(kind)} | told
