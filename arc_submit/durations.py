"""Durations as text, and the time left until a deadline. Does not know runs."""

from __future__ import annotations

import re
import time

from arc_submit.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(value: str | float) -> float:
    """Seconds from a number of them, or from a text such as "90", "90s", "10m", "1.5h" or "11h30m".

    Raises:
        ConfigError: where the value is not a positive duration.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"duration {value!r}: write 90s, 10m, 1.5h or 11h30m")
    text = value if isinstance(value, str) else f"{value:f}"
    compact = text.strip().lower()
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smh])", compact)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", compact):
        seconds = float(compact)
    elif parts and "".join(number + unit for number, unit in parts) == compact:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        raise ConfigError(f"duration {value!r}: write 90s, 10m, 1.5h or 11h30m")
    if not 0 < seconds < 1e7:
        raise ConfigError(f"duration {value!r} is not a time that a run can take")
    return seconds


def format_duration(seconds: float) -> str:
    """A duration for people: "8s", "3m20s", "2h05m"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = round(whole / 60)
    return f"{minutes // 60}h{minutes % 60:02d}m"


def seconds_left(deadline: float) -> float:
    """Seconds until a deadline on the monotonic clock, never negative."""
    return max(0.0, deadline - time.monotonic())
