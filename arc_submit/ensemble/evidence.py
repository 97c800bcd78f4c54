"""What a source's answers are worth: for each, the odds that it is right against that none of the source's answers is.

A search's scores are those of a conditional logit, so that their softmax with one more candidate, "none of these", is a probability; its
score is fitted on training tasks by benchmarks/ensemble.py. A model's answer is worth its share of the votes times the trust in the model,
which is taken from the run itself: how often does the model's first answer agree with the search where the search is sure? Nothing but
predictions is needed for that, the idea of Dawid and Skene (1979). Pure functions; knows nothing about solutions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import Output
from arc_submit.ensemble.voting import Candidate

SCORED_SOURCES = ("search",)  # their logprob is the score of an answer, and giving it twice makes it no better

# Fitted on training tasks (benchmarks/ensemble.py), where the search's rules and weights were made too: it is less sure of other tasks.
NONE_SCORE = -1.2  # of "the right answer is none of these"
MEETING = 0.3  # odds below which two sources that give one grid say no more than each of them
HARDER = 1.75  # how many nats the log-odds of being right are lower where another source is not sure than where it is

SURE = 0.8  # the probability from which on the search is taken at its word
_UNSEEN = 2.0  # votes that nobody gave, for answers nobody gave: a single vote is not certainty
_PRIOR_TRUST, _PRIOR_VOTES = 0.5, 4.0  # the trust before anything is seen, and how many outputs it counts for
_MOST_TRUST = 0.95
_FARTHEST = 50.0  # nats: beyond it nothing is surer


@dataclass(frozen=True)
class Trust:
    """How far a model's votes are believed.

    Attributes:
        value: the probability that an answer with all votes is right.
        agreed: outputs of whose answer the search is sure and where the model's first answer is the same.
        seen: outputs of whose answer the search is sure and for which the model has answers.
    """

    value: float
    agreed: int
    seen: int

    @property
    def reason(self) -> str:
        """Where the value comes from."""
        return (
            f"trust {self.value:.2f}: its first answer is the search's in {self.agreed} of {self.seen} outputs of which the search is sure"
        )


def score_odds(candidates: Sequence[Candidate]) -> list[float]:
    """Of answers with a score: exp(score) against that of the right answer being none of them."""
    return [math.exp(max(-_FARTHEST, min(_FARTHEST, c.mean_logprob - NONE_SCORE))) for c in candidates]


def vote_shares(candidates: Sequence[Candidate]) -> list[float]:
    """Of each answer its share of the votes, a few unseen ones included; where all were scored under many views, their probabilities."""
    probabilities = [c.probability for c in candidates if c.probability is not None]
    if len(probabilities) == len(candidates):
        total = max(1.0, math.fsum(probabilities))
        return [value / total for value in probabilities]
    votes = sum(c.votes for c in candidates) + _UNSEEN
    return [c.votes / votes for c in candidates]


def vote_odds(candidates: Sequence[Candidate], trust: float) -> list[float]:
    """Of answers with votes: each is right with the probability of its share times the trust, none with what is left of 1."""
    shares = vote_shares(candidates)
    none = 1 - trust * math.fsum(shares)
    return [trust * share / none for share in shares]


def source_odds(source: str, candidates: Sequence[Candidate], trusts: Mapping[str, Trust]) -> list[float]:
    """The odds of a source's answers to one test input, in their order."""
    return score_odds(candidates) if source in SCORED_SOURCES else vote_odds(candidates, trusts[source].value)


def estimate_trust(ranked: Mapping[str, Mapping[Output, Sequence[Candidate]]]) -> dict[str, Trust]:
    """The trust in every model, from all answers of a run, best first.

    The votes of first answers that agree with a sure search are held against the votes that all first answers got there. Tasks of which
    the search is sure are easy ones: on the others the log-odds of being right are lower by HARDER, so that a weak model is believed
    next to nothing there and a strong one nearly as much (the model of Rasch, 1960). With few such outputs the trust stays near what is
    assumed of an unknown model.
    """
    sure: dict[Output, bytes] = {}
    for source in SCORED_SOURCES:
        for output, candidates in ranked.get(source, {}).items():
            odds = score_odds(candidates)
            if odds and max(odds) / (1 + math.fsum(odds)) >= SURE:
                sure[output] = grid_id(candidates[odds.index(max(odds))].grid)
    trusts = {}
    for source in sorted(set(ranked) - set(SCORED_SOURCES)):
        agreed = seen = 0
        shares = []
        for output, candidates in ranked[source].items():
            if output in sure and candidates:
                seen += 1
                agreed += grid_id(candidates[0].grid) == sure[output]
                shares.append(vote_shares(candidates)[0])
        believed = min(_MOST_TRUST, (agreed + _PRIOR_TRUST * _PRIOR_VOTES) / (math.fsum(shares) + _PRIOR_VOTES))
        trusts[source] = Trust(1 / (1 + math.exp(HARDER) * (1 - believed) / believed), agreed, seen)
    return trusts
