"""A process for a client on another machine: its input and output, its end, and its death without a reader."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_alive

from arc_submit import __version__
from arc_submit.errors import ConfigError
from arc_submit.workers.parent_death import PARENT
from arc_submit.workers.ray_cluster import Cluster, Node, find_cluster
from arc_submit.workers.remote_process import RemoteProcess, check_node

ECHO = """
import os, sys
for line in sys.stdin:
    print(os.environ["NAME"], line.strip(), flush=True)
sys.stderr.write("end of input\\n")
sys.exit(5)
"""
PARENT_OF_ONE = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def read_all(process: RemoteProcess) -> tuple[bytes, bytes, int]:
    output, errors = b"", b""
    while True:
        more, more_errors, code = process.read(5.0)
        output, errors = output + more, errors + more_errors
        if code is not None:
            return output, errors, code


def gone(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_input_output_and_exit_codes(tmp_path: Path) -> None:
    process = RemoteProcess(lease=60.0)
    process.start(["-c", ECHO], {"NAME": "echo"})
    process.write(b"one\n")
    output = b""
    while not output.endswith(b"\n"):
        output += process.read(10.0)[0]
    assert output == b"echo one\n"
    process.write(b"two\nthree\n")
    process.write(b"")
    assert read_all(process) == (b"echo two\necho three\n", b"end of input\n", 5)
    killed = RemoteProcess(lease=60.0)
    killed.start(["-c", "import os, signal; print(os.getcwd(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"], {}, str(tmp_path))
    assert read_all(killed) == (f"{tmp_path}\n".encode(), b"", -9)
    with pytest.raises(OSError, match="no process can be started"):
        RemoteProcess(lease=60.0).start(["-c", ""], {}, str(tmp_path / "nowhere"))


def test_a_process_without_a_reader_is_killed_with_its_children() -> None:
    """While it is read, it lives far beyond the lease."""
    process = RemoteProcess(lease=2.0)
    pid = process.start(["-c", PARENT_OF_ONE], {})
    child, deadline = b"", time.monotonic() + 3.0
    while time.monotonic() < deadline or not child:
        output, _, code = process.read(0.5)
        child += output
        assert code is None
    assert gone(pid)
    assert gone(int(child))
    assert read_all(process)[2] == -9


def test_a_process_dies_with_its_parent() -> None:
    """For a running process; the last test of this file has one that is still starting."""
    script = (
        "import time; from arc_submit.workers.remote_process import RemoteProcess; host = RemoteProcess(600.0);"
        "pid = host.start(['-c', 'import os, time; os.write(1, bytes(1)); time.sleep(600)'], {}); host.read(60.0);"
        "print(pid, flush=True); time.sleep(600)"
    )
    host = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    pid = int(host.stdout.readline())
    host.kill()
    host.wait()
    assert gone(pid)


def test_a_node_that_cannot_work_is_reported_with_the_remedy(tmp_path: Path) -> None:
    out, model = tmp_path / "out", tmp_path / "model"
    out.mkdir()
    model.mkdir()
    (model / "config.json").write_text("{}")
    folders = {str(model): {"config.json": 2}}

    def fault(version: str = __version__) -> str:
        return check_node(version, str(out), "token", "token-here", folders, timeout=0.0)

    assert "does not see the run directory" in fault()
    (out / "token").write_text("another run's")
    assert "does not see the run directory" in fault()
    (out / "token").write_text("token")
    assert fault() == ""
    assert (out / "token-here").read_text() == "token"
    (model / "config.json").write_text("{ }")
    assert "config.json as this machine" in fault()
    assert "install the same" in fault("0.0.0")


def test_the_capacity_of_a_cluster() -> None:
    nodes = Node("a", 4, 2, 64), Node("b", 8, 0, 64)
    cluster = Cluster("a:1", nodes)
    assert cluster.resources == (12, 128)
    assert [cluster.capacity(*each) for each in ((1, 0), (3, 0), (1, 1), (3, 1), (1, 4))] == [12, 3, 2, 1, 0]
    cluster.check_capacity(2, 1, 1, "--devices: GPUs")
    with pytest.raises(
        ConfigError, match=r"--devices: GPUs 3: the Ray cluster \(2 nodes\) has room for 2 of 1 CPUs and 1 GPUs each; ask for"
    ):
        cluster.check_capacity(3, 1, 1, "--devices: GPUs")


@pytest.mark.parametrize("address", ["local", "ray://head:10001"])
def test_an_address_that_is_not_host_and_port_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=f"--ray-address {address}: write HOST:PORT"):
        find_cluster(address, tmp_path)


def test_a_machine_without_ray_gets_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with pytest.raises(ConfigError, match=r"Ray is not installed here; pip install 'arc-submit\[ray\]'"):
        find_cluster("127.0.0.1:1", tmp_path / "out")
    assert not (tmp_path / "out").exists(), "the refused run left a directory"


def test_a_process_whose_parent_has_ended_does_not_begin() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "arc_submit.workers.parent_death", "-c", "print('begun')"],
        env={**os.environ, PARENT: "1"},
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (1, b"")
