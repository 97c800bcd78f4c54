"""How fast a training would be by the samples in a pass and their length, and how many fit: `arc-submit train --find-batch`.

Whole steps of the training that was asked for, with its adapter, precision, optimizer and checkpointing, on random tokens. Each length
begins with one sample and doubles, up to a process's share of a step, which is all that a pass of the training can hold: on a GPU until
memory does not suffice, on a CPU until two doublings have brought nothing. With several
processes all take the same sizes, the exchange of gradients included. Leaves a table and a picture, and trains nothing.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arc_submit.arc.datasets import write_json
from arc_submit.arc.pictures import save_picture
from arc_submit.base_model.precision import TrainingPrecision, repair_attention
from arc_submit.language.prompt_config import SHORTEST
from arc_submit.train.config import TrainConfig
from arc_submit.train.distributed import Processes, open_processes
from arc_submit.train.mixture import TokenSample
from arc_submit.train.step import (
    Learner,
    PassTooLargeError,
    add_gradients,
    choose_precision,
    make_learner,
    make_optimizers,
    take_step,
)
from arc_submit.train.train import check_adapter_of, how_to_ask

REPEATS = 3  # steps of each size, of which the fastest counts
_GAIN = 1.03  # what is less than this is no gain
Step = Callable[[list[TokenSample]], None]


@dataclass(frozen=True)
class Trial:
    """One size of pass.

    Attributes:
        length: tokens of each sample.
        batch: samples, in each process.
        tokens_per_second: over all processes.
        memory: peak bytes on the device, the model and the optimizer's state included; None on a CPU.
    """

    length: int
    batch: int
    tokens_per_second: float
    memory: int | None


def find_batch(config: TrainConfig) -> dict[str, Any]:
    """Measure the training that a configuration describes; returns figures.

    Raises:
        ConfigError: where it cannot work with any size.
    """
    torch.set_num_threads(config.threads)
    group = open_processes(config.device)
    how, _ = how_to_ask(config)
    check_adapter_of(config)
    precision = choose_precision(config.settings.precision, group.device, config.settings.full)
    attention = repair_attention(group.device)
    learner = make_learner(config, group.device, precision, None)
    step = training_step(config, learner, precision, group)
    show: Callable[[str], None] = (lambda line: print(line, flush=True)) if group.rank == 0 else (lambda line: None)
    show(f"{group.world} process(es), {group.device}: {precision.autocast or precision.base} ({precision.reason}); {attention}")
    show(f"{learner.gradient.numel():,} values are trained\n{'tokens a sample':>15}{'samples':>9}{'tokens/s':>11}{'peak GB':>9}")
    trials: list[Trial] = []
    ended: dict[int, str] = {}
    most = max(1, config.settings.batch_size // group.world)
    for length in sorted({max(SHORTEST, how.max_seq_len // part) for part in (4, 2, 1)}):
        sizes = doublings(most)
        tried, ended[length] = try_sizes(
            step, length, config.settings.loss_on, sizes, group, time.perf_counter, lambda trial: show(_line(trial))
        )
        trials += tried
        show(f"{length:>15}  {ended[length]}")
    figures = summary(trials, ended, how.max_seq_len)
    show(figures["advice"])
    if group.rank == 0:
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(config.out / "find_batch.json", figures)
        show(f"{config.out / 'find_batch.json'}, {plot_trials(config.out / 'find_batch.png', trials)}")
    group.wait()
    return figures


def training_step(config: TrainConfig, learner: Learner, precision: TrainingPrecision, group: Processes) -> Step:
    """A function that takes one whole step on samples of one length, in a single pass.

    It raises PassTooLargeError, in all processes, where one's memory does not suffice; the next call begins with a clear gradient.
    """
    settings = config.settings
    optimizers = make_optimizers(learner, settings)
    scaler = torch.amp.GradScaler(group.device.type, enabled=precision.scale)

    def step(samples: list[TokenSample]) -> None:
        tokens = sum(len(sample.ids) for sample in samples)
        learnt = group.world * sum(int(sample.learnt.sum()) for sample in samples)
        reason = ""
        try:
            weight = max(settings.prompt_weight, settings.prompt_weight_end)
            add_gradients(learner, samples, weight, learnt, tokens, precision, scaler)
        except PassTooLargeError as error:
            reason = str(error)
        if group.sum([float(bool(reason))])[0]:
            learner.gradient.zero_()
            gc.collect()  # the failed pass is still held by its exception's frames
            if group.device.type == "cuda":
                torch.cuda.empty_cache()
            raise PassTooLargeError(reason or "out of memory in another process")
        group.sum_gradient(learner.gradient)
        take_step(learner, optimizers, scaler, settings.max_grad_norm)

    return step


def doublings(most: int) -> Iterator[int]:
    """1, 2, 4, ... below a number, and the number."""
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most


def random_samples(batch: int, length: int, loss_on: str) -> list[TokenSample]:
    """Samples of random tokens of the smallest vocabulary; learnt is about the most that real ones have, which decides their memory."""
    ids = np.random.default_rng([batch, length]).integers(5, 40, (batch, length)).astype(np.int32)
    learnt = np.arange(length) >= {"answer": length * 2 // 3, "outputs": length // 4, "all": 1}[loss_on]
    return [TokenSample(number, 0, 0, ids[number], learnt, length - 1, 1, False) for number in range(batch)]


def try_sizes(
    step: Step,
    length: int,
    loss_on: str,
    batches: Iterable[int],
    group: Processes,
    clock: Callable[[], float],
    tell: Callable[[Trial], None],
    repeats: int = REPEATS,
) -> tuple[list[Trial], str]:
    """A trial for each number of samples, until memory does not suffice or, on a CPU, more of them bring nothing; and which it was.

    Args:
        loss_on: which tokens are learnt, as in TrainSettings.
        clock: seconds, wall time or the process's own.
        tell: is given each trial as it ends.
    """
    cuda = group.device.type == "cuda"
    trials: list[Trial] = []
    for batch in batches:
        samples = random_samples(batch, length, loss_on)
        if cuda:
            torch.cuda.reset_peak_memory_stats(group.device)
        times = []
        try:
            for _ in range(1 + repeats):  # the first of a size also asks for memory and chooses kernels
                began = clock()
                step(samples)
                if cuda:
                    torch.cuda.synchronize(group.device)
                times.append(clock() - began)
        except PassTooLargeError:
            return trials, f"{batch} samples do not fit in memory"
        # The slowest process is the pace of all; by one figure they also all end together.
        slowest = max(group.sum([min(times[1:]) if rank == group.rank else 0.0 for rank in range(group.world)]))
        memory = torch.cuda.max_memory_allocated(group.device) if cuda else None
        trials.append(Trial(length, batch, round(group.world * batch * length / slowest, 1), memory))
        tell(trials[-1])
        speeds = [trial.tokens_per_second for trial in trials]
        if not cuda and len(speeds) > 2 and max(speeds[-2:]) < _GAIN * max(speeds[:-2]):
            return trials, "more samples are no faster"
    return trials, "a step has no more (--batch-size)"


def _line(trial: Trial) -> str:
    memory = "-" if trial.memory is None else f"{trial.memory / 1e9:.2f}"
    return f"{trial.length:>15}{trial.batch:>9}{trial.tokens_per_second:>11,.0f}{memory:>9}"


def summary(trials: Sequence[Trial], ended: dict[int, str], longest: int) -> dict[str, Any]:
    """What came of it, and what to tell the training."""
    figures: dict[str, Any] = {"trials": [dataclasses.asdict(trial) for trial in trials], "ended": {str(k): v for k, v in ended.items()}}
    figures["largest"] = {str(length): max((t.batch for t in trials if t.length == length), default=0) for length in ended}
    full = [trial for trial in trials if trial.length == longest]
    if not full:
        figures["advice"] = f"not one sample of {longest} tokens fits: lower --max-seq-len, or give --gradient-checkpointing or --in-4-bits"
        return figures
    best = max(full, key=lambda trial: trial.tokens_per_second)
    figures["tokens_per_pass"] = best.batch * best.length
    figures["advice"] = (
        f"--tokens-per-pass {figures['tokens_per_pass']}: {best.batch} samples of {best.length} tokens are the fastest of that length, "
        f"{best.tokens_per_second:,.0f} tokens a second; up to {full[-1].batch} were tried and fit"
    )
    return figures


def plot_trials(path: Path, trials: Sequence[Trial]) -> Path:
    """Tokens a second against samples in a pass, a line for each length."""
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
