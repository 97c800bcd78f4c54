"""What the tests of training start under torchrun: trainings described by a JSON file, one after the other in the same processes.

With a second argument the process kills itself as soon as the step of that number is logged; with a third, that of this rank alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from trainings import config_of

from arc_submit.train import train as base


def kill_at(step: int) -> None:
    write = base.MetricsLog.write

    def write_and_die(log: base.MetricsLog, line: dict[str, Any]) -> None:
        write(log, line)
        if line["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)

    base.MetricsLog.write = write_and_die  # type: ignore[method-assign]


if __name__ == "__main__":
    if len(sys.argv) > 2 and os.environ.get("RANK") in (None, *sys.argv[3:]):
        kill_at(int(sys.argv[2]))
    for told in json.loads(Path(sys.argv[1]).read_text()):
        base.train(config_of(**told))
