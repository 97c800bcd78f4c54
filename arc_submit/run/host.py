"""The host of a run: its devices and cores, how lanes share them, and the initial estimate of costs on them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arc_submit.errors import ConfigError
from arc_submit.run.measured import read_measured
from arc_submit.run.source import CPU_LANE
from arc_submit.scheduling.costs import INITIAL_RATES, CostModel, initial_costs
from arc_submit.workers.devices import Gpu, find_gpus
from arc_submit.workers.pool import Launch, launch_locally
from arc_submit.workers.ray_cluster import Cluster


@dataclass(frozen=True)
class Host:
    """Where the workers of a run are.

    Attributes:
        devices: ("cpu",), or GPUs.
        workers: worker processes on a CPU.
        threads: CPU threads of a worker that runs a model.
        search_memory: GB that a worker of the search may take.
        cluster: the Ray cluster that does the work; None: this machine.
        workers_per_gpu: workers that run a model on each GPU.
        gpus: of the devices, where they are on this machine and a source needs them.
        lanes: devices of each lane that runs a model; empty: all devices are those of MODEL_LANE.
    """

    devices: tuple[str, ...]
    workers: int
    threads: int
    search_memory: float
    cluster: Cluster | None = None
    workers_per_gpu: int = 1
    gpus: Mapping[str, Gpu] = field(default_factory=dict)
    lanes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def on_cpu(self) -> bool:
        return self.devices == ("cpu",)

    def devices_of(self, lane: str) -> tuple[str, ...]:
        """The devices of a lane that runs a model."""
        return self.lanes.get(lane, self.devices)

    @property
    def resources(self) -> tuple[int, float]:
        """CPU cores, and memory in GB."""
        return self.cluster.resources if self.cluster else local_resources()

    def worker_resources(self, lane: str) -> tuple[int, int]:
        """CPUs and GPUs that a worker of a lane takes."""
        return (1, 0) if lane == CPU_LANE else (self.threads, 0 if self.devices_of(lane) == ("cpu",) else 1)

    def launch(self, lane: str, cards: int = 1) -> Launch:
        """Starts the processes of a lane's workers, each with several GPUs where the lane has GPUs."""
        cpus, gpus = self.worker_resources(lane)
        return self.cluster.launch(cpus, cards * gpus) if self.cluster else launch_locally


def allocate_workers(host: Host, running: Sequence[str], cores: int, memory_gb: float) -> tuple[dict[str, int], str]:
    """How many workers each running lane may have, and why.

    Args:
        running: lanes; called again when one has ended, so that the others get its share.
        cores: of the machine.
        memory_gb: of the machine.
    """
    most_searches = max(1, int(memory_gb / 2 / host.search_memory))
    models = {lane: host.devices_of(lane) for lane in running if lane != CPU_LANE}
    gpu_workers = {lane: len(devices) * host.workers_per_gpu for lane, devices in models.items() if devices != ("cpu",)}
    on_cpu = [lane for lane in running if lane not in gpu_workers]
    if not host.on_cpu and not set(on_cpu) - {CPU_LANE}:
        total = sum(gpu_workers.values())
        searches = max(1, min(cores - total, most_searches)) if CPU_LANE in running else 0
        reason = f"the model has {total} GPU workers, the search {searches} of the {cores} cores that they and {memory_gb:.0f} GB leave"
        shares = {CPU_LANE: searches}
    elif len(on_cpu) == 2 and host.workers == 1:
        shares = dict.fromkeys(on_cpu, 1)
        reason = "one worker is allowed: the search and the model have one each and take turns on its core"
    else:
        # In a run of hours the search ends first and leaves its half to the model.
        searches = host.workers if on_cpu == [CPU_LANE] else host.workers // 2
        searches = min(searches, most_searches) if CPU_LANE in running else 0
        shares = {lane: searches if lane == CPU_LANE else host.workers - searches for lane in on_cpu}
        reason = f"of {host.workers} CPU workers {' and '.join(f'the {lane} has {shares[lane]}' for lane in on_cpu)}"
        if gpu_workers:
            reason += f", beside {' and '.join(f'{number} GPU workers of the {lane}' for lane, number in gpu_workers.items())}"
    workers = {**gpu_workers, **shares}
    return {lane: workers[lane] for lane in running}, reason


def estimate_costs(model: Path, devices: Sequence[str], measured: Path | None = None) -> tuple[CostModel, str]:
    """The costs of work before a run has done any, and why.

    Args:
        measured: a file of figures of this card, in place of those that are known of its kind.

    Raises:
        DataError: where that file holds none.
    """
    parameters = count_parameters(model)
    if measured is not None:
        figures = read_measured(measured)
        return figures.costs(parameters), f"{parameters / 1e9:.3g} billion parameters, measured on {figures.card}"
    kind, reason = device_kind(devices)
    return initial_costs(kind, parameters), f"{parameters / 1e9:.3g} billion parameters on {reason}"


def count_parameters(model: Path) -> float:
    """The number of a model's parameters, from the size of its files: nearly all have two bytes each."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors")) / 2


def check_devices(devices: Sequence[str]) -> dict[str, Gpu]:
    """The GPUs of a run's devices; refuses those that are not there, before a worker loads anything for them.

    Raises:
        ConfigError: with the GPUs that are there.
    """
    if tuple(devices) == ("cpu",):
        return {}
    gpus, evidence = find_gpus()
    numbers = {device: int(device.partition(":")[2] or 0) for device in devices}
    missing = [device for device, number in numbers.items() if number >= len(gpus)]
    if missing:
        there = ",".join(f"cuda:{number}" for number in range(len(gpus))) or "cpu"
        remedy = f"switch the accelerator on, or give --devices {there}"
        raise ConfigError(f"--devices {','.join(devices)}: {', '.join(missing)} not there ({evidence}); {remedy}")
    return {device: gpus[number] for device, number in numbers.items()}


def device_kind(devices: Sequence[str], names: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, str]:
    """One of costs.INITIAL_RATES for the devices of a run, and why; the slowest GPU where the driver has no known name."""
    if tuple(devices) == ("cpu",):
        return "cpu", "a CPU"
    driver = " ".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(names.glob("*/information")))
    for kind in INITIAL_RATES:
        if kind in driver:
            return kind, f"{kind} (the driver's name for it)"
    return "T4", "an unknown GPU, taken for a T4"


def local_resources() -> tuple[int, float]:
    """CPU cores that this process may use, and the machine's memory in GB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine's processor multiplies bfloat16 faster than float32; False where its features are not known.

    AMD's AVX-512 does. Intel's takes 1.7 times as long as in float32 where the machine has no AMX (docs/experiments).
    """
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return "amx_bf16" in words or {"avx512_bf16", "AuthenticAMD"} <= words
