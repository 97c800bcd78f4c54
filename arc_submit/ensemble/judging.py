"""Judging: a model answers questions about candidates, with prompts that select, verify, or ask for the output itself.

A model that can tell a right answer from a wrong one finds right answers that few predictions gave. Two candidates are shown in both
orders, so that a preference for the first place cancels out; each question is repeated under several views. Knows engines by their protocol
alone. Does not know files, nor how scores are computed from judgements (judgements.py).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Pair, Task
from arc_submit.arc.views import choose_views
from arc_submit.ensemble.judgements import Judgement, Question
from arc_submit.inference.engine import Engine
from arc_submit.language.prompt_tokenizer import PromptTokenizer


@dataclass(frozen=True)
class Judge:
    """A model that judges candidates.

    Attributes:
        engine: runs the model.
        tokenizer: the kind of its prompt is the question: "select", "verify", or "output" for the probability of each candidate.
        model: the name of the model in its judgements.
        max_seq_len: tokens of a prompt with its answer.
        views: under how many views each question is repeated; the same views for the same task and seed.
        seed: of the views and of the order in which train pairs are tried.
        adapter: folder of a LoRA adapter; None is the base model alone.
        fingerprint: of the weights, see `Judgement`.
    """

    engine: Engine
    tokenizer: PromptTokenizer
    model: str
    max_seq_len: int
    views: int
    seed: int
    adapter: Path | None = None
    fingerprint: str = ""

    def ask(
        self, task: Task, test: int, candidates: Sequence[Grid], known: Callable[[Judgement], bool] = lambda judgement: False
    ) -> Iterator[Judgement]:
        """A judgement of every candidate, or of every ordered pair of candidates, under every view that has room for it.

        Train pairs are left out until a prompt fits; a view where not even one fits is left out for all candidates.

        Args:
            candidates: different answers to the test input, without a view.
            known: whether the answer to a question exists already, in which case it is skipped; the value of its argument is 0.
        """
        kind = self.tokenizer.prompt.kind
        question: Question = "select" if kind == "select" else "verify" if kind == "verify" else "product"
        groups = list(itertools.permutations(candidates, 2)) if question == "select" else [(grid,) for grid in candidates]
        task_seed = zlib.crc32(task.id.encode())
        for number, view in enumerate(choose_views(len(task.train), self.views, self.seed * 1_000_003 + task_seed)):
            blank = [Judgement(task.id, test, question, view.key, grids, 0.0, self.model, self.fingerprint) for grids in groups]
            blank = [judgement for judgement in blank if not known(judgement)]
            if not blank:
                continue
            seen = view.apply_task(task)
            rng = np.random.default_rng([self.seed, task_seed, number, test])
            # All groups decide which pairs fit, known ones too, so that a resumed judge shows the same pairs.
            train = self._fitting_pairs(seen, test, [tuple(map(view.apply, grids)) for grids in groups], rng)
            if train:
                values = self._values(train, seen.tests[test], [tuple(map(view.apply, judgement.grids)) for judgement in blank])
                for judgement, value in zip(blank, values, strict=True):
                    yield replace(judgement, value=value)

    def _values(self, train: Sequence[Pair], test: Grid, groups: Sequence[tuple[Grid, ...]]) -> Iterator[float]:
        """For each group of candidates the log-odds of the prompt's first answer against its second, or the candidate's log-probability."""
        prompt = self.tokenizer.prompt
        if prompt.kind == "output":  # one prompt for all candidates
            ids = self.tokenizer.prompt_ids(prompt.turns(train, test))
            yield from self.engine.score(ids, [self.tokenizer.answer_ids(grid) for (grid,) in groups], self.adapter)
            return
        for grids in groups:
            turns = prompt.turns(train, test, grids)
            samples = [self.tokenizer.sample_ids(turns, answer) for answer in prompt.answers]
            first, second = self.engine.score(samples[0][0][: samples[0][1]], [ids[start:] for ids, start in samples], self.adapter)
            yield first - second

    def _fitting_pairs(self, seen: Task, test: int, groups: Sequence[tuple[Grid, ...]], rng: np.random.Generator) -> list[Pair]:
        """Train pairs, in the order of the task, that fit with the longest question and its answer.

        All questions of a view show the same pairs, so that their values are comparable.
        """
        prompt, grid = self.tokenizer.prompt, seen.tests[test]

        def length(places: Sequence[int], grids: tuple[Grid, ...]) -> int:
            train = [seen.train[i] for i in places]
            if prompt.kind == "output":
                return len(self.tokenizer.prompt_ids(prompt.turns(train, grid))) + len(self.tokenizer.answer_ids(grids[0]))
            turns = prompt.turns(train, grid, grids)
            return max(len(self.tokenizer.sample_ids(turns, answer)[0]) for answer in prompt.answers)

        longest = max(groups, key=lambda grids: length([], grids))
        fitting: list[int] = []
        for i in rng.permutation(len(seen.train)).tolist():
            if length(sorted([*fitting, i]), longest) <= self.max_seq_len:
                fitting = sorted([*fitting, i])
        return [seen.train[i] for i in fitting]
