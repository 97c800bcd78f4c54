"""Faults of a device against real worker processes: memory that runs out, and a worker that refuses after another was ready.

Each round is a whole `run` of the fine-tuning source on a few small tasks, whose worker has one fault built in. What counts: every
prediction that was on disk when the fault came is there at the end, every task is answered or named with its reason, and how many
workers it cost. tests/test_device_faults.py runs a round; all of them are

    python tests/device_faults.py --out runs/device_faults [train generate ...] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

FAULT = "ARC_SUBMIT_DEVICE_FAULT"
# What of the work runs out of memory: the passes of these numbers, those from a number on, or those that read more rows at once; only of
# these tasks, and only in fine-tunings of so many steps.
ROUNDS: dict[str, dict[str, Any]] = {
    "train": {"site": "train", "calls": [10]},
    "train-no-way": {"site": "train", "from": 4, "tasks": ["task001"]},
    "train-second-level": {"site": "train", "from": 4, "steps": 12},
    "generate": {"site": "generate", "rows": 2},
    "score": {"site": "score", "rows": 1, "candidates": "dfs"},
    "dfs": {"site": "dfs", "rows": 2, "candidates": "dfs"},
    "refuse": {"site": "refuse"},
}
TASKS = 3


def open_worker(settings: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The fine-tuning worker with the fault of the environment's JSON built in."""
    from arc_submit.errors import ConfigError
    from arc_submit.finetune import ttft_worker

    fault = json.loads(os.environ[FAULT])
    marks = Path(fault["marks"])
    if fault["site"] != "refuse":
        _run_out_of_memory(fault, marks, Path(settings["predict"]["run"]))
        return ttft_worker.open_worker(settings, beat)
    if (marks / "died").exists() and not (marks / "refused").exists():
        (marks / "refused").touch()
        raise ConfigError("--device cuda:0: 0 GPUs are visible here; name one that is there, give --device cpu, or mend the driver")
    do = ttft_worker.open_worker(settings, beat)

    def do_once_and_die(job: dict[str, Any]) -> dict[str, Any]:
        if (marks / "ready").exists() and not (marks / "died").exists():
            _note_kept(marks, Path(settings["predict"]["run"]))
            (marks / "died").touch()
            os._exit(9)
        (marks / "ready").touch()
        return do(job)

    return do_once_and_die


def _run_out_of_memory(fault: dict[str, Any], marks: Path, run: Path) -> None:
    """Have passes raise what a GPU without memory raises: by the work that is done, its rows or the number of the pass."""
    import torch

    from arc_submit.finetune import trainer, ttft_worker
    from arc_submit.inference import candidates

    passes: Counter[str] = Counter()
    doing, task, steps = [""], [""], [0]

    def check(site: str, rows: int) -> None:
        if site != fault["site"] or task[0] not in fault.get("tasks", task) or steps[0] != fault.get("steps", steps[0]):
            return
        passes[site] += 1
        limit = fault.get("rows", rows)
        if rows > limit or passes[site] in fault.get("calls", ()) or passes[site] >= fault.get("from", passes[site] + 1):
            _note_kept(marks, run)
            with (marks / "raised").open("a") as file:
                file.write(f"{site} {rows}\n")
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate 2.00 GiB for {rows} rows (forced)")

    real_loss, real_engine, real_search, real_train = (
        trainer.batch_loss,
        ttft_worker.make_engine,
        candidates.search_completions,
        ttft_worker.finetune_task,
    )

    def loss(model: Any, batch: Any, precision: Any) -> Any:
        check("train", len(batch.ids))
        return real_loss(model, batch, precision)

    def finetune(adapter: Any, sampler: Any, one: Any, *more: Any, **named: Any) -> Any:
        task[0], steps[0] = one.id, sampler.settings.steps
        return real_train(adapter, sampler, one, *more, **named)

    def make_engine(model: Any, *more: Any) -> Any:
        engine = real_engine(model, *more)
        real_generate, real_score = engine.generate, engine.score

        def generate(*given: Any, **named: Any) -> Iterator[Any]:
            doing[0] = "generate"
            return real_generate(*given, **named)  # type: ignore[no-any-return]

        def score(*given: Any, **named: Any) -> Any:
            doing[0], before = "score", doing[0]
            try:
                return real_score(*given, **named)
            finally:
                doing[0] = before

        def before_pass(module: Any, args: Any, given: dict[str, Any]) -> None:
            check(doing[0], len(given["input_ids"] if "input_ids" in given else args[0]))

        engine.generate, engine.score = generate, score
        engine.model.get_decoder().register_forward_pre_hook(before_pass, with_kwargs=True)
        return engine

    def search(*given: Any, **named: Any) -> Any:
        doing[0] = "dfs"
        return real_search(*given, **named)

    trainer.batch_loss, ttft_worker.make_engine, ttft_worker.finetune_task = loss, make_engine, finetune
    candidates.search_completions = search


def _on_disk(run: Path) -> Iterator[list[str]]:
    """Every prediction of a run: source, file and line."""
    for path in (run / "predictions").glob("*/*.jsonl"):
        yield from ([path.parent.name, path.name, line] for line in path.read_text().splitlines())


def _note_kept(marks: Path, run: Path) -> None:
    """Write down which predictions are on disk now."""
    with (marks / "kept").open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in _on_disk(run))


def play(name: str, out: Path, model: Path, challenges: Path) -> dict[str, Any]:
    """A run with a fault; returns what is left of the work."""
    from arc_submit.run import pipeline, source_ttft
    from arc_submit.run.presets import make_config
    from arc_submit.workers.pool import Backend

    fault = {**ROUNDS[name], "marks": str(out.parent / f"{out.name}-marks")}
    marks = Path(fault["marks"])
    marks.mkdir(parents=True)
    os.environ[FAULT] = json.dumps(fault)
    folder = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    real, real_make = source_ttft._WORKER, source_ttft.make_backend

    def make_backend(*given: Any) -> Backend:
        backend = real_make(*given)
        return replace(backend, timeouts=replace(backend.timeouts, restart_delay=1.0, max_failed_starts=1))

    source_ttft._WORKER, source_ttft.make_backend = "device_faults", make_backend
    config = make_config(
        challenges=challenges,
        model=model,
        out=out,
        sources=("ttft",),
        workers=1,
        lora_rank=4,
        ttft_steps=6,
        ttft_max_steps=fault.get("steps", 6),
        ttft_views=4,
        ttft_max_views=8 if "steps" in fault else 4,
        ttft_candidates=fault.get("candidates", "views"),
        max_concurrent=4,
        tasks_per_job=1,
        pictures=0,
        budget=600.0,
    )
    started = time.monotonic()
    try:
        result = pipeline.run(config)
    finally:
        source_ttft._WORKER, source_ttft.make_backend = real, real_make
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    made = {
        (path.parent.name, path.name, line) for path in (out / "predictions").glob("*/*.jsonl") for line in path.read_text().splitlines()
    }
    kept = {tuple(json.loads(line)) for line in _lines(marks / "kept")}
    return {
        "fault": name,
        "raised": len(_lines(marks / "raised")) or len(_lines(marks / "kept")),
        "done": len(result.done),
        "failed": result.failed,
        "predictions": len(made),
        "kept_then": len(kept),
        "lost": len(kept - made),
        "workers_lost": sum(event["event"] == "worker_lost" for event in events),
        "notes": sorted({note for event in events for note in event.get("notes") or []}),
        "retired": [event["reason"] for event in events if event["event"] == "worker_retired"],
        "submission": (out / "submission.json").exists(),
        "seconds": round(time.monotonic() - started, 1),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Play rounds and print what is left."""
    from conftest import make_challenges

    from arc_submit.base_model.pocket import pocket_folder

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rounds", nargs="*", default=list(ROUNDS), metavar="ROUND", help=f"of {', '.join(ROUNDS)}; default: all")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each round")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    challenges = args.out / "challenges.json"
    challenges.write_text(json.dumps(make_challenges(TASKS)[0]))
    for name in args.rounds:
        left = play(name, args.out / name, pocket_folder(), challenges)
        print(json.dumps(left) if args.json else "\n".join(f"{key}: {value}" for key, value in left.items()), flush=True)


if __name__ == "__main__":
    main()
