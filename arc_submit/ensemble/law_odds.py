"""The odds of answers that break laws of the train pairs: what all train pairs have in common, an output of the task seldom breaks.

The votes of a model say nothing about laws, nor do programs or attempts of a submission file. The score of a search contains them already,
so that its odds are not multiplied again (combination). An answer is never left out. Does not know how laws are found
(arc_submit.search.laws).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from arc_submit.arc.grid import Grid
from arc_submit.arc.prediction import OutputKey
from arc_submit.arc.task import Task
from arc_submit.ensemble.voting import Broken, RankedSources, SourceAnswer

if TYPE_CHECKING:
    from arc_submit.search.laws import Laws

# Nats for each unit of log(1 + number of broken laws), strict ones and others: fitted on re-arc's examples, for an earlier ranking of the
# search. A fit on models' answers to training tasks gives -1.5 and -1.75 (docs/experiments/2026-11-30-laws-in-the-ensemble.md).
STRICT, LOOSE = -2.0, -1.77
_PRIOR_ANSWERS = 4.0  # answers that keep all laws, added to those of a source: a few answers do not tell what is usual


def law_factor(broken: Broken | None) -> float:
    """How likely it is that a right answer breaks these laws, relative to an answer that breaks none; 1 where no law is known."""
    if broken is None:
        return 1.0
    strict, loose = broken
    return math.exp(STRICT * math.log1p(strict) + LOOSE * math.log1p(loose))


def usual_factors(ranked: RankedSources) -> dict[str, float]:
    """The mean of `law_factor` over the answers of each source, to test inputs whose laws are known.

    The odds of an answer change by the probability that a right answer breaks these laws, over the probability that a wrong one does. The
    mean of this ratio over wrong answers is 1, and nearly all different answers are wrong, so that the ratio is the factor over the usual
    one. A source that breaks laws often is more probably right where it keeps all of them. A source that never breaks laws gains nothing.
    """
    usual = {}
    for source, outputs in ranked.items():
        factors = [law_factor(one.broken) for answers in outputs.values() for one in answers if one.broken is not None]
        usual[source] = (math.fsum(factors) + _PRIOR_ANSWERS) / (len(factors) + _PRIOR_ANSWERS)
    return usual


def with_broken_laws(answers: Mapping[OutputKey, Sequence[SourceAnswer]], tasks: Mapping[str, Task]) -> dict[OutputKey, list[SourceAnswer]]:
    """The answers of one source with the numbers of laws that each breaks.

    Answers with a score stay as they are, and those to a test input that `tasks` does not hold.
    """
    marked = {}
    for (task_id, test), given in answers.items():
        task = tasks.get(task_id)
        if task is not None and test < len(task.tests) and not any(one.basis == "score" for one in given):
            marked[task_id, test] = [replace(one, broken=_broken(task, test, one.grid)) for one in given]
        else:
            marked[task_id, test] = list(given)
    return marked


def _broken(task: Task, test: int, grid: Grid) -> Broken | None:
    """The numbers of laws that an answer breaks; None where the task has none."""
    from arc_submit.search.laws import broken_laws  # with numba: only where answers need it

    laws = _laws(task)
    if not laws.strict and not laws.loose:
        return None
    strict, loose = broken_laws(laws, task.tests[test], grid)
    return len(strict), len(loose)


@lru_cache(maxsize=1024)
def _laws(task: Task) -> Laws:
    from arc_submit.search.laws import laws_of

    return laws_of(task)
