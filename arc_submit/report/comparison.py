"""Sources and ensemble methods side by side on the same predictions: the outputs that each solves with one attempt and with two.

Takes solutions; nothing that chooses attempts depends on it. Does not know how predictions are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.prediction import OutputKey
from arc_submit.arc.task import Solutions
from arc_submit.ensemble.combination import JUDGED_METHODS, METHODS, EnsembleConfig, combine_sources
from arc_submit.ensemble.voting import RankedSources


@dataclass(frozen=True)
class ScoreRow:
    """The score of one source, or of one ensemble method.

    Attributes:
        name: of the source or the method.
        outputs: how many test outputs were scored.
        top_1, top_2: outputs solved by the first answer, by the first two.
        found: outputs whose right answer is among all answers (pass_n).
        per_task: mean over tasks of the fraction solved by the first two answers.
    """

    name: str
    outputs: int
    top_1: int
    top_2: int
    found: int
    per_task: float

    def to_json(self) -> dict[str, float | str]:
        return asdict(self)

    def shares(self) -> list[str]:
        """top_1, top_2 and found as text, with their share of the outputs in per cent."""
        return [f"{count} ({100 * count / max(1, self.outputs):.1f} %)" for count in (self.top_1, self.top_2, self.found)]


def compare_methods(
    ranked: RankedSources,
    solutions: Solutions,
    task_ids: Sequence[str],
    config: EnsembleConfig,
    judged: Mapping[str, Mapping[OutputKey, Mapping[bytes, float]]] | None = None,
) -> tuple[list[ScoreRow], list[ScoreRow]]:
    """A row for each source, and one for each method with the order and weights of `config`.

    Args:
        ranked: every source's answers, see arc_submit.ensemble.combination.rank_all.
        task_ids: the tasks to score, all with solutions.
        judged: a model's scores of the candidates, by the method that needs them; methods without scores are left out.
    """
    judged = judged or {}
    sources = [
        score_answers(source, {o: [a.grid for a in answers] for o, answers in ranked[source].items()}, solutions, task_ids)
        for source in config.order
        if source in ranked
    ]
    methods = []
    for method in (*METHODS, *(method for method in JUDGED_METHODS if method in judged)):
        ranking = combine_sources(ranked, replace(config, method=method), judged.get(method))
        methods.append(score_answers(method, {o: [a.grid for a in answers] for o, answers in ranking.answers.items()}, solutions, task_ids))
    return sources, methods


def score_answers(name: str, answers: Mapping[OutputKey, Sequence[Grid]], solutions: Solutions, task_ids: Sequence[str]) -> ScoreRow:
    """Score ranked answers over all outputs of some tasks."""
    top_1 = top_2 = found = outputs = 0
    fractions = []
    for task_id in task_ids:
        right = 0
        for test, solution in enumerate(solutions.outputs[task_id]):
            hits = [same_grid(grid, solution) for grid in answers.get((task_id, test), ())]
            top_1, found, outputs = top_1 + any(hits[:1]), found + any(hits), outputs + 1
            right += any(hits[:2])
        top_2 += right
        fractions.append(right / max(1, len(solutions.outputs[task_id])))
    return ScoreRow(name, outputs, top_1, top_2, found, sum(fractions) / max(1, len(fractions)))


def comparison_table(sources: Sequence[ScoreRow], methods: Sequence[ScoreRow], chosen: str) -> str:
    """One line for each source and each method; shares in per cent of test outputs, and the mean over tasks."""
    lines = []
    for title, rows in (("source", sources), ("way", methods)):
        lines.append(f"{title:<24}{'top 1':>12}{'top 2':>14}{'pass_n':>14}{'top 2 by task':>15}")
        for row in rows:
            top_1, top_2, found = row.shares()
            name = f"{row.name} *" if row.name == chosen else row.name
            lines.append(f"{name:<24}{top_1:>12}{top_2:>14}{found:>14}{100 * row.per_task:>13.1f} %")
        lines.append("")
    outputs = sources[0].outputs if sources else 0
    return "\n".join([*lines[:-1], f"({outputs} outputs; * the way in use)"])
