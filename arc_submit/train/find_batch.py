"""The speed of a training by samples in a pass and their length, and how many fit: `arc-submit train --find-batch`.

It takes whole steps of the configured training, with its adapter, precision, optimizer and checkpointing, on random tokens. For each
length it starts with one sample and doubles, up to a process's share of a step, the most that a pass can hold: on a GPU until memory does
not suffice, on a CPU until two doublings are no faster. Several processes take the same sizes and exchange gradients. It writes a table
and a picture, and trains nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arc_submit.arc.files import write_json
from arc_submit.arc.pictures import save_picture
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.out_of_memory import free_cached_memory
from arc_submit.base_model.precision import repair_attention
from arc_submit.errors import ConfigError
from arc_submit.language.prompt_config import SHORTEST
from arc_submit.train.config import TrainConfig
from arc_submit.train.distributed import Processes, open_processes
from arc_submit.train.mixture import TokenSample
from arc_submit.train.step import (
    PassTooLargeError,
    Trainable,
    add_gradients,
    load_trainable,
    make_optimizers,
    take_step,
)
from arc_submit.train.train import check_adapter, resolve_prompts

REPEATS = 3  # timed steps of each size; the fastest counts
_GAIN = 1.03  # a smaller ratio of speeds is no gain
Step = Callable[[list[TokenSample]], None]


@dataclass(frozen=True)
class Trial:
    """One size of pass.

    Attributes:
        length: tokens of each sample.
        batch: samples, in each process.
        tokens_per_second: of all processes.
        memory: peak bytes on the device, with the model and the optimizer's state; None on a CPU.
    """

    length: int
    batch: int
    tokens_per_second: float
    memory: int | None


def find_batch(config: TrainConfig) -> dict[str, Any]:
    """Measure the training of a configuration; returns figures.

    Raises:
        ConfigError: where no size can work.
    """
    use_cpu(config.threads)
    group = open_processes(config.device)
    if config.settings.fsdp:
        raise ConfigError("--find-batch measures processes that have the whole model; leave it or --fsdp out")
    prompt_config, _ = resolve_prompts(config)
    check_adapter(config)
    attention = repair_attention(group.device)
    trainable = load_trainable(config, group.device, None)
    precision = trainable.precision
    group.log(f"{group.world} process(es), {group.device}: {precision.autocast or precision.base} ({precision.reason}); {attention}")
    group.log(f"{trainable.gradient.numel():,} values are trained\n{'tokens a sample':>15}{'samples':>9}{'tokens/s':>11}{'peak GB':>9}")
    measure = Measurement(training_step(config, trainable, group), config.settings.loss_on, group)
    trials: list[Trial] = []
    stop_reasons: dict[int, str] = {}
    for length in sorted({max(SHORTEST, prompt_config.max_seq_len // part) for part in (4, 2, 1)}):
        sizes = doublings(max(1, config.settings.batch_size // group.world))
        tried, stop_reasons[length] = measure.try_sizes(length, sizes, lambda trial: group.log(_line(trial)))
        trials += tried
        group.log(f"{length:>15}  {stop_reasons[length]}")
    figures = summary(trials, stop_reasons, prompt_config.max_seq_len)
    group.log(figures["advice"])
    if group.rank == 0:
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(config.out / "find_batch.json", figures)
        group.log(f"{config.out / 'find_batch.json'}, {plot_trials(config.out / 'find_batch.png', trials)}")
    group.wait()
    return figures


def training_step(config: TrainConfig, trainable: Trainable, group: Processes) -> Step:
    """A function that takes one whole step on samples of one length, in a single pass.

    It raises PassTooLargeError in all processes where the memory of one does not suffice; the next call starts with a clear gradient.
    """
    settings = config.settings
    optimizers = make_optimizers(trainable, settings)

    def step(samples: list[TokenSample]) -> None:
        tokens = sum(len(sample.ids) for sample in samples)
        learned_tokens = group.world * sum(int(sample.loss_mask.sum()) for sample in samples)
        reason = ""
        try:
            weight = max(settings.prompt_weight, settings.prompt_weight_end)
            add_gradients(trainable, samples, weight, learned_tokens, tokens)
        except PassTooLargeError as error:
            reason = str(error)
        if group.sum([float(bool(reason))])[0]:
            trainable.gradient.zero_()
            free_cached_memory(group.device)
            raise PassTooLargeError(reason or "out of memory in another process")
        group.sum_gradient(trainable.gradient)
        take_step(trainable, optimizers, settings.max_grad_norm)

    return step


def doublings(limit: int) -> Iterator[int]:
    """1, 2, 4, ... below a limit, and the limit."""
    size = 1
    while size < limit:
        yield size
        size *= 2
    yield limit


def random_samples(batch: int, length: int, loss_on: str) -> list[TokenSample]:
    """Samples of random tokens; their loss mask is about the largest of real samples, on which the memory depends."""
    ids = np.random.default_rng([batch, length]).integers(5, 40, (batch, length)).astype(np.int32)
    loss_mask = np.arange(length) >= {"answer": length * 2 // 3, "outputs": length // 4, "all": 1}[loss_on]
    return [TokenSample(number, 0, 0, ids[number], loss_mask, length - 1, 1, False) for number in range(batch)]


@dataclass(frozen=True)
class Measurement:
    """Times steps of random samples.

    Attributes:
        loss_on: tokens in the loss mask, as in TrainSettings.
        clock: seconds, of the wall or of the process.
        repeats: timed steps of each size.
    """

    step: Step
    loss_on: str
    group: Processes
    clock: Callable[[], float] = time.perf_counter
    repeats: int = REPEATS

    def try_sizes(self, length: int, sizes: Iterable[int], on_trial: Callable[[Trial], None]) -> tuple[list[Trial], str]:
        """A trial for each number of samples, until memory does not suffice or, on a CPU, more are no faster; and the reason."""
        cuda = self.group.device.type == "cuda"
        trials: list[Trial] = []
        for batch in sizes:
            if cuda:
                torch.cuda.reset_peak_memory_stats(self.group.device)
            try:
                seconds = self._fastest_step(random_samples(batch, length, self.loss_on))
            except PassTooLargeError:
                return trials, f"{batch} samples do not fit in memory"
            # All processes wait for the slowest one. With one common figure they also stop at the same size.
            world = self.group.world
            slowest = max(self.group.sum([seconds if rank == self.group.rank else 0.0 for rank in range(world)]))
            memory = torch.cuda.max_memory_allocated(self.group.device) if cuda else None
            trials.append(Trial(length, batch, round(world * batch * length / slowest, 1), memory))
            on_trial(trials[-1])
            speeds = [trial.tokens_per_second for trial in trials]
            if not cuda and len(speeds) > 2 and max(speeds[-2:]) < _GAIN * max(speeds[:-2]):
                return trials, "more samples are no faster"
        return trials, "a step has no more (--batch-size)"

    def _fastest_step(self, samples: list[TokenSample]) -> float:
        times = []
        for _ in range(1 + self.repeats):
            started = self.clock()
            self.step(samples)
            if self.group.device.type == "cuda":
                torch.cuda.synchronize(self.group.device)
            times.append(self.clock() - started)
        return min(times[1:])  # the first step of a size also allocates memory and chooses kernels


def _line(trial: Trial) -> str:
    memory = "-" if trial.memory is None else f"{trial.memory / 1e9:.2f}"
    return f"{trial.length:>15}{trial.batch:>9}{trial.tokens_per_second:>11,.0f}{memory:>9}"


def summary(trials: Sequence[Trial], stop_reasons: dict[int, str], longest: int) -> dict[str, Any]:
    """All figures, and the advice for the training."""
    largest = {str(length): max((t.batch for t in trials if t.length == length), default=0) for length in stop_reasons}
    ended = {str(length): reason for length, reason in stop_reasons.items()}
    figures: dict[str, Any] = {"trials": [dataclasses.asdict(trial) for trial in trials], "ended": ended, "largest": largest}
    full = [trial for trial in trials if trial.length == longest]
    if not full:
        figures["advice"] = f"no sample of {longest} tokens fits: lower --max-seq-len, or give --gradient-checkpointing or --in-4-bits"
        return figures
    best = max(full, key=lambda trial: trial.tokens_per_second)
    figures["tokens_per_pass"] = best.batch * best.length
    figures["advice"] = (
        f"--tokens-per-pass {figures['tokens_per_pass']}: {best.batch} samples of {best.length} tokens are the fastest of that length, "
        f"{best.tokens_per_second:,.0f} tokens a second; up to {full[-1].batch} were tried and fit"
    )
    return figures


def plot_trials(path: Path, trials: Sequence[Trial]) -> Path:
    """Write a plot of tokens a second against samples in a pass, a line for each length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for length in dict.fromkeys(trial.length for trial in trials):
        row = [trial for trial in trials if trial.length == length]
        axis.plot([t.batch for t in row], [t.tokens_per_second for t in row], marker="o", label=f"{length} tokens a sample")
    axis.set_xscale("log", base=2)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("samples in a pass")
    axis.set_ylabel("tokens a second")
    if trials:
        axis.legend()
    return save_picture(figure, path)
