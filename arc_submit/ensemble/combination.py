"""Combination: from the answers of several sources to one ranking, whose first two are the attempts.

There are several ways, all on the same predictions. The default one estimates for each answer how probably it is right (evidence.py): the
odds of an answer that one source gives are that source's; the odds of one that independent sources give are multiplied up, because they
seldom meet on a wrong grid. Each choice keeps its reason. Pure functions; knows nothing about solutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from arc_submit.arc.best_first import best_first
from arc_submit.arc.grid import Grid, grid_id
from arc_submit.arc.prediction import Output, Prediction
from arc_submit.ensemble.evidence import MEETING, SCORED_SOURCES, Trust, estimate_trust, source_odds
from arc_submit.ensemble.voting import Candidate, vote
from arc_submit.errors import ConfigError

METHODS = ("probability", "voting", "combination", "concatenation", "precedence")
JUDGED_METHODS = ("selection", "verification", "product")  # these need a model's word on each candidate


@dataclass(frozen=True)
class EnsembleConfig:
    """How sources are put together.

    Attributes:
        way: "probability": the most probable answers first. "voting": each source's votes are shares of 1, and added. "concatenation": all
            predictions are one pool, and voted on. "combination": the first answer of each source in turn, then the second of each.
            "precedence": all answers of the first source, then those of the next. "selection", "verification", "product": by
            what a model said of the candidates, those it was not asked about behind them.
        order: sources, the most trusted first; predictions of others are left out. Only "combination" and "precedence" look at the order.
        weights: by source; 1 where none is given. They multiply the odds in "probability", the votes in "voting" and "concatenation".
    """

    way: str = "probability"
    order: tuple[str, ...] = ("search", "ttft", "frozen")
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.way not in METHODS + JUDGED_METHODS:
            raise ConfigError(f"--way {self.way}: choose from {', '.join(METHODS + JUDGED_METHODS)}")
        if not self.order or len(set(self.order)) != len(self.order):
            raise ConfigError(f"--order {','.join(self.order) or 'none'}: name each source once")
        for source, weight in self.weights.items():
            if source not in self.order or not 0 < weight < math.inf:
                raise ConfigError(f"--weights {source}={weight:g}: a number above 0 for one of {', '.join(self.order)}")

    def weight(self, source: str) -> float:
        return self.weights.get(source, 1.0)


def parse_weights(text: str) -> dict[str, float]:
    """ "search=1,ttft=2" as numbers by source.

    Raises:
        ConfigError: where it is not written so.
    """
    weights = {}
    for part in text.split(","):
        source, _, number = part.partition("=")
        try:
            weights[source] = float(number)
        except ValueError:
            raise ConfigError(f"--weights {text}: write a number for each source, such as search=1,ttft=2") from None
    return weights


@dataclass(frozen=True, eq=False)
class Choice:
    """An answer in the ranking of all sources together.

    Attributes:
        grid: the answer.
        probability: that it is right, as estimated; whatever the way, so that ways can be held against each other.
        backing: what each source that gave it says, such as "ttft 5 of 8 votes (0.31)".
    """

    grid: Grid
    probability: float
    backing: tuple[str, ...]

    @property
    def reason(self) -> str:
        return f"{' and '.join(self.backing)}: {self.probability:.2f}"


@dataclass(frozen=True, eq=False)
class Decision:
    """What was made of the predictions of a run.

    Attributes:
        choices: for each test input the different answers, best first.
        trusts: in the models that were voted on.
    """

    choices: dict[Output, list[Choice]]
    trusts: dict[str, Trust]


@dataclass(frozen=True, eq=False)
class _Answer:
    """One grid with what each source that gave it has to say: votes, share of the source's votes (or of its probability), odds."""

    grid: Grid
    votes: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    odds: dict[str, float] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    logprobs: dict[str, float] = field(default_factory=dict)
    backing: dict[str, str] = field(default_factory=dict)


def rank(predictions: Sequence[Prediction]) -> list[Candidate]:
    """The distinct answers of one source to one test input, best first; the order of the predictions never matters."""
    if not predictions or predictions[0].source not in SCORED_SOURCES:
        return vote(predictions)
    ranked = best_first(predictions, lambda p: p.logprob, lambda p: p.grid)
    return [Candidate(p.grid, 1, round(p.logprob, 6)) for p in ranked if p.grid is not None]


def rank_all(predictions: Iterable[Prediction]) -> dict[str, dict[Output, list[Candidate]]]:
    """`rank` for every source and every (task, test input) that has predictions."""
    pools: dict[str, dict[Output, list[Prediction]]] = {}
    for p in predictions:
        pools.setdefault(p.source, {}).setdefault((p.task, p.test), []).append(p)
    return {source: {output: rank(pool) for output, pool in outputs.items()} for source, outputs in pools.items()}


def decide(
    ranked: Mapping[str, Mapping[Output, Sequence[Candidate]]],
    settings: EnsembleConfig,
    judged: Mapping[Output, Mapping[bytes, float]] | None = None,
    trusts: Mapping[str, Trust] | None = None,
) -> Decision:
    """Put the sources' answers into one ranking for every test input.

    Args:
        ranked: see `rank_all`; all of a run's at once, because the trust in a model is taken from them.
        judged: for a way that needs it, what a model gives each candidate, the higher the better, by `grid_id`.
        trusts: in the models; None estimates them.

    Raises:
        ConfigError: where the way needs a model's word and there is none.
    """
    if settings.way in JUDGED_METHODS and judged is None:
        raise ConfigError(f"--way {settings.way}: needs what a model says of the candidates; see arc-submit ensemble --help")
    ranked = {source: ranked[source] for source in settings.order if source in ranked}
    trusts = dict(estimate_trust(ranked) if trusts is None else trusts)
    choices: dict[Output, list[Choice]] = {}
    for output in sorted({output for outputs in ranked.values() for output in outputs}):
        answers = _gather({s: outputs[output] for s, outputs in ranked.items() if outputs.get(output)}, trusts, settings)
        said = judged.get(output, {}) if judged is not None else {}
        first = {key: _RULES[settings.way](settings, answer, said.get(key, -math.inf)) for key, answer in answers.items()}
        evidence = {key: combined_odds(answer.odds) for key, answer in answers.items()}
        total = 1 + math.fsum(evidence.values())
        order = sorted(answers, key=lambda k: (first[k], -evidence[k], -max(answers[k].logprobs.values()), k))
        choices[output] = [Choice(answers[k].grid, evidence[k] / total, tuple(answers[k].backing.values())) for k in order]
    return Decision(choices, trusts)


def combine(predictions: Iterable[Prediction], order: Sequence[str]) -> dict[Output, list[Grid]]:
    """For every test input the distinct answers of some sources in the default way, best first."""
    decision = decide(rank_all(predictions), EnsembleConfig(order=tuple(order)))
    return {output: [choice.grid for choice in choices] for output, choices in decision.choices.items()}


def combined_odds(odds: Mapping[str, float]) -> float:
    """The odds of a grid that several sources give, from the odds that each gives it.

    The sum, and for independent sources their product on top: that the search and a model meet on a wrong grid is rare. Models are no
    independent sources, being one base: their odds are added up first.
    """
    scored = math.fsum(v for s, v in odds.items() if s in SCORED_SOURCES)
    voted = math.fsum(v for s, v in odds.items() if s not in SCORED_SOURCES)
    return scored + voted + scored * voted / MEETING


def _gather(pools: Mapping[str, Sequence[Candidate]], trusts: Mapping[str, Trust], settings: EnsembleConfig) -> dict[bytes, _Answer]:
    """The distinct answers of all sources to one test input, by `grid_id`."""
    answers: dict[bytes, _Answer] = {}
    for source in sorted(pools):
        candidates, weight = pools[source], settings.weight(source)
        odds = source_odds(source, candidates, trusts)
        scored = source in SCORED_SOURCES
        votes, worths = sum(c.votes for c in candidates), math.fsum(odds)
        counted = not scored and any(c.probability is None for c in candidates)
        for number, (candidate, worth) in enumerate(zip(candidates, odds, strict=True), 1):
            answer = answers.setdefault(grid_id(candidate.grid), _Answer(candidate.grid))
            share = candidate.votes / votes if counted else worth / worths if worths else 1 / len(candidates)
            answer.votes[source] = weight * candidate.votes
            answer.shares[source] = weight * share
            answer.odds[source] = weight * worth
            answer.ranks[source] = number
            answer.logprobs[source] = math.log(max(share, 1e-300)) if scored else candidate.mean_logprob
            said = f"{candidate.votes} of {votes} votes" if counted else f"{number} of {len(candidates)}"
            answer.backing[source] = f"{source} {said} ({worth / (1 + worths):.2f})"
    return answers


# What an answer is sorted by before its odds, the least first: (settings, answer, what a model said of it).
_RULES: dict[str, Callable[[EnsembleConfig, _Answer, float], tuple[float, ...]]] = {
    "probability": lambda settings, answer, said: (),
    "voting": lambda settings, answer, said: (-math.fsum(answer.shares.values()),),
    "concatenation": lambda settings, answer, said: (-math.fsum(answer.votes.values()),),
    "combination": lambda settings, answer, said: min((float(answer.ranks[s]), float(place)) for s, place in _places(settings, answer)),
    "precedence": lambda settings, answer, said: min((float(place), float(answer.ranks[s])) for s, place in _places(settings, answer)),
    **dict.fromkeys(JUDGED_METHODS, lambda settings, answer, said: (-said,)),
}


def _places(settings: EnsembleConfig, answer: _Answer) -> list[tuple[str, int]]:
    """The sources that gave an answer, each with its place in the order of trust."""
    return [(source, place) for place, source in enumerate(settings.order) if source in answer.ranks]
