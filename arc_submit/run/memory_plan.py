"""The memory plan of a run: for each task, what its fine-tuning and its predictions take on a card, and how a worker will do them.

Workers decide by the same functions (base_model/memory.py) from the same lengths (language/lengths.py), so a resumed run decides the same.
Does not know grids beyond their shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arc_submit.arc.task import Task
from arc_submit.base_model.memory import GIB, SHORTEST_SAMPLE, Card, Footprint, ModelShape, TrainingPlan, usable_bytes
from arc_submit.inference.settings import VLLM_SHARE_BESIDE_TRAINING
from arc_submit.language.lengths import TaskLengths, Words, lengths_of
from arc_submit.run.config import RunConfig
from arc_submit.run.measured import memory_factor


def least_bytes(footprint: Footprint, tunes: bool, trains: bool = True) -> int:
    """The bytes without which a model is of no use: two short prompts side by side, and fine-tuning on the shortest samples.

    Args:
        tunes: the run fine-tunes.
        trains: the same worker then predicts.
    """
    predicted = footprint.prediction_peak(2, SHORTEST_SAMPLE, tunes and trains)
    return max(predicted, footprint.training_peak(SHORTEST_SAMPLE, SHORTEST_SAMPLE, True) if tunes else 0)


@dataclass(frozen=True)
class TaskPlan:
    """What a card does with one task.

    Attributes:
        lengths: of the task, within the run's limits.
        training: None where the run does not fine-tune.
        slots: answers side by side; 0 where not even two prompts fit.
        request: tokens of the longest prompt with its answer that is asked.
        training_peak, prediction_peak: bytes.
    """

    lengths: TaskLengths
    training: TrainingPlan | None
    slots: int
    request: int
    training_peak: int
    prediction_peak: int

    @property
    def trained(self) -> str:
        """plain, checkpointed, shortened or not."""
        if self.training is None or self.training.tokens < min(SHORTEST_SAMPLE, self.lengths.sample):
            return "not"
        if self.training.tokens < self.lengths.sample:
            return "shortened"
        return "checkpointed" if self.training.checkpointing else "plain"


@dataclass(frozen=True)
class MemoryPlan:
    """The plan of all tasks.

    Attributes:
        card: name and GiB.
        room: bytes that tensors may take.
        resident: bytes that stay beside any work.
    """

    card: tuple[str, float]
    room: int
    resident: int
    tasks: tuple[TaskPlan, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Tasks by how they are trained and answered."""
        trained = Counter(task.trained for task in self.tasks)
        limited = sum(task.lengths.needed > task.lengths.request for task in self.tasks)
        return {
            **{f"trained_{kind}": trained[kind] for kind in ("plain", "checkpointed", "shortened", "not")},
            "all_slots": sum(task.slots == max(one.slots for one in self.tasks) for task in self.tasks),
            "fewer_slots": sum(0 < task.slots < max(one.slots for one in self.tasks) for task in self.tasks),
            "shorter_prompts": sum(0 < task.request < task.lengths.request for task in self.tasks),
            "not_answered": sum(task.slots == 0 and task.request == 0 for task in self.tasks),
            "over_the_limit": limited,
        }


def plan_memory(config: RunConfig, shape: ModelShape, card: tuple[str, float], tasks: Iterable[Task], words: Words) -> MemoryPlan:
    """Plan the memory of each task.

    Args:
        card: name and GiB.
        words: of the model's prompts.
    """
    tunes = "ttft" in config.sources
    footprint = Footprint(shape, config.lora if tunes else None, card[0] == "t4")
    room = int(usable_bytes(card[1]) / memory_factor(config.measured))
    limit = config.max_seq_len or 32768
    plans = [
        plan_task(Card(room, footprint), config, lengths_of(task, words, limit, config.ttft_max_seq_len or limit), tunes) for task in tasks
    ]
    return MemoryPlan(card, room, footprint.resident if tunes else shape.weights, tuple(plans))


def plan_learning(config: RunConfig, shape: ModelShape, card: tuple[str, float]) -> TrainingPlan:
    """How the source code learns from its programs, each with its question as long as the run allows."""
    taken = VLLM_SHARE_BESIDE_TRAINING * card[1] * GIB if config.engine == "vllm" else 0.0
    room = int((usable_bytes(card[1]) - taken) / memory_factor(config.measured))
    return Card(room, Footprint(shape, config.lora, card[0] == "t4")).plan_training(config.max_seq_len or 32768, 1, False)


def plan_task(card: Card, config: RunConfig, lengths: TaskLengths, tunes: bool) -> TaskPlan:
    """The plan of one task."""
    trains = tunes and config.ttft_engine == "transformers"
    rows, training, peak = config.ttft.batch_size, None, 0
    if tunes:
        training = card.plan_training(lengths.sample, rows, config.ttft.gradient_checkpointing)
        tokens = training.rows * training.tokens
        peak = card.footprint.training_peak(tokens, tokens, training.checkpointing)
    candidates = config.ttft_candidates if tunes else config.candidates
    answer = lengths.answer if candidates == "dfs" else 0
    request = lengths.request
    slots = card.plan_slots(request, config.max_concurrent, trains, answer)
    if not slots:
        request = card.longest_request(lengths.request, trains)
        slots = 2 if request else 0
    predicted = card.footprint.prediction_peak(max(slots, 2), request or lengths.request, trains)
    return TaskPlan(lengths, training, slots, request, peak, predicted)


def text_of(plan: MemoryPlan) -> list[str]:
    """Lines for people."""
    name, gib = plan.card
    total = len(plan.tasks)
    counts = plan.counts
    lines = [
        f"card {name}: {gib:g} GiB, of which {plan.room / GIB:.2f} are planned with "
        f"(a margin of 0.6 GiB and 3 % is left{_measured_words(plan)})",
        f"resident beside any work: {plan.resident / GIB:.2f} GiB",
        f"tasks {total}: trained as they are {counts['trained_plain']}, with gradient checkpointing {counts['trained_checkpointed']}, "
        f"on shortened samples {counts['trained_shortened']}, not {counts['trained_not']}",
        f"answered with {_most(plan.tasks)} slots {counts['all_slots']}, with fewer {counts['fewer_slots']}, "
        f"of these on shortened prompts {counts['shorter_prompts']}, not at all {counts['not_answered']}",
        f"tasks whose longest prompt exceeds --max-seq-len, so that train pairs are left out: {counts['over_the_limit']}",
    ]
    for slots, number in sorted(Counter(task.slots for task in plan.tasks).items(), reverse=True):
        longest = max(task.request for task in plan.tasks if task.slots == slots)
        lines.append(f"  {slots:3} slots: {number:4} tasks, prompts with answers of up to {longest} tokens")
    refused = [task for task in plan.tasks if task.trained == "not" and task.training is not None]
    if refused:
        need = min(task.training_peak for task in refused) / GIB
        lines.append(f"not trained, at least {need:.1f} GiB are needed: {', '.join(task.lengths.task for task in refused[:20])}")
    return lines


def _measured_words(plan: MemoryPlan) -> str:
    factor = usable_bytes(plan.card[1]) / plan.room
    return "" if abs(factor - 1) < 1e-3 else f"; what is planned takes {factor:.3g} times as much, as measured"


def _most(tasks: Sequence[TaskPlan]) -> int:
    return max((task.slots for task in tasks), default=0)
