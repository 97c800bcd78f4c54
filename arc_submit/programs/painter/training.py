"""Trains the painter's network from random weights on random drawings: `python -m arc_submit.programs.painter.training --out FOLDER`.

Each step draws its own samples from the seed and its number, so that a training goes on from its last checkpoint as if it had never
stopped. Does not know tasks or rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from arc_submit.arc.grid import MAX_SIDE
from arc_submit.base_model.cpu import use_cpu
from arc_submit.errors import DataError
from arc_submit.programs.painter.drawings import random_drawing
from arc_submit.programs.painter.network import PainterNetwork, Size
from arc_submit.programs.painter.shapes import draw
from arc_submit.programs.painter.tokens import Batch, make_batch

SMALLEST_SIDE = 4
_SMALL_SIDE = 14
# Shares of steps on small grids, which are cheap and show the same neighbourhoods, and on any grids; the others are of the full size.
_SMALL, _ANY = 0.7, 0.2
_CONSTANT = 0.75  # of the steps; over the others the learning rate falls to 0
_WARM_UP = 100
SAVED = 100  # steps between two checkpoints


def training_batch(seed: int, step: int, samples: int) -> Batch:
    """Random drawings of 1 to 5 shapes on grids of one random size."""
    rng = np.random.default_rng([seed, step])
    kind = rng.random()
    height, width = map(int, rng.integers(SMALLEST_SIDE, (_SMALL_SIDE if kind < _SMALL else MAX_SIDE) + 1, size=2))
    if kind > _SMALL + _ANY:
        height = width = MAX_SIDE
    drawings = [random_drawing(rng, height, width) for _ in range(samples)]
    return make_batch([draw(one, height, width) for one in drawings], drawings)


def mean_loss(network: PainterNetwork, batch: Batch) -> Tensor:
    """Mean negative log-probability of a drawing's slots, in nats a slot; the end of a drawing counts as a slot."""
    logprobs = network.log_probabilities(torch.from_numpy(batch.pictures), torch.from_numpy(batch.slots), torch.from_numpy(batch.lengths))
    # A kind has four to six slots; the count of a slot that is certain is not worth an exact division.
    return -logprobs.sum() / (logprobs != 0).sum()


def train(out: Path, steps: int, samples: int, rate: float, seed: int) -> None:
    """Train for `steps` steps, or go on with a training that was stopped; a checkpoint every SAVED steps."""
    torch.manual_seed(seed)
    network = PainterNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    out.mkdir(parents=True, exist_ok=True)
    state = out / "training_state.safetensors"
    log = out / "training_log.jsonl"
    first = 0
    if state.exists():
        first = load_training(state, network, optimizer)
    print(f"{sum(one.numel() for one in network.parameters()):,} weights, from step {first}", flush=True)
    total, counted, begun = 0.0, 0, time.monotonic()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / _WARM_UP, (steps - step) / (steps * (1 - _CONSTANT)))
        loss = mean_loss(network, training_batch(seed, step, samples))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        total, counted = total + loss.item(), counted + 1
        if (step + 1) % 50 == 0:
            line = {"step": step + 1, "loss": round(total / counted, 4), "seconds": round(time.monotonic() - begun, 1)}
            print(line, flush=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            total, counted = 0.0, 0
        if (step + 1) % SAVED == 0 or step + 1 == steps:
            save_training(state, network, optimizer, step + 1)
            save_network(network, out)


def save_training(path: Path, network: PainterNetwork, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write weights, moments and the number of steps done, all or nothing."""
    tensors = {f"weights.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = torch.as_tensor(value)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {"step": str(step)})
    partial.replace(path)


def load_training(path: Path, network: PainterNetwork, optimizer: torch.optim.Optimizer) -> int:
    """Read what `save_training` wrote; returns the steps done."""
    tensors = load_file(path)
    network.load_state_dict({name.removeprefix("weights."): value for name, value in tensors.items() if name.startswith("weights.")})
    for name, parameter in network.named_parameters():
        keys = ("step", "exp_avg", "exp_avg_sq")
        if f"exp_avg.{name}" in tensors:
            optimizer.state[parameter] = {key: tensors[f"{key}.{name}"] for key in keys}
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def save_network(network: PainterNetwork, folder: Path) -> None:
    """Write weights as float16 and the network's size."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(network.size)) + "\n", encoding="utf-8")
    partial = folder / "model.partial"
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, partial)
    partial.replace(folder / "model.safetensors")


def load_network(folder: Path) -> PainterNetwork:
    """The network of a folder, in float32.

    Raises:
        DataError: where the folder has no network of this kind.
    """
    try:
        network = PainterNetwork(Size(**json.loads((folder / "config.json").read_text(encoding="utf-8"))))
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{folder}: no painter ({reason}); give a folder that arc_submit.programs.painter.training made") from None
    return network


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m arc_submit.programs.painter.training", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--steps", type=int, default=2400, help="(%(default)s)")
    parser.add_argument("--samples", type=int, default=32, help="of a step (%(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_cpu(1)
    train(args.out, args.steps, args.samples, args.rate, args.seed)
