"""A process on another machine, as if it ran here: the end of it that is here, and all that this project says to Ray.

`python -m arc_submit.workers.ray_proxy run --address HOST:PORT -- ARGUMENTS` has `python ARGUMENTS` started by a Ray actor on some node
with room for it (arc_submit.workers.remote_process), passes on lines of input and output, and ends as it ended. A pool or a sweep watches
and kills this process as it would the other one itself: when it goes, however it goes, its Ray job ends, and the actor and the process with
it. There is one for each, because nothing in Ray is then waited for without a limit: whatever hangs is killed from outside. A node that is
lost is a process that ended, with the node in its reason. Never starts a cluster. Knows nothing about what is run.
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

LEASE_SECONDS = 10.0  # that a process goes on when nobody reads from it: less than the silence after which its work is given to another
_READ_SECONDS = 1.0
_LOOK_SECONDS = 60.0
_PLACE_TRIES = 20  # with the pauses between them more than Ray takes to give up a node that does not answer
_PAUSE_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """`run` or `survey`; returns the exit code."""
    if not die_with_parent():
        return 1
    parser = argparse.ArgumentParser(prog="python -m arc_submit.workers.ray_proxy")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="a process on some node")
    run.set_defaults(command=_run)
    run.add_argument("--cpus", type=float, default=1.0)
    run.add_argument("--gpus", type=float, default=0.0)
    run.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE", help="of its environment")
    run.add_argument("--folder", help="to start it in")
    run.add_argument("arguments", nargs="+", help="of the node's Python")
    survey = commands.add_parser("survey", help="what nodes there are, and whether they can work for a run")
    survey.set_defaults(command=_survey)
    survey.add_argument("--question", type=json.loads, required=True, help="arguments of arc_submit.workers.remote_process.check_node")
    for command in (run, survey):
        command.add_argument("--address", required=True)
    args = parser.parse_args(arguments)
    # Whatever libraries print must not get among what the process says.
    protocol = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    try:
        code: int = args.command(args, protocol)
    except ArcSubmitError as error:
        _say(protocol, event="error", reason=str(error))
        print(f"remote: {error}", file=sys.stderr, flush=True)
        return 1
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        sys.stderr.flush()
        os.kill(os.getpid(), -code)
    return code


def connect(address: str) -> Any:
    """Join a cluster that is there, and return the module ray.

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
            f"--executor ray: no Ray cluster {where} can be joined ({_told(error)}); "
            "join this machine to one with `ray start`, or name it with --ray-address HOST:PORT"
        ) from None
    return ray


class _Actor(RemoteProcess):
    """A host that can say on which node it is."""

    def where(self) -> str:
        import ray

        return f"node {ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:8]})"


def _run(args: argparse.Namespace, protocol: IO[bytes]) -> int:
    ray = connect(args.address)
    actor, where = _place(ray, args)
    try:
        threading.Thread(target=_pass_input, args=(ray, actor), daemon=True).start()
        return _pass_output(ray, actor, protocol)
    except ray.exceptions.RayError as error:
        raise ArcSubmitError(f"lost with {where} of the Ray cluster ({_told(error)})") from None


def _place(ray: Any, args: argparse.Namespace) -> tuple[Any, str]:
    """Start the process on some node; returns its actor and the node's name.

    Waits for as long as there is no room: whoever started this process knows how long it may wait.

    Raises:
        ArcSubmitError: where no node can start it.
    """
    options = {"num_cpus": args.cpus, "num_gpus": args.gpus, "max_concurrency": 4, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
    variables = dict(pair.split("=", 1) for pair in args.variable)
    failures = 0
    while True:
        actor = ray.remote(_Actor).options(**options).remote(LEASE_SECONDS)
        try:
            where = ray.get(actor.where.remote())
            pid = ray.get(actor.start.remote(args.arguments, variables, args.folder))
        except ray.exceptions.RayError as error:
            failures += 1
            # A node that has just been lost is still given work, until Ray has noticed; what else goes wrong will not be better.
            if failures == _PLACE_TRIES or not isinstance(error, ray.exceptions.RayActorError):
                raise ArcSubmitError(f"no node of the Ray cluster can start it ({_told(error)})") from None
            print(f"remote: not started, tried again ({_told(error)})", file=sys.stderr, flush=True)
            time.sleep(_PAUSE_SECONDS)
        else:
            print(f"remote: process {pid} on {where}", file=sys.stderr, flush=True)
            return actor, where


def _pass_input(ray: Any, actor: Any) -> None:
    try:
        while line := sys.stdin.buffer.readline():
            ray.get(actor.write.remote(line))
        ray.get(actor.write.remote(b""))
    except ray.exceptions.RayError as error:
        print(f"remote: input not passed on ({_told(error)})", file=sys.stderr, flush=True)  # reading from it will tell why


def _pass_output(ray: Any, actor: Any, protocol: IO[bytes]) -> int:
    """Pass on what the process says until it has ended, its output by whole lines; returns its exit code."""
    rest = b""
    while True:
        output, errors, code = ray.get(actor.read.remote(_READ_SECONDS), timeout=3 * LEASE_SECONDS)
        sys.stderr.buffer.write(errors)
        sys.stderr.buffer.flush()
        whole, newline, rest = (rest + output).rpartition(b"\n")
        _write(protocol, whole + newline)
        if code is not None:
            _write(protocol, rest)
            return int(code)


def _survey(args: argparse.Namespace, protocol: IO[bytes]) -> int:
    """One line of JSON: every node that has CPUs, with what keeps it from working for a run."""
    ray = connect(args.address)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked, nodes = [], []
    for node in ray.nodes():
        resources = node["Resources"]
        if not node["Alive"] or not resources.get("CPU"):
            continue
        name, question = node["NodeManagerAddress"], args.question
        answer = f"{question['token']}-{node['NodeID'][:16]}"
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(check_node).options(num_cpus=0, max_retries=0, scheduling_strategy=place)
        asked.append((task.remote(__version__, question["out"], question["token"], answer, question["folders"]), answer))
        told = {"cpus": resources["CPU"], "gpus": resources.get("GPU", 0.0), "memory_gb": resources.get("memory", 0.0) / 2**30}
        nodes.append({"name": name, **told})
    done, _ = ray.wait([reference for reference, _ in asked], num_returns=len(asked), timeout=_LOOK_SECONDS) if asked else ([], [])
    for node, (reference, answer) in zip(nodes, asked, strict=True):
        if reference not in done:
            node["fault"] = f"has not answered in {_LOOK_SECONDS:.0f} s: look after it, or take it out of the cluster"
            continue
        try:
            node["fault"] = ray.get(reference)
        except ray.exceptions.RayError as error:
            node["fault"] = f"cannot be asked ({_told(error)}): install arc_submit on it, as on this machine"
        if not node["fault"] and not (Path(args.question["out"]) / answer).is_file():
            node["fault"] = f"has a {args.question['out']} of its own: put it on storage that all nodes mount at the same path"
    _say(protocol, nodes=nodes)
    return 0


def _say(protocol: IO[bytes], **message: Any) -> None:
    _write(protocol, json.dumps(message, separators=(",", ":")).encode() + b"\n")


def _write(protocol: IO[bytes], data: bytes) -> None:
    while data:
        data = data[protocol.write(data) :]


def _told(error: Exception) -> str:
    """What Ray says of an error, in a few words: what a call raised stands in the last line, after where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1] if "Traceback" in str(error) else lines[0]
    return line[:200].rstrip(".")


if __name__ == "__main__":
    # What is sent to a node must be of a module that it can import, which this one is not by the name of __main__.
    from arc_submit.workers.ray_proxy import main as main_of_module

    exit_code = main_of_module(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_code)  # Ray's own way out waits for much
