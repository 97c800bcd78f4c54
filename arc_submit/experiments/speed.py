"""The experiment speed: how long a training step and an answer take, by the tokens of input and of output, and a linear fit.

Random tokens stand for tasks: the time does not depend on them. A time is the shortest of a few, because other work can only lengthen it.
On one thread of a CPU it is the time of that thread's processor, on other devices that of the clock.
Does not know tasks or runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.arc.files import append_lines, read_json_lines
from arc_submit.base_model.checks import files_fingerprint
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.experiments.frame import add_out
from arc_submit.experiments.results import Line, Panel, text_table, write_results
from arc_submit.storage.run_dir import open_run

KINDS = ("training", "inference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the experiment."""
    add_out(parser)
    add = parser.add_argument
    add("--model", type=Path, default=pocket_folder(), help="folder of the base model (default: the pocket model)")
    add("--device", default="cpu", help="cpu, or a GPU such as cuda:0 (%(default)s)")
    add("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    add("--lora-rank", type=int, default=32, help="rank of the adapter that is trained (%(default)s)")
    add("--inputs", type=int, nargs="+", default=[128, 256, 512, 1024], metavar="N", help="tokens of a prompt (%(default)s)")
    add("--outputs", type=int, nargs="+", default=[32, 128, 256], metavar="N", help="tokens of an answer (%(default)s)")
    add("--slots", type=int, default=8, help="answers side by side; an answer's time is its share (%(default)s)")
    add("--steps", type=int, default=4, help="training steps at each point; the first is not counted (%(default)s)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure what has not been measured, and make the table and the picture; returns figures."""
    if min(*args.inputs, *args.outputs, args.threads, args.lora_rank) < 1:
        raise ConfigError("--inputs, --outputs, --threads and --lora-rank: at least 1 is needed")
    if min(args.steps, args.slots) < 2:
        raise ConfigError("--steps and --slots: at least 2 are needed")
    settings = {name: getattr(args, name) for name in ("device", "threads", "lora_rank", "slots")}
    with open_run(args.out, {"command": "experiment speed", "model": files_fingerprint(args.model), **settings}):
        points = [(i, o) for i in sorted(set(args.inputs)) for o in sorted(set(args.outputs))]
        seconds = measure_all(args.out / "measured.jsonl", points, lambda: _make_measure(args))
        lines = [["input", "output", "s a step", "samples/s", "tokens/s", "s an answer", "output tokens/s"]]
        for i, o in points:
            step, answer = seconds["training", i, o], seconds["inference", i, o]
            lines.append([str(i), str(o), f"{step:.4f}", f"{1 / step:.2f}", f"{(i + o) / step:.0f}", f"{answer:.4f}", f"{o / answer:.0f}"])
        text = [text_table(lines)]
        fits: dict[str, Any] = {}
        for kind in KINDS:
            fits[kind] = fit = linear_fit(points, [seconds[kind, i, o] for i, o in points])
            text.append(f"{kind}: {fit_text(fit)}")
        panels = [
            Panel("input tokens", f"{kind}, s a sample", [_line(seconds, kind, points, o) for o in sorted(set(args.outputs))])
            for kind in KINDS
        ]
        rows = [{"input": i, "output": o, **{kind: seconds[kind, i, o] for kind in KINDS}} for i, o in points]
        return write_results(args.out, "\n".join(text), panels, {"rows": rows, "fits": fits})


Measure = Callable[[str, int, int], float]


def measure_all(path: Path, points: Sequence[tuple[int, int]], make: Callable[[], Measure]) -> dict[tuple[str, int, int], float]:
    """Seconds by (kind, input, output); what the file holds is not measured again.

    Args:
        make: called where something is to be measured.
    """
    lines = read_json_lines(path) if path.exists() else []
    seconds = {(line["kind"], line["input"], line["output"]): float(line["seconds"]) for line in lines}
    missing = [(kind, i, o) for i, o in points for kind in KINDS if (kind, i, o) not in seconds]
    measure = make() if missing else None
    for kind, i, o in missing:
        assert measure is not None
        seconds[kind, i, o] = measure(kind, i, o)
        append_lines(path, json.dumps({"kind": kind, "input": i, "output": o, "seconds": seconds[kind, i, o]}) + "\n")
        print(f"{kind}, {i} tokens of input and {o} of output: {seconds[kind, i, o]:.4f} s", flush=True)
    return seconds


def _make_measure(args: argparse.Namespace) -> Measure:
    """Load the model; returns what measures a kind at a point."""
    from arc_submit.base_model.attention import ATTENTION
    from arc_submit.base_model.checks import check_model_folder
    from arc_submit.base_model.cpu import use_cpu
    from arc_submit.base_model.loading import choose_device, load_model
    from arc_submit.base_model.precision import choose_training_precision
    from arc_submit.finetune.gpu_check import measure_decoding

    check_model_folder(args.model)
    use_cpu(args.threads)
    device = choose_device(args.device)
    model = load_model(args.model, device, choose_training_precision(device).base, ATTENTION)
    lora = LoraSettings(rank=args.lora_rank)
    clock = time.process_time if device.type == "cpu" and args.threads == 1 else time.monotonic

    def measure(kind: str, inputs: int, outputs: int) -> float:
        if kind == "training":
            return time_of_step(model, lora, (inputs, outputs), args.steps, clock)
        answers = [measure_decoding(model, args.slots, inputs, outputs, clock) for _ in range(2)]
        if not all(one["fits"] for one in answers):
            raise ConfigError(f"--inputs {inputs} --outputs {outputs}: out of memory at an answer; leave it out")
        return float(min(one["ms_an_answer"] for one in answers)) / 1000

    return measure


def time_of_step(model: Any, lora: LoraSettings, tokens: tuple[int, int], steps: int, clock: Callable[[], float]) -> float:
    """Seconds of the fastest step but the first, each on one sample with its answer in the loss.

    Args:
        tokens: of input and of output.
        clock: seconds.

    Raises:
        ConfigError: where memory does not suffice.
    """
    from arc_submit.base_model.lora import attach, detach
    from arc_submit.finetune import trainer
    from arc_submit.finetune.gpu_check import example_task, pocket_sampler, random_ids
    from arc_submit.finetune.samples import Sample
    from arc_submit.finetune.settings import TTFTSettings

    inputs, outputs = tokens
    sample = Sample(random_ids(model, inputs + outputs, 1), list(range(inputs, inputs + outputs)))
    sampler = replace(pocket_sampler(TTFTSettings(steps=steps, learning_rate=1e-5)), max_seq_len=inputs + outputs)
    sampler = replace(sampler, max_seq_len=max(sampler.max_seq_len, 512))  # the example task has to fit
    times: list[float] = []
    adapter = attach(model, lora, 0)
    try:
        hooks = trainer.Hooks(on_step=lambda *_: times.append(clock()))
        result = trainer.finetune_task(adapter, sampler, example_task(), hooks, trainer.JointSamples("one sample", lambda *_: [sample]))
    except trainer.FinetuneError as error:
        raise ConfigError(f"--inputs {inputs} --outputs {outputs}: {error}") from None
    finally:
        detach(adapter)
    if any("out of memory" in note for note in result.notes):
        raise ConfigError(f"--inputs {inputs} --outputs {outputs}: out of memory at a plain training step; leave it out")
    return float(min(np.diff(times)))


def linear_fit(points: Sequence[tuple[int, int]], seconds: Sequence[float]) -> dict[str, float]:
    """Least squares of seconds = fixed + input * tokens of input + output * tokens of output, and R squared.

    With fewer than three points that differ, the parts cannot be told apart; all are then the solution of least norm.
    """
    y = np.array(seconds)
    columns = np.array([[1.0, i, o] for i, o in points])
    solution = np.linalg.lstsq(columns, y, rcond=None)[0]
    spread = float(((y - y.mean()) ** 2).sum())
    left = float(((y - columns @ solution) ** 2).sum())
    return {**dict(zip(("fixed", "input", "output"), map(float, solution), strict=True)), "r2": 1 - left / spread if spread else 1.0}


def fit_text(fit: dict[str, float]) -> str:
    """The fit as a sentence."""
    ratio = f", {fit['output'] / fit['input']:.1f} times that" if fit["input"] > 0 else ""
    return (
        f"{1000 * fit['fixed']:.1f} ms, and {1e6 * fit['input']:.0f} us for each token of input and {1e6 * fit['output']:.0f} us of output"
        f"{ratio}; R2 {fit['r2']:.3f}"
    )


def _line(seconds: dict[tuple[str, int, int], float], kind: str, points: Sequence[tuple[int, int]], output: int) -> Line:
    return Line(f"{output} tokens of output", [(float(i), seconds[kind, i, o], None) for i, o in points if o == output])
