"""The project's own code on a simulated GPU, with models of any size; as a program, it holds the memory plan against whole models.

python tests/simulated_work.py              # the table of docs/experiments/2026-11-30-memory-plan.md, 4 minutes
python tests/simulated_work.py train        # a part of it: train, generate or score
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from simulated_device import NAME, Meter, simulated_device

from arc_submit.arc.task import Task
from arc_submit.base_model import output_head
from arc_submit.base_model.adapter_files import LowRank, applied
from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.lora import Adapter, attach
from arc_submit.base_model.memory import GIB, SIZES, Footprint, ModelShape
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune import trainer
from arc_submit.finetune.joint import joint_warmup
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import JointSamples, finetune_task
from arc_submit.inference import transformers_engine
from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Request
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.train.mixture import TokenSample
from arc_submit.train.step import Trainable, add_gradients, flat_gradient, take_step

T4, L4 = (7, 5), (8, 9)
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
ARC24 = LoraSettings(rank=128, alpha=64.0, rslora=True, targets=QKVO)


class _AtOnce:
    """An executor that runs what it is given in the caller's thread: the simulation counts one thread."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __enter__(self) -> _AtOnce:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args))
        return future


class _Lengths(TaskSampler):
    """Samples of one length, without a tokenizer."""

    def __post_init__(self) -> None:
        pass

    def check(self, task: Task) -> list[str]:
        return []


def _never(*args: Any, **kwargs: Any) -> bool:
    return False  # unlike a Mock it keeps no tensors


def _always(*args: Any) -> bool:
    return True


@contextlib.contextmanager
def gpu(capability: tuple[int, int] = L4, capacity: int | None = None) -> Iterator[Meter]:
    """A simulated GPU on which the project's code trains and predicts as on a real one of that capability."""
    old = capability < (8, 0)
    dtype = torch.float16 if old else torch.bfloat16
    precision = TrainingPrecision(dtype, dtype, old, "simulated")
    with contextlib.ExitStack() as stack:
        meter = stack.enter_context(simulated_device(capability, capacity))
        stack.enter_context(mock.patch.object(trainer, "choose_training_precision", return_value=precision))
        stack.enter_context(mock.patch.object(trainer, "ThreadPoolExecutor", _AtOnce))
        # It compares values, which are all 0 here: the output layer of these models is linear.
        stack.enter_context(mock.patch.object(output_head, "_is_linear", _always))
        if old:
            # As repair_attention does on such a GPU.
            from transformers.integrations import sdpa_attention

            stack.enter_context(mock.patch.object(sdpa_attention, "use_gqa_in_sdpa", _never))
        yield meter


def make_model(shape: ModelShape, meter: Meter, attention: str = "sdpa", dtype: torch.dtype | None = None) -> Any:
    """A model of that shape on the simulated device, in 16 bits unless a dtype is given."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**shape.config)
    dtype = dtype or (torch.float16 if meter.capability < (8, 0) else torch.bfloat16)
    with torch.device(NAME):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.tie_weights()
    meter.reset_peak()  # the output layer took room until it was tied
    return model.eval()


def train(adapter: Adapter, tokens: int, learnt: int, checkpointing: bool = False, steps: int = 1) -> None:
    """Fine-tune on samples of that length, the last tokens of which are learnt."""
    sampler = _Lengths(None, TTFTSettings(steps=steps, gradient_checkpointing=checkpointing), tokens, 0)  # type: ignore[arg-type]
    samples = JointSamples("x", lambda *_: [Sample([1] * tokens, list(range(tokens - learnt, tokens)))])
    finetune_task(adapter, sampler, Task("x", (), ()), None, samples)


def serve(model: Any, lora: LoraSettings | None) -> contextlib.AbstractContextManager[None]:
    """A context in which the model carries a trained adapter."""
    return applied(model, read_low_rank(Path(), model, lora) if lora else {})


def warm_up(adapter: Adapter, tokens: int, learnt: int, passes: int, steps: int = 1) -> None:
    """The joint warm-up on samples of two tasks, a number of passes in each step."""

    class _Fixed(_Lengths):
        def draw(self, task: Task, number: int) -> Sample:
            return Sample([1] * tokens, list(range(tokens - learnt, tokens)))

    sampler = _Fixed(None, TTFTSettings(steps=steps), tokens, 0)  # type: ignore[arg-type]
    joint_warmup(adapter, sampler, [Task("x", (), ()), Task("y", (), ())], passes)


def make_trainable(shape: ModelShape, meter: Meter, lora: LoraSettings | None) -> Trainable:
    """A model for base training: all of its weights in float32, or an adapter on 16 bits."""
    precision = trainer.choose_training_precision(torch.device(NAME))
    scaler = torch.amp.GradScaler(NAME, enabled=precision.scale)
    model = make_model(shape, meter, dtype=None if lora else torch.float32)
    if lora is not None:
        adapter = attach(model, lora, 0)
        assert adapter.flat.grad is not None
        return Trainable(model, adapter, [adapter.flat], adapter.flat.grad.view(-1), precision, scaler)
    parameters = list(model.parameters())
    return Trainable(model, None, parameters, flat_gradient(parameters), replace(precision, base=torch.float32), scaler)


def train_base(trainable: Trainable, optimizers: Sequence[torch.optim.Optimizer], tokens: int, learnt: int) -> None:
    """A step of base training on two samples, each a pass of its own."""
    mask = np.arange(tokens) >= tokens - learnt
    samples = [TokenSample(i, 0, 0, np.ones(tokens, np.int32), mask, tokens - learnt, 1, False) for i in range(2)]
    add_gradients(trainable, samples, 0.0, 2.0 * learnt, tokens)
    take_step(trainable, optimizers, 1.0)


def read_low_rank(folder: Path, model: Any, lora: LoraSettings = ARC24) -> dict[str, LowRank]:
    """What `read_adapter` gives for an adapter's folder."""
    layers = {name: layer for name, layer in model.named_modules() if name.rpartition(".")[2] in lora.targets}
    make = lambda *sizes: torch.zeros(sizes, dtype=model.dtype, device=model.device)  # noqa: E731
    sizes = {name: tuple(one.weight.shape) for name, one in layers.items()}
    sizes |= {name: sizes[name][::-1] for name, one in layers.items() if isinstance(one, torch.nn.Embedding)}
    return {name: LowRank(make(lora.rank, inputs), make(outputs, lora.rank), 1.0) for name, (outputs, inputs) in sizes.items()}


@contextlib.contextmanager
def folders_of(lora: LoraSettings) -> Iterator[None]:
    """A context in which every path names the folder of an adapter."""
    with (
        mock.patch.object(transformers_engine, "read_adapter", partial(read_low_rank, lora=lora)),
        mock.patch.object(transformers_engine, "check_adapter", _always),
    ):
        yield


def generate(
    model: Any,
    slots: int,
    lengths: tuple[int, int],
    search: bool = False,
    on_step: Callable[[], None] | None = None,
    adapters: Sequence[Path | None] = (None,),
) -> None:
    """Answer two requests with the slot engine, or search them depth-first.

    Args:
        lengths: tokens of the prompt and of the answer.
        on_step: called after every forward pass.
        adapters: of the requests in turn, see `folders_of`.
    """
    prompt, answer = lengths
    model.set_attn_implementation(ATTENTION)
    engine = TransformersEngine(model, model.config.vocab_size - 1, slots)
    asked = [Request(str(i), [2] * prompt, answer, adapter=adapters[i % len(adapters)]) for i in range(2)]
    limits = SearchLimits(0.1, max_steps=answer)
    done = search_completions(engine, asked, limits, on_step) if search else engine.generate(asked, on_step)
    assert len(list(done)) == (0 if search else 2)


def score(model: Any, slots: int, prompt: int, answer: int, answers: int) -> None:
    """Score answers of one length after one prompt."""
    model.set_attn_implementation(ATTENTION)
    engine = TransformersEngine(model, model.config.vocab_size - 1, slots)
    assert len(engine.score([2] * prompt, [[3] * answer] * answers)) == answers


def cut(size: str, layers: int) -> ModelShape:
    """The shape of a public model with fewer layers."""
    return replace(SIZES[size], layers=layers)


# Size, capability, adapter, tokens, with gradient checkpointing.
_TRAINED = [
    ("0.5B", T4, ARC24, 5120, False),
    ("1.5B", T4, ARC24, 3584, False),
    ("1.5B", T4, ARC24, 5120, False),
    ("1.5B", T4, ARC24, 5120, True),
    ("4B", L4, LoraSettings(rank=256, alpha=32.0, rslora=True), 2048, False),
    ("4B", L4, LoraSettings(rank=256, alpha=32.0, rslora=True), 5120, True),
    ("7B", L4, ARC24, 896, False),
    ("7B", L4, ARC24, 5120, True),
]


def main(parts: list[str]) -> None:
    """Print the table."""
    print(
        "| work | model, card | tokens | simulated GiB | planned GiB | launches | synchronizations |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for size, capability, lora, tokens, checkpointing in _TRAINED:
        learnt = min(900, tokens * 2 // 3)
        footprint, card = Footprint(SIZES[size], lora, capability == T4), "T4" if capability == T4 else "L4"

        def row(work: str, tokens: str, meter: Meter, planned: int, steps: int, name: str = f"{size}, {card}") -> None:
            counts = f"{meter.launches.total() // steps:,} | {meter.syncs.total() / steps:g}"
            print(f"| {work} | {name} | {tokens} | {meter.peak / GIB:.2f} | {planned / GIB:.2f} | {counts} |", flush=True)

        if "train" in parts:
            with gpu(capability) as meter:
                adapter = attach(make_model(SIZES[size], meter), lora, 0)
                meter.reset_peak()
                train(adapter, tokens, learnt, checkpointing, steps=2)
                work = "training step, checkpointed" if checkpointing else "training step"
                row(work, f"{tokens:,}", meter, footprint.training_peak(tokens, learnt, checkpointing), 2)
        if checkpointing and "generate" in parts:
            with gpu(capability) as meter:
                model = make_model(SIZES[size], meter)
                with serve(model, lora):
                    generate(model, 16, (tokens, 2))
                row(
                    "prediction, 16 slots (two prompts, a step)",
                    f"{tokens:,} + 2",
                    meter,
                    footprint.prediction_peak(16, tokens + 2, False),
                    1,
                )
        if checkpointing and "score" in parts:
            with gpu(capability) as meter:
                model = make_model(SIZES[size], meter)
                with serve(model, lora):
                    score(model, 4, tokens - 900, 900, 4)
                row("scoring, 4 answers", f"{tokens - 900:,} + 900", meter, footprint.scoring_peak(4, tokens - 900, 900, False), 1)


if __name__ == "__main__":
    main(sys.argv[1:] or ["train", "generate", "score"])
