"""A Ray cluster as a run or a sweep sees it: the nodes there are, whether they can work for it, and how a process is started on one.

Asked once, at the start; Ray itself is only ever loaded in processes of their own (arc_submit.workers.ray_proxy). Knows nothing about what
is run.
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

_SURVEY_SECONDS = 90.0  # a cluster that is there answers in two; Ray itself waits for minutes for one that is not
EXECUTORS = ("local", "ray")


def check_executor(executor: str, address: str | None) -> None:
    """Refuse what is no place for workers.

    Raises:
        ConfigError: naming the option.
    """
    if executor not in EXECUTORS:
        raise ConfigError(f"--executor {executor}: choose from {', '.join(EXECUTORS)}")
    if address is not None and executor != "ray":
        raise ConfigError(f"--ray-address {address} is for --executor ray")


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: its address, and what of it Ray may give away."""

    name: str
    cpus: float
    gpus: float
    memory_gb: float


@dataclass(frozen=True)
class Cluster:
    """A cluster that has been asked.

    Attributes:
        address: as Ray is told it.
        nodes: those that have CPUs to give.
    """

    address: str
    nodes: tuple[Node, ...]

    @property
    def resources(self) -> tuple[int, float]:
        """CPU cores and memory in GB of all nodes together."""
        return int(sum(node.cpus for node in self.nodes)), sum(node.memory_gb for node in self.nodes)

    def check_capacity(self, wanted: int, cpus: float, gpus: float, option: str) -> None:
        """Refuse to want more processes at a time than ever fit.

        Args:
            option: that says how many, for the message.

        Raises:
            ConfigError: saying how many do.
        """
        if (capacity := self.capacity(cpus, gpus)) < wanted:
            each = f"{cpus:g} CPUs and {gpus:g} GPUs" if gpus else f"{cpus:g} CPUs"
            has = f"the Ray cluster ({len(self.nodes)} nodes) has room for {capacity} of {each} each"
            raise ConfigError(f"{option} {wanted}: {has}; ask for fewer, or add nodes")

    def capacity(self, cpus: float, gpus: float) -> int:
        """How many processes of so many CPUs and GPUs fit, where nothing else runs."""
        return int(sum(min(node.cpus // cpus, node.gpus // gpus if gpus else node.cpus // cpus) for node in self.nodes))

    def launch(self, cpus: float, gpus: float, folder: Path | None = None) -> Launch:
        """What starts a process of so many CPUs and GPUs on some node; in a folder, which must then be there on every node."""
        where = [] if folder is None else ["--folder", str(folder)]
        fixed = ["-m", "arc_submit.workers.ray_proxy", "run", "--address", self.address, "--cpus", str(cpus), "--gpus", str(gpus), *where]

        def launch(arguments: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
            # Which GPUs a process sees is for Ray to say, which gives them out; it sees no other.
            told = {name: value for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"}
            variables = [word for name, value in told.items() for word in ("--variable", f"{name}={value}")]
            return [*fixed, *variables, "--", *arguments]

        return launch


def find_cluster(address: str | None, out: Path, folders: Iterable[Path] = ()) -> Cluster:
    """The cluster at an address, all of whose nodes see the run directory and the same files in some folders.

    Args:
        address: HOST:PORT; None takes RAY_ADDRESS, else the cluster that this machine has joined.
        out: the run directory, or where it will be.
        folders: what the work reads beside it.

    Raises:
        ConfigError: where there is none, or a node of it cannot work for the run, with the remedy.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if address == "local" or "://" in address:
        raise ConfigError(f"--ray-address {address}: write HOST:PORT of a cluster that this machine has joined with `ray start`")
    token = f".cluster-{secrets.token_hex(8)}"
    sizes = {str(folder): {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()} for folder in folders}
    question: dict[str, Any] = {"out": str(out), "token": token, "folders": sizes}
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / token).write_text(token, encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be used as a run directory ({error.strerror}); give another --out") from None
    try:
        told = _ask(address, question)
    finally:
        for path in out.glob(f"{token}*"):
            path.unlink(missing_ok=True)
        if made:  # whoever has more to check before a run begins is not to leave an empty directory
            with contextlib.suppress(OSError):
                out.rmdir()
    faults = [(node["name"], node.pop("fault")) for node in told]
    faulty = [f"node {name} of the Ray cluster {fault}" for name, fault in faults if fault]
    if faulty:
        raise ConfigError(f"--executor ray: {faulty[0]}" + (f" (and {len(faulty) - 1} nodes more)" if faulty[1:] else ""))
    if not told:
        raise ConfigError(f"--executor ray: no node of the cluster at {address} has CPUs to give; start nodes with --num-cpus")
    return Cluster(address, tuple(Node(**node) for node in told))


def _ask(address: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    command = ["-m", "arc_submit.workers.ray_proxy", "survey", "--address", address, "--question", json.dumps(question)]
    try:
        answer = subprocess.run(
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
        told = json.loads(answer.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (answer.stderr.decode(errors="replace").strip().splitlines() or ["no word"])[-1]
        raise ConfigError(f"--executor ray: the cluster at {address} cannot be asked ({last}); see `ray status`") from None
    if "nodes" not in told:
        raise ConfigError(told["reason"])
    nodes: list[dict[str, Any]] = told["nodes"]
    return nodes
