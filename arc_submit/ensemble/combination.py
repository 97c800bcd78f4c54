"""Combination: from the answers of several sources to one ranking, whose first two answers are the attempts.

Every method works on the same predictions. The default method estimates how probable each answer is (evidence.py). An answer of one source
has the odds that the source gives it. An answer of two independent sources has higher odds than their sum, because independent sources
rarely agree on a wrong grid. An answer that breaks laws of the train pairs has lower odds (law_odds.py). The other methods rank without
laws, as they are published. Formulas and examples: docs/ensemble.md. Does not know solutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from arc_submit.arc.best_first import best_first
from arc_submit.arc.grid import Grid, grid_id
from arc_submit.arc.prediction import OutputKey, Prediction, group_by_output
from arc_submit.arc.task import Task
from arc_submit.ensemble import published
from arc_submit.ensemble.evidence import MEETING, Trust, estimate_trust, source_odds
from arc_submit.ensemble.law_odds import law_factor, usual_factors, with_broken_laws
from arc_submit.ensemble.voting import Basis, Broken, RankedSources, SourceAnswer, basis_of, rank_programs, vote
from arc_submit.errors import ConfigError

METHODS = (
    "probability",
    "voting",
    "combination",
    "concatenation",
    "precedence",
    "count-minus-mean",
    "product-with-baseline",
)
JUDGED_METHODS = ("selection", "verification", "product")  # these need a model's score of each candidate


@dataclass(frozen=True)
class EnsembleConfig:
    """How the answers of several sources become one ranking.

    Attributes:
        method: "probability": the most probable answers first. "voting": each source's votes are normalised to shares, which are added.
            "concatenation": the votes of all predictions in one pool. "combination": the first answer of each source in turn, then the
            second of each. "precedence": all answers of the first source, then those of the next. "count-minus-mean",
            "product-with-baseline": published rankings of scored candidates (published.py), with all sources in one pool. "selection",
            "verification", "product": by a model's scores of the candidates; answers without a score come last. An output counts as judged
            where both attempts by `fallback` have a score; the others are ranked by `fallback`.
        order: sources, the most trusted first; predictions of others are ignored. Only "combination" and "precedence" use the order.
        weights: by source, 1 by default. They multiply the odds in "probability", the votes in "voting" and "concatenation", the counts in
            "count-minus-mean" and the sums in "product-with-baseline".
        fallback: one of METHODS, for outputs that no model has judged.
        laws: whether the laws that an answer breaks change its probability, and with it the order by "probability" and where a judge leaves
            the order open. METHODS other than "probability" rank without laws.
    """

    method: str = "probability"
    order: tuple[str, ...] = ("search", "ttft", "frozen")
    weights: Mapping[str, float] = field(default_factory=dict)
    fallback: str = "probability"
    laws: bool = True

    @property
    def pure(self) -> EnsembleConfig:
        """The same without a judge."""
        return replace(self, method=self.fallback) if self.method in JUDGED_METHODS else self

    def __post_init__(self) -> None:
        if self.method not in METHODS + JUDGED_METHODS:
            raise ConfigError(f"--method {self.method}: choose from {', '.join(METHODS + JUDGED_METHODS)}")
        if self.fallback not in METHODS:
            raise ConfigError(f"--judge-fallback {self.fallback}: choose from {', '.join(METHODS)}")
        if not self.order or len(set(self.order)) != len(self.order):
            raise ConfigError(f"--order {','.join(self.order) or 'none'}: name each source once")
        for source, weight in self.weights.items():
            if source not in self.order or not 0 < weight < math.inf:
                raise ConfigError(f"--weights {source}={weight:g}: a number above 0 for one of {', '.join(self.order)}")


def parse_weights(text: str) -> dict[str, float]:
    """Numbers by source from a text such as "search=1,ttft=2".

    Raises:
        ConfigError: where the text has another form.
    """
    weights = {}
    for part in text.split(","):
        source, _, number = part.rpartition("=")
        try:
            weights[source] = float(number)
        except ValueError:
            raise ConfigError(f"--weights {text}: write a number for each source, such as search=1,ttft=2") from None
    return weights


@dataclass(frozen=True, eq=False)
class RankedAnswer:
    """An answer in the ranking of all sources together.

    Attributes:
        grid: the answer.
        probability: the estimated probability that it is right; the same estimate under every method.
        backing: the evidence of each source that gave it, such as "ttft 5 of 8 votes (0.31)".
        sources: their names, in the same order.
        broken: the laws of the train pairs that have lowered its probability, those within the score of a search left out.
    """

    grid: Grid
    probability: float
    backing: tuple[str, ...]
    sources: tuple[str, ...] = ()
    broken: Broken = (0, 0)

    @property
    def reason(self) -> str:
        strict, loose = self.broken
        laws = f", breaks {strict + loose} laws, {strict} of them strict" if strict or loose else ""
        return f"{' and '.join(self.backing)}{laws}: {self.probability:.2f}"


@dataclass(frozen=True, eq=False)
class CombinedRanking:
    """The ranking of all sources together.

    Attributes:
        answers: for each test input the distinct answers, best first.
        trust: in each model.
        unjudged: with a method of JUDGED_METHODS, the test inputs with several answers that are ranked by the fallback.
    """

    answers: dict[OutputKey, list[RankedAnswer]]
    trust: dict[str, Trust]
    unjudged: frozenset[OutputKey] = frozenset()


@dataclass(frozen=True, eq=False)
class _Evidence:
    """The evidence for one grid, by source; votes, shares and odds are multiplied by the weight of the source.

    A share is the fraction of the source's votes, or of its odds where the source does not vote. The log-probabilities in `found` and
    `scored` are those of `SourceAnswer`; a source that does not vote counts as one view that found the answer with the probability of its
    share.
    """

    grid: Grid
    broken: Broken | None
    votes: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    odds: dict[str, float] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    logprobs: dict[str, float] = field(default_factory=dict)
    backing: dict[str, str] = field(default_factory=dict)
    bases: dict[str, Basis] = field(default_factory=dict)
    found: dict[str, tuple[float, ...]] = field(default_factory=dict)
    scored: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def combined(self, usual: Mapping[str, float] | None) -> float:
        """The odds of the grid by all its sources together.

        Args:
            usual: by source, the factor for laws of its usual answer; None leaves the laws out.
        """
        odds = [(self.bases[source], value) for source, value in self.odds.items()]
        if usual is None or self.broken is None:
            return combined_odds(odds)
        return combined_odds(odds, [law_factor(self.broken) / usual[source] for source in self.odds])


def rank(predictions: Sequence[Prediction]) -> list[SourceAnswer]:
    """The distinct answers of one source to one test input, best first; the order of the predictions does not matter."""
    basis = basis_of(predictions[0]) if predictions else "votes"
    if basis == "votes":
        return vote(predictions)
    if basis == "programs":
        return rank_programs(predictions)
    ranked = best_first(predictions, lambda p: p.logprob, lambda p: p.grid)
    return [SourceAnswer(p.grid, 1, round(p.logprob, 6), basis=basis) for p in ranked if p.grid is not None]


def rank_all(predictions: Iterable[Prediction], tasks: Mapping[str, Task] | None = None) -> dict[str, dict[OutputKey, list[SourceAnswer]]]:
    """`rank` for every source and every (task, test input) that has predictions.

    Args:
        tasks: those that are known, for the laws that answers break; the laws do not change the order.
    """
    pools: dict[str, list[Prediction]] = {}
    for p in predictions:
        pools.setdefault(p.source, []).append(p)
    ranked = {source: {output: rank(found) for output, found in group_by_output(pool).items()} for source, pool in pools.items()}
    return {source: with_broken_laws(answers, tasks) for source, answers in ranked.items()} if tasks else ranked


def combine_sources(
    ranked: RankedSources,
    config: EnsembleConfig,
    judged: Mapping[OutputKey, Mapping[bytes, float]] | None = None,
    trust: Mapping[str, Trust] | None = None,
) -> CombinedRanking:
    """Combine the sources' answers into one ranking for every test input.

    Args:
        ranked: the answers of the whole run (`rank_all`): the trust in a model is estimated from all of them.
        judged: for a method of JUDGED_METHODS, a model's score of each candidate by `grid_id`, the higher the better.
        trust: in each model; estimated by default.

    Raises:
        ConfigError: where the method needs a model's scores and `judged` is None.
    """
    if config.method in JUDGED_METHODS and judged is None:
        raise ConfigError(f"--method {config.method}: needs a model's scores of the candidates; see arc-submit ensemble --help")
    ranked = {source: ranked[source] for source in config.order if source in ranked}
    trust = dict(estimate_trust(ranked) if trust is None else trust)
    usual = usual_factors(ranked) if config.laws else None
    combined: dict[OutputKey, list[RankedAnswer]] = {}
    unjudged: set[OutputKey] = set()
    for output in sorted({output for outputs in ranked.values() for output in outputs}):
        answers = _gather({s: outputs[output] for s, outputs in ranked.items() if outputs.get(output)}, trust, config)
        scores = judged.get(output, {}) if judged is not None else {}
        odds = {key: answer.combined(usual) for key, answer in answers.items()}
        # The 1 is the odds of "no answer is right", to which all other odds are relative.
        total = 1 + math.fsum(odds.values())
        pure = config.pure
        # The published methods have no laws, also where answers tie.
        ties = odds if pure.method == "probability" else {key: answer.combined(None) for key, answer in answers.items()}
        order = _order(answers, ties, pure, {})
        if config.method in JUDGED_METHODS:
            if all(key in scores for key in order[:2]):
                order = _order(answers, odds, config, scores)
            elif len(order) > 1:
                unjudged.add(output)
        combined[output] = [_ranked(answers[k], odds[k] / total, config.laws) for k in order]
    return CombinedRanking(combined, trust, frozenset(unjudged))


def _order(
    answers: Mapping[bytes, _Evidence], odds: Mapping[bytes, float], config: EnsembleConfig, scores: Mapping[bytes, float]
) -> list[bytes]:
    """The answers to one test input by `grid_id`, best first."""
    first = {key: _RULES[config.method](config, answer, scores.get(key, -math.inf)) for key, answer in answers.items()}
    return sorted(answers, key=lambda k: (first[k], -odds[k], -max(answers[k].logprobs.values()), k))


def _ranked(evidence: _Evidence, probability: float, laws: bool) -> RankedAnswer:
    broken = evidence.broken if laws else None
    return RankedAnswer(evidence.grid, probability, tuple(evidence.backing.values()), tuple(evidence.backing), broken or (0, 0))


def combine_predictions(predictions: Iterable[Prediction], order: Sequence[str]) -> dict[OutputKey, list[Grid]]:
    """For every test input the distinct answers of some sources by the default method, best first."""
    ranking = combine_sources(rank_all(predictions), EnsembleConfig(order=tuple(order)))
    return {output: [answer.grid for answer in answers] for output, answers in ranking.answers.items()}


def combined_odds(odds: Sequence[tuple[Basis, float]], factors: Sequence[float] | None = None) -> float:
    """The odds of a grid that several sources give, from the basis of each source and the odds that it gives the grid.

    The odds of models are added: models are trained on similar data or share their base, so that they are not independent. Several searches
    are one program, so that the largest of their odds counts. The search is independent of the models; the product of its odds and theirs,
    over MEETING, is added to the sum. Nothing tells where a submission file comes from: it may be the same search or the same model, so
    that its odds are added and no product is taken. So are those of programs that a model wrote: how far they are independent of its other
    answers is not known.

    Args:
        factors: of the odds by each source, for the laws that the grid breaks; 1 by default. The odds of a search contain the laws already,
            and so does their product with other odds.
    """
    scored = max((value for basis, value in odds if basis == "score"), default=0.0)
    voted = math.fsum(value for basis, value in odds if basis == "votes")
    lawful = zip(odds, [1.0] * len(odds) if factors is None else factors, strict=True)
    added = math.fsum(value * factor for (basis, value), factor in lawful if basis != "score")
    return scored + added + scored * voted / MEETING


def _gather(pools: Mapping[str, Sequence[SourceAnswer]], trust: Mapping[str, Trust], config: EnsembleConfig) -> dict[bytes, _Evidence]:
    """The evidence for each distinct answer to one test input, by `grid_id`."""
    broken = {grid_id(one.grid): one.broken for answers in pools.values() for one in answers if one.broken is not None}
    gathered: dict[bytes, _Evidence] = {}
    for source in sorted(pools):
        answers, weight = pools[source], config.weights.get(source, 1.0)
        odds = source_odds(source, answers, trust)
        basis = answers[0].basis
        votes, total = sum(a.votes for a in answers), math.fsum(odds)
        counted = basis == "votes" and any(a.probability is None for a in answers)
        for number, (answer, value) in enumerate(zip(answers, odds, strict=True), 1):
            key = grid_id(answer.grid)
            evidence = gathered.setdefault(key, _Evidence(answer.grid, broken.get(key)))
            share = answer.votes / votes if counted else value / total if total else 1 / len(answers)
            evidence.votes[source] = weight * answer.votes
            evidence.shares[source] = weight * share
            evidence.odds[source] = weight * value
            evidence.ranks[source] = number
            evidence.bases[source] = basis
            # A search's score is no log-probability; the log of the share is on the same scale as a model's.
            evidence.logprobs[source] = answer.mean_logprob if basis == "votes" else math.log(max(share, 1e-300))
            evidence.found[source] = answer.found if basis == "votes" else (evidence.logprobs[source],)
            evidence.scored[source] = answer.scored
            place = f"{answer.votes} of {votes} votes" if counted else f"{number} of {len(answers)}"
            if basis == "programs":
                whole, pairs = max(answer.fits)
                place = f"{answer.votes} programs, the best right on {whole} of {pairs} train pairs"
            evidence.backing[source] = f"{source} {place} ({value / (1 + total):.2f})"
    return gathered


# The first sort key of each method, the least first, from (config, evidence, a model's score). Ties are broken by the odds.
_RULES: dict[str, Callable[[EnsembleConfig, _Evidence, float], tuple[float, ...]]] = {
    "probability": lambda config, evidence, score: (),
    "voting": lambda config, evidence, score: (-math.fsum(evidence.shares.values()),),
    "concatenation": lambda config, evidence, score: (-math.fsum(evidence.votes.values()),),
    "combination": lambda config, evidence, score: min((float(rank), float(place)) for place, rank in _places(config, evidence)),
    "precedence": lambda config, evidence, score: min((float(place), float(rank)) for place, rank in _places(config, evidence)),
    "count-minus-mean": lambda config, evidence, score: (-published.count_minus_mean(evidence.found, evidence.scored, config.weights),),
    "product-with-baseline": lambda config, evidence, score: (
        -published.product_with_baseline(evidence.found, evidence.scored, config.weights),
    ),
    **dict.fromkeys(JUDGED_METHODS, lambda config, evidence, score: (-score,)),
}


def _places(config: EnsembleConfig, evidence: _Evidence) -> list[tuple[int, int]]:
    """For each source that gave the answer: its place in the order of trust, and the answer's rank in it."""
    return [(place, evidence.ranks[source]) for place, source in enumerate(config.order) if source in evidence.ranks]
