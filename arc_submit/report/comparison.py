"""Sources and ways to combine them, side by side on the same predictions: what each solves with one attempt and with two.

Takes solutions; gives nothing back to what decides. Knows nothing about how predictions were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.prediction import Output
from arc_submit.arc.task import Solutions
from arc_submit.ensemble.combination import JUDGED_METHODS, METHODS, EnsembleConfig, decide
from arc_submit.ensemble.voting import Candidate


@dataclass(frozen=True)
class Row:
    """What one source, or one way to combine sources, is worth.

    Attributes:
        name: of the source or the way.
        outputs: how many test outputs were scored.
        top_1, top_2: solved by the first answer, by the first two.
        found: the right answer is among all its answers (pass_n).
        per_task: mean over tasks of the fraction solved in two.
    """

    name: str
    outputs: int
    top_1: int
    top_2: int
    found: int
    per_task: float

    def to_json(self) -> dict[str, float | str]:
        return asdict(self)


def compare_ways(
    ranked: Mapping[str, Mapping[Output, Sequence[Candidate]]],
    solutions: Solutions,
    task_ids: Sequence[str],
    settings: EnsembleConfig,
    judged: Mapping[str, Mapping[Output, Mapping[bytes, float]]] | None = None,
) -> tuple[list[Row], list[Row]]:
    """A row for each source, and one for each way with the order and weights of the settings.

    Args:
        ranked: every source's answers, see arc_submit.ensemble.combination.rank_all.
        task_ids: the tasks to score, all with solutions.
        judged: a model's word on the candidates, by the way that needs it; ways without one are left out.
    """
    judged = judged or {}
    sources = [
        score_answers(source, {o: [c.grid for c in cs] for o, cs in ranked[source].items()}, solutions, task_ids)
        for source in settings.order
        if source in ranked
    ]
    ways = []
    for way in METHODS + tuple(way for way in JUDGED_METHODS if way in judged):
        decision = decide(ranked, EnsembleConfig(way, settings.order, settings.weights), judged.get(way))
        answers = {output: [choice.grid for choice in choices] for output, choices in decision.choices.items()}
        ways.append(score_answers(way, answers, solutions, task_ids))
    return sources, ways


def score_answers(name: str, answers: Mapping[Output, Sequence[Grid]], solutions: Solutions, task_ids: Sequence[str]) -> Row:
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
    return Row(name, outputs, top_1, top_2, found, sum(fractions) / max(1, len(fractions)))


def comparison_table(sources: Sequence[Row], ways: Sequence[Row], chosen: str) -> str:
    """One line for each source and each way; shares in per cent of test outputs, and the mean over tasks."""
    lines = []
    for title, rows in (("source", sources), ("way", ways)):
        lines.append(f"{title:<16}{'top 1':>12}{'top 2':>14}{'pass_n':>14}{'top 2 by task':>15}")
        for row in rows:
            cells = [f"{count} ({100 * count / max(1, row.outputs):.1f} %)" for count in (row.top_1, row.top_2, row.found)]
            name = f"{row.name} *" if row.name == chosen else row.name
            lines.append(f"{name:<16}{cells[0]:>12}{cells[1]:>14}{cells[2]:>14}{100 * row.per_task:>13.1f} %")
        lines.append("")
    outputs = sources[0].outputs if sources else 0
    return "\n".join([*lines[:-1], f"({outputs} outputs; * the way in use)"])
