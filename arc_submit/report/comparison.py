"""Sources and ensemble methods side by side on the same predictions: the outputs that each solves, and every figure of arc/metrics.py.

Takes solutions; nothing that chooses attempts depends on it. Does not know how predictions are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.metrics import PredictionScores, score_predictions
from arc_submit.arc.prediction import OutputKey, Prediction
from arc_submit.arc.submission import ATTEMPTS
from arc_submit.arc.task import Solutions
from arc_submit.ensemble.combination import JUDGED_METHODS, METHODS, EnsembleConfig, combine_sources, rank_all
from arc_submit.ensemble.voting import RankedSources

COLUMNS = ("pass_n", "vote_2", "accuracy", "correct_pixels", "max_correct_pixels", "correct_size", "any_correct_size", "unanswered")

Judged = Mapping[str, Mapping[OutputKey, Mapping[bytes, float]]]
"""A model's scores of the candidates, by the method that needs them."""


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
    judged: Judged | None = None,
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
    methods = [score_answers(method, answers, solutions, task_ids) for method, answers in _by_method(ranked, config, judged)]
    return sources, methods


def _by_method(ranked: RankedSources, config: EnsembleConfig, judged: Judged) -> Iterable[tuple[str, dict[OutputKey, list[Grid]]]]:
    """The ranked answers by each method that can be used."""
    for method in (*METHODS, *(method for method in JUDGED_METHODS if method in judged)):
        ranking = combine_sources(ranked, replace(config, method=method), judged.get(method))
        yield method, {output: [answer.grid for answer in answers] for output, answers in ranking.answers.items()}


def score_sources(predictions: Iterable[Prediction], solutions: Solutions, task_ids: Sequence[str]) -> dict[str, PredictionScores]:
    """All figures of each source, by its name; vote_2 is that of its own two best answers.

    Args:
        task_ids: the tasks to score, all with solutions.
    """
    pools: dict[str, list[Prediction]] = {}
    for p in predictions:
        pools.setdefault(p.source, []).append(p)
    scores = {}
    for source, pool in sorted(pools.items()):
        attempts = {output: [answer.grid for answer in answers[: len(ATTEMPTS)]] for output, answers in rank_all(pool)[source].items()}
        scores[source] = score_predictions(pool, attempts, solutions, task_ids)
    return scores


def score_attempts(
    ranked: RankedSources, solutions: Solutions, task_ids: Sequence[str], config: EnsembleConfig, judged: Judged | None = None
) -> dict[str, PredictionScores]:
    """All figures of the two attempts that each method chooses, by its name; the attempts are the predictions that are scored.

    Args:
        ranked, task_ids, config, judged: as `compare_methods` takes them.
    """
    scores = {}
    for method, answers in _by_method(ranked, config, judged or {}):
        attempts = {output: grids[: len(ATTEMPTS)] for output, grids in answers.items()}
        made = [Prediction(*output, grid, method, "", 0.0, method, 0.0) for output, grids in attempts.items() for grid in grids]
        scores[method] = score_predictions(made, attempts, solutions, task_ids)
    return scores


def first_predictions(predictions: Iterable[Prediction], count: int) -> list[Prediction]:
    """The first `count` predictions of each source for each test input, in the order given; a run's files have the order of its views."""
    seen: Counter[tuple[str, str, int]] = Counter()
    first = []
    for p in predictions:
        key = p.source, p.task, p.test
        seen[key] += 1
        if seen[key] <= count:
            first.append(p)
    return first


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


def source_table(rows: Mapping[str, PredictionScores], title: str = "source") -> str:
    """One line for each source, or whatever the title names; shares in per cent of test outputs."""
    width = max([10, *(len(name) + 1 for name in rows)])
    lines = [f"{title:<{width}}{'outputs':>8}{'pred.':>8}" + "".join(f"{name:>{len(name) + 2}}" for name in COLUMNS)]
    for name, row in rows.items():
        cells = "".join(f"{100 * getattr(row, column):>{len(column) + 2}.1f}" for column in COLUMNS)
        lines.append(f"{name:<{width}}{row.outputs:>8}{row.predictions:>8}{cells}")
    return "\n".join(lines)


def comparison_table(sources: Sequence[ScoreRow], methods: Sequence[ScoreRow], chosen: str) -> str:
    """One line for each source and each method; shares in per cent of test outputs, and the mean over tasks."""
    width = max([24, *(len(row.name) + 3 for row in (*sources, *methods))])
    lines = []
    for title, rows in (("source", sources), ("way", methods)):
        lines.append(f"{title:<{width}}{'top 1':>12}{'top 2':>14}{'pass_n':>14}{'top 2 by task':>15}")
        for row in rows:
            top_1, top_2, found = row.shares()
            name = f"{row.name} *" if row.name == chosen else row.name
            lines.append(f"{name:<{width}}{top_1:>12}{top_2:>14}{found:>14}{100 * row.per_task:>13.1f} %")
        lines.append("")
    outputs = sources[0].outputs if sources else 0
    return "\n".join([*lines[:-1], f"({outputs} outputs; * the way in use)"])
