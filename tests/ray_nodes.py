"""A Ray cluster of two nodes on this machine, which lives until its input ends.

Prints the cluster's address and the first digits of the second node's id. Then each input line is a command: "kill" ends the second node as
a power failure would, "mend" starts another one in its place. Prints the id again after each command.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from typing import Any

# A socket's path may have 107 characters, which Ray's paths inside a test's own folder would exceed.
FOLDER = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
os.environ |= {"RAY_TMPDIR": FOLDER, "RAY_USAGE_STATS_ENABLED": "0"}
# The GPU need not exist: Ray only counts it.
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
    """Kill all processes of a node at once, with their children."""
    import psutil

    known = [info.process.pid for infos in node.all_processes.values() for info in infos]
    victims = []
    for pid in known:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            victims += [process, *process.children(recursive=True)]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    cluster.worker_nodes.discard(node)


if __name__ == "__main__":
    main()
