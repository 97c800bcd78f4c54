"""Faults against real inference: engines that are stopped, killed, broken, never ready or out of disk, and what is left of the work.

Each round runs `infer` in a process of its own on a small model with an adapter for each task, does it some harm, and then counts:
every prediction that was on disk before a fault is there after it, none is there twice, every prediction is made or its task named
as failed, no process is left. tests/test_faults.py has a short one; the long one, which goes on where it was, is

    python tests/faults.py --faults 200 --out runs/faults [--json]
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from processes import is_alive

SETTINGS = "ARC_SUBMIT_FAULTS"
VIEWS = 4
_WARM = 8  # steps after which vllm has compiled what it compiles at its first answers
_PATIENCE = 7200.0  # seconds for what takes one or two minutes on a machine of its own
CORRUPT, LONG = "task001", "task900"  # a task whose adapter is broken, and one that fits no prompt


def open_worker(settings: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The frozen source's worker with the faults of the environment's JSON built into its engine.

    never_start: an engine that hangs before it is ready. full_disk: an engine whose process, once it is warm, may let no file grow
    beyond a few hundred bytes. raise_at: the steps (of a process) that raise, each once in a run. pace: seconds a step takes.
    """
    from arc_submit.inference import load, predict

    faults = json.loads(os.environ[SETTINGS])
    if faults.get("never_start") == settings["engine"]:
        time.sleep(3600)
    load_engine = load.load_engine

    def open_slowly(*args: Any) -> Any:
        engine, tokenizer, reason = load_engine(*args)
        steps = 0

        def on(step: Callable[..., Any]) -> Callable[..., Any]:
            def slow(*inner: Any) -> Any:
                nonlocal steps
                steps += 1
                time.sleep(faults.get("pace", 0.0))
                if steps == _WARM and faults.get("full_disk") == settings["engine"]:
                    _fill_disk()
                mark = Path(faults["marks"]) / f"raised-{steps}"
                if steps in faults.get("raise_at", ()) and not mark.exists():
                    mark.touch()
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
                return step(*inner)

            return slow

        if settings["engine"] == "vllm":
            engine.core.step = on(engine.core.step)
        else:
            engine.step = on(engine.step)
        return engine, tokenizer, reason

    load.load_engine = open_slowly
    return predict.open_worker(settings, beat)


def _fill_disk() -> None:
    """From now on no file of this process may grow beyond a few hundred bytes. Its log goes nowhere, as a full disk would have it."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def infer_here(config: dict[str, Any]) -> None:
    """What the process that is harmed does: `infer` with this module's worker, with the figures as a last line."""
    from arc_submit.run import resolve_single, source_frozen
    from arc_submit.run.config import RunConfig
    from arc_submit.run.pipeline import infer
    from arc_submit.run.presets import make_infer_config
    from arc_submit.run.source import Source
    from arc_submit.storage.run_dir import RunPaths
    from arc_submit.workers.pool import Backend, Timeouts

    def timeouts(backend: Backend) -> Timeouts:
        return Timeouts(
            startup_timeout=config["start"][backend.name],
            heartbeat_timeout=20.0,
            pause_factor=5.0,
            min_heartbeat_timeout=2.0,
            max_failed_starts=1,
            max_failures=config["max_failures"],
        )

    source_frozen.PREDICT_WORKER = "faults:open_worker"
    make_source = resolve_single._infer_source

    def make_impatient_source(run_config: RunConfig, run: RunPaths) -> Source:
        source = make_source(run_config, run)
        return replace(source, backends=tuple(replace(one, timeouts=timeouts(one)) for one in source.backends))

    resolve_single._infer_source = make_impatient_source
    paths = {name: Path(config[name]) for name in ("out", "challenges", "model", "adapters")}
    result = infer(make_infer_config(**paths, engine=config["engine"], views=VIEWS, max_concurrent=4, tasks_per_job=4, budget=_PATIENCE))
    print(json.dumps({**result.to_json(), "reasons": result.failed, "left": result.unfinished}))


def make_material(folder: Path, model: Path, tasks: int) -> None:
    """Challenges of small tasks and one that fits no prompt, and adapters, one of them broken."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    rng = np.random.default_rng(0)

    def pair(side: int) -> dict[str, Any]:
        grid = rng.integers(0, 10, (side, side)).tolist()
        return {"input": grid, "output": grid}

    challenges = {f"task{i:03d}": {"train": [pair(4) for _ in range(3)], "test": [{"input": pair(4)["input"]}]} for i in range(tasks)}
    challenges[LONG] = {"train": [pair(30) for _ in range(2)], "test": [{"input": pair(30)["input"]}]}
    (folder / "challenges.json").write_text(json.dumps(challenges))
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    generator = torch.Generator().manual_seed(0)
    for task in challenges:
        for name, weights in tuned.named_parameters():
            if "lora_" in name:
                weights.data = torch.randn(weights.shape, generator=generator) * 0.1
        tuned.save_pretrained(folder / "adapters" / task)
    weights = folder / "adapters" / CORRUPT / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])


@dataclass
class Round:
    """One run directory and what was done to it.

    Attributes:
        lost: predictions that were on disk and are gone or changed.
        twice: predictions that are there more than once.
        missing: predictions that are neither there nor of a task that was named as failed.
        leftover: processes that outlived their run.
    """

    out: Path
    faults: int = 0
    lost: int = 0
    twice: int = 0
    missing: int = 0
    leftover: int = 0
    recoveries: list[float] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.twice or self.missing or self.leftover)


def predictions(out: Path) -> list[str]:
    """Every whole line of predictions."""
    lines = []
    for path in sorted((out / "predictions").glob("*/*.jsonl")):
        # A line that was cut short by a fault is no prediction.
        lines += [line for line in path.read_text().split("\n")[:-1] if line.startswith("{") and line.endswith("}")]
    return lines


class Harm:
    """Runs `infer` on a material and harms it.

    Args:
        material: folder with challenges.json and adapters/.
        model: the base model's folder.
        out: the run directory.
        max_failures: see arc_submit.workers.supervisor.Timeouts.
        start: seconds that the first engine may take to get ready.
        faults: what the worker is to do to itself, see `open_worker`.
    """

    def __init__(
        self,
        material: Path,
        model: Path,
        out: Path,
        max_failures: int = 3,
        start: float = 200.0,
        engine: str = "auto",
        **faults: Any,
    ):
        self.round = Round(out)
        self.seen: set[str] = set()
        self.pids: set[int] = set()
        marks = material / f"marks-{out.parent.name}"
        marks.mkdir(exist_ok=True)
        config = {
            "out": str(out),
            "challenges": str(material / "challenges.json"),
            "model": str(model),
            "adapters": str(material / "adapters"),
            "engine": engine,
            "max_failures": max_failures,
            "start": {"vllm": start, "transformers": 200.0},
        }
        environment = os.environ | {
            SETTINGS: json.dumps({"marks": str(marks), **faults}),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        }
        self.errors = (material / f"errors-{out.parent.name}.txt").open("ab")
        self.began = time.time()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--infer", json.dumps(config)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            text=True,
        )

    def worker(self) -> int | None:
        """The process id of the worker that is at work."""
        ready: dict[int, int] = {}
        for event in self.events():
            if event["event"] == "worker_ready":
                ready[event["worker"]] = event["pid"]
            elif event["event"] in ("worker_lost", "worker_retired"):
                ready.pop(event["worker"], None)
            if event.get("pid") and event["event"].startswith("worker_"):
                self.pids.add(event["pid"])
        alive = [pid for pid in ready.values() if is_alive(pid)]
        return alive[-1] if alive else None

    def events(self) -> list[dict[str, Any]]:
        """This run's events so far."""
        path = self.round.out / "events.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [event for line in lines if (event := json.loads(line))["time"] >= self.began]

    def wait(self, more: int, seconds: float = _PATIENCE) -> int | None:
        """Wait until there are so many more predictions; the working worker, or None where the run has ended."""
        target, until = len(predictions(self.round.out)) + more, time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            pid = self.worker()
            if pid and len(predictions(self.round.out)) >= target:
                return pid
            time.sleep(0.05)
        return None

    def send(self, pid: int, number: int) -> None:
        """Harm a process, with what is on disk remembered."""
        self.seen |= set(predictions(self.round.out))
        self.round.faults += 1
        os.kill(pid, number)

    def kill_parent(self) -> None:
        """Kill the run outright; its workers must go with it."""
        self.worker()
        self.send(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.check(ended=False)

    def finish(self) -> Round:
        """Let the run end and look at what there is."""
        output, _ = self.process.communicate(timeout=_PATIENCE)
        assert self.process.returncode == 0, f"infer ended with {self.process.returncode}: {Path(self.errors.name).read_text()[-3000:]}"
        figures = json.loads(output.strip().split("\n")[-1])
        self.round.recoveries += figures["recoveries"]
        self.round.reasons |= figures["reasons"]
        self.worker()
        self.check(ended=True)
        return self.round

    def check(self, ended: bool) -> None:
        """Count what is lost, twice, missing and left over."""
        lines = predictions(self.round.out)
        self.round.lost += len(self.seen - set(lines))
        keys = [(value["task"], value["test"], value["view"]) for value in map(json.loads, lines)]
        self.round.twice += len(keys) - len(set(keys))
        if ended:
            tasks = [path.stem for path in (self.round.out / "tasks").glob("*.json")]
            by_task = {task: sum(key[0] == task for key in keys) for task in tasks}
            self.round.missing += sum(VIEWS - by_task[task] for task in tasks if task not in self.round.reasons)
        patience = time.monotonic() + 5.0
        while (left := self._left()) and time.monotonic() < patience:
            time.sleep(0.05)
        self.round.leftover += len(left)

    def _left(self) -> list[int]:
        """Processes of the workers' sessions."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) in self.pids and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        return found


FIGURES = ("faults", "lost", "twice", "missing", "leftover")
KINDS = ("stop", "kill", "step", "parent", "stop", "kill", "step", "never_start", "full_disk")


def campaign(folder: Path, model: Path, faults: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Rounds of every kind of fault until there have been so many; a line for each round is kept, and the same call goes on from them."""
    path = folder / "rounds.jsonl"
    material = folder / "material"
    if not (material / "made").exists():
        shutil.rmtree(material, ignore_errors=True)
        material.mkdir(parents=True)
        make_material(material, model, 12)
        (material / "made").touch()
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    while (done := sum(line["faults"] for line in lines)) < faults:
        number = len(lines)
        # A name of its own, should a round that was cut off still be at work in its directory.
        out = Path(tempfile.mkdtemp(prefix=f"round{number:03d}-", dir=folder)) / "run"
        began, cpu = time.monotonic(), _children_cpu()
        line = one_round(KINDS[number % len(KINDS)], material, model, out, random.Random(f"{seed}-{number}"))
        line |= {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(_children_cpu() - cpu, 1)}
        lines.append(line)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        shutil.rmtree(out.parent, ignore_errors=True)
        sound = not any(line[name] for name in FIGURES[1:])
        say(
            f"{done + line['faults']} faults; {line['kind']}: {'sound' if sound else line}; named: {', '.join(line['named'])};"
            f" {line['cpu_seconds'] / line['faults']:.1f} CPU-s a fault, {line['seconds'] / line['faults']:.1f} s"
        )
    figures: dict[str, Any] = {"rounds": len(lines), **{name: sum(line[name] for line in lines) for name in FIGURES}}
    figures |= {name: round(sum(line[name] for line in lines)) for name in ("seconds", "cpu_seconds")}
    for kind in sorted(set(KINDS)):
        own = [line for line in lines if line["kind"] == kind]
        seconds = sorted(s for line in own for s in line["recoveries"])
        figures[kind] = {"rounds": len(own), **{name: sum(line[name] for line in own) for name in FIGURES}}
        if seconds:
            figures[kind] |= {"recovery_median": round(seconds[len(seconds) // 2], 1), "recovery_longest": round(seconds[-1], 1)}
    return figures


def one_round(kind: str, material: Path, model: Path, out: Path, rng: random.Random) -> dict[str, Any]:
    """What is done to one run directory, and the figures of what came of it."""
    rounds = []
    if kind in ("stop", "kill"):
        harm = Harm(material, model, out, max_failures=50, pace=0.03)
        while harm.round.faults < 12 and (pid := harm.wait(rng.randrange(5))):
            harm.send(pid, signal.SIGSTOP if kind == "stop" else signal.SIGKILL)
    elif kind == "step":
        harm = Harm(material, model, out, max_failures=50, pace=0.01, raise_at=sorted(rng.sample(range(4, 40), 10)))
    elif kind == "parent":
        for _ in range(4):
            harm = Harm(material, model, out, pace=0.03)
            if harm.wait(rng.randrange(1, 6)) is None:
                break
            harm.kill_parent()
            rounds.append(harm.round)
        harm = Harm(material, model, out)
    elif kind == "never_start":
        harm = Harm(material, model, out, start=10.0, never_start="vllm")
        harm.round.faults = 1
    else:
        harm = Harm(material, model, out, full_disk="vllm")
        harm.round.faults = 1
    marks = material / f"marks-{out.parent.name}"
    harm.finish()
    if kind == "step":
        harm.round.faults = len(list(marks.iterdir()))
    harm.round.faults += 2  # in every round: a corrupt adapter and a prompt over the limit
    rounds.append(harm.round)
    line: dict[str, Any] = {"kind": kind, **{name: sum(getattr(r, name) for r in rounds) for name in FIGURES}}
    return {**line, "recoveries": [s for r in rounds for s in r.recoveries], "named": sorted(harm.round.reasons)}


def _children_cpu() -> float:
    """CPU seconds of all child processes that have ended and been waited for, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Faults against real inference.")
    parser.add_argument("--infer", help=argparse.SUPPRESS)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--out", type=Path, help="folder that the rounds are kept in; the same command goes on from it (default: none)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="default: the pocket model")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    if args.infer:
        infer_here(json.loads(args.infer))
        return
    from arc_submit.base_model.pocket import pocket_folder

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        figures = campaign(folder.resolve(), args.model or pocket_folder(), args.faults, args.seed, lambda line: print(line, flush=True))
    for name, value in figures.items():
        print(f"{name:<12}{value}")
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
