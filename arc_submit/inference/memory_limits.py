"""The memory plan of a worker on a GPU: how many slots, and how long a prompt, a task gets.

The answer is a function of the card, the model and the task alone, so a resumed run, or another order of tasks, decides the same, unless
other processes hold the card's memory. On a CPU there is no plan, and the settings hold. `arc-submit plan` shows the same decisions before
a run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from arc_submit.arc.task import Task
from arc_submit.base_model.device_memory import available_bytes, planned_bytes
from arc_submit.base_model.memory import GIB, Card, Footprint, TrainingPlan, read_shape
from arc_submit.base_model.settings import LoraSettings
from arc_submit.inference.settings import PredictSettings
from arc_submit.language.lengths import Words, lengths_of, words_of
from arc_submit.language.prompt_tokenizer import PromptTokenizer


@dataclass(frozen=True)
class MemoryLimits:
    """What fits on a worker's card.

    Attributes:
        card: with the model on it.
        words: of the model's prompts.
        trains: the worker fine-tunes too.
    """

    card: Card
    words: Words
    trains: bool

    def of_prediction(self, task: Task, max_seq_len: int, slots: int, scored: bool) -> tuple[int, int]:
        """The slots for a task, at most `slots`, and the limit of its prompts with their answers, at most max_seq_len.

        Args:
            scored: answers are scored under other views.
        """
        lengths = lengths_of(task, self.words, max_seq_len, max_seq_len)
        chosen = self.card.plan_slots(lengths.request, slots, self.trains, lengths.answer if scored else 0)
        if chosen:
            return chosen, max_seq_len
        # Not even two fit: prompts with fewer train pairs. Where none fits, the first try says so.
        return 2, self.card.longest_request(lengths.request, self.trains) or max_seq_len

    def longest(self, tasks: Sequence[Task]) -> Task:
        """The task with the longest sample."""
        return max(tasks, key=lambda task: lengths_of(task, self.words, sys.maxsize, sys.maxsize).sample)

    def of_training(self, task: Task, max_seq_len: int, rows: int, checkpointing: bool) -> TrainingPlan:
        """How a task is fine-tuned on samples of up to max_seq_len tokens, `rows` of them in a pass."""
        return self.card.plan_training(lengths_of(task, self.words, max_seq_len, max_seq_len).sample, rows, checkpointing)


def find_memory_limits(
    settings: PredictSettings,
    device: torch.device,
    tokenizer: PromptTokenizer,
    lora: LoraSettings | None,
    trains: bool = False,
    held: int = 0,
) -> MemoryLimits | None:
    """The limits on a GPU; None on a CPU, and for layers that the formulas do not hold for.

    Args:
        settings: which model, and how many workers share the device.
        lora: of the adapter that is trained or served; None for the base alone.
        held: bytes that another engine of this process holds.
    """
    if device.type != "cuda":
        return None
    shape = read_shape(Path(settings.model))
    if shape is None:
        print("memory plan: none, its formulas do not hold for this model's layers or weights", flush=True)
        return None
    card = torch.cuda.get_device_properties(device)
    room = planned_bytes(device, settings.workers_per_device)
    available = available_bytes(device)
    # What other processes hold in spite of the wait for it is left out; the plan is then another than on a free card.
    taken = "" if available >= room else f", of which other processes leave {available / GIB:.2f}"
    beside = f"; its serving engine holds {held / GIB:.2f} of them" if held else ""
    print(f"memory plan: {room / GIB:.2f} of {card.total_memory / GIB:.2f} GiB for the tensors of this worker{taken}{beside}", flush=True)
    room = int((min(room, available) - held) / settings.memory_factor)
    return MemoryLimits(Card(room, Footprint(shape, lora, card.major < 8)), words_of(tokenizer), trains)
