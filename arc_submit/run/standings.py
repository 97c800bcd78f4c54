"""How the tasks of a run stand with all its sources while it goes on: what is settled, what the search finds easy, how the model does.

Predictions are read again only where their files have changed. Does not know how a scheduler uses the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import OutputKey, read_predictions
from arc_submit.arc.submission import ATTEMPTS
from arc_submit.arc.task import Task
from arc_submit.ensemble.combination import EnsembleConfig, combine_sources, rank_all
from arc_submit.ensemble.evidence import SURE, is_scored, score_odds
from arc_submit.ensemble.voting import SourceAnswer
from arc_submit.scheduling.chances import UNKNOWN_EASE, SolveChances, run_shift
from arc_submit.scheduling.costs import TaskSize
from arc_submit.scheduling.gain_scheduler import Standing
from arc_submit.scheduling.scheduler import Level
from arc_submit.search.scores import best_probability
from arc_submit.storage.run_dir import RunPaths

Ranked = dict[str, dict[OutputKey, list[SourceAnswer]]]


class Standings:
    """The answers of a run's sources, read again as they come.

    Args:
        sizes: of the tasks.
        ensemble: how the sources' answers become two attempts.
        tasks: those that are known, for the laws that answers break.
    """

    def __init__(self, paths: RunPaths, sizes: Mapping[str, TaskSize], ensemble: EnsembleConfig, tasks: Mapping[str, Task]):
        self._paths, self._sizes, self._ensemble, self._tasks = paths, sizes, ensemble, tasks
        self._stamps: dict[str, tuple[tuple[int, int], ...]] = {}
        self._ranked: dict[str, Ranked] = {}

    def __call__(self, task_ids: Iterable[str]) -> dict[str, Standing]:
        """How tasks stand now."""
        ranked = {task_id: self._read(task_id) for task_id in task_ids}
        merged: Ranked = {}
        for one in self._ranked.values():
            for source, answered in one.items():
                merged.setdefault(source, {}).update(answered)
        answers = combine_sources(merged, self._ensemble).answers
        standings = {}
        for task_id, one in ranked.items():
            outputs = [(task_id, test) for test in range(self._sizes[task_id].outputs)]
            settled = tuple(min(1.0, math.fsum(a.probability for a in answers.get(output, [])[: len(ATTEMPTS)])) for output in outputs)
            standings[task_id] = Standing(settled, tuple(search_ease(one, output) for output in outputs))
        return standings

    def shift(self, source: str, chances: SolveChances) -> Callable[[Mapping[str, Level]], float]:
        """The correction of a source's chances by this run: how often its first answer is a sure search's, against how often expected."""

        def compute(reached: Mapping[str, Level]) -> float:
            agreed, expected = 0, 0.0
            for task_id, level in reached.items():
                ranked, size = self._read(task_id), self._sizes[task_id]
                for test in range(size.outputs):
                    output = (task_id, test)
                    ease, own = search_ease(ranked, output), ranked.get(source, {}).get(output, [])
                    if ease >= SURE and own:
                        expected += float(chances.at(level.steps, level.views, 1000 * size.predict, ease))
                        agreed += grid_id(own[0].grid) == grid_id(_search_answers(ranked, output)[0].grid)
            return run_shift(agreed, expected)

        return compute

    def _read(self, task_id: str) -> Ranked:
        files = [self._paths.predictions(source, task_id) for source in self._ensemble.order]
        stamps = tuple((file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else (0, 0) for file in files)
        if self._stamps.get(task_id) != stamps:
            self._stamps[task_id] = stamps
            self._ranked[task_id] = rank_all((p for file in files for p in read_predictions(file)[0]), self._tasks)
        return self._ranked[task_id]


def search_ease(ranked: Mapping[str, Mapping[OutputKey, Sequence[SourceAnswer]]], output: OutputKey) -> float:
    """The probability of the search's best answer; UNKNOWN_EASE where it has answered nothing."""
    odds = score_odds(_search_answers(ranked, output))
    return best_probability(odds) if odds else UNKNOWN_EASE


def _search_answers(ranked: Mapping[str, Mapping[OutputKey, Sequence[SourceAnswer]]], output: OutputKey) -> Sequence[SourceAnswer]:
    return next((outputs[output] for _, outputs in sorted(ranked.items()) if is_scored(outputs.get(output, ()))), [])
