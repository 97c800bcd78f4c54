"""Judging: a model is asked about candidate answers, with prompts that select, verify, or ask for the output itself.

A model that can tell a right answer from a wrong one finds among many predictions what votes do not. Two candidates are shown in both
orders, so that a liking for the first place cancels out; each question is asked under several views. Knows engines by their protocol
alone, and nothing about files or about what is made of the answers (judgements.py does).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task
from arc_submit.arc.views import View, choose_views
from arc_submit.ensemble.judgements import Judgement, Question
from arc_submit.inference.engine import Engine
from arc_submit.language.prompt_tokenizer import PromptTokenizer


def judge(
    engine: Engine,
    writer: PromptTokenizer,
    task: Task,
    test: int,
    candidates: Sequence[Grid],
    views: int,
    seed: int,
    max_seq_len: int,
    model: str,
    adapter: Path | None = None,
    weights: str = "",
    known: Callable[[Judgement], bool] | None = None,
) -> Iterator[Judgement]:
    """A model's word on every candidate, or on every two of them in both orders, under every view that has room for it.

    Args:
        writer: its prompt's kind is the question: "select", "verify", or "output", which asks for the probability of each candidate.
        candidates: different answers to the test input in the task's own frame.
        views: under how many views each question is asked; the same for the same task and seed.
        max_seq_len: tokens of a prompt with its answer; train pairs are left out until it fits, and a view where even one does not is
            left out for all candidates.
        model, weights: as in a Judgement; an engine does not know them.
        known: whether the answer to a question is there already; it is not asked again. Its value is not looked at.
    """
    kind = writer.prompt.kind
    question: Question = "select" if kind == "select" else "verify" if kind == "verify" else "product"
    shown = list(itertools.permutations(candidates, 2)) if question == "select" else [(grid,) for grid in candidates]
    identity = zlib.crc32(task.id.encode())
    for number, view in enumerate(choose_views(len(task.train), views, seed * 1_000_003 + identity)):
        seen = view.apply_task(task)
        rng = np.random.default_rng([seed, identity, number, test])
        blank = [Judgement(task.id, test, question, view.key, grids, 0.0, model, weights) for grids in shown]
        if known is not None:
            blank = [one for one in blank if not known(one)]
        if not blank:
            continue
        pairs = _fitting_pairs(writer, seen, test, [tuple(map(view.apply, grids)) for grids in shown], max_seq_len, rng)
        if pairs:
            asked = _ask_for_output if question == "product" else _ask
            for one, value in zip(blank, asked(engine, writer, seen, test, pairs, view, blank, adapter), strict=True):
                yield replace(one, value=value)


def _ask(
    engine: Engine,
    writer: PromptTokenizer,
    seen: Task,
    test: int,
    pairs: Sequence[int],
    view: View,
    asked: Sequence[Judgement],
    adapter: Path | None,
) -> Iterator[float]:
    """The log-odds of the first of the prompt's two answers against the second, for each question."""
    for one in asked:
        turns = writer.prompt.turns([seen.train[i] for i in pairs], seen.tests[test], [view.apply(grid) for grid in one.grids])
        samples = [writer.sample_ids(turns, answer) for answer in writer.prompt.answers]
        first, second = engine.score(samples[0][0][: samples[0][1]], [ids[start:] for ids, start in samples], adapter)
        yield first - second


def _ask_for_output(
    engine: Engine,
    writer: PromptTokenizer,
    seen: Task,
    test: int,
    pairs: Sequence[int],
    view: View,
    asked: Sequence[Judgement],
    adapter: Path | None,
) -> list[float]:
    """The log-probability of each candidate as the answer; the prompt is read once."""
    prompt = writer.prompt_ids(writer.prompt.turns([seen.train[i] for i in pairs], seen.tests[test]))
    return engine.score(prompt, [writer.answer_ids(view.apply(one.grids[0])) for one in asked], adapter)


def _fitting_pairs(
    writer: PromptTokenizer, seen: Task, test: int, shown: Sequence[tuple[Grid, ...]], max_seq_len: int, rng: np.random.Generator
) -> list[int]:
    """Train pairs, ascending, that fit with the longest of the questions and its answer; the same for all, so that answers compare."""
    kind, grid = writer.prompt.kind, seen.tests[test]

    def length(pairs: Sequence[int], grids: tuple[Grid, ...]) -> int:
        shown_pairs = [seen.train[k] for k in pairs]
        if kind == "output":
            return len(writer.prompt_ids(writer.prompt.turns(shown_pairs, grid))) + len(writer.answer_ids(grids[0]))
        turns = writer.prompt.turns(shown_pairs, grid, grids)
        return max(len(writer.sample_ids(turns, answer)[0]) for answer in writer.prompt.answers)

    longest = max(shown, key=lambda grids: length([], grids))
    kept: list[int] = []
    for i in rng.permutation(len(seen.train)).tolist():
        if length(sorted([*kept, i]), longest) <= max_seq_len:
            kept = sorted([*kept, i])
    return kept
