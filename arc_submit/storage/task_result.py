"""TaskResult: the outcome of a source's work on one task, as a worker returns it and the timeline keeps it.

Does not know how a source works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class TaskResult:
    """The outcome of one task in one job.

    Fields that are None do not apply to the source and are left out of its JSON.

    Attributes:
        made: predictions made in this job.
        held: predictions found on disk.
        refused: a line for each prompt that does not fit.
        failed: why the task failed; empty where it did not.
        seconds: wall-clock seconds to the task's last prediction.
        malformed: answers that hold no grid, or no program.
        answered: prompts (a test input under a view) answered by now.
        unfinished: prompts without an answer for lack of time.
        not_served: the failure is the engine's alone; another engine may serve the task.
        tokens: tokens generated or trained on.
        steps: optimizer steps done; of the source code, further questions answered and programs learnt.
        train_seconds: wall-clock seconds of these steps.
        notes: what differs from the settings, such as shorter samples.
        first_loss, last_loss: nats a token, of the first and the last step.
        cpu_seconds: CPU seconds of the task.
        programs: of a source that writes programs, how many of its answers gave a grid for every input ("grids"), hold no program
            ("none"), or fail on an input, by the class of the refusal.
        next_pass: number of the pass that follows, for a source that works in passes (arc_submit.scheduling.pass_queue).
    """

    made: int = 0
    held: int = 0
    refused: list[str] = field(default_factory=list)
    failed: str = ""
    seconds: float = 0.0
    malformed: int | None = None
    answered: int | None = None
    unfinished: int | None = None
    not_served: bool | None = None
    tokens: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    notes: list[str] | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    cpu_seconds: float | None = None
    programs: dict[str, int] | None = None
    next_pass: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that apply, as JSON values."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TaskResult:
        """A result from its JSON, such as a line of the timeline; other keys are ignored."""
        known = {one.name for one in fields(TaskResult)}
        return TaskResult(**{name: given for name, given in value.items() if name in known})
