"""Choice: settings that the preset auto decided together, and why. Does not know how they were decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """Settings that were decided together, and why.

    Attributes:
        values: by name of the setting; of a fact, by its own name.
        reason: for people.
        setting: False for a fact that workers decide by themselves.
    """

    values: Mapping[str, Any]
    reason: str
    setting: bool = True

    @property
    def text(self) -> str:
        """A line for people."""
        return f"{', '.join(f'{name} {_shown(value)}' for name, value in self.values.items())}: {self.reason}"

    def without(self, names: Iterable[str]) -> Choice | None:
        """The choice without settings, or groups of settings such as lora; None where nothing is left."""
        out = set(names)
        left = {name: value for name, value in self.values.items() if not {name, name.partition("_")[0]} & out}
        return Choice(left, self.reason, self.setting) if left else None


def values_of(choices: Iterable[Choice]) -> dict[str, Any]:
    """The settings of choices, by name."""
    return {name: value for choice in choices if choice.setting for name, value in choice.values.items()}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
