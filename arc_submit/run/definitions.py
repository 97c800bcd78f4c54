"""The definition of a source with a name of its own, as data. Does not know what an option means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arc_submit.run.choices import Choice


@dataclass(frozen=True)
class SourceDefinition:
    """A source with a name of its own.

    Attributes:
        kind: key of SOURCE_TABLE.
        values: the fields of RunConfig in which its configuration differs from the run's.
        share: of its lane's time; None: by the estimates.
        choices: what the preset auto decided for it, and why.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    share: float | None = None
    choices: tuple[Choice, ...] = ()
