"""What a card takes and gives, measured in minutes on a competitor's own GPU and held against the memory plan and the costs.

`check_gpu` makes the table and the file that `arc-submit plan --measured` and `run --measured` take; benchmarks/gpu.py uses the parts.
Random tokens stand for tasks: time and memory do not depend on them. On a CPU the same calls run and show no memory. Does not know tasks,
budgets or how the figures are used (run/measured.py).
"""

from __future__ import annotations

import gc
import importlib.metadata
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from arc_submit.arc.files import write_json
from arc_submit.arc.grid import frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.checks import weight_files
from arc_submit.base_model.loading import choose_device, choose_dtype, load_model, load_tokenizer
from arc_submit.base_model.lora import attach, detach
from arc_submit.base_model.memory import GIB, Card, Footprint, ModelShape, read_shape, usable_bytes
from arc_submit.base_model.out_of_memory import is_out_of_memory
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.precision import choose_training_precision, repair_attention
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune import trainer
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.inference.engine import Request
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.prompt_config import read_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer

LEARNT = 900  # tokens of a sample that are in its loss: a large answer
PROMPT, ANSWER = 896, 128  # tokens of a request: of a thousand cells of a task about an eighth is the answer
_LENGTHS = (1024, 2048, 5120)  # of training samples
_STEPS = 4  # of a measurement; the first one compiles and allocates
_PACKAGES = ("torch", "transformers", "peft", "vllm", "flashinfer-python", "bitsandbytes", "numba")
# A process like a worker's, as far as the model.
_START = (
    "import sys; from pathlib import Path; from arc_submit.finetune import ttft_worker; "
    "from arc_submit.base_model.precision import choose_training_precision as choose; "
    "from arc_submit.base_model.loading import choose_device, load_model; device = choose_device(sys.argv[2]); "
    "load_model(Path(sys.argv[1]), device, choose(device).base, ttft_worker.ATTENTION); print('ready')"
)
_START_LIMIT = 900.0


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        lengths: tokens of training samples.
        prompt, answer: tokens of a request.
        slots: answers side by side, at most.
        steps: of a training measurement.
    """

    lengths: Sequence[int] = _LENGTHS
    prompt: int = PROMPT
    answer: int = ANSWER
    slots: int = 32
    steps: int = _STEPS


TINY = Sizes(lengths=(64,), prompt=24, answer=8, slots=4, steps=3)  # a rehearsal


def check_gpu(
    model: Path, device: str, out: Path, lora: LoraSettings, sizes: Sizes | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure a model on a device, print a table and write a file.

    Args:
        model: its folder.
        device: cuda:0, or cpu for a rehearsal.
        out: the JSON file.
        lora: of the adapter that is trained.
        sizes: None measures what a run does.
        say: takes a line for people.

    Raises:
        ArcSubmitError: where the model or the device cannot work.
    """
    where, sizes = choose_device(device), sizes or Sizes()
    figures: dict[str, Any] = {
        **machine_facts(where),
        "model": {"name": model.name, "parameters": sum(path.stat().st_size for path in weight_files(model)) / 2},
        "lora": asdict(lora),
    }
    say(f"{figures['card']}, {figures['gib'] or '-'} GiB: {figures['attention']}; {figures['training_precision']}")
    figures["start_seconds"] = start_seconds(model, device)
    say(f"a worker with {model.name} is ready after {figures['start_seconds']:.1f} s")
    loaded = load_model(model, where, choose_training_precision(where).base, ATTENTION)
    shape, old = read_shape(model), where.type == "cuda" and torch.cuda.get_device_capability(where) < (8, 0)
    tuned = None if shape is None else Footprint(shape, lora, old)
    room = usable_bytes(figures["gib"]) if figures["gib"] else None
    figures["training"] = []
    for tokens, checkpointing in planned_training(tuned, room, sizes):
        row = measure_training(loaded, lora, tokens, checkpointing, sizes.steps)
        if tuned is not None:
            row["planned_gib"] = _gib(tuned.training_peak(tokens, min(tokens - 1, LEARNT), checkpointing))
        figures["training"].append(row)
        say(training_line(row))
    figures["decoding"] = []
    for slots in dict.fromkeys((max(2, sizes.slots // 4), planned_slots(shape, old, room, sizes))):
        row = measure_decoding(loaded, slots, sizes.prompt, sizes.answer)
        if shape is not None:
            row["planned_gib"] = _gib(Footprint(shape, None, old).prediction_peak(slots, sizes.prompt + sizes.answer, False))
        figures["decoding"].append(row)
        say(decoding_line(row))
    write_json(out, figures)
    say(f"{out}: give it to arc-submit plan --measured and run --measured")
    return figures


def planned_training(tuned: Footprint | None, room: int | None, sizes: Sizes) -> list[tuple[int, bool]]:
    """Tokens and checkpointing of the trainings to measure: what fits by the plan; all where there is none."""
    both = [(tokens, again) for tokens in sizes.lengths for again in (False, True)]
    if tuned is None or room is None:
        return both
    return [(tokens, again) for tokens, again in both if tuned.training_peak(tokens, min(tokens - 1, LEARNT), again) <= room]


def planned_slots(shape: ModelShape | None, old: bool, room: int | None, sizes: Sizes) -> int:
    """The most slots that fit by the plan."""
    if shape is None or room is None:
        return sizes.slots
    return Card(room, Footprint(shape, None, old)).plan_slots(sizes.prompt + sizes.answer, sizes.slots, trains=False) or 2


def training_line(row: dict[str, Any]) -> str:
    """A row of the table for people."""
    kind = "with gradient checkpointing" if row["checkpointing"] else "plain"
    if not row["fits"]:
        return f"training on {row['tokens']} tokens, {kind}: out of memory"
    skipped = f", {row['skipped_steps']} of {row['steps']} steps skipped" if row["skipped_steps"] else ""
    return f"training on {row['tokens']} tokens, {kind}: {row['ms_a_step']:.0f} ms a step{_memory_words(row)}{skipped}"


def decoding_line(row: dict[str, Any]) -> str:
    """A row of the table for people."""
    if not row["fits"]:
        return f"{row['slots']} answers side by side: out of memory"
    rate = f"{row['ms_a_step']:.1f} ms a step, {row['tokens_a_second']:.0f} tokens a second"
    return f"{row['slots']} answers side by side to prompts of {row['prompt']} tokens: {rate}{_memory_words(row)}"


def _memory_words(row: dict[str, Any]) -> str:
    if row["peak_gib"] is None:
        return ""
    planned = f" ({row['planned_gib']:.2f} planned)" if "planned_gib" in row else ""
    return f", {row['peak_gib']:.2f} GiB at most{planned}"


# --- The parts ---------------------------------------------------------------------------------------------------------------------------


def machine_facts(device: torch.device) -> dict[str, Any]:
    """The card, versions and tools, and how attention and training work on it; on a CPU the card is "cpu" and has no GiB."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    card: dict[str, Any] = {"card": "cpu", "gib": None, "capability": None}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        card = {"card": properties.name, "gib": _gib(properties.total_memory), "capability": [properties.major, properties.minor]}
    return {
        **card,
        "versions": versions,
        "tools": {tool: bool(shutil.which(tool)) for tool in ("nvcc", "ninja", "gcc")},
        "attention": repair_attention(device),
        "training_precision": choose_training_precision(device).reason,
    }


def start_seconds(model: Path, device: str) -> float:
    """Seconds until a new process has loaded a model, libraries included.

    Raises:
        RuntimeError: with the last line of its output, where it fails.
    """
    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", _START, str(model), device], capture_output=True, text=True, timeout=_START_LIMIT, check=False
    )
    if process.returncode:
        raise RuntimeError(f"loading {model} in a process of its own: {(process.stderr.strip().splitlines() or ['no output'])[-1]}")
    return round(time.monotonic() - started, 1)


def measure_training(
    model: Any, lora: LoraSettings, tokens: int, checkpointing: bool, steps: int = _STEPS, release_after: bool = True
) -> dict[str, Any]:
    """Peak memory, milliseconds and skipped steps of training on a sample of so many tokens, or that it does not fit.

    Args:
        release_after: give back what the allocator keeps.
    """
    device = model.device
    row = {"tokens": tokens, "checkpointing": checkpointing, "steps": steps}
    sampler = pocket_sampler(TTFTSettings(steps=steps, learning_rate=1e-5, gradient_checkpointing=checkpointing))
    sample = Sample(random_ids(model, tokens, 1), list(range(tokens - min(tokens - 1, LEARNT), tokens)))
    reset_peak(device)
    adapter = attach(model, lora, 0)
    try:
        times = [time.monotonic()]
        hooks = trainer.Hooks(on_step=lambda *_: times.append(time.monotonic()))
        result = trainer.finetune_task(adapter, sampler, example_task(), hooks, trainer.JointSamples("one sample", lambda *_: [sample]))
        if any("out of memory" in note for note in result.notes):  # a step was repeated in another way than the one that is measured
            return {**row, "fits": False, "peak_gib": peak(device)}
        milliseconds = round(1000 * float(min(np.diff(times))), 2)
        return {**row, "fits": True, "peak_gib": peak(device), "ms_a_step": milliseconds, "skipped_steps": result.skipped}
    except trainer.FinetuneError:
        return {**row, "fits": False, "peak_gib": peak(device)}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {**row, "fits": False, "peak_gib": peak(device)}
    finally:
        detach(adapter)
        del adapter
        if release_after:
            release(device)


def measure_decoding(model: Any, slots: int, prompt: int, answer: int, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """Milliseconds of a step, tokens a second and peak memory of so many answers side by side, or that they do not fit.

    Args:
        clock: seconds.
    """
    device = model.device
    row = {"slots": slots, "prompt": prompt, "answer": answer}
    engine = TransformersEngine(model, 0, slots)
    ends = (model.config.vocab_size + 1,)  # none: every answer has its full length
    requests = [Request(str(number), random_ids(model, prompt, number), answer, end_ids=ends) for number in range(slots)]
    times: list[float] = []
    reset_peak(device)
    started = clock()
    try:
        made = sum(len(one.tokens) for one in engine.generate(requests, lambda: times.append(clock())))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {**row, "fits": False, "peak_gib": peak(device)}
    finally:
        del engine
        release(device)
    seconds = clock() - started
    steps = np.diff(times)[slots:] if len(times) > slots + 2 else np.diff(times)  # the first ones read prompts
    return {
        **row,
        "fits": True,
        "ms_a_step": round(1000 * float(np.median(steps)), 2),
        "tokens_a_second": round(made / seconds, 1),
        "ms_an_answer": round(1000 * seconds / slots, 2),
        "peak_gib": peak(device),
    }


def example_task() -> Task:
    """Small random grids whose output is the input mirrored."""
    chance = np.random.default_rng(0)
    grids = [chance.integers(0, 6, (6, 6)) for _ in range(4)]
    pairs = tuple(Pair(frozen(grid), frozen(grid[:, ::-1].copy())) for grid in grids[:3])
    return Task("mirrored", pairs, (frozen(grids[3]),))


def pocket_sampler(settings: TTFTSettings) -> TaskSampler:
    """A sampler with the pocket model's tokenizer."""
    asked = read_prompt_config(pocket_folder())
    assert asked is not None
    return TaskSampler(PromptTokenizer.from_config(load_tokenizer(pocket_folder()), asked), settings, asked.max_seq_len, 0)


def make_random_model(config: Mapping[str, Any], device: torch.device) -> Any:
    """A model of random weights by the values of its config.json, made on the device."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), trust_remote_code=False, dtype=choose_dtype(device)[0], attn_implementation="sdpa"
        )
    return model.eval().requires_grad_(False)


def random_ids(model: Any, length: int, seed: int) -> list[int]:
    """Token ids that a model has."""
    return np.random.default_rng(seed).integers(1, min(500, model.config.vocab_size), length).tolist()  # type: ignore[no-any-return]


def reset_peak(device: torch.device) -> None:
    """Count the peak of memory from now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float | None:
    """GiB at most since `reset_peak`; None on a CPU."""
    return _gib(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def release(device: torch.device) -> None:
    """Free what nothing refers to."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _gib(size: float) -> float:
    return round(size / GIB, 2)
