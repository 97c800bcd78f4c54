"""Judging: a model answers questions about candidates, with prompts that select, verify, or ask for the output itself.

A model that can tell a right answer from a wrong one finds right answers that few predictions gave. Two candidates are shown in both
orders, so that a preference for the first place cancels out; each question is repeated under several views (questions.py). Knows engines by
their protocol alone. Does not know files, nor how scores are computed from judgements (judgements.py).
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
from arc_submit.ensemble.judgements import Judgement
from arc_submit.ensemble.questions import Asking, OpenQuestions
from arc_submit.inference.engine import Engine, OnStep
from arc_submit.language.prompt_tokenizer import PromptTokenizer


@dataclass(frozen=True)
class Judge:
    """A model that judges candidates.

    Attributes:
        engine: runs the model.
        tokenizer: the kind of its prompt is the question: "select", "verify", or "output" for the probability of each candidate.
        max_seq_len: tokens of a prompt with its answer.
        asking: what is asked.
        adapter: folder of a LoRA adapter; None is the base model alone.
        on_step: called after every forward pass.
    """

    engine: Engine
    tokenizer: PromptTokenizer
    max_seq_len: int
    asking: Asking
    adapter: Path | None = None
    on_step: OnStep = None

    def ask(
        self, task: Task, test: int, candidates: Sequence[Grid], known: Callable[[Judgement], bool] = lambda judgement: False
    ) -> Iterator[Judgement]:
        """The answers to all open questions about the candidates of an output; see `Asking.open_questions` and `answer`."""
        for questions in self.asking.open_questions(task, test, candidates, known):
            yield from self.answer(task, questions)

    def answer(self, task: Task, questions: OpenQuestions) -> list[Judgement]:
        """The answers to the open questions under one view; none where the view has no room for a single train pair.

        Train pairs are left out until the longest question of the view fits.

        Raises:
            ScoringMemoryError: where memory does not suffice for a single question.
            ConfigError: where the engine cannot answer.
        """
        view, test = questions.view, questions.test
        seen = view.apply_task(task)
        rng = np.random.default_rng([self.asking.seed, zlib.crc32(task.id.encode()), questions.number, test])
        # All groups decide which pairs fit, answered ones too, so that a resumed judge shows the same pairs.
        train = self._fitting_pairs(seen, test, [tuple(map(view.apply, grids)) for grids in questions.groups], rng)
        if not train:
            return []
        values = self._values(train, seen.tests[test], [tuple(map(view.apply, judgement.grids)) for judgement in questions.blank])
        return [replace(judgement, value=value) for judgement, value in zip(questions.blank, values, strict=True)]

    def _values(self, train: Sequence[Pair], test: Grid, groups: Sequence[tuple[Grid, ...]]) -> list[float]:
        """For each group of candidates the log-odds of the prompt's first answer against its second, or the candidate's log-probability.

        What the prompts of all groups begin with is read once.
        """
        prompt, score = self.tokenizer.prompt, self.engine.score
        if prompt.kind == "output":  # one prompt for all candidates
            ids = self.tokenizer.prompt_ids(prompt.turns(train, test))
            return score(ids, [self.tokenizer.answer_ids(grid) for (grid,) in groups], self.adapter, on_step=self.on_step)
        samples = [self.tokenizer.sample_ids(prompt.turns(train, test, grids), answer) for grids in groups for answer in prompt.answers]
        prompts = [ids[:start] for ids, start in samples]
        common = sum(1 for _ in itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False)))
        shared = prompts[0][:common]
        given = [start - common for _, start in samples]
        scores = score(shared, [ids[common:] for ids, _ in samples], self.adapter, given, self.on_step)
        return [first - second for first, second in zip(scores[::2], scores[1::2], strict=True)]

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
