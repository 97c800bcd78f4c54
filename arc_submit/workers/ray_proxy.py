"""The local proxy of a process on another machine, and the only module that loads Ray.

`python -m arc_submit.workers.ray_proxy run --address HOST:PORT -- ARGUMENTS` lets a Ray actor start `python ARGUMENTS` on some node with
free resources (arc_submit.workers.remote_process), forwards lines of input and output, and exits with its exit code or signal. A pool or a
sweep watches and kills this proxy as it would the process itself: when the proxy ends, for whatever reason, its Ray job ends, and with it
the actor and the process. Each process has its own proxy, so that no caller waits for Ray without a limit: a proxy that hangs is killed. A
lost node looks like a process that ended, with the node in its reason. Never starts a cluster. Does not know what the processes do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from arc_submit import __version__
from arc_submit.errors import ArcSubmitError, ConfigError
from arc_submit.workers.parent_death import die_with_parent
from arc_submit.workers.remote_process import RemoteProcess, check_node

LEASE_SECONDS = 10.0  # that a process survives without a reader: shorter than the silence after which its work starts elsewhere
_READ_SECONDS = 1.0
_CHECK_SECONDS = 60.0  # for all nodes to answer the survey
_START_ATTEMPTS = 20  # with the pauses between them longer than Ray needs to notice a dead node
_PAUSE_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """Execute `run` or `survey`; returns the exit code."""
    if not die_with_parent():
        return 1
    parser = argparse.ArgumentParser(prog="python -m arc_submit.workers.ray_proxy")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run a process on some node")
    run.set_defaults(command=_run)
    run.add_argument("--cpus", type=float, default=1.0)
    run.add_argument("--gpus", type=float, default=0.0)
    run.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE", help="of its environment")
    run.add_argument("--folder", help="working directory")
    run.add_argument("arguments", nargs="+", help="of the node's Python")
    survey = commands.add_parser("survey", help="list the nodes, and whether they can work for a run")
    survey.set_defaults(command=_survey)
    survey.add_argument("--checks", type=json.loads, required=True, help="arguments of arc_submit.workers.remote_process.check_node")
    for command in (run, survey):
        command.add_argument("--address", required=True)
    args = parser.parse_args(arguments)
    # Prints of libraries must not mix with the output of the process.
    protocol = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    try:
        exit_code: int = args.command(args, protocol)
    except ArcSubmitError as error:
        _send(protocol, event="error", reason=str(error))
        print(f"remote: {error}", file=sys.stderr, flush=True)
        return 1
    if exit_code < 0:
        # The process died of a signal: the proxy dies of the same one, so that its parent sees the same ending.
        if -exit_code != signal.SIGKILL:
            signal.signal(-exit_code, signal.SIG_DFL)
        sys.stderr.flush()
        os.kill(os.getpid(), -exit_code)
    return exit_code


def connect(address: str) -> Any:
    """Join an existing cluster; returns the module ray.

    Raises:
        ConfigError: where Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("--executor ray: Ray is not installed here; pip install 'arc-submit[ray]'") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = "of this machine" if address == "auto" else f"at {address}"
        raise ConfigError(
            f"--executor ray: no Ray cluster {where} can be joined ({_summary(error)}); "
            "join this machine to one with `ray start`, or name it with --ray-address HOST:PORT"
        ) from None
    return ray


class _Actor(RemoteProcess):
    """A remote process that reports its node."""

    def node(self) -> str:
        import ray

        return f"node {ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:8]})"


def _run(args: argparse.Namespace, protocol: IO[bytes]) -> int:
    ray = connect(args.address)
    actor, node = _start(ray, args)
    try:
        threading.Thread(target=_forward_input, args=(ray, actor), daemon=True).start()
        return _forward_output(ray, actor, protocol)
    except ray.exceptions.RayError as error:
        raise ArcSubmitError(f"lost with {node} of the Ray cluster ({_summary(error)})") from None


def _start(ray: Any, args: argparse.Namespace) -> tuple[Any, str]:
    """Start the process on some node; returns its actor and the node's name.

    Waits without a limit while no node has free resources: the parent limits the start of this proxy.

    Raises:
        ArcSubmitError: where no node can start it.
    """
    options = {"num_cpus": args.cpus, "num_gpus": args.gpus, "max_concurrency": 4, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
    variables = dict(pair.split("=", 1) for pair in args.variable)
    failures = 0
    while True:
        actor = ray.remote(_Actor).options(**options).remote(LEASE_SECONDS)
        try:
            node = ray.get(actor.node.remote())
            pid = ray.get(actor.start.remote(args.arguments, variables, args.folder))
        except ray.exceptions.RayError as error:
            failures += 1
            # Ray still places actors on a node that has just died, until it notices; any other error would repeat itself.
            if failures == _START_ATTEMPTS or not isinstance(error, ray.exceptions.RayActorError):
                raise ArcSubmitError(f"no node of the Ray cluster can start it ({_summary(error)})") from None
            print(f"remote: not started, tried again ({_summary(error)})", file=sys.stderr, flush=True)
            time.sleep(_PAUSE_SECONDS)
        else:
            print(f"remote: process {pid} on {node}", file=sys.stderr, flush=True)
            return actor, node


def _forward_input(ray: Any, actor: Any) -> None:
    try:
        while line := sys.stdin.buffer.readline():
            ray.get(actor.write.remote(line))
        ray.get(actor.write.remote(b""))
    except ray.exceptions.RayError as error:
        print(f"remote: input not forwarded ({_summary(error)})", file=sys.stderr, flush=True)  # the next read reports the reason


def _forward_output(ray: Any, actor: Any, protocol: IO[bytes]) -> int:
    """Forward the output of the process, by whole lines, until it has ended; returns its exit code."""
    rest = b""
    while True:
        output, errors, exit_code = ray.get(actor.read.remote(_READ_SECONDS), timeout=3 * LEASE_SECONDS)
        sys.stderr.buffer.write(errors)
        sys.stderr.buffer.flush()
        lines, newline, rest = (rest + output).rpartition(b"\n")
        _write(protocol, lines + newline)
        if exit_code is not None:
            _write(protocol, rest)
            return int(exit_code)


def _survey(args: argparse.Namespace, protocol: IO[bytes]) -> int:
    """Print one line of JSON: every node with CPUs, and why it cannot work for a run."""
    ray = connect(args.address)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    checks, pending, nodes = args.checks, [], []
    for node in ray.nodes():
        resources = node["Resources"]
        if not node["Alive"] or not resources.get("CPU"):
            continue
        reply = f"{checks['token']}-{node['NodeID'][:16]}"
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(check_node).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
        pending.append((task.remote(__version__, checks["out"], checks["token"], reply, checks["folders"]), reply))
        capacity = {"cpus": resources["CPU"], "gpus": resources.get("GPU", 0.0), "memory_gb": resources.get("memory", 0.0) / 2**30}
        nodes.append({"name": node["NodeManagerAddress"], **capacity})
    references = [reference for reference, _ in pending]
    done, _ = ray.wait(references, num_returns=len(references), timeout=_CHECK_SECONDS) if references else ([], [])
    for node, (reference, reply) in zip(nodes, pending, strict=True):
        if reference not in done:
            node["fault"] = f"has not answered in {_CHECK_SECONDS:.0f} s: repair it, or take it out of the cluster"
            continue
        try:
            node["fault"] = ray.get(reference)
        except ray.exceptions.RayError as error:
            node["fault"] = f"cannot run a check ({_summary(error)}): install arc_submit on it, as on this machine"
        # The node has written its reply: a file that is not visible here lies in another directory of the same name.
        if not node["fault"] and not (Path(checks["out"]) / reply).is_file():
            node["fault"] = f"has a {checks['out']} of its own: put it on storage that all nodes mount at the same path"
    _send(protocol, nodes=nodes)
    return 0


def _send(protocol: IO[bytes], **message: Any) -> None:
    _write(protocol, json.dumps(message, separators=(",", ":")).encode() + b"\n")


def _write(protocol: IO[bytes], data: bytes) -> None:
    while data:
        data = data[protocol.write(data) :]


def _summary(error: Exception) -> str:
    """Return Ray's message in a few words: the last line of a traceback, else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1] if "Traceback" in str(error) else lines[0]
    return line[:200].rstrip(".")


if __name__ == "__main__":
    # Ray sends functions to the nodes by module name: they must come from this module, not from __main__.
    from arc_submit.workers.ray_proxy import main as main_of_module

    exit_code = main_of_module(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_code)  # Ray's own shutdown takes long
