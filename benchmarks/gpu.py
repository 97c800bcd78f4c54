"""The minutes on a GPU: what cannot be known without one, in order of worth, a JSON line after each part.

Every line is flushed at once, and a part that fails is a line with its error, so that the session may be cut off at any time. Without a
GPU the same parts run on the CPU with tiny models; that shows that the script runs, and nothing about a GPU.

    python benchmarks/gpu.py --out gpu.jsonl [--device cuda:0] [--seconds 560] [--parts machine,losses,...] [--tiny]

`--cards 14.1,21.8` bounds this process to the memory of a T4 and of an L4, in GiB, on a larger card. `arc-submit` needs no network here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from arc_submit.arc.task import Task
from arc_submit.base_model.loading import choose_device, load_model
from arc_submit.base_model.lora import attach, detach
from arc_submit.base_model.memory import GIB, SIZES, ModelShape
from arc_submit.base_model.out_of_memory import is_out_of_memory
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.precision import TrainingPrecision, choose_training_precision
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune import trainer
from arc_submit.finetune.gpu_check import (
    example_task,
    machine_facts,
    make_random_model,
    measure_decoding,
    measure_training,
    peak,
    pocket_sampler,
    random_ids,
    release,
)
from arc_submit.finetune.samples import TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import finetune_task
from arc_submit.finetune.ttft_worker import finetune_and_save, with_same_weights
from arc_submit.inference.engine import Request
from arc_submit.inference.transformers_engine import TransformersEngine

QUERIES, ALL = ("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Shape:
    """A model's architecture with random weights, and the adapter that its preset trains."""

    model: ModelShape
    rank: int
    targets: tuple[str, ...]


SHAPES = {
    "0.5b": Shape(SIZES["0.5B"], 128, QUERIES),
    "1.5b": Shape(SIZES["1.5B"], 128, QUERIES),
    "4b": Shape(SIZES["4B"], 256, ALL),
    "7b": Shape(SIZES["7B"], 128, QUERIES),
}
_TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_TINY |= {"head_dim": 16, "vocab_size": 512, "max_position_embeddings": 8192}
# Shape, card (index into --cards), tokens of a sample: those whose fit is known on paper alone.
MEMORY = (("1.5b", 0, 3584), ("1.5b", 0, 5120), ("4b", 1, 5120), ("7b", 1, 5120))
ENGINE = (("0.5b", 32), ("1.5b", 32), ("1.5b", 64), ("4b", 16), ("4b", 64), ("7b", 32))


@dataclass
class Session:
    """One session on a device.

    Attributes:
        cards: GiB that parts which measure memory may take, see --cards.
        ends: on the monotonic clock.
        tiny: small models and few steps, for a rehearsal.
    """

    device: torch.device
    cards: list[float]
    ends: float
    tiny: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


def main() -> None:
    parser = argparse.ArgumentParser(description="What cannot be known without a GPU, in order of worth.")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=560.0, help="no part begins later (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument("--parts", default=",".join(name for name in PARTS if name != "lengths"), help="(%(default)s)")
    parser.add_argument("--cards", default="14.1,21.8", help="GiB of the two cards whose limits are tried (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="small models, for a rehearsal; always on a CPU")
    args = parser.parse_args()
    device = choose_device(args.device)
    cards = [float(one) for one in args.cards.split(",")]
    session = Session(device, cards, time.monotonic() + args.seconds, args.tiny or device.type == "cpu")
    with args.out.open("a", encoding="utf-8") as out:
        for name in args.parts.split(","):
            run_part(name, session, out)


def run_part(name: str, session: Session, out: Any) -> None:
    """One part: its lines, and a last one with its seconds or with the error that ended it."""

    def write(**figures: Any) -> None:
        line = json.dumps({"part": name, **figures})
        print(line, flush=True)
        out.write(line + "\n")
        out.flush()

    if time.monotonic() >= session.ends:
        return write(skipped="the time is up")
    began = time.monotonic()
    try:
        for figures in PARTS[name](session):
            write(**figures)
    except Exception as error:  # noqa: BLE001 - the other parts are worth as much
        write(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    release(session.device)
    write(seconds=round(time.monotonic() - began, 1))


# --- The parts ---------------------------------------------------------------------------------------------------------------------------


def machine(session: Session) -> Iterator[dict[str, Any]]:
    """Versions, the card, and which attention it takes."""
    yield machine_facts(session.device)


def losses(session: Session) -> Iterator[dict[str, Any]]:
    """The pocket model on one task: the CPU's float32 losses against the device's, and on a GPU against float16 with scaled losses."""
    steps = 5 if session.tiny else 40
    reference = np.array(train_pocket(torch.device("cpu"), steps, None)[0])
    tried: list[tuple[str, TrainingPrecision | None]] = [("own", None)]
    if session.on_gpu:
        tried.append(("float16", TrainingPrecision(torch.float16, torch.float16, True, "forced")))
    for name, precision in tried:
        values, skipped = train_pocket(session.device, steps, precision)
        yield {
            "precision": name,
            "steps": steps,
            "largest_relative_difference": float(np.abs(np.array(values) / reference - 1).max()),
            "last_loss": values[-1],
            "skipped_steps": skipped,
        }


def memory(session: Session) -> Iterator[dict[str, Any]]:
    """Peak memory of training and its speed, plain and checkpointed, within the memory of a T4 and of an L4."""
    for name, card, tokens in MEMORY:
        for checkpointing in (False, True):
            if time.monotonic() > session.ends:
                return
            with limited_to(session, session.cards[card]):
                yield {"shape": name, "card_gib": session.cards[card], "tokens": tokens, "checkpointing": checkpointing} | training_peak(
                    session, name, tokens, checkpointing
                )


def engine(session: Session) -> Iterator[dict[str, Any]]:
    """Milliseconds of a decoding step, by shape and slots."""
    for name, slots in ENGINE:
        if time.monotonic() > session.ends:
            return
        prompt, answer = (32, 8) if session.tiny else (1024, 64)
        model = make_model(session, name)
        yield {"shape": name} | measure_decoding(model, min(4, slots) if session.tiny else slots, prompt, answer)
        del model
        release(session.device)


def out_of_memory(session: Session) -> Iterator[dict[str, Any]]:
    """Training that runs out of memory once: what was tried, and whether the memory comes back."""
    with pocket(session.device) as (model, sampler, task), tempfile.TemporaryDirectory() as folder:
        adapter = attach(model, LoraSettings(rank=8), 0)
        before, real, calls = held(session), trainer.batch_loss, 0

        def once(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2 and session.on_gpu:
                torch.empty(2**45, device=session.device)
            if calls == 2:
                raise torch.OutOfMemoryError("CUDA out of memory (forced)")
            return real(*arguments)

        trainer.batch_loss = once
        try:
            result = finetune_and_save(adapter, sampler, task, Path(folder), trainer.Hooks())
        finally:
            trainer.batch_loss = real
        detach(adapter)
    release(session.device)
    yield {"notes": result.notes, "steps": len(result.losses), "held_before_gib": before, "held_after_gib": held(session)}


def repeat(session: Session) -> Iterator[dict[str, Any]]:
    """A task trained twice, and the same requests in another order: how far the results differ."""
    with pocket(session.device) as (model, sampler, task):
        served = TransformersEngine(with_same_weights(model), sampler.tokenizer.end_id, 4)
        adapter = attach(model, LoraSettings(rank=8), 0)
        weights = []
        for _ in range(2):
            finetune_task(adapter, sampler, task)
            weights.append(adapter.flat.detach().clone())
        requests = [Request(str(i), random_ids(model, 40 + i, i), 12) for i in range(8)]
        answers = [{one.id: (one.tokens, one.logprob) for one in served.generate(order)} for order in (requests, requests[::-1])]
        yield {
            "largest_difference_of_adapters": float((weights[0] - weights[1]).abs().max()),
            "equal_answers": sum(answers[0][key][0] == answers[1][key][0] for key in answers[0]),
            "of": len(requests),
            "largest_difference_of_logprobs": max(abs(answers[0][key][1] - answers[1][key][1]) for key in answers[0]),
        }


def fragments(session: Session) -> Iterator[dict[str, Any]]:
    """Memory that is reserved for samples of changing length, with fixed and with expandable segments; a process for each."""
    for setting in ("expandable_segments:False", "expandable_segments:True"):
        command = [sys.executable, __file__, "--parts", "lengths", "--device", str(session.device), "--out", os.devnull]
        environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": setting}
        process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=True)
        yield {"setting": setting, **json.loads(process.stdout.splitlines()[0])}


def lengths(session: Session) -> Iterator[dict[str, Any]]:
    """Training on samples of random lengths in this process; see `fragments`."""
    chance = random.Random(0)
    figures: dict[str, Any] = {}
    for _ in range(2 if session.tiny else 12):
        figures = training_peak(session, "0.5b", chance.randrange(256, 4096), False, release_after=False)
    yield figures | {"reserved_gib": round(torch.cuda.max_memory_reserved(session.device) / GIB, 2) if session.on_gpu else None}


def run(session: Session) -> Iterator[dict[str, Any]]:
    """A whole run of the pocket model on the device, one of whose workers is killed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "arc_submit.cli", "run", "--devices", str(session.device), "--out", str(out), "--tasks", "6"]
        command += ["--seed", "0", "--budget", "90s", "--sources", "frozen,ttft", "--ttft-steps", "20", "--pictures", "0", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        killed = kill_a_worker(process.pid, out)
        text = process.communicate(timeout=180)[0]
        events = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
        lost = [event["reason"] for event in events if event["event"] == "worker_lost"]
        figures = json.loads(text.splitlines()[-1])
    kept = {name: figures.get(name) for name in ("done", "failed", "seconds", "lost")}
    yield {"exit_code": process.returncode, "killed": killed, "workers_lost": lost, **kept}


PARTS: dict[str, Callable[[Session], Iterator[dict[str, Any]]]] = {
    "machine": machine,
    "losses": losses,
    "memory": memory,
    "engine": engine,
    "out_of_memory": out_of_memory,
    "fragments": fragments,
    "repeat": repeat,
    "run": run,
    "lengths": lengths,
}


# --- What the parts share --------------------------------------------------------------------------------------------------------------


@contextmanager
def pocket(device: torch.device, steps: int = 5, precision: TrainingPrecision | None = None) -> Iterator[tuple[Any, TaskSampler, Task]]:
    """The pocket model on a device, its sampler, and a task."""
    folder = pocket_folder()
    base = (precision or choose_training_precision(device)).base
    yield load_model(folder, device, base, "sdpa"), pocket_sampler(TTFTSettings(steps=steps, learning_rate=1e-3)), example_task()


def train_pocket(device: torch.device, steps: int, precision: TrainingPrecision | None) -> tuple[list[float], int]:
    """Losses of a fine-tuning, and the number of steps that the scaler skipped."""
    real_choice = trainer.choose_training_precision
    with pocket(device, steps, precision) as (model, sampler, task):
        adapter = attach(model, LoraSettings(rank=8), 0)
        try:
            if precision is not None:
                trainer.choose_training_precision = lambda *_: precision
            result = finetune_task(adapter, sampler, task)
        finally:
            trainer.choose_training_precision = real_choice
    return result.losses, result.skipped


def make_model(session: Session, name: str) -> Any:
    """A model of a shape with random weights, made on the device."""
    return make_random_model({**SHAPES[name].model.config, **(_TINY if session.tiny else {})}, session.device)


def training_peak(session: Session, name: str, tokens: int, checkpointing: bool, release_after: bool = True) -> dict[str, Any]:
    """Peak memory and milliseconds of three training steps on a sample of so many tokens, or that it does not fit."""
    tokens = min(tokens, 128) if session.tiny else tokens
    shape = SHAPES[name]
    lora = LoraSettings(rank=8 if session.tiny else shape.rank, targets=shape.targets)
    try:
        return measure_training(make_model(session, name), lora, tokens, checkpointing, 3, release_after)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return {"fits": False, "peak_gib": peak(session.device)}
    finally:
        if release_after:
            release(session.device)


@contextmanager
def limited_to(session: Session, gib: float) -> Iterator[None]:
    """Bound this process to the memory of a smaller card."""
    if not session.on_gpu:
        yield
        return
    total = torch.cuda.get_device_properties(session.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total), session.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, session.device)


def kill_a_worker(pid: int, out: Path) -> bool:
    """Kill a worker of a run once it has begun a job."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and psutil.pid_exists(pid):
        events = (out / "events.jsonl").read_text(encoding="utf-8") if (out / "events.jsonl").exists() else ""
        children = psutil.Process(pid).children() if "worker_begun" in events else []
        if children:
            os.kill(children[0].pid, signal.SIGKILL)
            return True
        time.sleep(0.1)
    return False


def held(session: Session) -> float | None:
    """GiB that tensors hold now; None on a CPU."""
    return round(torch.cuda.memory_allocated(session.device) / GIB, 3) if session.on_gpu else None


if __name__ == "__main__":
    main()
