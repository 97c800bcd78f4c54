"""Workers on a real Ray cluster of two nodes on this machine: equal results, a lost node, a killed run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_challenges, source_named
from test_pool import ENTRY
from test_remote_process import gone

from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.run.config import RunConfig
from arc_submit.run.host import Host
from arc_submit.run.pipeline import run
from arc_submit.run.presets import make_config
from arc_submit.workers.devices import worker_environment
from arc_submit.workers.parent_death import PARENT
from arc_submit.workers.ray_cluster import find_cluster

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
TESTS = Path(__file__).parent
PATHS = os.pathsep.join(path for path in sys.path if path)


@dataclass
class Nodes:
    """Two nodes, with the first digits of the second one's id; see ray_nodes.py."""

    address: str
    second: str
    process: subprocess.Popen[str]

    def command(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self.second = self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of two nodes with a CPU each."""
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "ray_nodes.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": PATHS},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address, second = process.stdout.readline().split()
        yield Nodes(address, second, process)
    finally:
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two tasks, with paths relative to the working directory, which is another one on another node."""
    monkeypatch.chdir(tmp_path)
    paths = Path("challenges.json"), Path("solutions.json")
    for path, value in zip(paths, make_challenges(3, side=3), strict=True):
        path.write_text(json.dumps({task: value[task] for task in ("task000", "task002")}))
    return paths


def config(files: tuple[Path, Path], out: str, nodes: Nodes | None = None, **changes: Any) -> RunConfig:
    given: dict[str, Any] = {
        "challenges": files[0],
        "solutions": files[1],
        "out": Path(out),
        "sources": ("search",),
        "search_effort": "quick",
    }
    place = {"executor": "ray", "ray_address": nodes.address} if nodes else {}
    return make_config("cpu-pocket", **{**given, "workers": 2, "pictures": 0, "budget": 280.0, **place, **changes})


def predictions(out: Path) -> dict[str, list[str]]:
    """Return the lines of every file of predictions, without the seconds."""
    lines = {path.name: path.read_text().splitlines() for path in sorted((out / "predictions").glob("*/*"))}
    return {name: sorted(re.sub(r'"seconds": ?[0-9.e-]+', "", line) for line in found) for name, found in lines.items()}


def assert_same_results(out: Path, other: Path) -> None:
    """Compare two run directories: the same files, with the same content except for times."""
    assert {path.relative_to(out) for path in out.rglob("*")} == {path.relative_to(other) for path in other.rglob("*")}
    assert predictions(out) == predictions(other)
    for name in ("submission.json", "config.json", "report/scores.json"):
        assert (out / name).read_bytes() == (other / name).read_bytes()


def timeline(out: Path) -> list[dict[str, Any]]:
    path = out / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []


def wait_for_work_on(node: str, out: Path, source: str, timeout: float = 120.0) -> int:
    """Return the id of the worker on a node, once it has begun a job."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for path in (out / "logs" / source).glob("worker-*.log"):
            number = int(path.stem.removeprefix("worker-"))
            if f"({node})" in path.read_text() and any(e["event"] == "worker_begun" and e["worker"] == number for e in timeline(out)):
                return number
        time.sleep(0.02)
    raise TimeoutError(f"no worker on node {node}")


def test_no_worker_outlives_a_run_that_is_killed(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "behaviours.py").write_text(ENTRY)
    (tmp_path / "jobs").mkdir()
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from arc_submit.workers.ray_cluster import Cluster
        from arc_submit.workers.pool import Backend, Job, ProcessConfig, WorkerQuota, run_jobs
        settings = {{"folder": {str(tmp_path / "jobs")!r}}}
        variables = {{"PYTHONPATH": {os.pathsep.join([str(tmp_path), PATHS])!r}}}
        launch = Cluster({nodes.address!r}, ()).launch(1, 0)
        backend = Backend("behaviours", "behaviours:open_worker", lambda _: settings)
        config = ProcessConfig(Path({str(tmp_path / "logs")!r}), lambda _: variables, launch)
        list(run_jobs([Job(("hang-1",))], backend, config, WorkerQuota(1), time.monotonic() + 250))
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": PATHS})
    hanging = tmp_path / "jobs" / "hang-1"
    deadline = time.monotonic() + 120
    while not (hanging.exists() and hanging.read_text().endswith("\n")):
        assert time.monotonic() < deadline, (tmp_path / "logs" / "worker-0.log").read_text()
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert gone(int(hanging.read_text()), 60.0)


def wait_in_job(out: Path, worker: int, seconds: float = 0.3, timeout: float = 120.0) -> None:
    """Wait until a worker's job has run for some time, so that what follows comes during the job."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        last = [e for e in timeline(out) if e["event"] in ("worker_begun", "worker_done") and e["worker"] == worker][-1]
        if last["event"] == "worker_begun" and time.time() - last["time"] > seconds:
            return
        time.sleep(0.02)
    raise TimeoutError(f"no long job of worker {worker}")


def test_a_lost_node_costs_no_task_and_the_results_are_those_of_one_machine(nodes: Nodes, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Both nodes work; the second one is killed during a task."""
    challenges = json.loads(files[0].read_text())
    grids = iter(np.random.default_rng(0).integers(0, 5, (100, 7, 7)).tolist())
    for task in challenges.values():  # tasks that nothing explains have all passes of the search
        task["train"] = [{"input": next(grids), "output": next(grids)} for _ in range(3)]
    files[0].write_text(json.dumps(challenges))
    killed: list[int] = []

    def kill() -> None:
        worker = wait_for_work_on(nodes.second, tmp_path / "cluster", "search")
        wait_in_job(tmp_path / "cluster", worker)
        killed.append(worker)
        nodes.command("kill")

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    result = run(config(files, "cluster", nodes))
    watcher.join(timeout=10)
    lost = [event for event in timeline(tmp_path / "cluster") if event["event"] == "worker_lost"]
    assert [(event["worker"], len(event["tasks"])) for event in lost] == [(killed[0], 1)]
    assert f"({nodes.second}) of the Ray cluster" in lost[0]["reason"]
    assert not result.failed
    assert not result.unfinished
    run(config(files, "here"))
    assert_same_results(tmp_path / "cluster", tmp_path / "here")


@pytest.mark.campaign
def test_all_sources_give_on_two_nodes_the_results_of_one_machine(
    nodes: Nodes, files: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    nodes.command("mend")
    fixed: dict[str, Any] = {
        "sources": ("search", "ttft", "frozen"),
        "model": tiny_model,
        "views": 3,
        "max_concurrent": 4,
        "tasks_per_job": 1,
    }
    fixed |= {"ttft_steps": 4, "ttft_views": 2, "lora_rank": 2, "pictures": 1}
    with pytest.raises(ConfigError, match=r"--workers 3: the Ray cluster \(2 nodes\) has room for 2 of 1 CPUs each; ask for fewer"):
        run(config(files, "cluster", nodes, **{**fixed, "workers": 3}))
    assert not Path("cluster").exists()
    result = run(config(files, "cluster", nodes, **fixed))
    assert not result.failed
    assert not result.unfinished
    run(config(files, "here", **fixed))
    assert_same_results(tmp_path / "cluster", tmp_path / "here")
    adapters = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here" / "adapters").rglob("*.safetensors"))
    assert len(adapters) == 2
    assert all((tmp_path / "here" / path).read_bytes() == (tmp_path / "cluster" / path).read_bytes() for path in adapters)
    seen = " ".join(path.read_text() for path in (tmp_path / "cluster" / "logs").rglob("*.log"))
    assert len(set(re.findall(r"remote: process \d+ on node \S+ \((\w+)\)", seen))) == 2


@pytest.mark.campaign
def test_a_worker_sees_the_gpu_that_ray_allocates(nodes: Nodes, tiny_model: Path, tmp_path: Path) -> None:
    """It is the first visible GPU, whatever the worker's id."""
    nodes.command("mend")
    cluster = find_cluster(nodes.address, tmp_path / "out")
    assert [cluster.capacity(1, 1), cluster.capacity(1, 2)] == [2, 0]
    show = ["-c", "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"]
    variables = worker_environment(1, "cuda:1")  # the GPU's index on this machine
    environment = {**os.environ, "PYTHONPATH": PATHS, PARENT: str(os.getpid())}
    shown = [
        subprocess.run(
            [sys.executable, *cluster.launch(1, gpus)(show, variables)], env=environment, capture_output=True, text=True, check=True
        )
        for gpus in (1, 0)
    ]
    assert [one.stdout for one in shown] == ["0\n", f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\n"]
    given = make_config(model=tiny_model, out=tmp_path / "out", devices=("cuda:0", "cuda:1"), executor="ray")
    for name in ("frozen", "ttft"):
        backend = source_named(name, given).backends[0]
        assert [json.dumps(backend.settings_for(number)).count('"device": "cuda:0"') for number in (0, 1)] == [1, 1]
    host = Host(given.devices, given.workers, given.threads, given.search_memory)
    assert (host.worker_resources("model"), host.worker_resources("search")) == ((1, 1), (1, 0))


@pytest.mark.campaign
def test_a_sweep_continues_when_a_node_is_lost(nodes: Nodes, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Two runs, one per node; the second node is killed during its run."""
    nodes.command("mend")
    out = tmp_path / "sweep"

    def kill() -> None:
        while True:
            for log in out.glob("*.log"):
                if f"({nodes.second})" in log.read_text() and list((out / log.stem).glob("predictions/search/*")):
                    nodes.command("kill")
                    return
            time.sleep(0.02)

    threading.Thread(target=kill, daemon=True).start()
    given = ["--challenges", str(files[0]), "--solutions", str(files[1]), "--sources", "search", "--search-effort", "quick"]
    fixed = ["--workers", "1", "--pictures", "0", "--budget", "10m"]
    place = ["--executor", "ray", "--ray-address", nodes.address]
    assert main(["sweep", "--out", "sweep", "--over", "seed=0,1", *place, "--", *given, *fixed]) == 0
    events = timeline(out)
    assert len([event for event in events if event["event"] == "point_begun"]) == 3
    (failed,) = [event for event in events if event["event"] == "point_failed"]
    assert "of the Ray cluster" in failed["reason"]
    run(config(files, "here", workers=1))
    for seed in (0, 1):
        assert predictions(out / f"seed={seed}") == predictions(tmp_path / "here")
        assert (out / f"seed={seed}" / "submission.json").read_bytes() == (tmp_path / "here" / "submission.json").read_bytes()
