"""The source "search": the program search on CPU cores."""

from __future__ import annotations

from arc_submit.run.source import CPU_LANE, Source, SourceSetup, make_backend
from arc_submit.search.settings import PASSES, SearchSettings
from arc_submit.workers.devices import worker_environment
from arc_submit.workers.supervisor import Timeouts

SEARCH_WORKER = "arc_submit.search.search_worker:open_worker"
PROPOSAL_WORKER = "arc_submit.programs.arc.proposal_worker:open_worker"
# A GPU waits whenever its process waits for a core: on 2x T4 two searches share four virtual cores with two such processes.
_BESIDE_GPUS = 10


def resolve_search(setup: SourceSetup) -> list[Source]:
    """The search of each task in passes, one pass of one task in a job.

    Raises:
        DataError: where the writer that proposes to the search cannot be loaded.
    """
    config = setup.config
    worker = SEARCH_WORKER
    if config.search_proposals == "writer":
        from arc_submit.programs.arc.writer import load_writer

        load_writer()
        worker = PROPOSAL_WORKER
    niceness = _BESIDE_GPUS if setup.beside_gpus or config.devices != ("cpu",) else 0
    settings = SearchSettings(str(setup.paths.root), config.search_effort, config.search_memory, niceness, setup.name)
    # A worker beats only when it has new answers, so it may be silent for longer than one that decodes.
    heartbeat_timeout = max(config.heartbeat_timeout, 300.0, config.search_seconds or 0.0)
    start = config.startup_timeout or Timeouts.startup_timeout
    timeouts = Timeouts(startup_timeout=start, heartbeat_timeout=heartbeat_timeout, job_timeout=config.search_seconds)
    backend = make_backend("search", worker, settings, timeouts)
    environment = worker_environment(1, "cpu")
    return [Source(setup.name, CPU_LANE, (backend,), lambda _: environment, kind=setup.kind, scale=setup.scale, passes=PASSES)]
