"""The painter as a writer and a learner of the rounds: programs for a task's picture, and fine-tuning on what they drew.

Does not know rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from arc_submit.arc.task import Task
from arc_submit.arc.views import identity_view, random_view
from arc_submit.errors import DataError
from arc_submit.programs.interface import WrittenProgram
from arc_submit.programs.painter.network import PainterNetwork
from arc_submit.programs.painter.sampling import sample_drawings
from arc_submit.programs.painter.shapes import parse_drawing, print_drawing
from arc_submit.programs.painter.tokens import from_slots, make_batch
from arc_submit.programs.painter.training import load_training, mean_loss, save_training
from arc_submit.programs.relabel import RelabelledTask

LEARNT = "learnt.safetensors"


class PainterWriter:
    """A Writer: programs for the output of the first train pair; other pairs and all inputs are not looked at."""

    def __init__(self, network: PainterNetwork, views: int = 1):
        self.network = network
        self.views = views

    def write(self, task: Task, count: int, temperature: float, seed: int) -> list[WrittenProgram]:
        """See Writer. With several views, the first is the picture as it is and the others are random."""
        rng = np.random.default_rng(seed)
        pairs = len(task.train)
        views = [identity_view(pairs), *(random_view(rng, pairs) for _ in range(min(self.views, count) - 1))]
        pictures = [view.apply(task.train[0].output) for view in views]
        self.network.eval()
        found: dict[int, WrittenProgram] = {}
        for size in dict.fromkeys(one.shape for one in pictures):
            places = [i for i in range(count) if pictures[i % len(views)].shape == size]
            shown = [pictures[i % len(views)] for i in places] if len(views) > 1 else pictures
            drawn = sample_drawings(self.network, shown, len(places), temperature, int(rng.integers(2**31)))
            for i, (slots, logprob) in zip(places, drawn, strict=True):
                view = i % len(views)
                found[i] = WrittenProgram(print_drawing(from_slots(slots)), logprob, views[view].key if view else "")
        return [found[i] for i in range(count)]


class PainterLearner:
    """A Learner (arc_submit.programs.rounds): all weights, AdamW whose moments last over the rounds."""

    def __init__(self, network: PainterNetwork, rate: float = 1e-3, batch: int = 4):
        self.network = network
        self.batch = batch
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)

    def __call__(self, relabelled: Sequence[RelabelledTask], seed: int) -> float:
        """Learn relabelled tasks in their order, `batch` at a time; returns the mean loss in nats a slot. Nothing here is random."""
        self.network.train()
        losses = []
        for first in range(0, len(relabelled), self.batch):
            part = relabelled[first : first + self.batch]
            drawings = [parse_drawing(one.ran.program.text) for one in part]
            loss = mean_loss(self.network, make_batch([one.task.train[0].output for one in part], drawings))
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def save(self, folder: Path) -> None:
        """Write weights and moments."""
        save_training(folder / LEARNT, self.network, self.optimizer, 0)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            DataError: where the file is missing or is of another network.
        """
        try:
            load_training(folder / LEARNT, self.network, self.optimizer)
        except (OSError, RuntimeError, KeyError, SafetensorError) as error:
            raise DataError(
                f"{folder / LEARNT}: cannot be read ({type(error).__name__}: {error}); delete the folder to begin anew"
            ) from None
