"""The Ray cluster of a run or a sweep: its nodes, whether they can work for it, and how a process starts on one.

The nodes are checked once, at the start. Ray itself is loaded only in separate processes (arc_submit.workers.ray_proxy). Does not know what
the processes do.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.workers.parent_death import PARENT
from arc_submit.workers.pool import Launch

_SURVEY_SECONDS = 90.0  # a running cluster answers in seconds; Ray itself waits minutes for one that is down
EXECUTORS = ("local", "ray")


def check_executor(executor: str, address: str | None) -> None:
    """Check the options that say where workers run.

    Raises:
        ConfigError: naming the option.
    """
    if executor not in EXECUTORS:
        raise ConfigError(f"--executor {executor}: choose from {', '.join(EXECUTORS)}")
    if address is not None and executor != "ray":
        raise ConfigError(f"--ray-address {address} is for --executor ray")


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: its address, and the resources that Ray may allocate on it."""

    name: str
    cpus: float
    gpus: float
    memory_gb: float


@dataclass(frozen=True)
class Cluster:
    """A cluster whose nodes have been checked.

    Attributes:
        address: for ray.init.
        nodes: those with CPUs to allocate.
    """

    address: str
    nodes: tuple[Node, ...]

    @property
    def resources(self) -> tuple[int, float]:
        """CPU cores and memory in GB of all nodes together."""
        return int(sum(node.cpus for node in self.nodes)), sum(node.memory_gb for node in self.nodes)

    def check_capacity(self, processes: int, cpus: float, gpus: float, option: str) -> None:
        """Check that a number of processes, each with these CPUs and GPUs, can run at the same time.

        Args:
            option: that sets the number, for the message.

        Raises:
            ConfigError: with the number that can.
        """
        if (capacity := self.capacity(cpus, gpus)) < processes:
            each = f"{cpus:g} CPUs and {gpus:g} GPUs" if gpus else f"{cpus:g} CPUs"
            room = f"the Ray cluster ({len(self.nodes)} nodes) has room for {capacity} of {each} each"
            raise ConfigError(f"{option} {processes}: {room}; ask for fewer, or add nodes")

    def capacity(self, cpus: float, gpus: float) -> int:
        """Return how many processes, each with these CPUs and GPUs, fit on an otherwise idle cluster."""
        return int(sum(min(node.cpus // cpus, node.gpus // gpus if gpus else node.cpus // cpus) for node in self.nodes))

    def launch(self, cpus: float, gpus: float, folder: Path | None = None) -> Launch:
        """Return a launcher of processes with these CPUs and GPUs on any node, in a folder that must exist on every node."""
        where = [] if folder is None else ["--folder", str(folder)]
        proxy = ["-m", "arc_submit.workers.ray_proxy", "run", "--address", self.address, "--cpus", str(cpus), "--gpus", str(gpus), *where]

        def launch(arguments: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
            # Ray allocates the GPUs and sets CUDA_VISIBLE_DEVICES itself.
            variables = [f"{name}={value}" for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"]
            return [*proxy, *(word for variable in variables for word in ("--variable", variable)), "--", *arguments]

        return launch


def find_cluster(address: str | None, out: Path, folders: Iterable[Path] = ()) -> Cluster:
    """Return the cluster at an address, after a check that all its nodes see the run directory and the same files in some folders.

    Args:
        address: HOST:PORT; None takes RAY_ADDRESS, else the cluster that this machine has joined.
        out: the run directory; it need not exist yet.
        folders: further folders that the workers read.

    Raises:
        ConfigError: where there is no cluster or one of its nodes cannot work for the run, with the remedy.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if address == "local" or "://" in address:
        raise ConfigError(f"--ray-address {address}: write HOST:PORT of a cluster that this machine has joined with `ray start`")
    token = f".cluster-{secrets.token_hex(8)}"
    sizes = {str(folder): {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()} for folder in folders}
    checks: dict[str, Any] = {"out": str(out), "token": token, "folders": sizes}
    created = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / token).write_text(token, encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be used as a run directory ({error.strerror}); give another --out") from None
    try:
        nodes = _survey(address, checks)
    finally:
        for path in out.glob(f"{token}*"):
            path.unlink(missing_ok=True)
        if created:  # later checks may still refuse the run, which then leaves no empty directory
            with contextlib.suppress(OSError):
                out.rmdir()
    faults = [f"node {node['name']} of the Ray cluster {fault}" for node in nodes if (fault := node.pop("fault"))]
    if faults:
        raise ConfigError(f"--executor ray: {faults[0]}" + (f" (and {len(faults) - 1} nodes more)" if faults[1:] else ""))
    if not nodes:
        raise ConfigError(f"--executor ray: no node of the cluster at {address} has CPUs to allocate; start nodes with --num-cpus")
    return Cluster(address, tuple(Node(**node) for node in nodes))


def _survey(address: str, checks: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of `Node` and a "fault" for each node, from a process that loads Ray."""
    command = ["-m", "arc_submit.workers.ray_proxy", "survey", "--address", address, "--checks", json.dumps(checks)]
    try:
        process = subprocess.run(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, PARENT: str(os.getpid())},
            timeout=_SURVEY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        late = f"has not answered in {_SURVEY_SECONDS:.0f} s: is it up, and has this machine joined it?"
        raise ConfigError(f"--executor ray: the cluster at {address} {late} See `ray status`") from None
    try:
        answer = json.loads(process.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (process.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"--executor ray: the cluster at {address} gives no valid answer ({last}); see `ray status`") from None
    if "nodes" not in answer:
        raise ConfigError(answer["reason"])
    nodes: list[dict[str, Any]] = answer["nodes"]
    return nodes
