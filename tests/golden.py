"""Golden runs: small runs of every command, recorded as hashes, to compare a changed package with.

They are for a change that a user must not see: predictions, adapters, weights, submissions, fingerprints, JSON keys, exit codes, options
and outcomes of tasks stay equal, and a run that was killed goes on. New files, options and keys of files are allowed; the wording of
messages and reasons is not compared. The package is only started as `python -m arc_submit.cli` with PYTHONPATH at a checkout, so that one
script serves the code before and after, however its modules move. Time decides nothing: the budgets are so large that every task gets
the plan, and the search counts its work. Values that differ by nature (times, process ids, free disk) are recorded as "~".

    python tests/golden.py record FILE [--source CHECKOUT] [--only NAME,NAME] [--keep DIR]    # four minutes of one core
    python tests/golden.py compare FILE [--source CHECKOUT] [--only NAME,NAME] [--keep DIR]   # exit code 1 where anything differs
    python tests/golden.py resume --before CHECKOUT [--after CHECKOUT] [--only NAME,NAME]     # runs killed with one code, ended by another
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

Aspects = dict[str, Any]

CHECKOUT = Path(__file__).resolve().parent.parent
MARK = "ARC_SUBMIT_GOLDEN"  # in the environment of a command and of all that it starts: by it they are found
READABLE = 1500  # characters of JSON up to which a value is kept as it is, so that a difference can be understood; longer ones as a hash
PATIENCE = 3600.0  # seconds for a command that takes half a minute
UNSTEADY = {"time", "seconds", "train_seconds", "cpu_seconds", "tokens_per_second", "waited", "recoveries", "pid", "worker"}
FREE_DISK = re.compile(r"[\d.]+ [MG]B are 80% of the free disk")
OUTCOMES = {f"{kind}_{end}" for kind in ("task", "infer", "point") for end in ("done", "failed", "cut")}
OUTCOMES |= {"submission_final", "run_ended", "recombined"}
NAMES_ONLY = {".png", ".html", ".lock"}  # pictures and pages hold times

# Small tasks of the training split, one of them with two test inputs, that the search is done with soon; the seed was chosen for that.
SAMPLE = "--split training --largest 100 --tasks 4 --seed 37"
TWO_TASKS = "--task-ids 25ff71a9,d631b094"
SHARED = "--model pocket --workers 1 --threads 1 --budget 100h --silence 1h --start 1h --ttft-steps 4 --lora-rank 4 --json"
RUN = f"run {SHARED} --slots 4 --group 2 --pictures 2 --challenges mixed.json --solutions solutions.json"
FEW = "--search-effort quick --views 2 --ttft-views 2"
INFER = "infer --model pocket --engine transformers --views 2 --slots 4 --group 2 --workers 1 --threads 1 --budget 100h --json"
TRAIN = "train --model pocket --data data/arc-agi_training_challenges.json,output-from-turns-v0,task_augmentation=0.2 --measured none"
TRAIN += " --max-seq-len 512 --batch-size 2 --log-every 1 --learning-rate 1e-3 --loaders 0 --device cpu --threads 1 --json"
COMMANDS = ("run", "sweep", "finetune", "score", "search", "infer", "ensemble", "train", "merge", "simulate", "data")


@dataclass
class Lab:
    """A folder in which commands are run with the package of a checkout, and what they all work on.

    Attributes:
        folder: the commands' current folder; all paths given to them are relative, so that none is in what they leave.
        source: the checkout.
        model: folder of the base model.
        count: how many commands have been run, for the names of their logs.
    """

    folder: Path
    source: Path
    model: Path
    count: int = 0

    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(self.source), "OMP_NUM_THREADS": "1", MARK: str(self.folder)}
        return {**os.environ, **own}

    def start(self, command: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Begin a command in a session of its own; its output goes into a log, whose path is given too."""
        self.count += 1
        log = self.folder / "commands" / f"{self.count:02d}-{command.split()[0]}.txt"
        log.parent.mkdir(exist_ok=True)
        log.with_suffix(".command").write_text(command + "\n")
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "arc_submit.cli", *command.split()],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return process, log

    def call(self, command: str, name: str = "") -> Aspects:
        """Run a command to its end: its exit code and the figures in its last line, and how many lines a refusal has."""
        process, log = self.start(command)
        try:
            code = process.wait(timeout=PATIENCE)
        finally:
            end(process, self.folder)
        lines = log.read_text(errors="replace").strip().split("\n")
        told: Aspects = {f"exit {name}".strip(): code}
        told[f"json {name}".strip()] = plain(json.loads(lines[-1]), self.folder) if lines[-1].startswith("{") else None
        if code == 1:
            told[f"lines of error {name}".strip()] = len(log.with_suffix(".err").read_text(errors="replace").strip().split("\n"))
        return told

    def copy(self, old: str, new: str) -> None:
        shutil.copytree(self.folder / old, self.folder / new)


def end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """SIGKILL to the process group of a command that is still there, and wait until nothing that it started lives."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Workers are in sessions of their own, and the kernel ends them with their parent.
    patience = time.monotonic() + 30.0
    while left := list(marked(folder)):
        assert time.monotonic() < patience, f"processes {left} outlived their command"
        time.sleep(0.02)


def marked(folder: Path) -> Iterator[int]:
    """Every living process that a command in this folder has started."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={folder}".encode() in (path / "environ").read_bytes().split(b"\0"):
                yield int(path.name)


def plain(value: Any, folder: Path) -> Any:
    """A JSON value without what cannot be the same twice: "~" stands for it."""
    if isinstance(value, dict):
        return {name: "~" if name in UNSTEADY else plain(inner, folder) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, folder) for inner in value]
    return FREE_DISK.sub("~ are 80% of the free disk", value.replace(f"{folder}/", "")) if isinstance(value, str) else value


def digest(content: bytes) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def readable(value: Any) -> Any:
    """The value as it is where it is short, else how long it is and its hash."""
    text = json.dumps(value, sort_keys=True)
    size = f"{len(value)} entries, " if isinstance(value, list | dict) else ""
    return value if len(text) <= READABLE else f"{size}{digest(text.encode())}"


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def files_of(folder: Path) -> list[Path]:
    """All files but logs, relative to the folder; those named .lock may be there or not."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if "logs" not in path.parts and path.suffix not in (".lock", ".log")]


def contents(folder: Path, base: Path) -> Aspects:
    """Every file but the timeline, logs and pictures: JSON parsed, lines sorted where their order says nothing, others by bytes."""
    found: Aspects = {}
    for name in files_of(folder):
        path = folder / name
        if name.name == "events.jsonl" or name.suffix in NAMES_ONLY:
            continue
        if name.suffix == ".jsonl":
            lines = plain(lines_of(path), base)
            lines = lines if name.parts[0] in ("losses", "log.jsonl") else sorted(lines, key=lambda line: json.dumps(line, sort_keys=True))
            found[str(name)] = readable(lines)
        elif name.suffix == ".json" and name.name != "submission.json":
            found[str(name)] = readable(plain(json.loads(path.read_text(encoding="utf-8")), base))
        else:
            found[str(name)] = digest(path.read_bytes())
    return found


def timeline(folder: Path, base: Path) -> Aspects:
    """The outcomes in events.jsonl, by source: of each task and of the whole. Which worker did a task, and when, is left to chance."""
    found: dict[str, list[Any]] = {}
    for event in plain(lines_of(folder / "events.jsonl"), base) if (folder / "events.jsonl").exists() else ():
        if event["event"] in OUTCOMES and not event["event"].startswith("worker"):
            value = {name: inner for name, inner in event.items() if name not in ("reason", "pid", "worker")}
            found.setdefault(f"events {event.get('source', '')}".strip(), []).append(value)
    return {name: sorted(events, key=lambda event: json.dumps(event, sort_keys=True)) for name, events in found.items()}


def everything(lab: Lab, out: str, copy_of: str = "") -> Aspects:
    """What a command has left in a folder; in a copy of another's folder, what it has changed there."""
    found, old = all_of(lab, out), all_of(lab, copy_of) if copy_of else {}
    changed = {name: value for name, value in found.items() if value != old.get(name)}
    for name, value in changed.items():
        before = old.get(name, [])
        if name.startswith("events") and value[: len(before)] == before:
            changed[name] = value[len(before) :]
    changed |= {name: "gone" for name in old if name not in found}
    return {f"{out}: {name}": value for name, value in changed.items()}


def all_of(lab: Lab, out: str) -> Aspects:
    folder = lab.folder / out
    return {"files": list(map(str, files_of(folder))), **contents(folder, lab.folder), **timeline(folder, lab.folder)}


def run_to_end(lab: Lab, out: str, command: str, copy_of: str = "") -> Aspects:
    if copy_of:
        lab.copy(copy_of, out)
    return {**lab.call(f"{command} --out {out}", out), **everything(lab, out, copy_of)}


def make_material(lab: Lab) -> Aspects:
    """The model, four small tasks, and a file that has a malformed one and one that is too large for any prompt beside them.

    Returns what else decides the bits of a result: those of another model, library or processor say nothing about a change of the code.
    """
    shutil.copytree(lab.model, lab.folder / "pocket")
    told = lab.call(f"data --out data --part training {SAMPLE} --json")
    assert told["exit"] == 0, f"{lab.source}: the command data failed: {told}"
    tasks, solutions = (json.loads((lab.folder / f"data/arc-agi_training_{name}.json").read_text()) for name in ("challenges", "solutions"))
    large = [[(row * column) % 10 for column in range(30)] for row in range(30)]
    tasks["huge"] = {"train": [{"input": large, "output": large}] * 2, "test": [{"input": large}]}
    tasks["malformed"] = {"train": [{"input": [[1, 2], [3]], "output": [[1]]}], "test": [{"input": [[1]]}, {"input": [[2]]}]}
    (lab.folder / "mixed.json").write_text(json.dumps(tasks))
    (lab.folder / "solutions.json").write_text(json.dumps({**solutions, "huge": [large]}))
    for path in (*lab.folder.glob("data/*.json"), *lab.folder.glob("*.json")):
        os.utime(path, (1.7e9, 1.7e9))  # what a training notes of its data has the file's time in it
    found: Aspects = {name: digest((lab.folder / name).read_bytes()) for name in ("pocket/model.safetensors", "mixed.json")}
    found |= {name: importlib.metadata.version(name) for name in ("numpy", "numba", "torch", "transformers")}
    found["processor"] = next((line for line in Path("/proc/cpuinfo").read_text().split("\n") if line.startswith("model name")), "")
    return found


# The cases. Each leaves its folders to those behind it that need them.


def case_data(lab: Lab) -> Aspects:
    test = run_to_end(lab, "sample", f"data --part test {SAMPLE} --json")
    newer = run_to_end(lab, "newer", "data --dataset ARC-AGI-2 --smallest 30 --largest 1000 --tasks 2 --json")
    return {**test, **everything(lab, "data"), **newer}


def case_flags(lab: Lab) -> Aspects:
    """The options that each command's help names; of these none may go, and others may come."""
    found: Aspects = {}
    for command in (*COMMANDS, "plot losses", "plot learning"):
        lab.call(f"{command} --help")
        text = (lab.folder / "commands" / f"{lab.count:02d}-{command.split()[0]}.txt").read_text()
        # What a help says of an option is set off by two spaces, or stands on the next line.
        options = re.findall(r"^  (-\S.*?)(?:  |$)", text, re.MULTILINE)
        found[f"flags {command}"] = sorted(set(re.findall(r"--[a-z0-9-]+", " ".join(options))))
    return found


def case_run(lab: Lab) -> Aspects:
    command = f"{RUN} --sources search,frozen,ttft {FEW}"
    return {**run_to_end(lab, "run", command), **run_to_end(lab, "again", command, "run")}


def case_run_dfs(lab: Lab) -> Aspects:
    more = "--sources frozen,ttft --ttft-candidates dfs --warm-up-steps 3 --keep-background --way voting --weights frozen=1,ttft=2"
    return run_to_end(lab, "dfs", f"{RUN} {FEW} {more} {TWO_TASKS}")


def case_run_adapter(lab: Lab) -> Aspects:
    more = "--sources ttft --base-adapter trained/adapter --ttft-max-steps 8 --ttft-max-views 5"
    return run_to_end(lab, "based", f"{RUN} {FEW} {more} {TWO_TASKS}".replace("--lora-rank 4 ", ""))


def case_run_vllm(lab: Lab) -> Aspects:
    if importlib.util.find_spec("vllm") is None:
        return {"skipped": "vllm is not installed"}
    more = f"--sources frozen,ttft --engine vllm --ttft-engine vllm {TWO_TASKS}"
    return run_to_end(lab, "vllm", f"{RUN} {FEW} {more}")


def case_finetune(lab: Lab) -> Aspects:
    """And a run that takes the adapters."""
    first = run_to_end(lab, "tuned", f"finetune {SHARED} --challenges mixed.json")
    return {**first, **run_to_end(lab, "taken", f"{RUN} --sources ttft", "tuned")}


def case_infer(lab: Lab) -> Aspects:
    more = "--challenges mixed.json"
    frozen = run_to_end(lab, "frozen", f"{INFER} {more} --solutions solutions.json")
    tuned = run_to_end(lab, "answered", f"{INFER} {more} --adapters tuned/adapters --keep-background")
    dfs = run_to_end(lab, "searched", f"{INFER} {more} --candidates dfs")
    return {**frozen, **tuned, **dfs, **run_to_end(lab, "drawn", f"{INFER} {more} --temperature 1")}


def case_infer_vllm(lab: Lab) -> Aspects:
    """One of two adapters is of a kind that vllm does not serve: transformers takes that task over."""
    if importlib.util.find_spec("vllm") is None:
        return {"skipped": "vllm is not installed"}
    made = lab.call(f"finetune {SHARED} --challenges mixed.json --task-ids d631b094 --lora-dora --out dora", "dora")
    lab.copy("tuned/adapters/25ff71a9", "dora/adapters/25ff71a9")
    return made | run_to_end(lab, "handed", f"{INFER} --challenges mixed.json --adapters dora/adapters".replace("transformers", "auto"))


def case_infer_run(lab: Lab) -> Aspects:
    """On the directory of a run, whose predictions stay."""
    return run_to_end(lab, "further", INFER.replace("--views 2", "--views 3"), "run")


def case_search(lab: Lab) -> Aspects:
    return run_to_end(lab, "search", "search --challenges mixed.json --effort quick --workers 2 --seconds-per-task 3600 --json")


def case_train(lab: Lab) -> Aspects:
    adapter = f"{TRAIN} --steps 4 --save-every 2 --lora-rank 4 --eval-every 2 --eval-samples 2"
    found = run_to_end(lab, "trained", adapter)
    lab.copy("trained", "resumed")
    for gone in ("adapter", "checkpoints/step-00000004"):
        shutil.rmtree(lab.folder / "resumed" / gone, ignore_errors=True)
    found |= lab.call(f"{adapter} --out resumed", "resumed") | everything(lab, "resumed", "trained")
    found |= run_to_end(lab, "full", f"{TRAIN} --steps 4 --save-every 4 --full --optimizer muon")
    return found | run_to_end(lab, "merged", "merge --model pocket --adapter trained/adapter --json")


def case_ensemble(lab: Lab) -> Aspects:
    lab.copy("run", "voted")
    found = lab.call("ensemble voted --way voting --weights search=1,ttft=2 --order ttft,search,frozen --json", "voted")
    found |= lab.call("ensemble voted --compare --json --solutions solutions.json", "compare")
    found |= lab.call("ensemble voted --compare --json", "differing")
    found |= everything(lab, "voted", "run")
    lab.copy("run", "judged")
    found |= lab.call("ensemble judged --way product --ask --views 2 --candidates 3 --model pocket --json", "judged")
    return found | everything(lab, "judged", "run")


def case_sweep(lab: Lab) -> Aspects:
    rest = RUN.replace("run ", "", 1)
    found = lab.call(f"sweep --out swept --over seed=0,1 --json -- {rest} {FEW} --sources frozen --tasks 2", "swept")
    for name in ("swept", "swept/seed=0", "swept/seed=1"):
        found |= everything(lab, name)
    return {name: value for name, value in found.items() if not name.startswith("swept: seed=") and name != "swept: table.txt"}


def case_score(lab: Lab) -> Aspects:
    return lab.call("score --challenges mixed.json --solutions solutions.json --submission run/submission.json --json")


def case_plot(lab: Lab) -> Aspects:
    found = lab.call("plot losses --run tuned --out losses.png --json", "losses")
    found |= lab.call("plot learning --run trained --out learning.png --intervals 2 --json", "learning")
    return found | {name: (lab.folder / name).stat().st_size > 2000 for name in ("losses.png", "learning.png")}


def case_simulate(lab: Lab) -> Aspects:
    rig = lab.call("simulate --preset t4x2-qwen2.5-1.5b --rig 2xT4 --tasks 30 --runs 20 --json", "rig")
    like = lab.call("simulate --like run --challenges mixed.json --runs 5 --json", "like")
    return {**rig, **like, "json like": shape(like["json like"])}


def case_refused(lab: Lab) -> Aspects:
    """What is refused before any work, in one line."""
    commands = {
        "views": f"{RUN} --sources search,frozen,ttft {FEW} --out run".replace("--views 2", "--views 3", 1),
        "finetune": f"finetune {SHARED} --challenges mixed.json --out run",
        "seed": f"{INFER} --challenges mixed.json --seed 1 --out frozen",
        "tasks": f"{INFER} --challenges data/arc-agi_training_challenges.json --out frozen",
        "sources": f"{RUN} --sources search,guess --out nowhere",
        "model": f"finetune {SHARED} --challenges mixed.json --out nowhere".replace("pocket", "nothing"),
        "dfs": f"{INFER} --challenges mixed.json --candidates dfs --out nowhere".replace("transformers", "vllm"),
        "workers": "search --challenges mixed.json --out nowhere --workers 0",
        "ask": "ensemble run --ask --json",
        "unasked": "ensemble run --way selection --json",
        "score": "score --challenges mixed.json --solutions solutions.json --submission sample/sample_submission.json",
        "train": "train --model pocket --out nowhere",
        "sweep": "sweep --out nowhere --over seed=0,0",
    }
    found: Aspects = {}
    for name, command in commands.items():
        found |= {aspect: value for aspect, value in lab.call(command, name).items() if not aspect.startswith("json")}
    return found | {"nowhere": (lab.folder / "nowhere").exists()}


def shape(value: Any) -> Any:
    """The keys and kinds of a JSON value."""
    return {name: shape(inner) for name, inner in value.items()} if isinstance(value, dict) else type(value).__name__


# By name: the cases whose folders a case needs, and the case.
CASES: dict[str, tuple[tuple[str, ...], Callable[[Lab], Aspects]]] = {
    "flags": ((), case_flags),
    "data": ((), case_data),
    "train": ((), case_train),
    "run": ((), case_run),
    "run-dfs": ((), case_run_dfs),
    "run-adapter": (("train",), case_run_adapter),
    "run-vllm": ((), case_run_vllm),
    "finetune": ((), case_finetune),
    "infer": (("finetune",), case_infer),
    "infer-vllm": (("finetune",), case_infer_vllm),
    "infer-run": (("run",), case_infer_run),
    "search": ((), case_search),
    "ensemble": (("run",), case_ensemble),
    "sweep": ((), case_sweep),
    "score": (("run",), case_score),
    "plot": (("finetune", "train"), case_plot),
    "simulate": (("run",), case_simulate),
    "refused": (("data", "run", "infer"), case_refused),
}


def chosen(only: str | None, names: Sequence[str]) -> list[str]:
    wanted = only.split(",") if only else list(names)
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        sys.exit(f"golden: no {unknown[0]}; there are {', '.join(names)}")
    return [name for name in names if name in wanted]


def with_needed(names: Sequence[str]) -> list[str]:
    wanted = set(names)
    while more := {need for name in wanted for need in CASES[name][0]} - wanted:
        wanted |= more
    return [name for name in CASES if name in wanted]


def observe(lab: Lab, names: Sequence[str]) -> Iterator[tuple[str, Aspects, float]]:
    """Run cases, and those that they need: name, aspects and seconds of each that was asked for, what they work on first."""
    yield "material", make_material(lab), 0.0
    for name in with_needed(names):
        began = time.monotonic()
        aspects = json.loads(json.dumps(CASES[name][1](lab)))
        if name in names:
            yield name, aspects, time.monotonic() - began


def check_source(lab: Lab) -> None:
    """See that it is this checkout's package that the commands will run, not an installed one."""
    code = "import importlib.util; print(importlib.util.find_spec('arc_submit').origin)"
    words = [sys.executable, "-c", code]
    found = subprocess.run(words, cwd=lab.folder, env=lab.environment(), capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_relative_to(lab.source):
        sys.exit(f"golden: {found} would be run, not {lab.source}")


def differences(before: Aspects, now: Aspects) -> Iterator[str]:
    """A line for each aspect that is not what it was, with both values."""
    for name in sorted({*before, *now}):
        was, is_now = before.get(name, "not there"), now.get(name, "not there")
        if was in (is_now, "not there"):
            continue  # a package may leave more than before
        if (name.startswith("flags ") or name.endswith("files")) and isinstance(was, list) and isinstance(is_now, list):
            if gone := [one for one in was if one not in is_now]:
                yield f"{name}: no longer there: {', '.join(gone)}"
        elif isinstance(was, list) and isinstance(is_now, list):
            yield from (f"{name}: {line}" for line in changed_entries(was, is_now))
        elif isinstance(was, dict) and isinstance(is_now, dict):
            named = ({f"{name} / {key}": inner for key, inner in value.items()} for value in (was, is_now))
            yield from differences(*named)
        else:
            yield f"{name}: {cut(was)} -> {cut(is_now)}"


def changed_entries(before: list[Any], now: list[Any]) -> Iterator[str]:
    """What has changed from one list to another: fields of entries about the same thing, entries that are gone, and new ones."""
    changes: Counter[str] = Counter()
    matcher = SequenceMatcher(None, list(map(about, before)), list(map(about, now)), autojunk=False)
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        if kind != "equal":
            changes.update(f"gone: {cut(one)}" for one in before[i:i_end])
            changes.update(f"new: {cut(one)}" for one in now[j:j_end])
            continue
        for was, is_now in zip(before[i:i_end], now[j:j_end], strict=True):
            for key in sorted({*was, *is_now}) if was != is_now else ():
                old, new = was.get(key, "not there"), is_now.get(key, "not there")
                changes.update([f"{was.get('event', 'entry')} / {key}: {cut(old)} -> {cut(new)}"] if old != new else [])
    for line, count in changes.items():
        yield line if count == 1 else f"{line} ({count} times)"


def about(entry: Any) -> str:
    """What an entry of a list is about: an event by its kind and tasks, anything else by itself."""
    named = isinstance(entry, dict) and "event" in entry
    return json.dumps([entry.get(key) for key in ("event", "task", "tasks")] if named else entry, sort_keys=True)


def cut(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else f"{text[:300]} ..."


def say_differences(name: str, found: Sequence[str], seconds: float) -> None:
    print(f"{name}: {'differs' if found else 'equal'} ({seconds:.0f} s)", flush=True)
    for line in found:
        print(f"    {line}", flush=True)


# Runs that are killed in the middle.


def events_in(folder: Path) -> list[dict[str, Any]]:
    found = []
    path = folder / "events.jsonl"
    for line in path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else ():
        with suppress(ValueError):  # cut short
            found.append(json.loads(line))
    return found


def ended_tasks(folder: Path, source: str, *kinds: str) -> int:
    return sum(event["event"] in kinds and event.get("source") == source for event in events_in(folder))


@dataclass(frozen=True)
class Interrupted:
    """A command that is killed in the middle.

    Attributes:
        command: all of it but --out.
        reached: whether the moment has come, by the folder.
        like: the name of the one whose undisturbed end is the same; "" for its own.
    """

    command: str
    reached: Callable[[Path], bool]
    like: str = ""


THREE = f"{RUN} --sources search,frozen,ttft {FEW} --ttft-max-views 4"
INTERRUPTED = {
    # While the search and the frozen model are at work, and again while a task is fine-tuned on.
    "run": Interrupted(THREE, lambda out: ended_tasks(out, "frozen", "task_done") >= 2),
    "run-ttft": Interrupted(THREE, lambda out: ended_tasks(out, "ttft", "task_done") >= 2, "run"),
    "finetune": Interrupted(f"finetune {SHARED} --challenges mixed.json", lambda out: len(list(out.glob("adapters/[!.]*"))) >= 2),
    "infer": Interrupted(
        INFER.replace("--views 2", "--views 4").replace("--group 2", "--group 1") + " --challenges mixed.json",
        lambda out: ended_tasks(out, "frozen", "infer_done") >= 2 or len(list(out.glob("predictions/frozen/*.jsonl"))) >= 3,
    ),
    "search": Interrupted(
        "search --challenges mixed.json --effort quick --workers 2 --seconds-per-task 3600 --json",
        lambda out: len(list(out.glob("search/[!.]*.json"))) >= 2,
    ),
    "train": Interrupted(
        f"{TRAIN} --steps 8 --save-every 1 --keep 20 --lora-rank 4", lambda out: len(list(out.glob("checkpoints/step-*/state.json"))) >= 2
    ),
}


def finished(folder: Path) -> set[str]:
    """What is whole in a folder and must not be made again: files with the time of each, and lines with the seconds that stand in them."""
    found = set()
    for pattern in ("adapters/[!.]*/adapter_model.safetensors", "search/[!.]*.json", "checkpoints/step-*/state.json"):
        found |= {f"{path.relative_to(folder)} of {path.stat().st_mtime_ns}" for path in folder.glob(pattern)}
    saved = max((int(path.name.removeprefix("step-")) for path in folder.glob("checkpoints/step-*")), default=0)
    for path in (*folder.glob("predictions/*/*.jsonl"), *folder.glob("log.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            with suppress(ValueError):  # cut short
                if json.loads(line).get("step", 0) <= saved:  # later steps of a training are done again
                    found.add(f"{path.relative_to(folder)}: {line}")
    return found


def go_on(lab: Lab, name: str, before: Path, after: Path) -> tuple[list[str], str]:
    """Begin a command with one package, kill it, go on with another: what differs from an undisturbed end, and what was killed when."""
    one = INTERRUPTED[name]
    out = one.like or name
    folder, undisturbed = lab.folder / out, lab.folder / f"{out}-undisturbed"
    lab.source = before
    if not undisturbed.exists():
        told = lab.call(f"{one.command} --out {out}")
        assert told["exit"] == 0, f"{one.command}: an undisturbed run ended with {told}"
        folder.rename(undisturbed)  # both are made under one name, which a training notes
    process, _ = lab.start(f"{one.command} --out {out}")
    patience = time.monotonic() + PATIENCE
    try:
        while process.poll() is None and not one.reached(folder):
            assert time.monotonic() < patience, f"{name}: the moment to kill it did not come"
            time.sleep(0.01)
    finally:
        end(process, lab.folder)
    if process.returncode != -signal.SIGKILL:
        folder.rename(lab.folder / f"{name}-ended")
        return [f"it ended by itself with exit code {process.returncode}, before it could be killed"], ""
    kept = finished(folder)
    lab.source = after
    told = lab.call(f"{one.command} --out {out}")
    found = [f"exit code {told['exit']}: {told.get('error', '')}"] if told["exit"] else []
    found += [f"finished before the kill, and gone or made again: {thing}" for thing in sorted(kept - finished(folder))]
    ends = [{"files": list(map(str, files_of(path))), **contents(path, lab.folder)} for path in (undisturbed, folder)]
    found += differences(*(without_hidden(some) for some in ends))
    folder.rename(lab.folder / f"{name}-killed")
    return found, f"killed with {len(kept)} predictions, adapters, reports and checkpoints there"


def without_hidden(found: Aspects) -> Aspects:
    """Without files whose names begin with a dot: a kill in the middle of writing one leaves it."""
    files = [name for name in found["files"] if "/." not in f"/{name}"]
    return {**{name: value for name, value in found.items() if "/." not in f"/{name}"}, "files": files}


def resume(lab: Lab, names: Sequence[str], before: Path, after: Path) -> int:
    make_material(lab)
    wrong = 0
    for name in names:
        began = time.monotonic()
        found, told = go_on(lab, name, before, after)
        wrong += bool(found)
        print(f"{name}: {'differs' if found else 'equal'}; {told} ({time.monotonic() - began:.0f} s)", flush=True)
        for line in found:
            print(f"    {line}", flush=True)
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Small runs of every command, recorded and compared.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name in ("record", "compare", "resume"):
        action = actions.add_parser(name)
        if name == "resume":
            action.add_argument("--before", type=Path, required=True, help="checkout that begins the runs")
            action.add_argument("--after", type=Path, default=CHECKOUT, help="checkout that goes on with them (default: the script's)")
        else:
            action.add_argument("file", type=Path)
            action.add_argument("--source", type=Path, default=CHECKOUT, help="checkout whose package is run (default: the script's)")
        action.add_argument("--model", type=Path, help="folder of the base model (default: models/pocket of that checkout)")
        action.add_argument("--only", metavar="NAME,NAME", help=f"of {', '.join(INTERRUPTED if name == 'resume' else CASES)}")
        action.add_argument("--keep", type=Path, metavar="DIR", help="keep what the commands leave in this folder, which is made")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="golden-") as scratch:
        folder = (args.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.exit(f"golden: {folder} is not empty")
        source = (args.before if args.action == "resume" else args.source).resolve()
        lab = Lab(folder, source, (args.model or source / "models" / "pocket").resolve())
        check_source(lab)
        if args.action == "resume":
            after = args.after.resolve()
            check_source(replace(lab, source=after))
            return resume(lab, chosen(args.only, list(INTERRUPTED)), source, after)
        names = chosen(args.only, list(CASES))
        there = args.action == "compare" or (args.only and args.file.exists())
        before: dict[str, Aspects] = json.loads(args.file.read_text()) if there else {}
        wrong = 0
        for name, aspects, seconds in observe(lab, names):
            if args.action == "record":
                before[name] = aspects
                args.file.write_text(json.dumps(before, indent=1) + "\n")
                print(f"{name}: {len(aspects)} aspects ({seconds:.0f} s)", flush=True)
            else:
                found = list(differences(before[name], aspects)) if name in before else ["not recorded"]
                wrong += bool(found)
                say_differences(name, found, seconds)
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
