"""Evidence: the odds of each of a source's answers, relative to "none of this source's answers is right".

The search's scores are those of a conditional logit: their softmax with one more candidate, "none of these", is a probability. A model's
answer is right with the probability of its share of the votes times the trust in the model. The trust is estimated from the run itself,
without solutions: how often does the model's first answer agree with the search where the search is sure? This is the idea of Dawid and
Skene (1979). A program that a model wrote is right by the number of train pairs that it reproduces (program_odds). An attempt of a
submission file has neither votes nor a score: the share of its place takes their part. Formulas and examples: docs/ensemble.md. Pure
functions; does not know solutions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import OutputKey
from arc_submit.ensemble.program_odds import program_odds
from arc_submit.ensemble.voting import RankedSources, SourceAnswer
from arc_submit.search.scores import best_probability, odds_of_scores

# Fitted on training tasks by benchmarks/ensemble.py.
MEETING = 0.3  # the odds at which two independent sources agree on a wrong grid; divides the product of their odds
HARDER = 1.75  # nats that the log-odds of a right answer are lower where another source is not sure than where it is

SURE = 0.8  # from this probability on, the search counts as right when trust is estimated
_UNSEEN = 2.0  # votes added for answers that no prediction gave: a single vote is not certainty
_PRIOR_TRUST, _PRIOR_VOTES = 0.5, 4.0  # the trust before any observation, and the number of votes that it counts for
_MOST_TRUST = 0.95


@dataclass(frozen=True)
class Trust:
    """The reliability of a source that is no search.

    Attributes:
        value: the probability that an answer with all votes is right, or that one of a submission file's attempts is.
        agreed: how many of the outputs in `seen` have the same first answer from the source and from the search.
        seen: number of outputs where the search is sure and the source has answers.
    """

    value: float
    agreed: int
    seen: int

    @property
    def reason(self) -> str:
        """The observations behind the value."""
        return (
            f"trust {self.value:.2f}: its first answer is the search's in {self.agreed} of {self.seen} outputs of which the search is sure"
        )


def score_odds(answers: Sequence[SourceAnswer]) -> list[float]:
    """Odds of scored answers, see arc_submit.search.scores."""
    return odds_of_scores(a.mean_logprob for a in answers)


def vote_shares(answers: Sequence[SourceAnswer]) -> list[float]:
    """The probability of each answer if the source were always right.

    Its share of the votes and _UNSEEN more; its probability where all answers were scored under many views; the share of its place where it
    is an attempt of a submission file.
    """
    given = [math.exp(a.mean_logprob) if a.basis == "place" else a.probability for a in answers]
    probabilities = [value for value in given if value is not None]
    if len(probabilities) == len(answers):
        total = max(1.0, math.fsum(probabilities))
        return [value / total for value in probabilities]
    votes = sum(a.votes for a in answers) + _UNSEEN
    return [a.votes / votes for a in answers]


def vote_odds(answers: Sequence[SourceAnswer], trust: float) -> list[float]:
    """Odds of voted answers: an answer is right with probability share x trust, none is right with the rest of 1."""
    shares = vote_shares(answers)
    none = 1 - trust * math.fsum(shares)
    return [trust * share / none for share in shares]


def source_odds(source: str, answers: Sequence[SourceAnswer], trust: Mapping[str, Trust]) -> list[float]:
    """The odds of a source's answers to one test input, in their order."""
    if tests_programs(answers):
        return program_odds([a.fits for a in answers])
    return score_odds(answers) if is_scored(answers) else vote_odds(answers, trust[source].value)


def is_scored(answers: Sequence[SourceAnswer]) -> bool:
    """Whether a source's answers to a test input have the scores of a search."""
    return any(a.basis == "score" for a in answers)


def tests_programs(answers: Sequence[SourceAnswer]) -> bool:
    """Whether a source's answers to a test input are those of programs, tried on the train pairs."""
    return any(a.basis == "programs" for a in answers)


def estimate_trust(ranked: RankedSources) -> dict[str, Trust]:
    """The trust in every source that votes, from all answers of a run, best first.

    Numerator: the first answers that agree with a sure search. Denominator: the shares of votes that all first answers got there. Both
    start from the prior, so that few observations leave the trust near it. The outputs where the search is sure are easy ones: HARDER is
    subtracted from the log-odds for all others (the model of Rasch, 1960), which leaves a weak model almost no trust and a strong one
    nearly all.
    """
    scored = {source for source, outputs in ranked.items() if any(map(is_scored, outputs.values()))}
    surest: dict[OutputKey, tuple[float, bytes]] = {}
    for source in sorted(scored):
        for output, answers in ranked[source].items():
            odds = score_odds(answers)
            probability = best_probability(odds)
            # Of several searches the surest counts.
            if probability >= SURE and probability > surest.get(output, (0.0, b""))[0]:
                surest[output] = probability, grid_id(answers[odds.index(max(odds))].grid)
    sure = {output: grid for output, (_, grid) in surest.items()}
    trust = {}
    of_programs = {source for source, outputs in ranked.items() if any(map(tests_programs, outputs.values()))}
    for source in sorted(set(ranked) - scored - of_programs):
        agreed = seen = 0
        shares = []
        for output, answers in ranked[source].items():
            if output in sure and answers:
                seen += 1
                agreed += grid_id(answers[0].grid) == sure[output]
                shares.append(vote_shares(answers)[0])
        easy = min(_MOST_TRUST, (agreed + _PRIOR_TRUST * _PRIOR_VOTES) / (math.fsum(shares) + _PRIOR_VOTES))
        trust[source] = Trust(1 / (1 + math.exp(HARDER) * (1 - easy) / easy), agreed, seen)
    return trust
