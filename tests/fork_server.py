"""A fork server: worker processes of the tests that need not import torch and transformers again, which takes 5 CPU seconds in each.

`launch` stands in for `arc_submit.workers.pool.launch_locally` (tests/conftest.py). The process that a pool starts is then a small client.
It hands its descriptors, its environment and its arguments to the server, and ends as the worker ends. The worker is a fork of the server,
which has the imports of every worker. Where the client is killed, the server kills the worker and all its children. Tests that look at the
worker's process itself, such as those that stop it, take real workers (`@pytest.mark.real_workers`).

`write_kernel` makes the kernel of notebooks such a fork too, `command` an `arc-submit`, and the workers that they start. A client passes on
SIGKILL and no other signal.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_IMPORTS = (
    "arc_submit.workers.worker",
    "arc_submit.search.search_worker",
    "arc_submit.finetune.ttft_worker",
    "arc_submit.inference.load_transformers",
    "transformers.models.qwen2.modeling_qwen2",
    "peft",
)
_KERNEL, _COMMAND = "ipykernel_launcher", "arc-submit"
_started: dict[str, Any] = {}


def launch(arguments: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    """The Python arguments of a client of this process's server, which starts with the first call."""
    return ["-I", "-S", __file__, "client", _address(), *arguments[1:]]


def command(*arguments: str) -> list[str]:
    """The command line of an `arc-submit` with these arguments."""
    return [sys.executable, "-I", "-S", __file__, "client", _address(), _COMMAND, *arguments]


def write_kernel(folder: Path) -> None:
    """Write a kernel "python3" into a folder for JUPYTER_PATH."""
    arguments = [sys.executable, "-I", "-S", __file__, "client", _address(), _KERNEL, "-f", "{connection_file}"]
    kernel = folder / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": arguments, "display_name": "Python 3", "language": "python"}))


def _address() -> str:
    """The socket of this process's server."""
    if not _started:
        folder = tempfile.TemporaryDirectory(prefix="fork-server-")
        address = str(Path(folder.name) / "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(64)
        command = [sys.executable, __file__, "server", str(listener.fileno()), str(os.getpid())]
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        server = subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, **quiet})
        listener.close()
        _started.update(folder=folder, address=address, server=server)
        atexit.register(server.kill)
    return str(_started["address"])


def run_client(address: str, arguments: Sequence[str]) -> None:
    """Ask for a worker and end as it ends."""
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(address)
    content = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd()), "address": address}).encode()
    socket.send_fds(channel, [len(content).to_bytes(4, "big")], [0, 1, 2])
    channel.sendall(content)
    # The worker has the pipes now; a second holder of the write end would hide that it has closed it.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    answer = channel.recv(16)
    status = int(answer) if answer else 1
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def run_server(listener: socket.socket, parent: int) -> None:
    """Fork a worker for each client, until the parent ends."""
    for name in _IMPORTS:
        importlib.import_module(name)
    gc.freeze()
    workers: dict[int, tuple[int, socket.socket]] = {}  # by process id: its pidfd and its client
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        # The kernel's signal at a parent's death would come at the end of the thread that has started this process.
        selector.register(os.pidfd_open(parent), selectors.EVENT_READ, ("parent gone", 0))
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    channel, _ = listener.accept()
                    request, descriptors = _receive(channel)
                    if request is None:
                        channel.close()
                        continue
                    pid = os.fork()
                    if pid == 0:
                        _become_worker(request, descriptors)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    pidfd = os.pidfd_open(pid)
                    workers[pid] = pidfd, channel
                    selector.register(pidfd, selectors.EVENT_READ, ("ended", pid))
                    selector.register(channel, selectors.EVENT_READ, ("client gone", pid))
                    continue
                what, pid = key.data
                if what == "parent gone":
                    return  # the kernel ends the workers with this process
                if pid not in workers:
                    continue
                if what == "client gone":
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                    selector.unregister(key.fileobj)
                    continue
                pidfd, channel = workers.pop(pid)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError):
                    channel.sendall(str(status).encode())
                selector.unregister(pidfd)
                with contextlib.suppress(KeyError):
                    selector.unregister(channel)
                os.close(pidfd)
                channel.close()


def _receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """A client's request and its descriptors; None where it was killed before it had asked."""
    header, descriptors, _, _ = socket.recv_fds(channel, 4, 3)
    content, size = b"", int.from_bytes(header, "big")
    while header and len(content) < size:
        part = channel.recv(size - len(content))
        if not part:
            header = b""
        content += part
    if header:
        return json.loads(content), descriptors
    for descriptor in descriptors:
        os.close(descriptor)
    return None, []


def _become_worker(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Serve jobs and end. Without the clean-up at exit: its sockets are the server's, and their numbers may name other files here."""
    os.setsid()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    os.closerange(3, 1024)
    # The server's own have been opened on files of another kind.
    sys.stdout, sys.stderr = (open(target, "w", buffering=1, encoding="utf-8", closefd=False) for target in (1, 2))  # noqa: SIM115
    from arc_submit.workers.parent_death import PARENT

    os.environ.clear()
    os.environ.update(request["environment"], **{PARENT: str(os.getppid())})
    os.chdir(request["folder"])
    sys.path[1:1] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder not in sys.path]
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sys.argv = request["arguments"]
    code = 1
    try:
        if sys.argv[0] in (_KERNEL, _COMMAND):
            from arc_submit.run import host

            _started["address"] = request["address"]
            host.launch_locally = launch
        code = _run(sys.argv[0])
    except BaseException:  # noqa: BLE001 - as in a process of its own: the traceback, and exit code 1
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def _run(name: str) -> int:
    if name == _COMMAND:
        from arc_submit.cli import main

        return main(sys.argv[1:])
    if name == _KERNEL:
        from ipykernel.kernelapp import launch_new_instance

        launch_new_instance(sys.argv[1:])
        return 0
    from arc_submit.workers import worker

    return worker.main()


if __name__ == "__main__":
    if sys.argv[1] == "client":
        run_client(sys.argv[2], sys.argv[3:])
    else:
        run_server(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
