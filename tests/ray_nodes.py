"""A Ray cluster of two nodes on this machine, for as long as its input is open.

Prints its address and the beginning of the second node's id, then does what it is told, a line each: "kill" ends the second node as a
machine ends that loses its power, "mend" brings another one in its place. Prints the id again when it is done.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from typing import Any

# Paths of sockets may have 107 characters: the tests' own folders are too long for Ray's.
FOLDER = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
os.environ |= {"RAY_TMPDIR": FOLDER, "RAY_USAGE_STATS_ENABLED": "0"}
# Ray takes a node's word for its GPU and only counts it.
SHARED = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False, "include_log_monitor": False}


def main() -> None:
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=SHARED)
    try:
        second = cluster.add_node(**SHARED)
        print(cluster.address, second.node_id[:8], file=protocol)
        for line in sys.stdin:
            if line.strip() == "kill":
                kill(cluster, second)
            elif not cluster.worker_nodes:
                second = cluster.add_node(**SHARED)
            print(second.node_id[:8], file=protocol)
    finally:
        for node in [*cluster.worker_nodes, cluster.head_node]:
            kill(cluster, node)
        shutil.rmtree(FOLDER, ignore_errors=True)


def kill(cluster: Any, node: Any) -> None:
    """Every process of a node at once, and what their ends bring with them."""
    import psutil

    known = [info.process.pid for infos in node.all_processes.values() for info in infos]
    there = [psutil.Process(pid) for pid in known if psutil.pid_exists(pid)]
    for process in [*there, *(child for parent in there for child in parent.children(recursive=True))]:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    cluster.worker_nodes.discard(node)


if __name__ == "__main__":
    main()
